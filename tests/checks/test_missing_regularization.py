"""TRN405."""

from dataclasses import replace
from typing import Any

import pytest

from tests.checks.cases import found, healthy, loss_stats, model, trained_with, with_phase, without
from tests.checks.test_missing_augmentation import plain, varied_on_disk
from valgap.checks.training.missing_regularization import CHECK, regularizers
from valgap.types import Case, Clear, NotApplicable


def bare(train: float, val: float, dropout: tuple[float, ...] = (), **settings: Any) -> Case:
    """Plain images, no Dropout, and these optimizer settings."""
    case = plain(train, val)
    case = Case(replace(case.run, models={0: model(dropout=dropout)}))
    return trained_with(case, "Adam", 1e-3, **settings)


@pytest.mark.parametrize("gap", [0.4, 0.5])
def test_nothing_holds_it_back(gap: float) -> None:
    finding = found(CHECK.detect(bare(1.0, 1.0 - gap, weight_decay=0.0)))
    assert finding.evidence[1].value == pytest.approx(100 * gap)


def test_each_means_is_seen() -> None:
    assert regularizers(bare(1.0, 0.5, weight_decay=1e-4).run) == ["weight decay"]
    assert regularizers(bare(1.0, 0.5, (0.2,)).run) == ["Dropout"]
    smooth = with_phase(bare(1.0, 0.5), "train", loss=loss_stats(label_smoothing=0.1))
    assert regularizers(smooth.run) == ["label smoothing"]
    assert "augmentation" in regularizers(plain(1.0, 0.5, varied=1.0).run)


def test_regularized_and_small_gaps_are_silent() -> None:
    assert isinstance(CHECK.detect(bare(1.0, 0.5, weight_decay=1e-4)), Clear)
    assert isinstance(CHECK.detect(bare(0.8, 0.8)), Clear)
    assert isinstance(CHECK.detect(varied_on_disk(bare(1.0, 0.5, weight_decay=0.0), 4)), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
