"""STG603, STG604: how images are read, whatever the fault is called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checks.cases import healthy
from tests.reference.pictures_seen import KINDS, SIDE, as_it_is, run_on
from valgap.reference import Stages
from valgap.reference.finished_model import apart_by, odd_side
from valgap.reference.reading import LEAST_POINTS, Sides, _undecided, read
from valgap.reference.seen_images import Colours
from valgap.types import AskedAgain, Closing, Intervention, Measured, TwiceAnswered

pytestmark = pytest.mark.takes(20)
MIXED = np.random.default_rng(0).permutation(SIDE * SIDE)


def turned(values: Any, place: int) -> Any:
    return np.rot90(values, 1, axes=(0, 1))


def scattered(values: Any, place: int) -> Any:
    return values.reshape(-1, 3)[MIXED].reshape(values.shape)


def neighbours(values: Any, place: int) -> Any:
    """Crops, mirrors and light: what a sound training does to its pictures."""
    rng = np.random.default_rng(place)
    values = values[:, ::-1] if place % 2 else values
    top, left = rng.integers(0, 6, 2)
    values = values[top : top + SIDE - 6, left : left + SIDE - 6]
    grid = np.linspace(0, SIDE - 7, SIDE).astype(int)
    return np.clip(values[grid][:, grid] * rng.uniform(0.8, 1.2), 0, 1)


def test_what_only_validation_does_is_found_there(tmp_path: Path) -> None:
    stages = Stages(*run_on(tmp_path, neighbours, turned))
    found = stages.compared("read_val")
    assert found.verdict == "at fault" and found.confidence > 0.7
    assert found.points is not None and found.points.low > 0
    assert stages.compared("read_train").verdict == "sound"
    assert "turned by a quarter" in found.summary
    own = found.treatment
    assert isinstance(own, Intervention) and own.name == "read_soundly" and own.settings["phase"] == "validation"
    assert own.settings["files"] == {"1": [str(tmp_path / f"val/{kind}/{i}.png") for kind in KINDS for i in range(12)]}
    given = _given(own)
    assert np.allclose(given, [-1.8, 2.2], atol=0.35), given  # as training images are: black and white of (x - 0.45) / 0.25


@pytest.mark.parametrize("side", ["train", "val"])
def test_values_that_are_cut_off_are_the_odd_ones(side: str, tmp_path: Path) -> None:
    """As by a transform for images of 0..1 that comes after the normalisation: shapes and places stay."""

    def cut(values: Any, place: int) -> Any:
        return np.clip(values, 0.45, 0.7)

    both = (cut, as_it_is) if side == "train" else (as_it_is, cut)
    sides = read(*run_on(tmp_path, *both))
    assert isinstance(sides, Sides)
    assert (sides.train.bent > sides.val.bent + 0.1) == (side == "train")
    assert odd_side(replace(healthy().run, models={}), sides.train, sides.val) == side


def test_what_both_sides_do_costs_as_well(tmp_path: Path) -> None:
    stages = Stages(*run_on(tmp_path, scattered, scattered))
    assert stages.compared("read_train").verdict == "at fault"
    assert stages.compared("read_val").verdict == "sound"  # it reads as training does
    own = stages.compared("read_train").treatment
    assert isinstance(own, Intervention) and own.settings["phase"] == "both" and set(_files(own)) == {"0", "1"}


def test_a_training_in_other_colours_is_read_as_the_weights_want_it(tmp_path: Path) -> None:
    """Where training reads wrongly, its colours are no guide; published weights know theirs."""
    run, images = run_on(tmp_path, faded, faded)
    own = Stages(run, images).compared("read_train").treatment
    assert isinstance(own, Intervention)
    assert np.allclose(_given(own), [-1.8, 2.2])  # about what photographs have
    trained = replace(run.models[0], expected_mean=(0.5,) * 3, expected_std=(0.5,) * 3, expected_whole=True, pretrained=True)
    own = Stages(replace(run, models={**run.models, 0: trained}), images).compared("read_train").treatment
    assert isinstance(own, Intervention)
    assert np.allclose(_given(own), [-1, 1])


def test_blue_green_red_is_given_as_such(tmp_path: Path) -> None:
    found = Stages(*run_on(tmp_path, lambda v, i: neighbours(v, i)[..., ::-1], turned)).compared("read_val")
    assert isinstance(found.treatment, Intervention) and found.treatment.settings["reverse"] is True
    found = Stages(*run_on(tmp_path, neighbours, turned)).compared("read_val")
    assert isinstance(found.treatment, Intervention) and found.treatment.settings["reverse"] is False


def _files(own: Intervention) -> Any:
    return own.settings["files"]


def _given(own: Intervention) -> Any:
    """What black and white are to the model, red first."""
    settings: Any = own.settings
    return np.array([settings["shift"][0], 255 * settings["scale"][0] + settings["shift"][0]])


def faded(values: Any, place: int) -> Any:
    return np.where(np.indices(values.shape[:2]).sum(0)[..., None] % 2, 0.5, 0.51) + 0 * values


def test_what_training_alone_does_at_random_is_augmentation_until_it_is_too_much(tmp_path: Path) -> None:
    fixed = Stages(*run_on(tmp_path / "fixed", scattered, as_it_is)).compared("read_train")
    assert fixed.verdict == "at fault" and fixed.points is not None
    run, images = run_on(tmp_path / "random", neighbours, as_it_is)
    told = Stages(run, images)
    assert told.compared("read_train").verdict == "sound"


def test_a_program_that_answers_better_than_a_probe_on_the_files_was_taught_enough(tmp_path: Path) -> None:
    """Noise and holes at random ruin a picture for the probe's network, and not for the one that learns from them."""
    run, images = run_on(tmp_path, scattered, as_it_is)
    right = [replace(p, samples=replace(p.samples, prediction=p.samples.target)) for p in run.passes]
    assert Stages(run, images).compared("read_train").verdict == "at fault"
    assert Stages(replace(run, passes=tuple(right)), images).compared("read_train").verdict == "unknown"


