"""Records that somebody edited, in their fields, arrays, lines and bytes, through the commands that read them."""

from __future__ import annotations

import base64
import functools
import json
import os
import random
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import valgap
from hostile.names import NAMES, name
from hostile.pictures import noise
from hostile.trial import Kind, Trial, caught, clean_page, command, refused
from valgap.live.judging import warnings_of
from valgap.record.encoding import decode_array, encode

PROGRAM = Path(__file__).resolve().parents[2] / "tests" / "habits" / "plain_loop.py"
BAD: tuple[Any, ...] = (
    None, -1, 0, 1, 2**31, 2**63, -(2**63), 10**30, 1e308, {"float": "nan"}, {"float": "inf"}, {"float": "x"}, "", "x", [], [[1]], {}, {"a": 1},
    True, False, 0.5, "<script>alert(1)</script>", "../../etc/passwd", "/dev/zero", "\x1b[2J", "\ud800", [None], {"nd": "<i4"},
    {"nd": "|O", "shape": [1], "z": ""}, ["a", 1, None], "9" * 5000,
)  # fmt: skip
DTYPES = (
    "<i8",
    "<i4",
    "<u1",
    "<u8",
    "<f2",
    "<f4",
    "<f8",
    "|b1",
    "|S3",
    "<U2",
    "<c8",
    "<M8[s]",
    ">i4",
    "|V4",
    "|O",
    "|V0",
    "f4,i4",
    "(2,3)f4",
    "(1,",
    "x" * 99,
    "",
    "<i4\x1b[2J",
    "[('a','O')]",
)


