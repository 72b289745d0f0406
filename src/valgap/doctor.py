"""What valgap finds on this machine: versions, devices, weights, caches, sandbox, and how fast each engine is.

Imports nothing heavy itself: what is broken must be reported, not fallen over.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from valgap.errors import ValgapError

PACKAGE = "valgap"
# Extras for people who use valgap; those for its developers are left out.
EXTRAS = {
    "cpu": "faster networks on a CPU",
    "export": "valgap export --format onnx",
    "large": "near copies among more than 100,000 images",
    "parquet": "images in Parquet files",
    "remote": "images at addresses, such as s3://",
    "demo": "valgap demo",
}
# A fault in one of these shows only when it is imported: missing system or CUDA libraries, builds that do not fit each other.
IMPORTED = ("torch", "torchvision", "timm")
SPEED_SIDE = 224
SPEED_IMAGES = 8


@dataclass(frozen=True)
class Fact:
    """One line: ``missing`` says that valgap cannot work so, ``note`` that something is absent which it can do without."""

    name: str
    text: str
    state: Literal["ok", "note", "missing"] = "ok"


def facts(speed: bool = True) -> Iterator[Fact]:
    """Every fact in the order in which it is shown; with ``speed`` the engines are timed last, which takes some seconds."""
    yield from environment()
    yield from required()
    broken = [fact for fact in map(imports, IMPORTED) if fact.state == "missing"]
    yield from broken
    if not broken:
        yield from devices()
        yield bundled_weights()
        yield published_weights()
        yield from cache()
    yield sandbox()
    yield from extras()
    if speed and not broken:
        yield from speeds()


def environment() -> Iterator[Fact]:
    """valgap, Python and the system."""
    from valgap import __version__

    yield Fact("valgap", f"{__version__} in {Path(__file__).parent}")
    yield Fact("python", f"{platform.python_version()} ({sys.executable})")
    memory = _memory_bytes()
    room = f", {_size(memory)} memory" if memory else ""
    yield Fact("system", f"{platform.system()} {platform.machine()}, {_usable_cores()} cores{room}")


def _usable_cores() -> int:
    """Cores that this process may use: in a container or under taskset fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_bytes() -> int | None:
    try:
        psutil = importlib.import_module("psutil")
        return int(psutil.virtual_memory().total)
    except Exception:
        return None


def required() -> list[Fact]:
    """The packages that valgap declares, each with its version."""
    found = []
    for requirement in _requirements():
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found.append(package(requirement))
    return found or [Fact(PACKAGE, "is not installed as a package: pip install valgap", "missing")]


def package(requirement: Requirement) -> Fact:
    """One declared package: there, absent, or of a version that does not do."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Fact(requirement.name, f"not installed: pip install '{_bare(requirement)}'", "missing")
    if not requirement.specifier.contains(version, prereleases=True):
        return Fact(requirement.name, f"{version}, but valgap needs {requirement.specifier}", "missing")
    return Fact(requirement.name, version)


def _bare(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _requirements() -> list[Requirement]:
    try:
        return [Requirement(text) for text in importlib.metadata.requires(PACKAGE) or []]
    except importlib.metadata.PackageNotFoundError:
        return []


def imports(name: str) -> Fact:
    """Whether a package can be imported, not only found."""
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a broken build raises: OSError of a missing library, RuntimeError of a wrong ABI
        return Fact(name, f"cannot be imported: {type(error).__name__}: {_line(str(error))}", "missing")
    return Fact(name, "can be imported")


def devices() -> Iterator[Fact]:
    """What torch can compute on."""
    import torch

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        yield Fact("device", f"cuda:{index} {properties.name}, {_size(properties.total_memory)}")
    if torch.backends.mps.is_available():
        yield Fact("device", "mps")
    yield Fact("device", f"cpu, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")


def bundled_weights() -> Fact:
    """Whether the weights that every look at images needs are there."""
    from valgap.models.lite0 import BUNDLED, bundled_file

    try:
        file = bundled_file()
        return Fact("bundled weights", f"{BUNDLED}, {_size(file.stat().st_size)}, {file}")
    except Exception as error:  # the package is absent, or its file
        return Fact("bundled weights", f"{BUNDLED} cannot be read: {type(error).__name__}: {_line(str(error))}", "missing")


def published_weights() -> Fact:
    """Weights that torch hub and the Hugging Face hub have downloaded before: these need no network."""
    import torch

    files = list((Path(torch.hub.get_dir()) / "checkpoints").glob("*.pth"))
    models = list(_hub_folder().glob("models--timm--*"))
    names = sorted([f.stem for f in files] + [m.name.removeprefix("models--timm--") for m in models])
    if not names:
        return Fact("other weights", "none downloaded yet; `valgap train` downloads them on first use", "note")
    return Fact("other weights", f"{len(names)} downloaded: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}")


def _hub_folder() -> Path:
    given = os.environ.get("HF_HUB_CACHE")
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    return Path(given) if given else Path(home) / "hub"


def cache() -> Iterator[Fact]:
    """Where features are kept, how much of it there is, and whether more can be written."""
    from valgap.engine.store import FeatureStore

    store = FeatureStore()
    used = sum(u.bytes for u in store.usage()) + sum(store.others().values())
    yield Fact("cache", f"{_size(used)} of at most {_size(store.limit_bytes)} in {store.folder}")
    yield _room("cache disk", store.folder)
    yield _room("working folder", Path.cwd())


def _room(name: str, folder: Path) -> Fact:
    """Free bytes and the right to write, of the folder or of the nearest one above it that exists."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(there).free
    try:
        with tempfile.TemporaryFile(dir=there):
            return Fact(name, f"{_size(free)} free")
    except OSError as error:
        return Fact(name, f"cannot be written to ({error.strerror}), {_size(free)} free: {there}", "note")


