"""PRE203."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, VAL, found, healthy, inputs, quiet, rescored, samples, with_phase, without
from valgap.checks.preprocessing.channel_order_mismatch import CHECK, distances
from valgap.types import Case, Clear, InputStats, NotApplicable

IDS = np.arange(TRAIN, TRAIN + VAL)


def coloured(red_to_blue: float) -> InputStats:
    """Photographs whose red lies ``red_to_blue`` above their blue."""
    stats = inputs()
    shift = np.array([red_to_blue, 0, -red_to_blue], np.float32)
    return replace(stats, mean=stats.mean + shift, batch_means=stats.batch_means + shift)


def turned(red_to_blue: float) -> Case:
    other = coloured(red_to_blue)
    swapped = replace(other, mean=other.mean[::-1].copy(), batch_means=other.batch_means[:, ::-1].copy())
    return with_phase(with_phase(healthy(), "train", inputs=other), "validation", inputs=swapped)


@pytest.mark.parametrize("after", [0.65, 0.9])
def test_swapped_channels_with_a_measured_gain(after: float) -> None:
    case = rescored(turned(0.8), val_eval=samples(IDS, 0.4), val_flipped_channels=samples(IDS, after))
    assert found(CHECK.detect(case)).severity_points == pytest.approx(100 * (after - 0.4))


@pytest.mark.parametrize("dose", [0.4, 0.8])
def test_reversing_restores_the_balance(dose: float) -> None:
    run = turned(dose).run
    assert run.last_train and run.last_validation and run.last_train.inputs and run.last_validation.inputs
    straight, reversed_ = distances(run.last_train.inputs, run.last_validation.inputs)
    assert reversed_ == pytest.approx(0, abs=1e-4)
    assert straight > 1


def test_sound_and_another_light_are_silent() -> None:
    assert isinstance(CHECK.detect(healthy()), Clear)
    case = with_phase(healthy(), "validation", inputs=coloured(-0.8))
    case = rescored(case, val_eval=samples(IDS, 0.6), val_flipped_channels=samples(IDS, 0.6))
    assert quiet(CHECK.detect(case))
    near = with_phase(turned(0.8), "validation", inputs=coloured(-0.3))  # nearer when reversed, not by much
    assert quiet(CHECK.detect(near))  # statistics alone are a hint, no more


def test_colours_that_fit_as_they_are_outweigh_a_gain() -> None:
    """A network that was hardly trained answered 10 points better on reversed channels, by luck."""
    same = with_phase(with_phase(healthy(), "train", inputs=coloured(8.0)), "validation", inputs=coloured(8.0))
    seen = {"val_eval": samples(IDS, 0.4), "val_flipped_channels": samples(IDS, 0.7)}
    assert isinstance(CHECK.detect(rescored(same, **seen)), Clear)


def test_colours_far_outside_need_no_significant_gain() -> None:
    case = turned(8.0)
    seen = {"val_eval": samples(IDS, 0.8), "val_flipped_channels": samples(IDS, 0.82)}
    assert found(CHECK.detect(rescored(case, **seen))).confidence == 0.9
    assert quiet(CHECK.detect(rescored(case, **{**seen, "val_flipped_channels": samples(IDS, 0.7)})))
    near = with_phase(turned(8.0), "validation", inputs=coloured(-4.0))  # as far from reversed as from straight
    assert quiet(CHECK.detect(rescored(near, **seen)))


def test_colours_far_outside_tell_where_no_score_can_be_taken() -> None:
    finding = found(CHECK.detect(turned(8.0)))  # images that come one by one, without a loader
    assert finding.confidence < 0.9
    assert quiet(CHECK.detect(with_phase(turned(8.0), "validation", inputs=coloured(-4.0))))


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
