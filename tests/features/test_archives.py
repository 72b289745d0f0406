"""Images in zip files, shards, Parquet files and at addresses: the findings of the local folder, to the byte."""

from __future__ import annotations

import io
import json
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.features.pictures import scene
from valgap.data import remote
from valgap.data.contents import read_content
from valgap.diagnosis import check
from valgap.engine import forward
from valgap.errors import DataError
from valgap.features import rows_of_path
from valgap.report.as_html import diagnosis_to_html
from valgap.report.as_json import diagnosis_to_json

pytestmark = pytest.mark.takes(60)


@pytest.fixture(scope="module", autouse=True)
def one_way() -> Iterator[None]:
    """Networks run in one way: which is fastest differs on a busy machine, and the last digits with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward, "_timed", lambda way, sample: (way(sample), 1.0))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of two classes with a leak, a damaged file and a name that has to be quoted."""
    root = tmp_path_factory.mktemp("archives") / "photos"
    for split, start, count in (("train", 0, 14), ("val", 100, 6)):
        for label in range(2):
            place = root / split / f"c{label}"
            place.mkdir(parents=True)
            for i in range(count):
                tint = [1.0, 0.6, 0.4] if label else [0.4, 0.6, 1.0]
                picture = Image.fromarray((np.asarray(scene(start + 50 * label + i, 96)) * tint).astype(np.uint8))
                picture.save(place / f"{i:02d}.jpg", quality=90)
    ImageOps.mirror(Image.open(root / "train" / "c0" / "03.jpg")).save(root / "val" / "c0" / "a #b+c%20.jpg")
    (root / "val" / "c1" / "copy.jpg").write_bytes((root / "train" / "c1" / "05.jpg").read_bytes())
    (root / "train" / "c1" / "cut.jpg").write_bytes((root / "train" / "c1" / "00.jpg").read_bytes()[:900])
    (root / "val" / "notes.txt").write_text("no image")
    return root


def findings(data: str | Path) -> str:
    """All that the JSON says but for what the data are called."""
    return json.dumps({k: v for k, v in diagnosis_to_json(check(data)).items() if k != "run"})


@pytest.fixture(scope="module")
def expected(folder: Path) -> str:
    found = findings(folder)
    codes = {f["code"] for f in json.loads(found)["findings"]}
    assert {"DAT101", "DAT108"} <= codes
    return found


def files_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("around", ["", "photos/"])
def test_zip(folder: Path, expected: str, tmp_path: Path, packing: int, around: str) -> None:
    file = tmp_path / "photos.zip"
    with zipfile.ZipFile(file, "w", packing) as archive:
        for path in reversed(files_of(folder)):
            archive.write(path, around + path.relative_to(folder).as_posix())
        archive.writestr("__MACOSX/._01.jpg", b"no image")
    assert findings(file) == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos.zip"]  # nothing is unpacked


