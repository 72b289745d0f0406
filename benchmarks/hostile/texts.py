"""Hostile texts: recipes, lists of images, decisions, logs of other programs, the JSON files beside a training."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile.names import NAMES, name
from hostile.pictures import noise
from hostile.records import BAD, as_bytes, places, spoil
from hostile.trial import Kind, Trial, command, refused
from valgap.features.source import rows_of_path
from valgap.recipe import RECIPE, Recipe, read_config
from valgap.review import decisions as made_by_hand
from valgap.review.decisions import COLUMNS, Decision, Decisions

LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
YAML_VALUES = (
    "1", "-1", "0", "1e999", ".nan", ".inf", "~", "''", "yes", "[1, 2]", "{a: 1}", "!!python/object/apply:os.system ['touch valgap-canary']",
    "!!python/name:os.system", "!!binary x", "!!binary ====", "!!timestamp 2001-99-99", "2001-99-99", "2001-02-30 25:61:61", "!!int ''", "!!int x", "0b", "0x", "1:99:99", "!!float x",
    "!!set {a}", "!!omap [a]", "!!pairs [[1]]", "*missing", "&a *a", "<<", "|", ">", "'", '"\\x1b[2J"', '"\\ud800"', "\x1b[2J", "\u202egpj", "9" * 5000, "x" * 100_000, "[" * 3000, "{" * 3000, "? [a]\n: b", "!!str {}", "%TAG", "@", "`",
)  # fmt: skip


def yaml(draw: random.Random, folder: Path) -> Trial:
    """A recipe."""
    file = folder / f"{name(draw)}.yaml"
    settings = list(Recipe.model_fields)
    lines = [f"{draw.choice((*settings, *NAMES))}: {draw.choice(YAML_VALUES)}" for _ in range(draw.choice((1, 1, 2, 4)))]
    if draw.random() < 0.3:
        lines.append(draw.choice((
            "<<: {epochs: 1}", "<<: [1]", "<<: *x", "? {a: b}\n: c", "? [1, 2]\n: 3", "1: 2", "~: ~", "2001-01-01: x", ".nan: 1", "!!binary aGVsbG8=: 1", "- a", "---\na: 1\n---\nb: 2",
            "epochs: 1\nepochs: 2", f"{LAUGHS}epochs: *a11", f"{LAUGHS}seed: *a11", "epochs: &a [*a]", "x: &x {y: *x}", "[" * 20_000, "{a: " * 5000, "- " * 20_000, "\t", "%YAML 9.9\n---\na: 1", "\ufeff", "\u0085x: 1", "!!map [1]", "!<!x> y",
        )))  # fmt: skip
    text = "\n".join(lines)
    data = text.encode("utf-8", "surrogatepass")
    what = text[:40]
    if draw.random() < 0.25:
        whole = "\n".join(f"{k}: {v}" for k, v in RECIPE.model_dump(mode="json").items() if v is not None).encode()
        what, data = as_bytes(draw, whole)
    file.write_bytes(data)
    return Trial(what, lambda: refused(lambda: read_config(file)))


def listed(draw: random.Random, folder: Path) -> Trial:
    """A list of images as CSV."""
    file = folder / f"{name(draw)}.csv"
    (folder / "sound.png").write_bytes(noise(draw))
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=draw.choice(",,,;\t|"), lineterminator=draw.choice(("\n", "\r\n", "\r")))
    header = draw.choice(
        (
            ("path", "label", "split"),
            ("path", "label"),
            ("file", "class"),
            ("label",),
            ("path",),
            (),
            ("PATH ", " Label"),
            ("path", "path"),
            (None, "path"),
            NAMES[:5],
        )
    )
    writer.writerow(header)
    for _ in range(draw.choice((0, 1, 3, 40))):
        row = [draw.choice(("sound.png", "/dev/zero", "/dev/stdin", "../" * 40 + "etc/passwd", "", "x" * 5000, "memory://x.png", "file:///etc/passwd", "zip://x#1+2", "tar://sound.png#9+9999999999999",
                            "zip://sound.png#0+99999999999999+0+0", "parquet://sound.png#0", "://", "data:,x", "simplecache::file:///etc/passwd", "no://x", "tar://#", *NAMES)), draw.choice(NAMES), draw.choice(("train", "val", "", "both", "\x1b[2J"))]  # fmt: skip
        writer.writerow(row[: draw.choice((1, 2, 3, 3, 3))] + ["x"] * draw.choice((0, 0, 0, 5)))
    data = stream.getvalue().encode("utf-8", "surrogatepass")
    what = f"list with the header {header}"[:60]
    if draw.random() < 0.3:
        what, data = as_bytes(draw, data) if data else ("", data)
    if draw.random() < 0.05:
        data += b'"' + b"x" * 300_000
    file.write_bytes(data)

    def act() -> str:
        came = []

        def read() -> None:
            rows = rows_of_path(file)
            came.extend(rows.paths)

        found = refused(read)
        for path in dict.fromkeys(came[:12]):
            refused(lambda path=path: look(path))
        return found

    return Trial(what, act, 4)


def look(path: str) -> None:
    """As the measurements look at one image."""
    from valgap.features.looking import look_at, read_bytes

    data, error = read_bytes(path)
    if error is None:
        look_at(data)


def checked(draw: random.Random, folder: Path) -> Trial:
    """A list of images through `valgap check` itself."""
    made = listed(draw, folder)
    file = next(folder.glob("*.csv"))
    form = draw.choice(((), ("--json",), ("--details",)))
    return Trial(made.what, lambda: command("check", file, *form), 3)


def decided(draw: random.Random, folder: Path) -> Trial:
    """A file of decisions."""
    file = folder / "decisions.csv"
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for _ in range(draw.choice((0, 1, 5, 60))):
        row = [
            "2026-11-30T14:49:38.000001+0000",
            draw.choice(NAMES),
            draw.choice((*made_by_hand.KINDS, "undo")),
            draw.choice(NAMES),
            "train",
            draw.choice(NAMES),
            "DAT104",
        ]
        if draw.random() < 0.15:
            row[draw.randrange(7)] = draw.choice((*NAMES, "", "9" * 200_000, "2026-99-99", "\x1b[2J", "=cmd|' /C calc'!A0"))
        writer.writerow(row)
    data = stream.getvalue().encode("utf-8", "surrogatepass")
    what = "decisions"
    if draw.random() < 0.7:
        what, data = as_bytes(draw, data)
    file.write_bytes(data)
    copy = folder / "copy.csv"
    copy.write_bytes(data)

    def act() -> str:
        def read() -> None:
            made = Decisions(copy)
            before = dict(made.current())
            made.make(Decision("x\n\x1b", "drop"))
            assert Decisions(copy).current().keys() == {*before, "x\n\x1b"}
            made.undo()
            assert dict(Decisions(copy).current()) == before

        came = refused(lambda: Decisions(file))
        refused(read)
        copy.write_bytes(data)
        return came

    return Trial(what, act)


def log(draw: random.Random, folder: Path) -> Trial:
    """A log of another program."""
    stem = name(draw)
    kind = draw.choice(("csv", "jsonl", "json", "state", "events", "txt"))
    if kind in ("csv", "txt"):
        head = draw.sample(("epoch", "step", "train_loss", "val_loss", "val_acc", "lr", "", *NAMES[:6]), 4)
        rows = [
            [
                draw.choice(
                    ("0.5", "1", "2") * 20
                    + ("nan", "inf", "1e400", "-1", "", "x", "5%", "9" * 400, "0x1", "1_0", "\u0663", *NAMES)
                )
                for _ in range(draw.choice((4, 4, 4, 3, 6)))
            ]
            for _ in range(draw.choice((0, 1, 9)))
        ]
        stream = io.StringIO()
        csv.writer(stream, delimiter=draw.choice(",;\t")).writerows([head, *rows])
        data = stream.getvalue().encode("utf-8", "surrogatepass")
        if draw.random() < 0.05:
            data += b'"' + b"x" * 300_000
        file = folder / f"{stem}.{kind}"
    elif kind == "events":
        data = b"".join(event(draw) for _ in range(draw.choice((1, 5, 20))))
        file = folder / f"events.out.tfevents.{stem[:60]}"
    else:
        history: list[Any] = [
            {
                "epoch": draw.choice((i,) * 90 + BAD),
                "loss": draw.choice((1.0, 0.5, 2.0) * 30 + BAD),
                "eval": {"accuracy": draw.choice((0.5, 0.9, 70) * 30 + BAD)},
                draw.choice(NAMES): draw.choice(BAD),
            }
            for i in range(draw.choice((0, 1, 6)))
        ]
        history += draw.choices(BAD, k=draw.choice((0, 0, 0, 2)))
        deep = draw.choice(("",) * 20 + ("[" * 100_000, '{"a":' * 5000))
        if kind == "jsonl":
            data = "\n".join([json.dumps(r) for r in history] + [deep]).encode()
        else:
            whole: Any = draw.choice((history, {"log_history": history}, {"log_history": draw.choice(BAD)}, draw.choice(BAD)))
            data = (json.dumps(whole) + deep).encode()
        file = folder / (f"{stem}.{kind}" if kind != "state" else "trainer_state.json")
    what = kind
    if draw.random() < 0.25 and data:
        said, data = as_bytes(draw, data)
        what = f"{kind}, {said}"
    file.write_bytes(data)
    form = draw.choice((("--json",), ()))
    path = folder if kind in ("state", "events") and draw.random() < 0.3 else file
    return Trial(
        f"log: {what}", lambda: command("diagnose", "--", path, *()) if not form else command("diagnose", *form, "--", path)
    )


def event(draw: random.Random) -> bytes:
    """A record of a TFRecord file with a scalar, or nearly."""

    def varint(n: int) -> bytes:
        out = b""
        while n > 127:
            out += bytes([n & 127 | 128])
            n >>= 7
        return out + bytes([n])

    def text(number: int, body: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(body)) + body

    value = draw.choice((
        b"\x15" + struct.pack("<f", draw.choice((0.5, float("nan"), float("inf")))), text(8, b"\x08\x01" + text(4, draw.randbytes(draw.choice((4, 3, 8))))), text(8, b"\x08\x02" + text(4, bytes(8))),
        text(8, text(5, draw.randbytes(4))), b"\x15\0", b"\x11" + bytes(3), text(8, b"\x2d" + bytes(4)),
    ))  # fmt: skip
    tag = draw.choice(("train/loss", "val_acc", *NAMES)).encode("utf-8", "surrogatepass")
    body = b"\x10" + varint(draw.choice((0, 1, 1 << 40, 1 << 62))) + text(5, text(1, text(1, tag) + value))
    length = len(body) if draw.random() < 0.9 else draw.choice((0, 1, 1 << 63, (1 << 64) - 1, len(body) + 4))
    return struct.pack("<Q", length) + bytes(4) + body + bytes(4)


def json_beside(file: str, whole: Any, read: Callable[[Path], object]) -> Callable[[random.Random, Path], Trial]:
    """Trials of a JSON file of ours that somebody edited."""

    def make(draw: random.Random, folder: Path) -> Trial:
        body = json.loads(json.dumps(whole))
        found = list(places(body))
        for _ in range(draw.choice((1, 1, 2, 4))):
            spoil(draw, body, found)
        said, data = f"{file} edited", json.dumps(body).encode()
        if draw.random() < 0.3:
            said, data = as_bytes(draw, data)
        if draw.random() < 0.03:
            data = b"[" * 100_000
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
        return Trial(f"{file}: {said}", lambda: refused(lambda: read(folder)))

    return make


KINDS = (
    Kind("recipe", "YAML recipes", 900, yaml),
    Kind("list", "CSV lists of images, and what they name", 600, listed),
    Kind("checked list", "CSV lists through `valgap check`", 60, checked),
    Kind("decisions", "files of decisions (`decisions.csv`)", 700, decided),
    Kind("log", "logs of other programs through `valgap diagnose`: CSV, JSON lines, trainer_state.json, TensorBoard", 1200, log),
)
