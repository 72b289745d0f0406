"""What held-out images say of a training: by known logits, and on the line between two known sets of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from valgap.recipe import RECIPE, Recipe
from valgap.training.fit import Course, Fit, Watch
from valgap.training.held_out import Trial, TrialFit, weigh
from valgap.training.saved import FitStore
from valgap.training.scores import cautious_temperature, fit_temperature
from valgap.training.stages import hold_batchnorm

Floats = npt.NDArray[np.float32]
NOTHING = np.zeros(3)
SGD = Recipe.changed(RECIPE, {"learning_rate": 0.05, "batch_size": 8, "warmup_steps": 0, "precision": "fp32"})


def answers(sure: float, right: float, count: int = 300, seed: int = 0) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Logits (N, 3) that are right in this share, and labels (N,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    said = np.where(rng.random(count) < right, labels, (labels + 1) % 3)
    return (sure * np.eye(3)[said] + rng.normal(0, 0.3, (count, 3))).astype(np.float32), labels


def weighed(found: list[tuple[float, Floats]], before: Floats, labels: npt.NDArray[np.int64]) -> Trial:
    return weigh(before, found, labels, 4, False, "")


def test_the_share_of_the_lowest_calibrated_loss_is_taken() -> None:
    before, labels = answers(2.0, 0.7)
    better, best = answers(2.0, 0.8)[0], answers(9.0, 0.9)[0]  # overconfident, which a temperature mends
    trial = weighed([(1 / 3, better), (2 / 3, best), (1.0, before)], before, labels)
    assert trial.course == trial.best == Course(4, 2 / 3)
    assert trial.gain == pytest.approx((best.argmax(1) == labels).mean() - (before.argmax(1) == labels).mean())
    assert trial.loss < trial.probe_loss
    assert trial.temperature > 2


def test_what_is_no_clear_gain_keeps_the_probe() -> None:
    before, labels = answers(2.0, 0.7)
    same = before + np.random.default_rng(5).normal(0, 0.05, before.shape).astype(np.float32)
    for found in (same, answers(2.0, 0.6)[0]):
        trial = weighed([(1.0, found)], before, labels)
        assert trial.course.share == 0
        assert trial.best == Course(4, 1.0)  # for those who ask for it by name


def test_a_lower_loss_at_a_lower_accuracy_is_no_gain() -> None:
    before, labels = answers(0.4, 0.75)
    wrong = before.argmax(1) != labels
    found = before.copy()
    found[wrong] = 0.1 * before[wrong]  # unsure where it was wrong: the loss falls
    first = np.flatnonzero(~wrong)[:4]
    found[first] = 0.9 * before[first] - 0.5 * np.eye(3, dtype=np.float32)[labels[first]]  # and four more are wrong
    assert weighed([(1.0, found)], before, labels).course.share == 0
    found[first] = before[first]
    assert weighed([(1.0, found)], before, labels).course.share == 1


def test_answers_are_made_surer_with_caution() -> None:
    logits, labels = answers(2.0, 0.97)
    assert fit_temperature(logits, labels) < cautious_temperature(logits, labels) <= 1
    few, of_few = answers(2.0, 0.97, 30)
    assert fit_temperature(few, of_few) < cautious_temperature(few, of_few) <= 1, "one wrong of thirty may be chance"
    plenty, of_plenty = answers(2.0, 0.97, 20_000)
    assert cautious_temperature(plenty, of_plenty) == pytest.approx(fit_temperature(plenty, of_plenty), rel=0.1)
    many, of_many = answers(9.0, 0.7, 20_000)
    assert cautious_temperature(many, of_many) == fit_temperature(many, of_many) > 2


class Points(TensorDataset):
    """Two-dimensional points of three classes."""

    epoch = 0

    def __init__(self, count: int, seed: int, shift: int = 0) -> None:
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 3
        points = np.array([[2, 0], [-1, 1.7], [-1, -1.7]])[labels] + rng.normal(0, 1, (count, 2))
        labels = (labels + shift) % 3
        self.samples = [(str(i), int(y)) for i, y in enumerate(labels)]
        super().__init__(torch.tensor(points, dtype=torch.float32), torch.tensor(labels))


def loader(count: int, seed: int, shift: int = 0) -> DataLoader[tuple[torch.Tensor, ...]]:
    points = Points(count, seed, shift)
    return DataLoader(points, 8 if seed == 0 else 64, shuffle=seed == 0, generator=torch.Generator())


def network() -> tuple[nn.Sequential, nn.Linear]:
    torch.manual_seed(0)
    head = nn.Linear(8, 3)
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), head), head


def fitted(course: Course, store: FitStore | None = None, held: bool = False) -> tuple[nn.Sequential, Fit]:
    model, head = network()
    if held:
        hold_batchnorm(model)
    fit = Fit(model, head, loader(64, 0), loader(30, 1), SGD, 4, 0, store, Watch(), course=course)
    return model, fit


def test_weights_lie_on_the_line_from_the_first_to_the_last() -> None:
    begin = {k: v.clone() for k, v in network()[0].state_dict().items()}
    ends = []
    for share in (1.0, 0.25):
        model, fit = fitted(Course(3, share))
        result = fit.run()
        assert [row.epoch for row in result.rows] == [0, 1, 2, 3], "of four that the schedule has"
        assert np.array_equal(result.val_logits, fit.validate())
        ends.append({k: v.clone() for k, v in model.state_dict().items()})
    assert "0.25 of the way there from the probe" in result.chosen
    for name, value in begin.items():
        if value.is_floating_point():
            assert torch.allclose(ends[1][name], value + 0.25 * (ends[0][name] - value), atol=1e-6), name
    assert not torch.equal(ends[0]["1.running_mean"], begin["1.running_mean"])  # BatchNorm was not held, and lies there too


@pytest.mark.parametrize("sure", [0.0, 8.0])
def test_validation_puts_the_probe_back_where_it_is_answered_clearly_worse(sure: float) -> None:
    """Its images may be of another kind than train's, of which held-out train knows nothing."""
    model, head = network()
    val = loader(30, 1)
    labels = np.array([y for _, y in val.dataset.samples])
    known = (sure * np.eye(3)[labels]).astype(np.float32)
    begin = {k: v.clone() for k, v in model.state_dict().items()}
    fit = Fit(model, head, loader(64, 0), val, SGD, 4, 0, None, Watch(), known=known, course=Course(3, 1.0))
    result = fit.run()
    refused = sure > 0
    assert bool(result.refused) == refused and (result.chosen == "epoch 0") == refused
    kept = all(torch.equal(v, begin[k]) for k, v in model.state_dict().items() if v.is_floating_point())
    assert kept == refused
    assert not refused or ("rose from 0.00" in result.refused and np.array_equal(result.val_logits, known))


