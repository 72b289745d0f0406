"""Hostile containers of images (zip, tar, Parquet, Arrow) and of weights (safetensors, pickles), and what lies beside a training."""

from __future__ import annotations

import functools
import io
import json
import pickle
import random
import struct
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from hostile.names import NAMES, name
from hostile.pictures import Bait, hostile, noise
from hostile.records import BAD, as_bytes, at, places, spoil
from hostile.texts import look
from hostile.trial import Kind, Trial, refused
from valgap.features.source import rows_of_path
from valgap.models.lite0 import BUNDLED
from valgap.models.weights import read_state
from valgap.recipe import RECIPE
from valgap.training import checkpoint
from valgap.training.decide import Decision
from valgap.training.saved import FitStore
from valgap.training.settings import Settings

MEMBERS = (
    "train/a/1.png",
    "train/b/2.png",
    "val/a/3.png",
    "val/b/4.png",
    "../../etc/5.png",
    "/etc/6.png",
    "a.cls",
    "a.png",
    "b/c/d/e.jpg",
    "C:\\x.png",
    "con.png",
)


def archive(draw: random.Random, folder: Path) -> Trial:
    """A zip or tar file, or a table of images."""
    form = draw.choice(("zip", "tar", "parquet", "arrow"))
    file = folder / f"{name(draw)}.{form}"
    members = [
        draw.choice(MEMBERS) if draw.random() < 0.7 else f"{name(draw)}/{name(draw)}.png" for _ in range(draw.choice((0, 1, 5)))
    ]
    contents = [noise(draw) if draw.random() < 0.5 else hostile(draw)[1] for _ in members]
    data = {"zip": zipped, "tar": tarred, "parquet": table, "arrow": table}[form](draw, members, contents, form)
    what = form
    if draw.random() < 0.6:
        what, data = as_bytes(draw, data)
        what = f"{form}, {what}"
    if draw.random() < 0.3:
        edited = bytearray(data)
        for _ in range(draw.choice((1, 3))):
            place = draw.randrange(max(1, len(edited) - 8))
            edited[place : place + 8] = struct.pack("<Q", draw.choice((0, 1, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)))
        data, what = bytes(edited), f"{what}, a word changed"
    file.write_bytes(data)

    def act() -> str:
        paths: list[str] = []
        came = refused(lambda: paths.extend(rows_of_path(file).paths))
        for path in paths[:8]:
            refused(lambda path=path: look(path))
        return came

    return Trial(what, act, 3)


def zipped(draw: random.Random, members: list[str], contents: list[bytes], form: str) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(
            stream, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        ) as made:
            for member, content in zip(members, contents, strict=True):
                made.writestr(member.encode("utf-8", "replace").decode(), content)
            if draw.random() < 0.02:
                made.writestr("bomb.png", bytes(300 << 20), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def tarred(draw: random.Random, members: list[str], contents: list[bytes], form: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream,
        mode="w",
        format=draw.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)),
        errors="surrogateescape",
    ) as made:
        for member, content in zip(members, contents, strict=True):
            one = tarfile.TarInfo(member.encode("utf-8", "replace").decode()[:90])
            one.type = draw.choice(
                (tarfile.REGTYPE,) * 6
                + (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE)
            )
            one.linkname = "/etc/passwd"
            one.size = len(content)
            try:
                made.addfile(one, io.BytesIO(content))
            except ValueError:
                continue
    return stream.getvalue()


def table(draw: random.Random, members: list[str], contents: list[bytes], form: str) -> bytes:
    import pyarrow
    import pyarrow.parquet as parquet

    paths = [m.encode("utf-8", "replace").decode() for m in members]
    images: Any = [
        {"bytes": draw.choice((c, c, None)), "path": draw.choice((p, None, "/dev/zero", "/etc/passwd"))}
        for p, c in zip(paths, contents, strict=True)
    ]
    columns: dict[str, Any] = {"image": images, "label": [draw.choice((0, 1, -1, 7, None)) for _ in members]}
    if draw.random() < 0.3:
        columns["label"] = [draw.choice(NAMES).encode("utf-8", "replace").decode() for _ in members]
    if draw.random() < 0.2:
        columns["image"] = draw.choice((contents, paths, [1] * len(members)))
    if draw.random() < 0.2:
        columns = {draw.choice(("image", "label", "x")): columns["image"]}
    try:
        made = pyarrow.table(columns)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        made = pyarrow.table({"image": contents})
    told = draw.choice(
        (
            b"{",
            b"{}",
            json.dumps(
                {"info": {"features": {"label": {"names": draw.choice((["a", "b"], [], "x", None, {"a": 1}, [None]))}}}}
            ).encode(),
        )
    )
    made = made.replace_schema_metadata({b"huggingface": told})
    stream = io.BytesIO()
    if form == "parquet":
        parquet.write_table(made, stream)
    else:
        with pyarrow.ipc.new_stream(stream, made.schema) as writer:
            writer.write_table(made)
    return stream.getvalue()