def test_a_damaged_zip_is_told(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "photos.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(folder / "train" / "c0" / "01.jpg", "a/1.jpg")
        archive.write(folder / "train" / "c0" / "02.jpg", "a/2.jpg")
    data = bytearray(file.read_bytes())
    data[300] ^= 0xFF
    file.write_bytes(data)
    first, second = rows_of_path(file).paths
    with pytest.raises(OSError, match="checksum differs"):
        read_content(first)
    assert read_content(second) == (folder / "train" / "c0" / "02.jpg").read_bytes()
    file.write_bytes(data[:500])
    with pytest.raises(DataError, match="no zip file that can be read"):
        rows_of_path(file)


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def test_a_tar_file_of_the_folder(folder: Path, expected: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(folder, "./photos")
    assert findings(tmp_path / "photos.tar") == expected


def test_shards_with_classes_in_sidecars(folder: Path, expected: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        images = [p for p in files_of(folder / split) if p.suffix == ".jpg"]
        for number, part in enumerate(np.array_split(np.arange(len(images)), 3)):
            with tarfile.open(tmp_path / f"photos-{split}-{number:05d}.tar", "w") as archive:
                for i in part:
                    name = images[i].relative_to(folder).as_posix()
                    add(archive, name, images[i].read_bytes())
                    add(archive, name.removesuffix(".jpg") + ".cls", images[i].parent.name.encode())
    assert findings(tmp_path) == expected


def test_shards_as_webdataset_reads_them(folder: Path, tmp_path: Path) -> None:
    """Keys without folders, numbers as classes: the reader of the library sees the same images and classes."""
    webdataset = pytest.importorskip("webdataset")
    images = [p for p in files_of(folder / "train") if p.suffix == ".jpg"]
    with webdataset.TarWriter(str(tmp_path / "train-0.tar")) as sink:
        for i, path in enumerate(images):
            sink.write({"__key__": f"{i:06d}", "jpg": path.read_bytes(), "cls": int(path.parent.name[1])})
    rows = rows_of_path(tmp_path / "train-0.tar")
    theirs = {
        s["__key__"]: (s["jpg"], s["cls"].decode())
        for s in webdataset.WebDataset(str(tmp_path / "train-0.tar"), shardshuffle=False)
    }
    ours = {
        n.removesuffix(".jpg"): (read_content(p), rows.classes[k])
        for n, p, k in zip(rows.names, rows.paths, rows.labels, strict=True)
    }
    assert ours == theirs and not rows.is_val.any()


def test_a_packed_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as archive:
        add(archive, "a/1.jpg", b"x")
    with pytest.raises(DataError, match=r"unpack it to a plain \.tar"):
        rows_of_path(tmp_path / "photos.tar.gz")
    (tmp_path / "other.tar").write_bytes((tmp_path / "photos.tar.gz").read_bytes())
    with pytest.raises(DataError, match="no plain tar file"):
        rows_of_path(tmp_path / "other.tar")


def write_parquet(folder: Path, target: Path, whole_paths: bool) -> None:
    """As `datasets` writes an image folder: a struct of bytes and path, classes by number, splits in the files' names."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["c0", "c1"])})
    for split, name in (("train", "train"), ("val", "val")):
        rows: dict[str, list[Any]] = {"image": [], "label": []}
        for path in (p for p in files_of(folder / split) if p.suffix == ".jpg"):
            called = path.relative_to(folder).as_posix() if whole_paths else path.name
            rows["image"].append({"bytes": path.read_bytes(), "path": called})
            rows["label"].append(int(path.parent.name[1]))
        made = datasets.Dataset.from_dict(rows, features=features)
        half = len(made) // 2
        for number, part in enumerate((range(half), range(half, len(made)))):
            made.select(part).to_parquet(str(target / f"{name}-0000{number}-of-00002.parquet"), batch_size=5)


@pytest.mark.parametrize("whole_paths", [True, False])
def test_parquet_of_hugging_face(folder: Path, expected: str, tmp_path: Path, whole_paths: bool) -> None:
    (tmp_path / "data").mkdir()
    write_parquet(folder, tmp_path / "data", whole_paths)
    assert findings(tmp_path) == expected


def test_arrow_files_of_hugging_face(folder: Path, expected: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "data").mkdir()
    write_parquet(folder, tmp_path / "data", whole_paths=False)
    for split in ("train", "val"):
        parts = sorted(str(p) for p in (tmp_path / "data").glob(f"{split}-*.parquet"))
        made = datasets.Dataset.from_parquet(parts, cache_dir=str(tmp_path / "cache"))
        made.save_to_disk(str(tmp_path / "saved" / split), num_shards=2)
    assert findings(tmp_path / "saved") == expected


def test_parquet_of_plain_bytes_and_of_none(folder: Path, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    data = [(folder / "train" / "c0" / f"0{i}.jpg").read_bytes() for i in range(3)]
    parquet.write_table(arrow.table({"jpg": data, "class": ["a", "b", "a"]}), tmp_path / "plain.parquet")
    rows = rows_of_path(tmp_path / "plain.parquet")
    assert [read_content(p) for p in rows.paths] == data
    assert rows.labels.tolist() == [0, 1, 0] and rows.classes == ("a", "b")
    parquet.write_table(arrow.table({"x": [1]}), tmp_path / "none.parquet")
    with pytest.raises(DataError, match="has the columns x: none holds images"):
        rows_of_path(tmp_path / "none.parquet")


class Handler(SimpleHTTPRequestHandler):
    """A folder by HTTP, with what goes wrong: the first answer to each request a 503, or nothing without a password."""

    fails, locked = False, False
    asked: ClassVar[set[tuple[str, str]]] = set()  # by path and range: threads ask in an order of their own
    last_ok = ""

    def send_head(self) -> Any:
        request = self.path, self.headers.get("Range", "")
        first = request not in Handler.asked
        Handler.asked.add(request)
        if Handler.locked:
            self.send_error(403)
            return None
        if Handler.fails and first:
            self.send_error(503)
            return None
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if part is None:
            return super().send_head()
        data = Path(self.translate_path(self.path)).read_bytes()
        start, stop = int(part[1]), min(int(part[2]) + 1, len(data))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        return io.BytesIO(data[start:stop])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(remote, "WAIT_S", 0.01)
    monkeypatch.setattr(Handler, "fails", False)
    monkeypatch.setattr(Handler, "locked", False)
    Handler.asked.clear()
    remote._states.clear()
    one = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder.parent)))
    threading.Thread(target=one.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{one.server_address[1]}"
    one.shutdown()
    one.server_close()


@pytest.mark.parametrize("fails", [False, True])
def test_a_folder_by_http(expected: str, server: str, fails: bool) -> None:
    Handler.fails = fails
    assert findings(f"{server}/photos/") == expected


def test_a_zip_by_http(folder: Path, expected: str, server: str) -> None:
    file = folder.parent / "remote.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in files_of(folder):
            archive.write(path, path.relative_to(folder).as_posix())
    Handler.fails = True
    assert findings(f"{server}/remote.zip") == expected


def test_what_cannot_be_reached_ends_the_check(server: str) -> None:
    rows = rows_of_path(f"{server}/photos/")
    Handler.locked = True
    with pytest.raises(DataError, match=r"no access to http.*credentials"):
        read_content(rows.paths[0])
    with pytest.raises(DataError, match="no access to"):
        check(f"{server}/photos/")


def test_an_address_without_its_library() -> None:
    with pytest.raises(DataError, match=r"no address that fsspec knows|pip install"):
        rows_of_path("nosuchthing://bucket/photos")


def test_the_page_shows_pictures_from_within(folder: Path, tmp_path: Path) -> None:
    from valgap.exhibits import gather

    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in files_of(folder):
            archive.write(path, path.relative_to(folder).as_posix())
    found = check(tmp_path / "photos.zip", select=["DAT101"])
    page = diagnosis_to_html(found, gather(found))
    assert page.count("data:image/webp") == 4
