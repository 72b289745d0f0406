"""TRN420."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch.utils.data import DataLoader, TensorDataset

import valgap
from tests.checks.cases import TRAIN, VAL, found, healthy, quiet, replayed, samples, train_pass, val_pass
from tests.checks.test_stage_faults import FAULT, Known
from valgap.checks.stage import faulty_choose
from valgap.checks.training import too_few_epochs
from valgap.checks.training.stopped_too_early import CHECK
from valgap.record.reader import read_record
from valgap.stages import settle
from valgap.types import Case, Clear, Finding, Intervention, Judged, NotApplicable, PrintedNumber, SourceFile, Untreatable

IDS = np.arange(TRAIN, TRAIN + VAL)
SPREAD = np.random.default_rng(3).uniform(0.5, 1.5, VAL)


LEARNING = [0.38, 0.46, 0.53, 0.58, 0.63, 0.66, 0.68, 0.70, *[0.70] * 6]


def ended(
    accuracy: Sequence[float],
    loss: Sequence[float],
    train_loss: Sequence[float],
    train_accuracy: Sequence[float] | None = None,
    given: int = 50,
) -> Case:
    """A run whose loop was given so many epochs, with these curves; validation answers are nested from epoch to epoch."""
    passes = []
    for e, (right, nats, fit) in enumerate(zip(accuracy, loss, train_loss, strict=True)):
        ids = np.arange(TRAIN)
        table = samples(ids, (train_accuracy or LEARNING)[e])
        table = replace(table, loss=np.full(TRAIN, fit, np.float32))
        passes.append(train_pass(2 * e, e, ids, samples=table, loops=((e, given),)))
        table = replace(samples(IDS, right, seed=5), loss=(nats * SPREAD).astype(np.float32))
        passes.append(val_pass(2 * e + 1, e + 1, IDS, samples=table))
    return Case(replace(healthy().run, passes=tuple(passes)))


RISING = [0.40, 0.48, 0.55, 0.61, 0.66]
FALLING = [1.60, 1.40, 1.22, 1.07, 0.95]
FIT = [1.70, 1.45, 1.25, 1.10, 0.98]
WAITS = {
    1: ended([*RISING, 0.65], [*FALLING, 0.90], [*FIT, 0.88]),
    2: ended([*RISING, 0.64, 0.66], [*FALLING, 0.90, 0.82], [*FIT, 0.88, 0.80]),
    3: ended([*RISING, 0.64, 0.66, 0.65], [*FALLING, 0.90, 0.82, 0.76], [*FIT, 0.88, 0.80, 0.73]),
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_short_wait_on_the_way_up(wait: int) -> None:
    finding = found(CHECK.detect(WAITS[wait]))
    told = {e.name: (e.value, e.reference) for e in finding.evidence}
    assert told["epochs trained, of those that the loop over epochs gave"] == (5 + wait, 50)
    assert told["epochs at the end without a better val accuracy"][0] == wait
    assert finding.severity_points > 2 and f"{5 + wait} of 50" in finding.summary
    last, best = told["val accuracy, last epoch and best epoch"]
    (change,) = (e.value for e in finding.evidence if e.name.startswith("val accuracy, last epoch minus"))
    assert isinstance(last, float) and change == pytest.approx(100 * (last - best))  # type: ignore[operator]
    assert isinstance(best, float)
    assert told["one standard error of this val accuracy"][0] == pytest.approx(100 * (best * (1 - best) / VAL) ** 0.5)


def test_what_ended_otherwise_is_silent() -> None:
    curves = [*RISING, 0.65], [*FALLING, 0.90], [*FIT, 0.88]
    assert isinstance(CHECK.detect(ended(*curves, given=6)), Clear)  # it used all of its epochs
    stopped = Case(replace(WAITS[1].run, exit_status=1))
    assert isinstance(CHECK.detect(stopped), Clear)  # by hand, or by an error
    rising = ended(RISING, FALLING, FIT)
    assert isinstance(CHECK.detect(rising), Clear)  # no epoch was waited for: a trial that breaks off
    leave = "for epoch in range(50):\n    train()\n    if {}:\n        break\n"
    for condition, told in (("epoch == 4", False), ("stopper.stop", True), ("time() > limit", False), ("bad >= patience", True)):
        source = SourceFile("t.py", "0", leave.format(condition), entry=True)
        outcome = CHECK.detect(Case(replace(rising.run, sources=(source,))))
        assert isinstance(outcome, Finding) == told, condition
        assert not told or "at the best one" in found(outcome).summary
    before = ended([0.4, 0.39, 0.55, 0.61, 0.66, 0.65], [*FALLING, 0.9], [*FIT, 0.88])
    assert isinstance(CHECK.detect(before), Clear)  # such a wait was no reason to stop earlier in the same run
    assert isinstance(CHECK.detect(ended([0.4, 0.45], [1.6, 1.4], [1.7, 1.5])), NotApplicable)
    unknown = [replace(p, loops=()) for p in WAITS[1].run.passes]
    assert isinstance(CHECK.detect(Case(replace(WAITS[1].run, passes=tuple(unknown)))), NotApplicable)


def test_sound_ends_are_silent() -> None:
    plateau = [0.6, 0.7, 0.74, 0.76, 0.75, 0.76, 0.75, 0.74, 0.76, 0.75, 0.75, 0.76, 0.74, 0.75]
    flat = [1.2, 1.0, 0.9, 0.86, 0.85, 0.86, 0.85, 0.86, 0.85, 0.85, 0.86, 0.85, 0.86, 0.85]
    fit = [1.3, 1.05, 0.9, 0.85, 0.84, 0.84, 0.83, 0.83, 0.83, 0.83, 0.83, 0.83, 0.83, 0.83]
    assert quiet(CHECK.detect(ended(plateau, flat, fit)))  # ten epochs were waited for
    assert isinstance(CHECK.detect(ended(plateau[:6], flat[:6], fit[:6])), Clear)  # one, on a flat curve
    learnt = ended([*RISING, 0.65], [*FALLING, 0.94], [*FIT, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9, 0.99])
    assert isinstance(CHECK.detect(learnt), Clear)  # training images are known by heart
    fell = ended([*RISING, 0.50], [*FALLING, 1.3], [*FIT, 0.88])
    assert isinstance(CHECK.detect(fell), Clear)  # validation fell
    nearly = ended([*RISING, 0.65], [*FALLING, 0.90], [*FIT, 0.88], [0.4, 0.5, 0.55, 0.6, 0.62, 0.62])
    assert isinstance(CHECK.detect(nearly), Clear)  # answers become surer, and no better
    right = [0.93, 0.95, 0.97, 0.98, 0.99, 0.98]
    full = ended(right, [0.5, 0.4, 0.3, 0.25, 0.2, 0.17], [0.5, 0.4, 0.3, 0.24, 0.2, 0.16], [0.9, 0.92, 0.94, 0.95, 0.95, 0.96])
    assert isinstance(CHECK.detect(full), Clear)  # there is no room left


def test_the_plan_is_read_from_prints_and_arguments() -> None:
    run = replace(WAITS[1].run, passes=tuple(replace(p, loops=()) for p in WAITS[1].run.passes))
    line = PrintedNumber("loss", 0.5, 10, "Epoch [6/30] loss 0.5")
    told = found(CHECK.detect(Case(replace(run, printed=(line,)))))
    assert "of 29" in told.summary  # it may count from 0
    last = replace(line, line="Epoch 5/6 loss 0.5")
    assert isinstance(CHECK.detect(Case(replace(run, printed=(last,)))), Clear)
    assert "of 40" in found(CHECK.detect(Case(replace(run, header={"argv": ["t.py", "--epochs", "40"]})))).summary
    resumed = {"argv": ["t.py", "--epochs", "40", "--resume", "a.pt"]}
    assert isinstance(CHECK.detect(Case(replace(run, header=resumed))), NotApplicable)


def test_a_measured_gain_counts_and_so_does_none() -> None:
    gained = found(CHECK.detect(replayed(WAITS[1], 0.65, longer=(0.8, 0.001))))
    assert gained.severity_points == pytest.approx(15) and gained.confidence == pytest.approx(0.8)
    assert isinstance(CHECK.detect(replayed(WAITS[1], 0.65, longer=(0.655, 0.9))), Clear)
    early = replace(FAULT, kind="early")
    assert found(CHECK.detect(replace(WAITS[1], stages=Known(choose=early)))).severity_points == 20


def test_its_name_is_told_and_its_stage_stands_under_it() -> None:
    stages = Known(choose=replace(FAULT, kind="early"))
    case = replace(WAITS[1], stages=stages)
    judged = [Judged(c, c.detect(case)) for c in (faulty_choose.CHECK, CHECK)]
    stage, named = (j.outcome for j in settle(judged, stages))
    assert found(named) and isinstance(stage, Finding) and stage.confidence < 0.5


def test_too_few_epochs_are_not_told_of_a_run_that_had_more() -> None:
    gained = replayed(WAITS[1], 0.65, longer=(0.8, 0.001))
    assert isinstance(too_few_epochs.CHECK.detect(gained), NotApplicable)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["t.py", "--patience", "2"], {"place": 2, "value": "10", "factor": 3}),
        (["t.py", "--early-stopping-patience=5"], {"place": 1, "value": "--early-stopping-patience=15", "factor": 3}),
        (["t.py", "patience=1"], {"place": 1, "value": "patience=10", "factor": 3}),
        (["t.py", "--lr-patience", "2"], None),
    ],
)
def test_the_program_is_called_with_more_patience(argv: list[str], expected: dict[str, object] | None) -> None:
    assert CHECK.treat is not None
    treatment = CHECK.treat(Case(replace(healthy().run, header={"argv": argv})), None)  # type: ignore[arg-type]
    assert isinstance(treatment, Untreatable) if expected is None else treatment == Intervention("arguments", expected)


def train(patience: int, folder: Path) -> Any:
    """A small network that learns slowly, its validation of sixty images watched with this patience; its record."""
    draw = torch.Generator().manual_seed(11)
    torch.manual_seed(11)
    centres = torch.randn(5, 3, 4, 4, generator=draw)

    def images(n: int) -> TensorDataset:
        labels = torch.arange(n) % 5
        return TensorDataset(centres[labels] + 2.2 * torch.randn(n, 3, 4, 4, generator=draw), labels)

    train_set, val_set = images(240), images(60)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.006)
    best, waited = 0, 0
    with valgap.watch(out=folder, closing=0):
        for _ in range(24):
            model.train()
            for x, y in DataLoader(train_set, 32, shuffle=True):
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                right = sum(int((model(x).argmax(1) == y).sum()) for x, y in DataLoader(val_set, 60))
            best, waited = (right, 0) if right > best else (best, waited + 1)
            if waited >= patience:
                break
    return read_record(folder)


def test_real_trainings_with_little_and_with_enough_patience(tmp_path: Path) -> None:
    short, whole = train(1, tmp_path / "short"), train(8, tmp_path / "whole")
    finding = found(CHECK.detect(Case(short)))
    gain = 100 * (whole.last_validation.samples.accuracy - short.last_validation.samples.accuracy)
    assert gain > 5 and finding.severity_points > 2
    assert quiet(CHECK.detect(Case(whole)))


def test_a_loop_that_is_left_after_a_far_better_epoch() -> None:
    """Two epochs tell it: no plan ends there. Not where the last gain is noise, nor where all epochs were used."""
    left = ended([0.40, 0.55], FALLING[:2], FIT[:2], given=3)
    finding = found(CHECK.detect(left))
    assert "after 2 of 3 epochs" in finding.summary and 0.5 <= finding.confidence < 0.9
    assert not isinstance(CHECK.detect(ended([0.40, 0.42], FALLING[:2], FIT[:2], given=3)), Finding)
    assert isinstance(CHECK.detect(ended([0.40, 0.55], FALLING[:2], FIT[:2], given=2)), Clear)
    assert not isinstance(CHECK.detect(ended([0.40, 0.65, 0.55], FALLING[:3], FIT[:3], given=9)), Finding)