@functools.cache
def sound() -> dict[str, list[str]]:
    """The lines of sound records: of a program with arrays in memory, and of one that reads files with odd names."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            return {"in memory": in_memory(Path("a")), "from files": from_files(Path("b"))}
        finally:
            os.chdir(home)


def in_memory(out: Path) -> list[str]:
    draw = torch.Generator().manual_seed(0)
    data = [TensorDataset(torch.randn(n, 3, 8, 8, generator=draw), torch.arange(n) % 3) for n in (24, 15)]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with caught(), valgap.watch(out=out, closing=5) as folder:
        for epoch in range(3):
            model.train()
            for x, y in DataLoader(data[0], 8, shuffle=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            scheduler.step()
            model.eval()
            right = 0
            with torch.no_grad():
                for x, y in DataLoader(data[1], 8):
                    right += int((model(x).argmax(1) == y).sum())
            print(f"epoch {epoch} val accuracy {right / 15:.3f}")
    return (Path(folder) / "events.jsonl").read_text().splitlines()


def from_files(out: Path) -> list[str]:
    draw = random.Random(0)
    for split in ("train", "val"):
        for label in ("a", "<script>alert(1)<&script>\n", "\x1b[31mred"):
            place = Path("data") / split / label
            place.mkdir(parents=True)
            for number in range(6):
                (place / f"{number}{name(draw)[:60]}.png").write_bytes(noise(draw))
    words = ["-m", "valgap.cli", "run", "--out", str(out), str(PROGRAM), "data"]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return (out / "events.jsonl").read_text().splitlines()


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every field, and to the first elements of lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from places(inner, (*above, key))


def at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def spoil(draw: random.Random, body: Any, found: Sequence[tuple[Any, ...]]) -> None:
    """One of these fields of ``body`` gone or of another kind; nothing where an earlier one took it along."""
    *above, last = draw.choice(found)
    try:
        holder = at(body, tuple(above))
        if draw.random() < 0.2 and isinstance(holder, dict):
            del holder[last]
        else:
            holder[last] = draw.choice(BAD)
    except (KeyError, TypeError, IndexError):
        return


Lines = list[str]
Edit = Callable[[random.Random, Lines], tuple[str, Lines]]


def field(draw: random.Random, lines: Lines) -> tuple[str, Lines]:
    """Fields gone or of another kind."""
    for _ in range(draw.choice((1, 1, 2, 5))):
        number = draw.randrange(len(lines))
        try:
            line = json.loads(lines[number])
        except ValueError:
            continue
        found = list(places(line))
        if not found:
            continue
        *above, last = draw.choice(found)
        holder = at(line, tuple(above))
        if isinstance(holder, dict) and draw.random() < 0.25:
            del holder[last]
        else:
            holder[last] = draw.choice(BAD)
        lines[number] = json.dumps(line)
    return "fields of another kind", lines


def arrays(draw: random.Random, lines: Lines) -> tuple[str, Lines]:
    """An array of another dtype, shape or content, or that lies about them."""
    what = "no array"
    for _ in range(draw.choice((1, 1, 3))):
        where = [(i, p) for i, text in enumerate(lines) if '"nd"' in text for p in _array_places(text)]
        if not where:
            break
        number, place = draw.choice(where)
        line = json.loads(lines[number])
        holder = at(line, place)
        what = _edit_array(draw, holder)
        lines[number] = json.dumps(line)
    return what, lines


@functools.lru_cache(512)
def _array_places(text: str) -> tuple[tuple[Any, ...], ...]:
    try:
        line = json.loads(text)
    except ValueError:
        return ()
    return tuple(p for p in places(line) if isinstance(at(line, p), dict) and "nd" in at(line, p))


def _edit_array(draw: random.Random, told: dict[str, Any]) -> str:
    form = draw.randrange(7)
    try:
        old = decode_array(told)
    except Exception:
        return "an array edited twice"
    if form == 0:
        told["nd"] = draw.choice(DTYPES)
        return "array with another dtype"
    if form == 1:
        told["shape"] = draw.choice(
            (
                [],
                [0],
                [-1],
                [1],
                [2**62, 4],
                [0, 2**70],
                [10**30, 0],
                ["1"],
                None,
                {},
                [1.5],
                [*told["shape"], 1],
                told["shape"][::-1],
                [True],
            )
        )
        return "array with another shape"
    if form == 2:
        told["z"] = draw.choice(
            (
                "",
                "!",
                told["z"][: len(told["z"]) // 2],
                "\u00e9",
                None,
                5,
                base64.b64encode(zlib.compress(bytes(100 << 20), 9)).decode(),
            )
        )
        return "array with other bytes"
    kind = draw.choice(("<i8", "<i4", "|u1", "<f4", "<f8", "|b1", "|S3", "<U2", "<c8", "<M8[s]", "<f2", "|V4"))
    if form in (3, 4):
        flat = old.ravel()
        try:
            new = flat.astype(kind) if form == 3 else flat.copy()
        except (ValueError, TypeError):
            new = np.zeros(len(flat), kind)
        size = draw.choice((0, 1, len(new) // 2, max(0, len(new) - 1), len(new), len(new) + 1, 2 * len(new)))
        new = np.resize(new, size)
        shape = draw.choice(((size,), (size, 1), (1, size), (), (1, 1, size, 1)))
        told |= encode(new.reshape(shape) if shape != () or size == 1 else new)
        return "array of another size or kind"
    new = old.copy()
    if new.size and new.dtype.kind in "iuf":
        extreme = [0, 1] + (
            [np.iinfo(new.dtype).max, np.iinfo(new.dtype).min] if new.dtype.kind in "iu" else [np.nan, np.inf, -np.inf, 1e300]
        )
        with np.errstate(all="ignore"):
            if form == 5:
                new.ravel()[draw.randrange(new.size)] = draw.choice(extreme)
            else:
                new[...] = draw.choice(extreme)
    told |= encode(new)
    return "array with extreme values"


def order(draw: random.Random, lines: Lines) -> tuple[str, Lines]:
    """Lines gone, twice, or in another order."""
    for _ in range(draw.choice((1, 2, 4))):
        i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
        form = draw.randrange(6)
        if form == 0 and len(lines) > 1:
            del lines[i]
        elif form == 1:
            lines.insert(j, lines[i])
        elif form == 2:
            lines[i], lines[j] = lines[j], lines[i]
        elif form == 3 and i < j - 1:
            del lines[i:j]
        elif form == 4:
            tail = lines[1:]
            draw.shuffle(tail)
            lines = lines[:1] + tail
        else:
            lines = lines + lines[draw.randrange(2) :]
        if not lines:
            lines = [""]
    return "lines in another order", lines


def senseless(draw: random.Random, lines: Lines) -> tuple[str, Lines]:
    """A line that is none of ours."""
    line = draw.choice((
        "", "null", "[]", "{}", "0", '"x"', "[" * 100_000, '{"t":' * 3000 + "1" + "}" * 3000, '{"t":"header"}', '{"t":"header","schema":99}', '{"t":"pass_end"}',
        '{"t":NaN}', '{"t":1e999}', '{"t":"x","t":"end"}', "9" * 10_000, '{"t":"end","exit_status":' + "9" * 5000 + "}", '{"t":["header"]}', "\ufeff{}", "\0" * 50,
    ))  # fmt: skip
    lines.insert(draw.choice((0, draw.randrange(len(lines) + 1))), line)
    return f"a line {line[:20]!r}", lines


def texts(draw: random.Random, lines: Lines) -> tuple[str, Lines]:
    """Every text of some kind of event in a stranger's words."""
    hostile = draw.choice(NAMES)
    kind = json.loads(draw.choice(lines)).get("t")

    def changed(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return value if "nd" in value else {k: changed(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [changed(v) for v in value]
        return hostile + value if isinstance(value, str) and key != "t" and draw.random() < 0.5 else value

    return f"texts of {kind}", [json.dumps(changed(json.loads(t))) if json.loads(t).get("t") == kind else t for t in lines]


def as_bytes(draw: random.Random, data: bytes) -> tuple[str, bytes]:
    """Bytes changed, cut off or of another encoding."""
    form = draw.randrange(5)
    edited = bytearray(data)
    if form == 0:
        return "cut off", data[: draw.randrange(len(data))]
    if form == 1:
        for _ in range(draw.choice((1, 3, 30))):
            edited[draw.randrange(len(edited))] = draw.randrange(256)
        return "bytes changed", bytes(edited)
    if form == 2:
        i = draw.randrange(len(edited))
        del edited[i : i + draw.choice((1, 5, 500))]
        return "bytes gone", bytes(edited)
    if form == 3:
        return "UTF-16", data.decode("utf-8", "replace").encode("utf-16") if draw.random() < 0.2 else data.replace(b"\n", b"\r\n")
    place = draw.randrange(len(edited))
    return "bytes put in", bytes(edited[:place]) + draw.randbytes(draw.choice((1, 9, 900))) + bytes(edited[place:])


EDITS: tuple[tuple[Edit, int], ...] = ((field, 34), (arrays, 30), (order, 14), (senseless, 6), (texts, 10))
FORMS: tuple[tuple[str, ...], ...] = (
    ("diagnose", "RUN", "--details", "--no-rebuild"), ("diagnose", "RUN", "--json", "--no-rebuild"), ("diagnose", "RUN", "--html", "page.html", "--no-rebuild"),
    ("diagnose", "RUN", "--junit", "j.xml", "--sarif", "s.json", "--no-rebuild"), ("report", "RUN"), ("compare", "RUN", "SOUND"), ("compare", "SOUND", "RUN", "--json"),
)  # fmt: skip


def one(draw: random.Random, folder: Path) -> Trial:
    """An edited record through one of the commands that read records."""
    what, lines = draw.choice(list(sound().items()))
    run, other = folder / "run", folder / "sound"
    for place in (run, other):
        place.mkdir()
    (other / "events.jsonl").write_text("\n".join(lines) + "\n")
    edit = draw.choices([e for e, _ in EDITS], [w for _, w in EDITS])[0]
    if draw.random() < 0.2:
        said, data = as_bytes(draw, ("\n".join(lines) + "\n").encode())
    else:
        said, lines = edit(draw, list(lines))
        data = ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
    (run / "events.jsonl").write_bytes(data)
    if draw.random() < 0.15:  # and as that of a second process
        (run / "parts").mkdir()
        said = f"{said}, in another process's part"
        (run / "parts" / draw.choice(("rank-1.jsonl", "child-7.jsonl"))).write_bytes(data)
        (run / "events.jsonl").write_text((other / "events.jsonl").read_text())
    form = draw.choice(FORMS)
    words = [{"RUN": run, "SOUND": other}.get(w, w) for w in form]

    def act() -> str:
        came = command(*words)
        for page in (Path("page.html"), run / "report.html"):
            if page.exists():
                clean_page(page)
        return came

    return Trial(f"{what}: {said} ({form[0]} {form[-2]})", act)


def running(draw: random.Random, folder: Path) -> Trial:
    """An edited record of a program that still runs, as `valgap view` and `run --live` look at it."""
    lines = list(draw.choice(list(sound().values())))
    edit = draw.choices([e for e, _ in EDITS], [w for _, w in EDITS])[0]
    said, lines = edit(draw, lines)
    lines = lines[: draw.randrange(1, len(lines) + 1)]
    run = folder / "run"
    run.mkdir()
    (run / "events.jsonl").write_bytes("\n".join([*lines, ""]).encode("utf-8", "surrogatepass"))
    warning = {
        "code": "MOD302",
        "name": name(draw),
        "stage": name(draw),
        "what": name(draw),
        "remedy": name(draw),
        "why": [name(draw)],
        "epoch": 1,
        "pass_index": 2,
        "time": 1.0,
        "confidence": 0.9,
    }
    for key in draw.sample(list(warning), draw.choice((0, 1, 3))):
        warning[key] = draw.choice(BAD)
    (run / "live.jsonl").write_text(json.dumps(warning) + "\n" + draw.choice(("", "{", "\0", "[" * 100_000 + "\n")))

    def act() -> str:
        refused(lambda: warnings_of(run, ()))
        return command("view", run, "--once")

    return Trial(f"running: {said}", act)


KINDS = (
    Kind("record", "records edited in fields, arrays, lines and bytes, through diagnose, report and compare", 1500, one),
    Kind("running record", "edited records of programs that still run, through the eyes of `valgap view`", 300, running),
)
