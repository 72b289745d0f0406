"""The devices that a re-run may write to: those that every program has, accelerator cards, and its own standard streams."""

from __future__ import annotations

import glob
import os

PLAIN = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts")
# Cards are commanded through their device files. Those of InfiniBand are a network, and are left out.
CARDS = (
    "nvidia*", "nvmap", "nvhost*", "nvgpu*", "nvsciipc", "dri", "kfd", "dxg", "accel*", "habanalabs*", "hl[0-9]*", "davinci*",
    "hisi_hdc", "devmm_svm", "mali*", "apex_*", "neuron*", "xdna*",
)  # fmt: skip
STANDARD_STREAMS = (0, 1, 2)


def usable() -> list[str]:
    """Their paths; a program that opens /dev/stdout opens what its standard output leads to."""
    cards = [path for pattern in CARDS for path in sorted(glob.glob(f"/dev/{pattern}"))]
    return [*(f"/dev/{name}" for name in PLAIN), *cards, *(f"/proc/self/fd/{n}" for n in STANDARD_STREAMS if _is_file(n))]


def _is_file(number: int) -> bool:
    """Whether it leads to something that has a path: Landlock has no rules for pipes, and none are needed."""
    try:
        return os.readlink(f"/proc/self/fd/{number}").startswith("/")
    except OSError:
        return False
