"""EVA511."""

from tests.checks.cases import found, healthy, quiet
from tests.checks.ranks import printing, two_ranks
from valgap.checks.evaluation.unreduced_metric import CHECK
from valgap.types import Case, Clear, Finding, NotApplicable


def of_rank(case: Case, number: int) -> dict[int, float]:
    return {p.merged: p.samples.accuracy for p in case.run.ranks[number].passes if p.phase == "validation"}


def test_the_accuracy_of_one_rank_is_printed() -> None:
    case = two_ranks()
    finding = found(CHECK.detect(printing(case, of_rank(case, 0))))
    truth = case.run.last_validation
    assert truth is not None
    assert finding.confidence >= 0.5
    assert finding.evidence[0].reference == truth.samples.accuracy
    assert finding.severity_points == 100 * (truth.samples.accuracy - case.run.ranks[0].passes[-1].samples.accuracy)


def test_one_number_of_a_share_among_others_is_a_hint() -> None:
    case = two_ranks()
    printed = {1: 0.123, 3: 0.321, 5: of_rank(case, 0)[5]}
    outcome = CHECK.detect(printing(case, printed))
    assert isinstance(outcome, Finding) and quiet(outcome)


def test_the_whole_and_the_mean_over_ranks_are_right() -> None:
    case = two_ranks()
    whole = {p.index: p.samples.accuracy for p in case.run.of_phase("validation")}
    assert isinstance(CHECK.detect(printing(case, whole)), Clear)
    means = {i: (of_rank(case, 0)[i] + of_rank(case, 1)[i]) / 2 for i in whole}
    assert isinstance(CHECK.detect(printing(case, means)), Clear)


def test_a_number_of_neither_is_left_alone() -> None:
    assert isinstance(CHECK.detect(printing(two_ranks(), {1: 0.123, 3: 0.321, 5: 0.111})), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
    assert isinstance(CHECK.detect(two_ranks()), NotApplicable)  # nothing was printed
