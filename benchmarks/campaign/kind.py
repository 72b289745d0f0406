"""What a kind of fault is, and which half it belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from campaign.draft import Draft

STAGES = ("files", "draw", "pair", "read_train", "read_val", "forward", "loss", "update", "choose", "measure")
HALVES = ("calibration", "heldout")
APART = "neighbours"
Dose = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A way to spoil a program: where (any of these stages is a right answer), the catalogue's names of it, and how."""

    name: str
    stages: tuple[str, ...]
    codes: tuple[str, ...]
    apply: Callable[[Draft], Dose]
    sound: bool = False


def half_of(name: str) -> str:
    """The half of that kind: calibration where the first byte of its name's SHA-256 is even."""
    return HALVES[hashlib.sha256(name.encode()).digest()[0] % 2]


class Shelf:
    """Kinds of one file, in the order in which they are written."""

    def __init__(self, *stages: str) -> None:
        self.stages = stages
        self.kinds: list[Kind] = []

    def __call__(self, *codes: str, stages: tuple[str, ...] = ()) -> Callable[[Callable[[Draft], Dose]], Callable[[Draft], Dose]]:
        """Decorator: the function is a kind of this shelf, named after it."""

        def add(function: Callable[[Draft], Dose]) -> Callable[[Draft], Dose]:
            self.kinds.append(Kind(function.__name__, stages or self.stages, codes, function, self.stages == ()))
            return function

        return add
