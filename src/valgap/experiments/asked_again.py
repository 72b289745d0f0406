"""The recorded weights asked once more, as the program gives them its images and under a change: nothing is trained.

Two re-runs of the program up to the end of its first epoch, forked from one: in both the recorded weights answer validation and
some hundred training images in eval mode, in one under the change.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from valgap.experiments.arm import WEIGHTS_FILE, ArmSpec
from valgap.experiments.arm_result import ArmResult, last_scored
from valgap.experiments.lab import named_as_in
from valgap.experiments.plan import arm_memory, can_stop_early, epoch_seconds, recorded_epochs
from valgap.experiments.runner import Limits, Runner
from valgap.experiments.scoring import SAME_ANSWERS, same_accuracy, same_answers
from valgap.experiments.suspects import NotRepeatableError, base_spec
from valgap.types import AskedAgain, Intervention, RunRecord, SampleTable, TwiceAnswered

TRAIN_IMAGES = 600
LEAST_IMAGES = 40
# Nobody waits longer for what no re-run was asked for.
MOST_S = 300.0
PATIENCE = 5.0
MOST_FILES = 200_000


class Again:
    """Implements ``types.AskAgain`` for one run; ``say`` is told before its program is run."""

    def __init__(self, run: RunRecord, say: Callable[[str], None] | None = None) -> None:
        self.run, self._say = run, say
        self.interrupted = False

    def __call__(self, treatment: Intervention) -> AskedAgain | str:
        spec = self._spec()
        if isinstance(spec, str):
            return spec
        specs = [spec, replace(spec, interventions=[treatment])]
        seconds = sum(epoch_seconds(self.run))
        limits = Limits(MOST_S + PATIENCE * seconds, arm_memory(self.run))
        folder = Path(self.run.path) / "experiments"
        end = time.monotonic() + MOST_S
        runner = Runner(folder, 1, end, grace=MOST_S, limits=limits, planned=2, warm=True, like=self.run)
        if self._say is not None and any(runner.finished(s) is None for s in specs):
            self._say(f"asking the recorded weights about images read from their files, about {max(5, 5 * round(seconds / 5))} s")
        try:
            own, changed = runner.run(specs)
        except KeyboardInterrupt:
            self.interrupted = True
            return "it was interrupted"
        finally:
            runner.close()
            runner.forget_features()
        broken = own.error or changed.error
        if broken is not None:
            return f"the recorded weights could not be asked again: {broken}"
        if not changed.acted or not changed.acted[0]:
            return "the change found nothing to act on"
        if not own.acted[-1] or not changed.acted[-1]:
            return "the recorded weights could not be put into the program"
        if not self._repeats(own):
            return "the recorded weights, asked again, do not give the recorded answers"
        return AskedAgain(_twice(own.samples, changed.samples), _twice(*(self._training(a) for a in (own, changed))))

    def _spec(self) -> ArmSpec | str:
        weights = Path(self.run.path).resolve() / WEIGHTS_FILE
        if not weights.is_file():
            return "no weights were recorded"
        if sum(epoch_seconds(self.run)) > MOST_S:
            return f"time: an epoch of this program takes more than {MOST_S / 60:.0f} minutes"
        if sum(d.size for d in self.run.datasets.values()) > MOST_FILES:
            return f"fewer than {MOST_FILES} images"
        try:
            base = base_spec(self.run)
        except NotRepeatableError as why:
            return str(why)
        early, last = can_stop_early(self.run), self.run.last_train
        ask = early and last is not None and last.loader >= 0 and recorded_epochs(self.run) > 0 and not self.run.own_updates
        size = max(1, len(last.samples)) if last is not None else 1
        share = min(1.0, TRAIN_IMAGES / size) if ask else 1.0
        return replace(base, epochs=1 if early else 0, weights=str(weights), ask_training=ask, fraction=share)

    def _repeats(self, own: ArmResult) -> bool:
        """Whether the answers to validation are the recorded ones, or as good: it may draw random numbers."""
        recorded = last_scored(self.run, own.spec.validation)
        if recorded is None:
            return False
        before = replace(own, record=self.run, samples=recorded.samples, names=None)
        after = named_as_in(self.run, own)
        return same_answers(before, after) >= SAME_ANSWERS or same_accuracy(before, after)

    def _training(self, arm: ArmResult) -> SampleTable | None:
        assert arm.record is not None
        last, trained = arm.record.last_train, self.run.last_train
        if last is None or trained is None or not arm.spec.ask_training or self.run.mixes(trained):
            return None
        held = arm.acted[len(arm.spec.interventions)] > 0  # steps held back, see ``without_training``: else it has trained
        return last.samples if held else None


def _twice(own: SampleTable | None, changed: SampleTable | None) -> TwiceAnswered | None:
    """The answers to the samples of both; None where these are few."""
    if own is None or changed is None:
        return None
    tables = [_by_sample(t) for t in (own, changed)]
    both = sorted(tables[0].keys() & tables[1].keys())
    if len(both) < LEAST_IMAGES:
        return None
    rows = np.array([[t[s] for s in both] for t in tables], np.float64)
    otherwise = float((rows[0, :, 2] != rows[1, :, 2]).mean())
    return TwiceAnswered(rows[..., 0] > 0, rows[..., 1], otherwise)


def _by_sample(table: SampleTable) -> dict[int, tuple[bool, float, int]]:
    """By sample: whether it is right, its loss, the answer."""
    keep = table.labelled
    columns = [c[keep].tolist() for c in (table.sample, table.prediction == table.target, table.prediction)]
    rows = zip(*columns, table.bounded_loss.tolist(), strict=True)
    return {s: (right, loss, answer) for s, right, answer, loss in rows if s >= 0 and np.isfinite(loss)}
