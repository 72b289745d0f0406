"""What a first training, from which a part of train is held out, says of a second one on all of it.

How far to go from the probe's weights to the fine-tuned ones, after which epoch to stop, at which temperature: so that what
comes out is in expectation no less accurate than the probe, at no higher loss, and val need choose nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from valgap.training.fit import Course, Fit, Logits
from valgap.training.scores import cautious_temperature, errors_gained, fit_temperature, losses

# One image of so many is held out, of each class alike; what is measured are at most so many.
PARTS = 3
MOST_MEASURED = 600
# How far from the probe's weights to the fine-tuned ones (`make bench-course`).
SHARES = (1 / 3, 2 / 3, 1.0)
# A gain is clear where the mean fall of the loss is so many of its standard errors, at any share. One is too little, since
# the best of several shares and epochs is looked at.
CLEAR = 2.0
# The share that is taken loses no more against the best than so many standard errors of their difference.
ABOUT = 1.0
# From half of the steps and two epochs on, a trial whose last epoch gains less than so many standard errors ends.
PROMISING = 0.5
# A network that is so much less accurate than the probe was thrown away by its rate: a lower one is tried.
HARM = 0.05


@dataclass(frozen=True)
class Trial:
    """What the first training came to on the held-out images: accuracies 0..1, losses in nats, each at its own temperature."""

    images: int
    course: Course  # share 0: the probe is better, or not clearly worse
    best: Course  # the least of those that fine-tune which is about as good as the best, whether or not that gains
    gain: float  # of accuracy at the best share, against the probe
    probe_loss: float
    loss: float  # at the best share
    temperature: float  # at the best share
    harmful: bool  # the fine-tuned weights themselves are far less accurate than the probe
    ended: str


class TrialFit(Fit):
    """The loop on a part of train, validated on the rest; an epoch is worth what its average with the probe is."""

    before: Logits  # (M, C) logits of the probe that saw the same part
    latest: Logits  # and of the last epoch
    gained: float = 0.0  # what the last epoch gained, in standard errors

    def measured(self, logits: Logits) -> tuple[float, float]:
        """(accuracy, loss) of the best average of these logits and the probe's, each at its own temperature."""
        self.latest = logits
        if not np.isfinite(logits).all():
            self.gained = -math.inf
            return 0.0, math.inf
        averages = [self.before + share * (logits - self.before) for share in SHARES]
        base = losses_at(self.before, self.val_labels)
        after = [losses_at(z, self.val_labels) for z in averages]
        best = min(range(len(averages)), key=lambda i: after[i].mean())
        self.gained = max(errors_gained(base - one) for one in after)
        return float((averages[best].argmax(1) == self.val_labels).mean()), float(after[best].mean())

    def tired(self) -> str:
        """As in any training, and where half of the steps did not lower the loss."""
        half = len(self.rows) > 2 and 2 * self.step >= self.total_steps
        return "half of it gained nothing" if half and self.gained < PROMISING else super().tired()

    def choose(self) -> tuple[str, Logits]:
        """The epoch of the lowest loss; `trial` goes on from there."""
        epoch, _, logits = self.best[0]
        return f"epoch {epoch}", logits

    def trial(self, before: Logits, bias: npt.NDArray[np.float64]) -> Trial:
        """Train, and weigh; ``bias`` (C,) is what will be added to the logits."""
        self.before = self.known = before
        done = self.run()
        epoch, state, logits = self.best[0]
        labels = self.val_labels
        harmful = bool((self.latest.argmax(1) == labels).mean() < (before.argmax(1) == labels).mean() - HARM - 1e-9)
        if not epoch:  # no average with any epoch was better than the probe
            return weigh(before, [(0.0, before)], labels, 0, harmful, done.ended)
        found: list[tuple[float, Logits]] = []
        for share in SHARES:
            self.put(state)
            self.mix(share)
            found.append((share, (self.validate() if share < 1 else logits) + bias.astype(np.float32)))
        # A schedule that the clock cut says nothing of where the next one should end.
        last = epoch if done.ended != "the time is up" else self.epochs
        return weigh(before + bias.astype(np.float32), found, labels, last, harmful, done.ended)


def weigh(
    before: Logits, found: list[tuple[float, Logits]], labels: npt.NDArray[np.int64], epochs: int, harmful: bool, ended: str
) -> Trial:
    """The trial of a probe's logits (M, C) and of those at each share of the way to the fine-tuned weights."""
    base = losses_at(before, labels)
    right = before.argmax(1) == labels
    after = {share: losses_at(logits, labels) for share, logits in found}
    gains = {share: float((logits.argmax(1) == labels).mean() - right.mean()) for share, logits in found}
    sound = [share for share in after if gains[share] >= 0]
    clear = [share for share in sound if errors_gained(base - after[share]) > CLEAR]
    best = min(clear or sound or list(after), key=lambda s: after[s].mean())
    # What lies nearer to the probe bears more that train does not show (Wortsman et al. 2022): the least that is about as good.
    share = min(s for s in (clear or sound or [best]) if errors_gained(after[s] - after[best]) <= ABOUT)
    loss, gain = float(after[share].mean()), gains[share]
    course = Course(epochs, share)
    kept = course if clear else replace(course, share=0.0)
    temperature = cautious_temperature(dict(found)[share], labels)
    return Trial(len(labels), kept, course, gain, float(base.mean()), loss, temperature, harmful, ended)


def losses_at(logits: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(M,) losses of labels (M,) in nats under logits (M, C), at the temperature that suits them."""
    return losses(logits / fit_temperature(logits, labels), labels)
