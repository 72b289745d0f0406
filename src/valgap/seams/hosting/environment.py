"""What surrounds a run: versions, arguments, seeds, git state. Reads, and runs nothing but git."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "numpy", "Pillow", "lightning", "transformers", "accelerate", "valgap")
VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONHASHSEED", "WORLD_SIZE", "RANK")


def describe(argv: list[str], script: str) -> dict[str, Any]:
    """JSON-ready facts about the call; no secrets, only named variables. Costs nothing: the program waits for it."""
    return {
        "argv": argv,
        "script": script,
        "script_digest": digest_of(script),
        "cwd": os.getcwd(),  # noqa: PTH109
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "terminal": _terminal(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _terminal() -> list[int] | None:
    """[columns, lines] of the terminal that the program reads from; None where it reads from something else."""
    try:
        return list(os.get_terminal_size(0)) if os.isatty(0) else None
    except OSError:
        return None


def digest_of(script: str) -> str | None:
    """SHA-256 of a program's own file; None where it is none (a module's name, a notebook)."""
    import hashlib

    try:
        return hashlib.sha256(Path(script).read_bytes()).hexdigest()
    except OSError:
        return None


def surroundings(with_git: bool = True) -> dict[str, Any]:
    """JSON-ready facts about the machine, the versions and the state of git, once torch is there."""
    import platform

    return {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: v for name in PACKAGES if (v := _version(name)) is not None},
        **({"git": _git()} if with_git else {}),  # one process of a job asks
    }


def torch_facts() -> dict[str, Any]:
    """Seed, threads, memory and whether CUDA was used, at the program's end. Draws no random number, starts no CUDA."""
    import torch

    cuda = torch.cuda.is_initialized()
    return {
        "torch_seed": torch.initial_seed(),
        "threads": torch.get_num_threads(),
        "cuda": cuda,
        "gpus": torch.cuda.device_count() if cuda else 0,
        "peak_memory_bytes": _peak_memory(),
    }


def _peak_memory() -> int | None:
    """The largest resident size of this process so far, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    import subprocess

    def ask(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            capture_output=True,
            text=True,
            timeout=5,
            stdin=subprocess.DEVNULL,
            check=True,
        )
        return done.stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None