def safetensors(draw: random.Random, folder: Path) -> Trial:
    """A file of weights."""
    file = folder / f"{name(draw)}{draw.choice(('.safetensors', '.safetensors', '.pth', '.bin'))}"
    data = save({"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3), "\x1b[2J": torch.zeros(2, dtype=torch.int64)})
    form = draw.randrange(5)
    what = "safetensors"
    if form == 0:
        size = struct.unpack("<Q", data[:8])[0]
        head = json.loads(data[8 : 8 + size])
        for _ in range(draw.choice((1, 2))):
            *above, last = draw.choice(list(places(head)))
            try:
                at(head, tuple(above))[last] = draw.choice((*BAD, "F64", "BOOL", [0, 1 << 60], [1 << 62, 4], [-1]))
            except (TypeError, KeyError, IndexError):
                continue
        text = json.dumps(head).encode("utf-8", "surrogatepass")
        data, what = struct.pack("<Q", len(text)) + text + data[8 + size :], "safetensors, header edited"
    elif form == 1:
        data, what = (
            struct.pack("<Q", draw.choice((0, 1, 1 << 31, 1 << 62, (1 << 64) - 1))) + data[8:],
            "safetensors, header's length lies",
        )
    elif form == 2:
        data = draw.choice((pickle.dumps(Bait()), pickle.dumps({"a": Bait()}), b"", b"PK\3\4", hostile(draw)[1]))
        what = "no weights"
    else:
        stream = io.BytesIO()
        torch.save(
            draw.choice(
                (
                    {"state_dict": {"a": torch.ones(9)}},
                    {"x": Bait()},
                    Bait(),
                    [1, 2],
                    {"state_dict": {"a": 1}},
                    {"model": {"state_dict": {"a": torch.ones(2)}}},
                    {1: torch.ones(1)},
                )
            ),
            stream,
        )
        data, what = stream.getvalue(), "torch.save"
    if draw.random() < 0.5 and data:
        said, data = as_bytes(draw, data)
        what = f"{what}, {said}"
    file.write_bytes(data)
    return Trial(what, lambda: refused(lambda: read_state(file)))


@functools.cache
def trained() -> tuple[bytes, bytes]:
    """(facts, weights) of a sound checkpoint."""
    from valgap.models import create_model

    made = create_model(BUNDLED, 3, "default")
    facts = checkpoint.facts_of(("a", "b", "c"), BUNDLED, RECIPE, 0, True, 1.0)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint.save(Path(scratch), made.model, facts, made.preprocessing)
        return (Path(scratch) / checkpoint.FACTS).read_bytes(), (Path(scratch) / checkpoint.WEIGHTS).read_bytes()


def edited(draw: random.Random, data: bytes) -> tuple[str, bytes]:
    """JSON with fields of another kind, or with other bytes."""
    if draw.random() < 0.3:
        return as_bytes(draw, data)
    body = json.loads(data)
    for _ in range(draw.choice((1, 1, 3))):
        spoil(draw, body, list(places(body)))
    return "fields of another kind", json.dumps(draw.choice(BAD) if draw.random() < 0.03 else body).encode()


def model(draw: random.Random, folder: Path) -> Trial:
    """A checkpoint, as `valgap predict` and `export` load and use it."""
    from valgap.training import load

    facts, weights = trained()
    what = "a checkpoint"
    if draw.random() < 0.8:
        said, facts = edited(draw, facts)
        what = f"{what}, {said}"
    else:
        said, weights = as_bytes(draw, weights)
        what = f"{what}, weights: {said}"
    (folder / checkpoint.FACTS).write_bytes(facts)
    (folder / checkpoint.WEIGHTS).write_bytes(weights)
    (folder / "x.png").write_bytes(noise(draw))

    def use() -> None:
        load(folder).predict([folder / "x.png"], tta=True)

    return Trial(what, lambda: refused(use))


@functools.cache
def settings() -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        Settings(Path("x"), "resnet50", "none", RECIPE, 64, 0, 1, None).keep(Path(scratch))
        return (Path(scratch) / "settings.json").read_bytes()


def resumed(draw: random.Random, folder: Path) -> Trial:
    """What lies beside a training that was cut off, as `valgap train --resume` reads it."""
    which = draw.randrange(3)
    if which == 0:
        what, data = edited(draw, settings())
        (folder / "settings.json").write_bytes(data)
        return Trial(f"settings.json: {what}", lambda: refused(lambda: Settings.read(folder)))
    if which == 1:
        body = {
            "unfreeze": "last",
            "flip": True,
            "reasons": ["x"],
            "bias": [0.0, 1.0],
            "course": None,
            "temperature": 1.0,
            "ended": "",
        }
        what, data = edited(draw, json.dumps(body).encode())
        (folder / "decision.json").write_bytes(data)
        return Trial(f"decision.json: {what}", lambda: refused(lambda: Decision.read(folder / "decision.json")))
    what, data = edited(draw, json.dumps({"file": "epoch-1.safetensors", "best": [1], "rows": [], "epoch": 1}).encode())
    (folder / "place.json").write_bytes(data)
    (folder / "epoch-1.safetensors").write_bytes(as_bytes(draw, save({"a": torch.ones(3)}))[1])
    return Trial(f"place.json: {what}", lambda: refused(lambda: FitStore(folder).read()))


KINDS = (
    Kind("archive", "zip, tar, Parquet and Arrow files of images, and what they hold", 700, archive),
    Kind("weights", "safetensors and pickles as `--weights`", 500, safetensors),
    Kind("checkpoint", "checkpoints through `valgap predict`", 250, model),
    Kind("resumed", "the files from which a training is resumed", 300, resumed),
)
