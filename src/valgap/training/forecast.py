"""How long a training will take, by the clock of a few images; and which images a time limit leaves room for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from valgap.engine.reading import read_pixels
from valgap.training.held_out import PARTS
from valgap.training.stages import LAST, usual_epochs

if TYPE_CHECKING:
    from valgap.training.program import _Program

# So many images are timed, once to warm up and once for the clock.
TIMED_IMAGES = 4
# Of so many files at least it is asked whether the cache knows them.
ASKED_FILES = 200
# A step takes so many times as long as looking: forward, and the gradients of activations and of weights.
STEP_COST = 3.0
# A trial sees its held-out images after each epoch, and at two shares more.
TRIAL_COST = 1.3


@dataclass(frozen=True)
class Forecast:
    """Seconds: of the pass over ``images`` that are not in the cache, of a training with held-out images, and of one on all."""

    images: int
    seeing_s: float
    trial_s: float
    training_s: float
    may_stop: bool  # whether the trial may say that the head alone learns

    @property
    def learning_s(self) -> float:
        """Seconds of both trainings."""
        return self.trial_s + self.training_s

    def line(self) -> str:
        """For the first screen."""
        parts = [f"{self.images} images to look at ({clock(self.seeing_s)})"] if self.images else []
        if self.trial_s:
            parts.append(f"a training with held-out images ({clock(self.trial_s)})")
        if self.training_s:
            parts.append(f"one on all of train{' if it pays' if self.may_stop else ''} ({clock(self.training_s)})")
        most = self.seeing_s + self.learning_s
        return f"expected: at most about {clock(most)}: " + (", ".join(parts) or "everything is in the cache")


def clock(seconds: float) -> str:
    """Seconds or minutes, rounded as such estimates deserve."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def planned(program: _Program) -> str:
    """What is to learn, as far as it is known before anything was tried."""
    asked = program.recipe.unfreeze
    if asked != "auto":
        return asked
    return program.behind_cut() if program.cut is not None else "head"


def forecast(program: _Program, learns: str, unseen: int) -> Forecast:
    """By looking at a few images with the network as it is: the way that is then used is rarely slower.

    Of a training of what ``learns``, and of a pass over ``unseen`` images before it.
    """
    asked = program.recipe.unfreeze
    paths = program.train_paths[:TIMED_IMAGES]
    started = time.perf_counter()
    pixels = np.stack([read_pixels(path, program.preprocessing) for path in paths])
    reading_s = (time.perf_counter() - started) / len(paths)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).to(program.device)
    with torch.no_grad():
        whole_s = timed(lambda: program.model(images)) / len(paths)
        tail_s = whole_s
        if learns in LAST and program.cut is not None:
            before, tail = program.cut.front(images), program.cut.tail
            tail_s = timed(lambda: tail(before)) / len(paths)
    epochs = usual_epochs(program.recipe, learns, len(program.train_labels))
    train, val = len(program.train_labels), len(program.val_labels)
    training_s = epochs * (STEP_COST * train + val) * tail_s
    if learns not in LAST:  # from images
        training_s += epochs * (train + val) * reading_s
    held_out = program.recipe.start == "probe" and learns != "head" and (asked == "auto" or program.recipe.select == "held_out")
    trial_s = TRIAL_COST * (1 - 1 / PARTS) * training_s if held_out else 0.0
    return Forecast(unseen, unseen * (whole_s + reading_s), trial_s, training_s, asked == "auto")


def not_cached(program: _Program) -> int:
    """About how many images have to be looked at, by a part of them: to know, each file has to be read."""
    if program.recipe.start != "probe":
        return 0
    paths = [*program.train_paths, *program.val_paths]
    asked = paths[:: max(1, len(paths) // ASKED_FILES)]
    return round(program.sight.unseen(asked) / len(asked) * len(paths))


def timed(work: Callable[[], object]) -> float:
    """Seconds of the second call."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread_order(labels: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """(N,) image numbers in random order, of which each beginning holds its share of every class: two of each come first."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    number = np.concatenate([np.arange(n) for n in sizes])
    place = np.where(number < 2, -1.0, (number + 0.5) / np.repeat(sizes, sizes))
    return order[np.argsort(place, kind="stable")]
