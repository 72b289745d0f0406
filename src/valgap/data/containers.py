"""Images inside zip files, tar shards, Parquet and Arrow files: what they hold, and the bytes of one, without unpacking them.

A place inside a zip or tar file is an offset, so that a million of them need no open archive; one inside a Parquet file is a row.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from valgap.data import remote
from valgap.data.regular import regular
from valgap.errors import DataError

# Of a zip file's entry: signature, and where the lengths of name and extra field stand (PKWARE APPNOTE 4.3.7).
LOCAL_HEADER, NAME_LENGTH, EXTRA_LENGTH = 30, slice(26, 28), slice(28, 30)
STORED, DEFLATED = 0, 8
ENCRYPTED = 0x1
# Bytes of one image, unpacked: what is more is there to fill the memory.
MAX_MEMBER = 1 << 30
# Row groups of Parquet files that stay decoded.
KEPT_GROUPS = 3
ARROW = ".arrow"
# Bytes of a remote container that are read at once.
REMOTE_BUFFER = 1 << 18


@dataclass(frozen=True)
class Member:
    """An image inside a container."""

    name: str  # as the container calls it
    address: str
    label: str | None = None  # where the container says it itself


@contextmanager
def opened(container: str) -> Iterator[IO[bytes]]:
    """A container as a file that can be sought in."""
    if "://" not in container:
        with Path(regular(container)).open("rb") as file:
            yield file
        return
    try:
        with io.BufferedReader(remote.RangeFile(container), REMOTE_BUFFER) as remote_file:
            yield remote_file
    except FileNotFoundError as error:
        raise DataError(f"there is no {container}") from error


def stretch(container: str, offset: int, size: int) -> bytes:
    """``size`` bytes from ``offset`` on. Raises OSError where there are fewer."""
    if "://" in container:
        data = remote.read(container, offset, size)
    else:
        with Path(regular(container)).open("rb") as file:
            if offset + size > file.seek(0, io.SEEK_END):  # not even asked for: room for all of it would be taken first
                raise OSError(f"{container} ends before byte {offset + size}")
            file.seek(offset)
            data = file.read(size)
    if len(data) != size:
        raise OSError(f"{container} ends before byte {offset + size}")
    return data


def _numbers(container: str, place: str, count: int) -> list[int]:
    """The numbers that a place consists of. Raises OSError for what is no place: a list of images may name anything."""
    parts = place.split("+")
    if len(parts) != count or not all(p.isascii() and p.isdigit() and len(p) < 20 for p in parts):
        raise OSError(f"{place[:40]!r} is no place in {container}")
    return [int(p) for p in parts]


# -- zip --------------------------------------------------------------------------------------


def zipped(container: str) -> Iterator[Member]:
    """The files in a zip file. Raises DataError where it is none, or is locked."""
    try:
        with opened(container) as file, zipfile.ZipFile(file) as archive:
            for one in archive.infolist():
                if one.is_dir():
                    continue
                if one.flag_bits & ENCRYPTED:
                    raise DataError(f"{container} is locked by a password: unlock it first")
                place = f"{one.header_offset}+{one.compress_size}+{one.compress_type}+{one.CRC}"
                yield Member(one.filename, f"zip://{container}#{place}")
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, NotImplementedError, struct.error) as error:
        raise DataError(f"{container} is no zip file that can be read ({error})") from error


def read_zipped(container: str, place: str) -> bytes:
    """One file of a zip file."""
    offset, size, method, crc = _numbers(container, place, 4)
    head = stretch(container, offset, LOCAL_HEADER)
    skipped = sum(int.from_bytes(head[part], "little") for part in (NAME_LENGTH, EXTRA_LENGTH))
    packed = stretch(container, offset + LOCAL_HEADER + skipped, size)
    if method == STORED:
        data = packed
    elif method == DEFLATED:
        try:
            data = zlib.decompressobj(-15).decompress(packed, MAX_MEMBER + 1)
        except zlib.error as error:
            raise OSError(f"damaged in the zip file: {error}") from error
    else:
        raise OSError(f"packed by a method of zip ({method}) that is not known here")
    if len(data) > MAX_MEMBER:
        raise OSError(f"more than {MAX_MEMBER >> 20} MiB in the zip file: no image is as large")
    if zlib.crc32(data) != crc:
        raise OSError("damaged in the zip file: its checksum differs")
    return data


# -- tar --------------------------------------------------------------------------------------


def tarred(container: str) -> Iterator[tuple[str, str, int, int]]:
    """(name, address, offset, size) of the files in a tar file, in its order. Raises DataError where it is none."""
    try:
        with opened(container) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for one in archive:
                archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
                if one.isreg():
                    yield (
                        one.name.removeprefix("./"),
                        f"tar://{container}#{one.offset_data}+{one.size}",
                        one.offset_data,
                        one.size,
                    )
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        packed = " (a packed one has to be unpacked: nothing in it can be found by its place)"
        raise DataError(f"{container} is no plain tar file that can be read ({error}){packed}") from error


def read_tarred(container: str, place: str) -> bytes:
    """One file of a tar file."""
    return stretch(container, *_numbers(container, place, 2))


# -- Parquet ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """What a Parquet file says of its images, row by row."""

    paths: list[str | None]
    labels: list[str | None]
    image: str  # the column


def pyarrow_parquet() -> Any:
    """The module. Raises DataError where it is not installed."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError("Parquet files cannot be read without pyarrow: pip install 'valgap[parquet]'") from error
    return parquet