def test_a_course_is_resumed_to_the_same_bits(tmp_path: Path) -> None:
    whole, fit = fitted(Course(3, 0.5), held=True)
    fit.run()
    fitted(Course(1, 0.5), FitStore(tmp_path), held=True)[1].run()  # as if it had been killed after the first epoch
    model, second = fitted(Course(3, 0.5), FitStore(tmp_path), held=True)
    assert [row.epoch for row in second.run().rows] == [0, 1, 2, 3]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def tried() -> tuple[TrialFit, Trial]:
    """A trial from a head that knows nothing yet."""
    model, head = network()
    fit = TrialFit(model, head, loader(96, 0), loader(90, 2), SGD, 6, 0, None, Watch())
    return fit, fit.trial(fit.validate(), NOTHING)


def test_a_trial_of_what_can_be_learnt_goes_on() -> None:
    _, trial = tried()
    assert trial.course.share > 0
    assert trial.gain > 0
    assert trial.images == 90
    assert not trial.harmful
    assert trial.loss < trial.probe_loss


def test_a_trial_of_what_cannot_ends_half_way() -> None:
    """A probe that knows the classes, and labels that are all wrong."""
    model, head = network()
    model.load_state_dict(tried()[0].module.state_dict())
    fit = TrialFit(model, head, loader(96, 0, shift=1), loader(90, 2), SGD, 6, 0, None, Watch())
    trial = fit.trial(fit.validate(), NOTHING)
    assert (trial.course.share, trial.best.share) == (0, 0)
    assert trial.ended == "half of it gained nothing"
    assert len(fit.rows) == 4
    assert trial.harmful
