"""Reads the logs of other programs: CSV, JSON lines, trainer_state.json, TensorBoard events. Curves, and nothing else.

Lightning's ``metrics.csv`` and Keras' ``CSVLogger`` are CSV files whose columns have other names.
"""

from __future__ import annotations

import csv
import json
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valgap.errors import RecordError

# The words by which a column is told, in order; the first that fits counts.
VALIDATION = re.compile(r"(?<![a-z])(val|valid|validation|eval|test|dev)(?![a-z])")
TRAINING = re.compile(r"(?<![a-z])(train|training|trn)(?![a-z])")
RATE = re.compile(r"(?<![a-z])(lr|learning[ _]?rate)(?![a-z])")
LOSS = re.compile(r"loss|nll|cross[ _]?entropy")
ACCURACY = re.compile(r"(?<![a-z])(acc|accuracy|top[ _-]?1|acc1|prec1)(?![a-z0-9])")
OTHER = re.compile(r"top[ _-]?[2-9]|balanced|best|final|per[ _]class")
STEP_NAMES = ("epoch", "step", "global_step", "iteration", "iter")
MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class Curve:
    """Values of one quantity, at increasing positions (epochs, or steps where no epochs are logged)."""

    at: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Log:
    """A log of another program. ``curves`` keys: train_loss, train_accuracy, val_loss, val_accuracy, learning_rate."""

    path: str
    kind: str
    curves: Mapping[str, Curve]
    ignored: tuple[str, ...]  # columns that are none of these


def is_log(path: Path) -> bool:
    """Whether ``path`` is (or holds) such a log and is no run directory of valgap."""
    return path.is_file() or (path.is_dir() and not (path / "events.jsonl").is_file() and _inside(path) is not None)


def read_log(path: Path) -> Log:
    """The curves in a log file, or in the newest log of a folder.

    Raises:
        RecordError: it is no log that is understood, or holds no curve of training or validation.
    """
    file = path if path.is_file() else _inside(path)
    if file is None or not file.is_file():
        raise RecordError(f"{path} is no log: give a CSV, JSONL, trainer_state.json or TensorBoard events file")
    if file.stat().st_size > MAX_BYTES:
        raise RecordError(f"{file} has {file.stat().st_size >> 20} MiB: logs up to {MAX_BYTES >> 20} MiB are read")
    try:
        kind, rows = _rows(file)
        curves, ignored = _curves(rows)
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, csv.Error, struct.error) as error:
        raise RecordError(f"{file} is not as its name says ({str(error)[:200]})") from error
    if not set(curves) - {"learning_rate"}:
        names = ", ".join(sorted(ignored)[:8]) or "nothing"
        raise RecordError(f"{file} holds no column that looks like a loss or an accuracy (found: {names})")
    return Log(str(file), kind, curves, tuple(sorted(ignored)))


def _curves(rows: Iterable[_Row]) -> tuple[dict[str, Curve], set[str]]:
    """(the curves by what they are, columns that are none)."""
    points: dict[str, list[tuple[float, float]]] = {}
    ignored: set[str] = set()
    for row in rows:
        for name, value in row.values.items():
            key = meaning(name)
            if key is None:
                ignored.add(name)
            else:
                points.setdefault(key, []).append((row.at, value))
    return {key: _curve(found) for key, found in points.items()}, ignored


def meaning(name: str) -> str | None:
    """Which curve a column holds, by its name: "val_loss", "Loss/train", "eval_accuracy"; None for anything else."""
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower().replace("_", " ").replace("/", " ").replace(".", " ")
    if RATE.search(words):
        return "learning_rate"
    what = "accuracy" if ACCURACY.search(words) else "loss" if LOSS.search(words) else None
    if what is None or OTHER.search(words):
        return None
    return f"{'val' if VALIDATION.search(words) and not TRAINING.search(words) else 'train'}_{what}"


@dataclass(frozen=True)
class _Row:
    at: float
    values: dict[str, float]


def _rows(file: Path) -> tuple[str, Iterator[_Row]]:
    """(kind of log, its rows). What a damaged file raises, here or with a row, is said by `read_log`."""
    if "tfevents" in file.name:
        return "TensorBoard events", _tensorboard(file)
    if file.name == "trainer_state.json":
        return "trainer_state.json", _objects(json.loads(file.read_text("utf-8")).get("log_history", []))
    if file.suffix.lower() in (".jsonl", ".ndjson") or file.suffix.lower() == ".json":
        text = file.read_text("utf-8")
        whole = json.loads(text) if file.suffix.lower() == ".json" else _json_lines(file, text)
        return "JSON", _objects(whole if isinstance(whole, list) else whole.get("log_history", []))
    if file.suffix.lower() in (".csv", ".tsv", ".txt", ".log"):
        return "CSV", _csv(file)
    raise RecordError(f"{file.name} is no log that is understood: CSV, JSONL, trainer_state.json or TensorBoard events")


