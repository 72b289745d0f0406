"""Sums by tenths against the probes on whole arrays, and stratified samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from valgap.features.large import ridge
from valgap.features.large.sampled import stratified_sample
from valgap.features.large.table import DiskFeatures, LookTable
from valgap.features.probes import PENALTIES, cross_validated, fit, one_hot, standardised
from valgap.types import ImageRows

N, D, C = 700, 30, 3


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[DiskFeatures, ImageRows, np.ndarray]:
    """Three overlapping clouds, one in five in validation, as a table on disk with rows in another order."""
    monkeypatch.setenv("VALGAP_CACHE", str(tmp_path))
    monkeypatch.setattr("valgap.features.large.table.BLOCK", 64)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, C, N)
    values = (rng.normal(size=(N, D)) + 0.5 * rng.normal(size=(C, D))[labels]).astype(np.float16)
    names = tuple(f"{i}.jpg" for i in range(N))
    rows = ImageRows(names, tuple(str(tmp_path / n) for n in names), labels, np.arange(N) >= 4 * N // 5, ("a", "b", "c"))
    table = LookTable(rows.paths, "test")
    for part in np.array_split(rng.permutation(N), 7):
        table.append(part.tolist(), {"features": values[part]})
    table.refresh()
    return DiskFeatures(table, 0, D, np.ones(N, bool)), rows, values.astype(np.float32)


def test_rows_come_by_places(features: tuple[DiskFeatures, ImageRows, np.ndarray]) -> None:
    disk, _, values = features
    places = np.array([5, 3, 3, 600])
    assert np.array_equal(disk[places], values[places])
    assert np.array_equal(disk[10:20], values[10:20])
    assert np.isfinite(disk[:, 0]).all()
    with pytest.raises(IndexError, match="read by rows"):
        disk[:, 1]


def test_sums_give_the_probes_of_whole_arrays(features: tuple[DiskFeatures, ImageRows, np.ndarray]) -> None:
    disk, rows, values = features
    train = np.flatnonzero(~rows.is_val)
    sums = ridge.sums_of(disk, rows, train)
    design = standardised(values, train)
    assert np.allclose(sums.design(values), design, atol=1e-4)
    targets = one_hot(rows.labels[train], C)
    assert np.allclose(sums.weight(range(10), 0.2), fit(design[train], targets, 0.2), atol=1e-4)
    half = train[sums.tenth[train] < 5]
    assert np.allclose(sums.weight(range(5), 0.2), fit(design[half], one_hot(rows.labels[half], C), 0.2), atol=1e-4)
    # The penalty is chosen by the squared error that whole arrays give, which takes no pass here.
    fold = sums.tenth[train] // 2
    scores, penalty = cross_validated(design[train], rows.labels[train], C, fold)
    chosen = ridge.chosen_penalty(sums)
    assert chosen[0] == pytest.approx(penalty)
    assert chosen[0] in [p * (D + 1) for p in PENALTIES]
    held = ridge.held_out(disk, rows, sums, chosen, np.ones(N, bool))
    assert (held.answers[train] == scores.argmax(1)).mean() > 0.995
    assert held.folds[train].tolist() == fold.tolist()
    assert (held.folds[rows.is_val] == -1).all()
    everything = fit(design[train], targets, penalty)
    outside = np.flatnonzero(rows.is_val)
    assert held.answers[outside].tolist() == (design[outside] @ everything).argmax(1).tolist()
    assert 0.5 < held.val_accuracy < 1


@pytest.mark.parametrize("with_val", [True, False])
def test_a_curve_rises_to_the_probe_on_all(features: tuple[DiskFeatures, ImageRows, np.ndarray], with_val: bool) -> None:
    disk, rows, _ = features
    if not with_val:
        rows = ImageRows(rows.names, rows.paths, rows.labels, np.zeros(N, bool), rows.classes)
    sums = ridge.sums_of(disk, rows, np.flatnonzero(~rows.is_val))
    chosen = ridge.chosen_penalty(sums)
    curve = ridge.learning_curve(disk, rows, sums, chosen[0], np.ones(N, bool))
    assert curve.on_val == with_val
    held = ridge.held_out(disk, rows, sums, chosen, np.ones(N, bool))
    top = held.val_accuracy if with_val else held.train_accuracy
    assert curve.accuracies[-1].mean() == pytest.approx(top, abs=0.02)
    assert curve.accuracies[0].mean() < curve.accuracies[-1].mean()
    assert curve.sizes[-1] == sums.counts.sum() * (1 if with_val else 0.8)


def test_probes_need_two_classes(features: tuple[DiskFeatures, ImageRows, np.ndarray]) -> None:
    _, rows, _ = features
    one = ImageRows(rows.names, rows.paths, np.zeros(N, np.int64), rows.is_val, rows.classes)
    assert "two classes" in str(ridge.usable_train(one, np.ones(N, bool)))


def test_samples_keep_the_shares_of_classes() -> None:
    labels = np.repeat([0, 1, 2, 3], [6000, 3000, 997, 3])
    places = np.arange(10_000)
    found = stratified_sample(places, labels, 1000)
    assert np.bincount(labels[found]).tolist() == [600, 300, 100, 1]
    assert (np.diff(found) > 0).all()
    assert np.array_equal(found, stratified_sample(places, labels, 1000))
    assert not np.array_equal(found, stratified_sample(places, labels, 1000, seed=1))
    assert np.array_equal(stratified_sample(places[:500], labels, 1000), places[:500])
