"""Arrays inside JSON lines: zlib, then base64. Lossless; reads back the same dtype and shape."""

from __future__ import annotations

import base64
import json
import math
import re
import sys
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

SCHEMA = 1
EVENTS_FILE = "events.jsonl"
PARTS = "parts"  # the folder of the other processes' files
# The program waits while an array is packed: large ones (images, names) take a quarter of the time so, and a tenth more room.
LARGE = 1 << 16
# Large ones of which a piece hardly shrinks (pictures) are stored as they are: forty times faster, and a quarter more room.
PIECE = 1 << 13
PLACE = "valgap: array {} of this line"
SHRINKS = 0.6
# The largest array is the sample names of a data set: two million paths of 200 characters.
MAX_ARRAY_BYTES = 1 << 29
# What numpy calls numbers, texts and times; an array of objects is never part of a record.
PLAIN = re.compile(r"[<>|][biufcSUVMm][0-9]{1,6}(\[[0-9a-zA-Z]+\])?")


def encode(value: Any, apart: list[bytes] | None = None) -> Any:
    """A JSON-ready copy of ``value``: arrays become ``{"nd": dtype, "shape": [...], "z": text}``.

    The text of large ones is put into ``apart`` where that is given, and in its place stands which of them it is.
    """
    # A program that never imported numpy hands us no array; importing it here could change the program.
    np = sys.modules.get("numpy")
    if np is not None and isinstance(value, np.ndarray):
        raw = np.ascontiguousarray(value).tobytes()
        packed = base64.b64encode(zlib.compress(raw, _effort(raw)))
        told = {"nd": value.dtype.str, "shape": list(value.shape)}
        if apart is None or len(packed) < LARGE:
            return {**told, "z": packed.decode("ascii")}
        apart.append(packed)
        return {**told, "z": PLACE.format(len(apart) - 1)}
    if isinstance(value, dict):
        return {str(k): encode(v, apart) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v, apart) for v in value]
    if np is not None and isinstance(value, np.generic):
        return encode(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}  # JSON has no NaN and no infinity
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _effort(raw: bytes) -> int:
    """The level at which zlib packs an array's bytes."""
    if len(raw) < LARGE:
        return 6
    middle = len(raw) // 2
    return 1 if len(zlib.compress(raw[middle : middle + PIECE], 1)) < SHRINKS * PIECE else 0


def decode(value: Any) -> Any:
    """The inverse of ``encode``."""
    if isinstance(value, list):
        return [decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "nd" in value and "z" in value:
        return decode_array(value)
    if "float" in value and len(value) == 1:
        return float(value["float"])
    return {k: decode(v) for k, v in value.items()}


def decode_array(value: dict[str, Any]) -> npt.NDArray[Any]:
    """The array that ``encode`` packed. Raises ValueError if its size does not fit its shape."""
    import numpy as np

    if not PLAIN.fullmatch(str(value["nd"])):  # numpy takes whole expressions, and reads them as Python
        raise ValueError(f"no array of a record has the dtype {str(value['nd'])[:40]!r}")
    dtype = np.dtype(str(value["nd"]))
    shape = tuple(int(n) for n in value["shape"])
    expected = math.prod(shape) * dtype.itemsize
    # Bounded, so that a forged line cannot fill the memory.
    if min(shape, default=0) < 0 or expected > MAX_ARRAY_BYTES:
        raise ValueError(f"no array of a record has the shape {shape}")
    try:
        raw = zlib.decompressobj().decompress(base64.b64decode(value["z"]), expected + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(raw) != expected:
        raise ValueError(f"an array of shape {shape} has {len(raw)} bytes, not {expected}")
    return np.frombuffer(raw, dtype=dtype).reshape(shape).copy()


def dump_line(kind: str, body: dict[str, Any]) -> bytes:
    """One event as a line of JSON with its newline."""
    apart: list[bytes] = []
    text = json.dumps({"t": kind, **encode(body, apart)}, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    pieces: list[bytes] = []
    for number, packed in enumerate(apart):  # json would look at every character of them, twice
        before, _, text = text.partition(b'"z":"' + PLACE.format(number).encode("ascii") + b'"')
        pieces += [before, b'"z":"', packed, b'"']
    return b"".join([*pieces, text, b"\n"])