def sandbox() -> Fact:
    """What re-runs are kept from by the kernel, and what by Python's functions alone; asked in a process of its own."""
    from valgap.experiments.kernel.guards import NOTHING, Guards

    command = [sys.executable, "-m", "valgap.experiments.kernel"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    guards = Guards.from_json(json.loads(done.stdout)) if done.returncode == 0 else NOTHING
    missing = guards.missing()
    if not missing:
        return Fact("sandbox", "files, network, processes and devices outside are closed to re-runs by the kernel")
    return Fact("sandbox", f"not all is closed to re-runs by the kernel: {'; '.join(missing)}", "note")


def extras() -> Iterator[Fact]:
    """The optional parts: installed, or how to install them."""
    for extra, purpose in EXTRAS.items():
        wanted = [r for r in _requirements() if r.marker is not None and _only_of(r, extra)]
        absent = [r.name for r in wanted if package(r).state != "ok"]
        if not wanted:
            yield Fact(f"extra {extra}", "unknown: the installed package does not tell of it; install it again", "note")
        elif absent:
            yield Fact(f"extra {extra}", f"not installed ({purpose}): pip install 'valgap[{extra}]'", "note")
        else:
            yield Fact(f"extra {extra}", f"installed ({purpose})")


def _only_of(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


# -- speed ------------------------------------------------------------------------------------


def speeds() -> Iterator[Fact]:
    """Images a second: read from JPEG files, and through the bundled network by each engine of this machine."""
    import numpy as np
    import torch

    from valgap.engine.forward import BUILD_S, MIN_COSINE, candidates, time_forward
    from valgap.engine.split import Normalised, body_of
    from valgap.models.backbones import create_model
    from valgap.models.lite0 import BUNDLED

    try:
        loaded = create_model(BUNDLED, 2)
    except ValgapError as error:
        yield Fact("speed", f"not measured: {_line(str(error))}", "note")
        return
    with tempfile.TemporaryDirectory() as folder:
        pixels, read_per_s = _read(Path(folder), loaded.preprocessing.at(SPEED_SIDE))
    yield Fact("speed reading", f"{read_per_s:.0f} images/s, JPEG of 640 x 480 px, one thread")
    network = Normalised(body_of(loaded.model, loaded.head), loaded.preprocessing.mean, loaded.preprocessing.std).eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sample: Any = np.stack(pixels)
    for name in ("fp32", *candidates(device)):
        label = f"speed {name}"
        if BUILD_S.get(name, 0.0) > 10:
            yield Fact(label, f"not measured: takes about {BUILD_S[name]:.0f} s to build; used on long jobs only", "note")
            continue
        timed = time_forward(name, network, device, sample)
        if timed is None:
            yield Fact(label, "cannot be built here", "note")
        elif timed.cosine <= MIN_COSINE:
            yield Fact(label, f"not used: its features differ from fp32's (cosine {timed.cosine:.4f})", "note")
        else:
            yield Fact(label, f"{timed.images_per_s:.0f} images/s, {BUNDLED} at {SPEED_SIDE} px on {device.type}")


def _read(folder: Path, preprocessing: Any) -> tuple[list[Any], float]:
    """Pixels of a few made-up photographs, and how many a second were read."""
    import numpy as np
    from PIL import Image

    from valgap.engine.reading import read_pixels

    rng = np.random.default_rng(0)
    files = []
    for number in range(SPEED_IMAGES):
        grain = Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8))
        files.append(folder / f"{number}.jpg")
        grain.resize((640, 480), Image.Resampling.BICUBIC).save(files[-1], quality=90)
    read_pixels(files[0], preprocessing)
    started = time.perf_counter()
    pixels = [read_pixels(f, preprocessing) for f in files]
    return pixels, len(files) / (time.perf_counter() - started)


# -- text -------------------------------------------------------------------------------------


def _size(count: int) -> str:
    """Bytes as people say them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _line(text: str) -> str:
    """The first line, at most 200 characters."""
    return next(iter(text.splitlines()), "")[:200]
