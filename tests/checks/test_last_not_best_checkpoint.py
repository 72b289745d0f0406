"""EVA506."""

from dataclasses import replace

import pytest

from tests.checks.cases import found, healthy, quiet
from tests.checks.test_overtraining import course
from valgap.checks.evaluation.last_not_best_checkpoint import CHECK
from valgap.checks.preprocessing import missing_augmentation
from valgap.reference import choosing
from valgap.types import Case, Clear, Compared, Finding, NotApplicable, WeightsLoaded


def loaded(case: Case, changed: bool | None, own: bool = False) -> Case:
    """The case with weights loaded after the last training pass."""
    load = WeightsLoaded(
        "Net", False, True, 7, 7, 0, 0, (), after_pass=len(case.run.passes) - 1, changed=changed, own_tensors=own
    )
    return Case(replace(case.run, weights_loaded=(load,)))


@pytest.mark.parametrize("drop", [0.03, 0.1])
def test_a_kept_reference(drop: float) -> None:
    finding = found(CHECK.detect(loaded(course([0.7, 0.8, 0.8 - drop]), False, own=True)))
    assert finding.confidence > 0.9
    assert finding.severity_points == pytest.approx(100 * drop, abs=1)


def test_real_copies_and_a_best_last_epoch_are_silent() -> None:
    assert isinstance(CHECK.detect(loaded(course([0.7, 0.8, 0.7]), True)), Clear)
    assert isinstance(CHECK.detect(loaded(course([0.6, 0.7, 0.8]), False, own=True)), Clear)
    assert isinstance(CHECK.detect(loaded(course([0.7, 0.8, 0.76]), False)), Clear)  # statistics put back after validation
    assert isinstance(CHECK.detect(loaded(course([0.6, 0.7, 0.8]), None)), Clear)


def test_weights_of_another_epoch_loaded_at_the_end() -> None:
    def ending(*accuracies: float, state: int = 3) -> Case:
        case = course([0.6, 0.7, 0.8, 0.85])
        again = course([0.6, 0.7, 0.8, accuracies[-1]]).run.passes[-1]
        passes = (*case.run.passes, replace(again, index=len(case.run.passes)))
        load = WeightsLoaded(
            "Net", False, True, 7, 7, 0, 0, (), after_pass=len(case.run.passes) - 1, changed=True, state_of_pass=state
        )
        return Case(replace(case.run, passes=passes, weights_loaded=(load,)))

    finding = found(CHECK.detect(ending(0.7)))
    assert finding.confidence == 0.9 and "loaded at the end" in finding.summary
    even = Compared("sound", "")
    assert choosing.compare(ending(0.7).run, even).kind == "loaded" and choosing.compare(ending(0.85).run, even).kind == ""
    assert isinstance(CHECK.detect(ending(0.85)), Clear)
    assert isinstance(CHECK.detect(ending(0.7, state=-1)), Clear)  # an average, or a file of another run: no epoch's choice


def test_a_jumping_curve_that_ends_low() -> None:
    found(CHECK.detect(course([0.8, 0.6, 0.8, 0.8, 0.79, 0.6], [0.7, 0.8, 0.7, 0.8, 0.7, 0.71])))


def test_a_curve_that_falls_for_a_named_reason_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    jumping = course([0.8, 0.6, 0.8, 0.8, 0.79, 0.6], [0.7, 0.8, 0.7, 0.8, 0.7, 0.71])
    monkeypatch.setattr(missing_augmentation, "detect", lambda case: Finding("", 5.0, 0.6, (), ""))
    assert quiet(CHECK.detect(jumping)) and isinstance(CHECK.detect(jumping), Finding)
    assert found(CHECK.detect(loaded(course([0.7, 0.8, 0.7]), False, own=True)))


def test_plain_overtraining_is_left_to_its_own_check() -> None:
    assert isinstance(CHECK.detect(course([0.7, 0.8, 0.7, 0.7])), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(course([0.7])), NotApplicable)
    assert isinstance(CHECK.detect(healthy(passes=())), NotApplicable)