def _inside(folder: Path) -> Path | None:
    """The newest log in a folder."""
    found = [f for pattern in ("*tfevents*", "trainer_state.json", "metrics.csv") for f in folder.glob(pattern)]
    return max(found, key=lambda f: f.stat().st_mtime, default=None)


def _json_lines(file: Path, text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise RecordError(f"{file}, line {number}, is no JSON: {error}") from error
    return rows


def _objects(rows: Iterable[Any]) -> Iterator[_Row]:
    """Rows of JSON objects; nested ones are joined by a dot."""
    for number, row in enumerate(rows):
        if isinstance(row, dict):
            flat = _flat(row)
            yield _Row(_place(flat, number), {k: v for k, v in flat.items() if k.lower() not in STEP_NAMES})


def _flat(row: Mapping[str, Any], before: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in row.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def _csv(file: Path) -> Iterator[_Row]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        head = stream.readline()
        delimiter = max(",;\t", key=head.count)
        stream.seek(0)
        for number, row in enumerate(csv.DictReader(stream, delimiter=delimiter, skipinitialspace=True)):
            flat = {k: v for k, v in ((key, _number(text)) for key, text in row.items() if key) if v is not None}
            yield _Row(_place(flat, number), {k: v for k, v in flat.items() if k.lower() not in STEP_NAMES})


def _number(text: Any) -> float | None:
    try:
        return float(str(text).strip().rstrip("%"))
    except ValueError:
        return None


def _place(row: Mapping[str, float], number: int) -> float:
    """The epoch of a row, else its step, else its number."""
    lower = {k.lower(): v for k, v in row.items()}
    return next((lower[n] for n in STEP_NAMES if n in lower), float(number))


def _curve(points: list[tuple[float, float]]) -> Curve:
    """In order of position, the mean where one position was logged more than once; accuracies in percent become fractions."""
    by_place: dict[float, list[float]] = {}
    for at, value in points:
        by_place.setdefault(at, []).append(value)
    places = sorted(by_place)
    return Curve(tuple(places), tuple(math.fsum(by_place[p]) / len(by_place[p]) for p in places))


# -- TensorBoard ----------------------------------------------------------------------------------
# A TFRecord file holds records of: length (8 bytes), checksum (4), data, checksum (4). The data of each is an Event in
# protobuf's wire format: step = 2, summary = 5; Summary.value = 1; Value.tag = 1, simple_value = 2, tensor = 8;
# TensorProto.dtype = 1, tensor_content = 4, float_val = 5. (tensorflow/core/util/event.proto and its neighbours)

FLOAT, DOUBLE = 1, 2


def _tensorboard(file: Path) -> Iterator[_Row]:
    data = file.read_bytes()
    place = 0
    while place + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        body = data[place + 12 : place + 12 + length]
        if len(body) < length:
            return  # the program is still writing, or was killed
        place += 16 + length
        yield from _event(body)


def _event(body: bytes) -> Iterator[_Row]:
    step, summaries = 0, []
    for number, value in _fields(body):
        if number == 2 and isinstance(value, int):
            step = value
        elif number == 5 and isinstance(value, bytes):
            summaries.append(value)
    values: dict[str, float] = {}
    for summary in summaries:
        for number, value in _fields(summary):
            if number == 1 and isinstance(value, bytes):
                values |= _scalar(value)
    if values:
        yield _Row(float(step), values)


def _scalar(value: bytes) -> dict[str, float]:
    """{tag: number} of one Summary.Value; empty where it is no scalar."""
    tag, found = "", None
    for number, field in _fields(value):
        if number == 1 and isinstance(field, bytes):
            tag = field.decode("utf-8", "replace")
        elif number == 2 and isinstance(field, float):
            found = field
        elif number == 8 and isinstance(field, bytes):
            found = _tensor(field)
    return {tag: found} if found is not None else {}


def _tensor(value: bytes) -> float | None:
    fields = dict(_fields(value))
    content = fields.get(4)
    if isinstance(content, bytes) and (fields.get(1), len(content)) in ((FLOAT, 4), (DOUBLE, 8)):
        return float(struct.unpack("<f" if fields[1] == FLOAT else "<d", content)[0])
    single = fields.get(5)
    if isinstance(single, bytes) and len(single) == 4:
        return float(struct.unpack("<f", single)[0])
    return single if isinstance(single, float) else None


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """(field number, value) of a protobuf message: numbers for varints and fixed sizes, bytes for the rest."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
        elif kind == 1:
            yield key >> 3, float(struct.unpack_from("<d", data, place)[0])
            place += 8
        elif kind == 2:
            length, place = _varint(data, place)
            yield key >> 3, data[place : place + length]
            place += length
        elif kind == 5:
            yield key >> 3, float(struct.unpack_from("<f", data, place)[0])
            place += 4
        else:
            raise RecordError("the TensorBoard file is damaged (an unknown wire type)")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        if place >= len(data) or shift > 63:
            raise RecordError("the TensorBoard file is damaged (a number is cut off)")
        byte = data[place]
        value |= (byte & 127) << shift
        place += 1
        if byte < 128:
            return value, place
        shift += 7
