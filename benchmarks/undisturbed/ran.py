"""Runs a program in a folder, a home and a temporary folder of its own, and keeps all that came of it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import forks

from undisturbed.programs import Program

HERE = Path(__file__).resolve().parent
LIMIT_S = 400.0


@dataclass(frozen=True)
class Ran:
    """What came of one run; of several ranks, by rank."""

    statuses: tuple[int, ...]
    out: tuple[str, ...]
    err: tuple[str, ...]
    modules: tuple[Counter[str], ...]
    random: tuple[dict[str, str], ...]
    files: dict[str, str] = field(repr=False)
    seconds: float


def ran(program: Program, keep: Path, recorded: bool, clock: float = 1.0) -> Ran:
    """Run it once, under `valgap run` or bare, by a clock that goes so fast. The working folder has the same path each time."""
    where = keep / "place"
    shutil.rmtree(where, ignore_errors=True)
    folders = {name: where / name for name in ("work", "home", "tmp", "kept")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    program.write(folders["work"])
    for file in folders["work"].rglob("*"):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    command = ["-m", "valgap", "run", "--out", str(folders["kept"] / "record")] if recorded else []
    begun = time.monotonic()
    if program.fresh:
        processes = [_start(program, rank, [*command, *program.command], folders, clock) for rank in range(program.ranks)]
        statuses = tuple(_status(p, begun + LIMIT_S) for p in processes)
    else:
        texts = folders["kept"] / "out-0", folders["kept"] / "err-0"
        variables = _variables(program, 0, folders, clock)
        pid = forks.start([*command, *program.command], folders["work"], variables, *texts, first=_hook().begin)
        statuses = (forks.wait(pid, begun + LIMIT_S),)
    seconds = time.monotonic() - begun
    ends = [_end(folders["kept"] / f"end-{rank}.json") for rank in range(program.ranks)]
    texts = {
        kind: tuple((folders["kept"] / f"{kind}-{rank}").read_text(errors="replace") for rank in range(program.ranks))
        for kind in ("out", "err")
    }
    return Ran(
        statuses,
        texts["out"],
        texts["err"],
        tuple(Counter(e["modules"]) for e in ends),
        tuple(e["random"] for e in ends),
        {f"{name}/{path}": digest for name in ("work", "home", "tmp") for path, digest in files_of(folders[name]).items()},
        round(seconds, 1),
    )


@cache
def _hook() -> Any:
    """The exit hook as a module: its handler is registered before any other, and a fork begins it."""
    spec = importlib.util.spec_from_file_location("undisturbed_hook", HERE / "site" / "sitecustomize.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare() -> None:
    """Before the first program: what forks share."""
    _hook()
    forks.import_once()


def _variables(program: Program, rank: int, folders: dict[str, Path], clock: float) -> dict[str, str]:
    given = [str(Path(p).absolute()) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    paths = [str(HERE / "site"), *given]
    own = {
        "PYTHONPATH": os.pathsep.join(paths), "HOME": str(folders["home"]), "TMPDIR": str(folders["tmp"]), "COLUMNS": "100",
        "VALGAP_CACHE": str(folders["kept"] / "cache"), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "SEED": "0",
        "UNDISTURBED_OUT": str(folders["kept"] / f"end-{rank}.json"), "UNDISTURBED_VARIANT": program.variant,
        "UNDISTURBED_CLOCK": str(clock),
        "TORCHINDUCTOR_CACHE_DIR": str(folders["kept"].parent.parent / "inductor"),
    }  # fmt: skip
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "VALGAP", "TORCH", "PYTHON"))} | own
    if program.ranks > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": program.ranks, "MASTER_ADDR": "127.0.0.1"}
        variables |= {k: str(v) for k, v in place.items()} | {"MASTER_PORT": str(_free_port(rank))}
    return variables


def _start(program: Program, rank: int, command: list[str], folders: dict[str, Path], clock: float) -> subprocess.Popen[bytes]:
    variables = _variables(program, rank, folders, clock)
    with (folders["kept"] / f"out-{rank}").open("wb") as out, (folders["kept"] / f"err-{rank}").open("wb") as err:
        return subprocess.Popen(
            [sys.executable, *command], cwd=folders["work"], env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            start_new_session=True,
        )  # fmt: skip


_ports: list[int] = []


def _free_port(rank: int) -> int:
    """A port that nobody listens at: a new one for rank 0, the same for the others."""
    if rank == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            _ports.append(free.getsockname()[1])
    return _ports[-1]


def _status(process: subprocess.Popen[bytes], until: float) -> int:
    try:
        return process.wait(max(1.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return 124


def _end(file: Path) -> dict[str, dict[str, str]]:
    """What the exit hook wrote; nothing of a process that was killed."""
    return json.loads(file.read_text()) if file.exists() else {"modules": {}, "random": {}}


def files_of(folder: Path) -> dict[str, str]:
    """Each path below a folder with what it holds."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / name
            if path.is_symlink():
                what = f"link to {path.readlink()}"
            elif path.is_dir():
                what = "folder"
            else:
                what = hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest() if path.is_file() else "special"
            found[path.relative_to(folder).as_posix()] = what
    return found