def table_of(container: str) -> Table:
    """The rows of a Parquet or Arrow file as Hugging Face's `datasets` writes them, or with a plain column of bytes.

    Raises:
        DataError: it holds no column of images.
    """
    parquet = pyarrow_parquet()
    try:
        if container.lower().endswith(ARROW):
            whole = mapped(container)
            return _table(container, whole.schema, whole.num_rows, lambda columns: whole)
        with opened(container) as stream:
            file = parquet.ParquetFile(stream)
            return _table(container, file.schema_arrow, file.metadata.num_rows, lambda columns: file.read(columns=columns))
    except DataError:
        raise
    except Exception as error:  # pyarrow has many kinds for damaged files
        raise DataError(f"{container} is no table that can be read ({error})") from error


def _table(container: str, schema: Any, rows: int, read: Callable[[list[str]], Any]) -> Table:
    image = image_column(schema)
    if image is None:
        columns = ", ".join(schema.names)
        raise DataError(f"{container} has the columns {columns}: none holds images (bytes, or a pair of bytes and path)")
    label = next((n for n in ("label", "labels", "class", "target", "fine_label") if n in schema.names), None)
    names, with_paths = class_names(schema, label), has_path(schema, image)
    whole = read([*([f"{image}.path"] if with_paths else []), *([label] if label else [])])
    paths = [p for chunk in whole[image].chunks for p in chunk.field("path").to_pylist()] if with_paths else [None] * rows
    found = whole[label].to_pylist() if label else [None] * rows
    labels = [None if v is None or v == -1 else _class_name(names, v) for v in found]
    return Table(paths, labels, image)


def _class_name(names: list[str], value: object) -> str:
    """The name that is kept of a class, or what stands for it itself."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else str(value)


def mapped(container: str) -> Any:
    """A local Arrow file (`save_to_disk` of `datasets`) as a table whose rows stay on disk. Raises DataError for a remote one."""
    import pyarrow

    if "://" in container:
        raise DataError(f"{container} is an Arrow file elsewhere: it can only be read where it lies; write Parquet")
    return pyarrow.ipc.open_stream(pyarrow.memory_map(container)).read_all()


def image_column(schema: Any) -> str | None:
    """The first column of images: a struct with bytes, or bytes."""
    for field in schema:
        inner = {field.type.field(i).name for i in range(field.type.num_fields)} if field.type.num_fields else set()
        if "bytes" in inner or str(field.type) in ("binary", "large_binary"):
            return str(field.name)
    return None


def has_path(schema: Any, image: str) -> bool:
    """Whether the images come with their paths."""
    kind = schema.field(image).type
    return any(kind.field(i).name == "path" for i in range(kind.num_fields))


def class_names(schema: Any, label: str | None) -> list[str]:
    """The names that `datasets` keeps of a column of classes; empty where there are none."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return [str(n) for n in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


class _Groups:
    """The row groups that were read last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[str, int], list[Any]] = OrderedDict()
        self._starts: dict[str, tuple[list[int], str]] = {}

    def image(self, container: str, row: int) -> Any:
        with self._lock:
            if container not in self._starts:
                self._starts[container] = self._layout(container)
            starts, column = self._starts[container]
            group = next(g for g in range(len(starts) - 1) if row < starts[g + 1])
            key = (container, group)
            if key not in self._groups:
                with opened(container) as stream:
                    table = pyarrow_parquet().ParquetFile(stream).read_row_group(group, columns=[column])
                self._groups[key] = table[column].combine_chunks()
                while len(self._groups) > KEPT_GROUPS:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(key)
            return self._groups[key][row - starts[group]].as_py()

    @staticmethod
    def _layout(container: str) -> tuple[list[int], str]:
        with opened(container) as stream:
            file = pyarrow_parquet().ParquetFile(stream)
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
            return [sum(sizes[:g]) for g in range(len(sizes) + 1)], image_column(file.schema_arrow) or ""


_groups = _Groups()


def read_row(container: str, place: str) -> bytes:
    """The image of one row of a Parquet or Arrow file. Raises OSError where there is none."""
    (row,) = _numbers(container, place, 1)
    try:
        if container.lower().endswith(ARROW):
            whole = mapped(container)  # opened anew: the pages of a lasting map would count as memory
            found = whole[image_column(whole.schema) or ""][row].as_py()
        else:
            found = _groups.image(container, row)
    except DataError:
        raise
    except Exception as error:  # pyarrow has many kinds for damaged files
        raise OSError(f"{container} holds no row {row} that can be read ({type(error).__name__}: {error})") from error
    data = found.get("bytes") if isinstance(found, dict) else found
    if data is None and isinstance(found, dict) and found.get("path"):
        return Path(regular(str(found["path"]))).read_bytes()
    if data is None:
        raise OSError("the row holds no image")
    return bytes(data)