def test_an_interval_that_holds_a_large_loss_is_not_called_sound() -> None:
    assert "between -3 and 19 points" in _undecided(Measured(8.0, -3.0, 19.0), LEAST_POINTS)
    assert not _undecided(Measured(1.6, -6.3, 9.6), LEAST_POINTS) and not _undecided(Measured(5.0, 1.0, 9.0), LEAST_POINTS)


def test_sound_reading_is_silent(tmp_path: Path) -> None:
    stages = Stages(*run_on(tmp_path, neighbours, as_it_is))
    assert {stages.compared(s).verdict for s in ("read_train", "read_val", "pair", "draw")} == {"sound"}


def test_without_files_it_says_what_is_missing(tmp_path: Path) -> None:
    run, _ = run_on(tmp_path, each=12)
    assert Stages(run, None).compared("read_val").missing == "the image files of this run"


def twice(n: int, own: float, changed: float, others: float = 0.0) -> TwiceAnswered:
    """So large shares of n samples right, as they are and under the change; ``others``: of those that stay wrong, otherwise."""
    right = np.stack([np.arange(n) < share * n for share in (own, changed)])
    return TwiceAnswered(right, np.where(right, 0.2, 2.0), abs(own - changed) + others)


@pytest.mark.parametrize(
    ("val", "train", "side"),  # accuracy as the program reads them, and as their files show
    [
        ((0.6, 0.9), (0.95, 0.95), "val"),  # its files are answered better
        ((0.6, 0.6), (0.95, 0.6), "train"),  # what it learnt from is not what the files show
        ((0.6, 0.61), (1.0, 0.97), None),
        ((0.8, 0.6), (1.0, 0.75), None),  # another way of reading, to which all its answers are used
        ((0.6, 0.62), None, None),
        ((0.02, 0.02, 0.25), (0.9, 0.75), None),  # val's labels are wrong, so that its accuracy tells nothing: its answers do
    ],
)
def test_the_finished_model_tells_two_ways_of_readingapart_by(
    val: tuple[float, ...], train: tuple[float, ...] | None, side: str | None
) -> None:
    again = AskedAgain(twice(200, *val), twice(400, *train) if train is not None else None)
    found = apart_by(again, "val")
    assert (found.side if found is not None else None) == side


