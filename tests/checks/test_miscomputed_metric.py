"""EVA503."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import TRAIN, found, healthy, samples, with_phase, without
from valgap.checks.evaluation.miscomputed_metric import CHECK
from valgap.record.printed import numbers_in
from valgap.reference import Stages
from valgap.types import Case, Clear, CutPass, Finding, NotApplicable, Shortened

# 90 images in batches of 20: the last batch has 10, all wrong, so that batch means and sample means differ.
TABLE = samples(np.arange(TRAIN, TRAIN + 90), 1.0)
TABLE.prediction[-10:] = (TABLE.target[-10:] + 1) % 4
TRUTH = 80 / 90


def printed(line: str) -> Case:
    case = with_phase(healthy(), "validation", samples=TABLE)
    numbers = [n for p in case.run.of_phase("validation") for n in numbers_in(line, p.index)]
    return Case(replace(case.run, printed=tuple(numbers)))


@pytest.mark.parametrize(
    ("value", "word"),
    [(4 / 5, "batch means"), (80 / 100, "batch"), (80 / TRAIN, "training set"), (0.0, "integer")],
)
def test_wrong_formulas(value: float, word: str) -> None:
    finding = found(CHECK.detect(printed(f"epoch 1 val acc: {value:.4f}")))
    assert word in finding.summary
    assert finding.severity_points == pytest.approx(100 * (TRUTH - value), abs=0.01)


@pytest.mark.parametrize("line", ["val acc: 80.00%", "Accuracy: 80.0 %"])
def test_percent(line: str) -> None:
    assert found(CHECK.detect(printed(line)))


@pytest.mark.parametrize("line", [f"val acc {TRUTH:.4f}", f"val accuracy: {100 * TRUTH:.1f}%", "train acc 0.8000 val acc 0.8889"])
def test_right_numbers_are_silent(line: str) -> None:
    assert isinstance(CHECK.detect(printed(line)), Clear)


def test_other_metrics_are_left_alone() -> None:
    assert isinstance(CHECK.detect(printed("val acc 0.7431")), Clear)
    assert isinstance(CHECK.detect(printed("top-5 accuracy 0.8000")), NotApplicable)


def trained(rights: list[int], lines: list[str]) -> Case:
    """Epochs with so many of 100 validation images right, and what was printed after each."""
    run = healthy().run
    train, val = run.last_train, run.last_validation
    assert train is not None and val is not None
    passes, numbers = [], []
    for epoch, (right, line) in enumerate(zip(rights, lines, strict=True)):
        table = samples(np.arange(TRAIN, TRAIN + 100), 1.0)
        table.prediction[right:] = (table.target[right:] + 1 + np.arange(100 - right) % 3) % 4
        table = replace(table, loss=np.full(100, 2.0 - right / 100, np.float32))
        passes += [replace(train, index=2 * epoch), replace(val, index=2 * epoch + 1, samples=table)]
        numbers += numbers_in(line, 2 * epoch + 1)
    run = replace(run, passes=tuple(passes), printed=tuple(numbers))
    return Case(run, None, Stages(run, None))


RIGHTS = [30, 34, 38, 37, 47, 43, 49, 51]


def test_a_number_that_stays_behind_is_told_though_an_earlier_pass_had_it() -> None:
    case = trained(RIGHTS, [f"val acc {RIGHTS[max(0, min(i - 1, 1))] / 100:.2f}" for i in range(8)])
    finding = found(CHECK.detect(case))
    assert finding.severity_points == pytest.approx(51 - 34)


def test_counts_that_are_never_reset_are_told_by_a_mean_over_all_passes() -> None:
    finding = found(CHECK.detect(trained([30, 45, 57], ["val acc 0.3000", "val acc 0.3750", "val acc 0.4400"])))
    assert "before it" in finding.summary and finding.severity_points == pytest.approx(57 - 44)


def test_what_is_right_in_the_first_pass_alone_is_told_without_a_formula() -> None:
    assert "argmax" in found(CHECK.detect(trained([30, 44, 58], ["val acc 0.30", "val acc 0.39", "val acc 0.47"]))).summary


@pytest.mark.parametrize(
    "shown",
    [
        RIGHTS,
        [max(RIGHTS[: i + 1]) for i in range(8)],  # the best so far
        [*RIGHTS[:6], 3, 4],
    ],
)
def test_what_follows_the_passes_is_no_fault(shown: list[int]) -> None:
    assert isinstance(CHECK.detect(trained(RIGHTS, [f"val acc {n / 100:.2f}" for n in shown])), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
    assert isinstance(CHECK.detect(without(healthy(), "validation")), NotApplicable)


def cut_short(value: float) -> Case:
    """A validation that was cut to 90 of 400 images on purpose, and one number printed after it."""
    case = printed(f"val acc {value:.4f}")
    passes = {p.index: CutPass(4, 20, True, 0.1) for p in case.run.of_phase("validation")}
    sets = {k: replace(d, size=400) if k == case.run.passes[-1].dataset else d for k, d in case.run.datasets.items()}
    return Case(replace(case.run, datasets=sets, shortened=Shortened(32, 90, 60.0, passes)))


def test_who_divides_by_the_whole_set_is_right_where_it_was_cut_on_purpose() -> None:
    assert isinstance(CHECK.detect(cut_short(80 / 400)), Clear)
    assert isinstance(CHECK.detect(cut_short(TRUTH)), Clear)
    assert "batch means" in found(CHECK.detect(cut_short(4 / 5))).summary
    whole = cut_short(80 / 400)
    assert "size of the data set" in found(CHECK.detect(Case(replace(whole.run, shortened=None)))).summary


@pytest.mark.parametrize(("value", "told"), [(0.33, True), (TRUTH - 0.05, False)])
def test_one_number_alone_is_told_of_a_run_cut_short_where_it_is_far_off(value: float, told: bool) -> None:
    case = cut_short(value)
    last = case.run.of_phase("validation")[-1]
    run = replace(case.run, printed=tuple(n for n in case.run.printed if n.after_pass == last.index))
    outcome = CHECK.detect(Case(run, stages=Stages(run, None)))
    assert isinstance(outcome, Finding) == told
