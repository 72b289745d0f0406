"""Under a time limit: the images that there is time to look at, of each class its share."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from valgap.training.forecast import spread_order
from valgap.training.result import STATE
from valgap.training.saved import damage_is_said, write_whole

if TYPE_CHECKING:
    from valgap.training.program import _Program

SEEN = "seen.json"
# Of the time that is left, the share that may go into looking at the images, and how many go at a time.
SEEING_SHARE = 0.4
SEEN_AT_ONCE = 64


def keep_what_fits(program: _Program) -> None:
    """Leave the program only those images that there was time to look at; nothing changes without a limit."""
    file = program.out / STATE / SEEN
    chosen: dict[str, list[int]] | None = program.ranks.same(
        lambda: _chosen(file, len(program.train_paths), len(program.val_paths)) if file.exists() else None
    )
    if chosen is None:
        if math.isinf(program.limit):
            return
        counts = len(program.val_paths), len(program.train_paths)
        val = _look_in_time(program, program.val_paths, program.val_labels, "features of val", counts[0] / sum(counts))
        train = _look_in_time(program, program.train_paths, program.train_labels, "features of train", 1.0)
        chosen = {"train": train, "val": val}
        if (len(val), len(train)) == counts:
            return
        program.say(
            f"the time limit leaves room for {len(train)} of {counts[1]} training images "
            f"and {len(val)} of {counts[0]} validation images, of each class its share"
        )
        if program.ranks.first:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(chosen))
    program.train_paths, program.train_labels = _those(program.train_paths, program.train_labels, chosen["train"])
    program.val_paths, program.val_labels = _those(program.val_paths, program.val_labels, chosen["val"])


def _chosen(file: Path, train: int, val: int) -> dict[str, list[int]]:
    """What an earlier call left the program, of so many images. Raises RecordError where that cannot be."""
    with damage_is_said(file.parent):
        found: dict[str, list[int]] = json.loads(file.read_text(encoding="utf-8"))
        for name, count in (("train", train), ("val", val)):
            if not found[name] or any(type(n) is not int or not 0 <= n < count for n in found[name]):
                raise ValueError(f"there are {count} images of {name}")
        return found


def _those(paths: list[Path], labels: npt.NDArray[np.int64], numbers: list[int]) -> tuple[list[Path], npt.NDArray[np.int64]]:
    return [paths[i] for i in numbers], labels[numbers]


def _look_in_time(program: _Program, paths: list[Path], labels: npt.NDArray[np.int64], what: str, share: float) -> list[int]:
    """Look at as many images as fit into this share of the time for looking; returns their numbers, in order."""
    until = time.monotonic() + share * SEEING_SHARE * (program.limit - time.monotonic())
    order = spread_order(labels, program.seed)
    fewest = 2 * program.num_classes
    seen = 0
    while seen < len(order) and (seen < fewest or program.ranks.same(lambda: time.monotonic() < until)):
        part = order[seen : seen + SEEN_AT_ONCE]
        program.see([paths[i] for i in part], what)
        seen += len(part)
    return sorted(order[:seen].tolist())