@pytest.mark.parametrize(
    ("mean", "std", "usual"),
    [
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), True),
        ((0.0,) * 3, (1.0,) * 3, True),
        ((0.5,) * 3, (0.5,) * 3, True),
        ((0.0,) * 3, (1 / 255,) * 3, True),  # bytes
        ((0.5,) * 3, (0.05,) * 3, False),
        ((1.4,) * 3, (0.25,) * 3, False),
        ((0.0,) * 3, (12.0,) * 3, False),
    ],
)
def test_colours_that_somebody_means(mean: tuple[float, ...], std: tuple[float, ...], usual: bool) -> None:
    assert Colours.normalised(mean, std).plausible == usual


@pytest.mark.parametrize(
    ("pretrained", "probe", "start", "fault"),
    [(True, 0.4, None, True), (True, 0.9, None, False), (True, 0.4, 0.95, False), (None, 0.4, None, False)],
)
def test_a_published_network_should_tell_what_another_one_tells(
    tmp_path: Path, pretrained: bool | None, probe: float, start: float | None, fault: bool
) -> None:
    """Its own features say little of tensors of which a published network says nearly all; a training may have spoilt them."""
    run, images = run_on(tmp_path)
    numbers = {"probe_final": probe, "probe_n": 48.0} | ({"probe_start": start} if start is not None else {})
    model = replace(run.models[0], pretrained=pretrained)
    run = replace(run, models={**run.models, 0: model}, closing=Closing(numbers=numbers))
    found = Stages(run, images).compared("forward")
    assert (found.kind == "published") == fault
    assert not fault or (found.points is not None and found.points.low > 0 and found.verdict == "at fault")


def test_the_finished_model_clears_a_reading_that_a_probe_doubts(tmp_path: Path) -> None:
    """It takes the files for what it was given; where it is used to something else, less of a probe's word is enough."""
    run, images = run_on(tmp_path, scattered, scattered)
    for val, train, verdict in (((0.8, 0.79), (0.9, 0.88), "sound"), ((0.8, 0.3), (0.9, 0.35), "at fault")):
        again = AskedAgain(twice(200, *val), twice(400, *train))
        assert Stages(run, images, lambda treatment, again=again: again).compared("read_train").verdict == verdict
    at_chance = AskedAgain(twice(200, 0.25, 0.25), twice(400, 0.25, 0.25))
    assert Stages(run, images, lambda treatment: at_chance).compared("read_train").verdict == "at fault"


def test_a_reading_that_gains_points_and_loses_loss_is_no_fault() -> None:
    better = twice(200, 0.6, 0.7)
    assert apart_by(AskedAgain(better, None), "val") is not None
    dearer = np.stack([better.loss[0], better.loss[1] + 1.0])
    assert apart_by(AskedAgain(TwiceAnswered(better.right, dearer, better.changed), None), "val") is None


def test_a_model_at_chance_does_not_say_what_its_training_images_cost(tmp_path: Path) -> None:
    """It learnt nothing from scattered pixels, and loses little by the files: what these would teach is the cost."""
    run, images = run_on(tmp_path, scattered, as_it_is)
    # The labels of these 48 images are four even classes: a quarter is chance.
    for val, chance in (((0.25, 0.25), True), ((0.7, 0.7), False)):
        again = AskedAgain(twice(48, *val), twice(48, 0.6, 0.25))
        found = Stages(run, images, lambda treatment, again=again: again).compared("read_train")
        assert found.verdict == "at fault" and found.points is not None
        assert ("teach" in found.summary) == chance
        assert (found.points.value > 40) == chance
