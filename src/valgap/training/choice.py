"""`--backbone auto`: which backbone, and how its images are cut, by probes on training images alone.

Every candidate sees the same few images, those that are clearly behind go, and the others see twice as many: successive
halving (Jamieson and Talwalkar 2016), with a paired test in place of the half. Val is not looked at.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from rich.console import Console

from valgap.data import ImageTable
from valgap.engine import extract
from valgap.errors import ConfigError, ValgapError, WeightsError
from valgap.models import create_model
from valgap.models.here import backbones_here
from valgap.recipe import RECIPE
from valgap.training.forecast import spread_order
from valgap.training.held_out import losses_at
from valgap.training.probe import fit_probe
from valgap.training.scores import errors_gained
from valgap.training.screen import progress, say
from valgap.training.settings import Settings

AUTO = "auto"
# How many images, and of each class, are looked at first; and at most.
FIRST_IMAGES, FIRST_OF_A_CLASS, MOST_IMAGES = 160, 8, 1_600
# Out goes what is behind by so many standard errors of the paired difference of the loss.
BEHIND = 2.0
# Of the time limit, what choosing may take.
CHOICE_SHARE = 0.25
# Networks that were trained on crops of all sizes see more in a larger image: Touvron et al. 2019, "Fixing the train-test
# resolution discrepancy", table 2. Sides are multiples of the networks' whole step.
LARGER, STEP = 1.25, 32


@dataclass(frozen=True)
class Candidate:
    """A backbone and how its images are cut; None: as its weights expect."""

    backbone: str
    size: int | None = None
    crop: float | None = None

    def told(self) -> str:
        """For the screen."""
        side = f" at {self.size} px" if self.size is not None else ""
        return f"{self.backbone}{side}{', uncropped' if self.crop == 1 else ''}"


@dataclass(frozen=True)
class Seen:
    """What the probe of a candidate came to on images that it had not seen."""

    losses: npt.NDArray[np.float64]  # (n,) nats
    accuracy: float  # 0..1

    def told(self) -> str:
        """For the screen."""
        return f"loss {self.losses.mean():.3f}, accuracy {self.accuracy:.1%}"


class Contest:
    """Candidates on the training images of a table."""

    def __init__(self, table: ImageTable, seed: int, limit: float, screen: Console) -> None:
        """``limit``: time.monotonic() at which choosing ends with what it knows."""
        self.paths, self.labels = table.part(val=False)
        self.num_classes, self.seed, self.limit, self.screen = len(table.classes), seed, limit, screen
        self.order = spread_order(self.labels, seed)

    def best(self, candidates: list[Candidate], clearly: bool = False) -> tuple[Candidate, list[str]]:
        """(the candidate of the lowest loss, what was found); with ``clearly`` the first, unless another is clearly better.

        Raises WeightsError where none can be used.
        """
        left, known, told = list(candidates), dict[Candidate, Seen](), list[str]()
        count = min(max(FIRST_IMAGES, FIRST_OF_A_CLASS * self.num_classes), len(self.order), MOST_IMAGES)
        while True:
            seen = dict[Candidate, Seen]()
            for candidate in left:
                if (known or seen) and time.monotonic() > self.limit:
                    break
                found = self.look(candidate, count, told)
                if found is not None:
                    seen[candidate] = found
            else:
                left = list(seen)
            if known and len(seen) < len(left):
                break  # the time was up before all were seen on so many images
            known = seen
            if not known:
                raise WeightsError("no backbone on this machine can be used: " + "; ".join(told))
            left = list(known)
            first = min(left, key=lambda c: float(known[c].losses.mean()))
            left = [c for c in left if self.behind(known[c], known[first]) <= BEHIND]
            if len(left) == 1 or count == min(len(self.order), MOST_IMAGES) or time.monotonic() > self.limit:
                break
            count = min(2 * count, len(self.order), MOST_IMAGES)
        best = min(known, key=lambda c: float(known[c].losses.mean()))
        if clearly and candidates[0] in known and self.behind(known[candidates[0]], known[best]) <= BEHIND:
            best = candidates[0]
        shown = "; ".join(f"{c.told()}: {known[c].told()}" for c in sorted(known, key=lambda c: float(known[c].losses.mean())))
        return best, [*told, f"probes on {len(known[best].losses)} training images: {shown}"]

    def look(self, candidate: Candidate, count: int, told: list[str]) -> Seen | None:
        """The candidate's probe on the first images of the order; None where it cannot be used."""
        part = np.sort(self.order[:count])
        try:
            features = self.features(candidate, part)
        except (ValgapError, RuntimeError, AssertionError, ValueError) as error:
            told.append(f"{candidate.told()} is left out: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
            return None
        labels = self.labels[part]
        probe = fit_probe(features, labels, self.num_classes, RECIPE, self.seed)
        if not np.isfinite(probe.held_out).all():
            return Seen(np.zeros(1), float("nan"))
        held = labels[probe.swept]
        return Seen(losses_at(probe.held_out, held), float((probe.held_out.argmax(1) == held).mean()))

    def features(self, candidate: Candidate, part: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """(n, D) what the candidate's head would be given; kept in the cache, where a training finds them again."""
        loaded = create_model(candidate.backbone, self.num_classes, download=False)
        how = loaded.preprocessing.at(candidate.size, candidate.crop)
        with progress(f"{candidate.told()}, features of {len(part)} images", self.screen) as shown:
            task = shown.add_task("", total=len(part))

            def tell(done: int, total: int) -> None:
                shown.update(task, completed=done, total=total)

            paths = [self.paths[i] for i in part]
            return extract(loaded.model.eval(), loaded.head, how, paths, progress=tell, images=len(part))

    @staticmethod
    def behind(one: Seen, other: Seen) -> float:
        """By how many standard errors the one loses more than the other."""
        return errors_gained(one.losses - other.losses) if len(one.losses) == len(other.losses) else 0.0


def choose(settings: Settings, table: ImageTable, limit: float, screen: Console) -> Settings:
    """The settings with a backbone in place of ``auto``, and the side and crop of its images where they were not asked for.

    Raises:
        ConfigError: a file of weights was given, which is of one backbone.
        WeightsError: no backbone's weights are on this machine.
    """
    if settings.weights != "default":
        raise ConfigError("--backbone auto takes published weights: name the backbone that --weights is of")
    now = time.monotonic()
    until = now + CHOICE_SHARE * (limit - now) if math.isfinite(limit) else math.inf
    names = backbones_here()
    say(f"backbones whose weights are on this machine: {', '.join(names)}", screen)
    contest = Contest(table, settings.seed, until, screen)
    fewest = int(np.bincount(contest.labels, minlength=contest.num_classes).min())
    if fewest < 2:
        say(f"a class has one training image only, so that nothing can be compared: {names[0]} is taken", screen)
        return replace(settings, backbone=names[0])
    best = Candidate(names[0])
    if len(names) > 1:
        best, lines = contest.best([Candidate(n, settings.size) for n in names])
        for line in lines:
            say(line, screen)
        say(f"{best.backbone} is taken", screen)
    if settings.size is not None or time.monotonic() > until:
        return replace(settings, backbone=best.backbone)
    view, lines = contest.best(views_of(best.backbone, contest.num_classes), clearly=True)
    for line in lines:
        say(line, screen)
    usual = view.size is None
    say(f"{view.told() if not usual else 'images as its weights expect them'} {'stay' if usual else 'is taken'}", screen)
    return replace(settings, backbone=best.backbone, size=view.size, crop=view.crop)


def views_of(backbone: str, num_classes: int) -> list[Candidate]:
    """The usual view first; without the crop; larger and without it."""
    size = create_model(backbone, num_classes, download=False).preprocessing.size
    return [Candidate(backbone), Candidate(backbone, size, 1.0), Candidate(backbone, round(LARGER * size / STEP) * STEP, 1.0)]
