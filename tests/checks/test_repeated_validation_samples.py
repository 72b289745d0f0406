"""EVA510."""

from dataclasses import replace

import numpy as np

from tests.checks.cases import found, healthy, quiet
from tests.checks.ranks import printing, rows, two_ranks
from valgap.checks.evaluation.repeated_validation_samples import CHECK
from valgap.types import Case, Clear, Finding, NotApplicable, RankPass


def padded(images: int) -> Case:
    """The second rank's share of each validation begins with so many images of the first one's, all of them right."""
    case = two_ranks()
    ranks = []
    for info in case.run.ranks:
        passes: list[RankPass] = []
        for one in info.passes:
            whole = case.run.passes[one.merged].samples
            if one.phase == "validation" and info.rank == 1:
                right = np.flatnonzero(whole.prediction[::2] == whole.target[::2])[:images] * 2
                passes.append(replace(one, samples=rows(whole, np.r_[right, np.arange(1, len(whole), 2)])))
            else:
                passes.append(one)
        ranks.append(replace(info, passes=tuple(passes)))
    return Case(replace(case.run, ranks=tuple(ranks)))


def counted(case: Case) -> dict[int, float]:
    shares = {p.index: [s for r in case.run.ranks for s in r.passes if s.merged == p.index] for p in case.run.passes}
    return {
        p.index: float(np.concatenate([s.samples.correct for s in shares[p.index]]).mean())
        for p in case.run.of_phase("validation")
    }


def test_padding_that_the_printed_accuracy_counts() -> None:
    for images in (5, 10):
        case = padded(images)
        finding = found(CHECK.detect(printing(case, counted(case))))
        assert finding.evidence[0].value == images
        assert finding.confidence >= 0.5
        assert finding.severity_points < 0  # the repeated images were right ones: the number is too good


def test_padding_that_is_not_counted_is_silent() -> None:
    case = padded(10)
    true = {p.index: p.samples.accuracy for p in case.run.of_phase("validation")}
    assert isinstance(CHECK.detect(printing(case, true)), Clear)


def test_padding_without_a_printed_number_is_a_note() -> None:
    outcome = CHECK.detect(padded(10))
    assert isinstance(outcome, Finding) and outcome.confidence < 0.5


def test_every_process_on_all_images_is_silent() -> None:
    case = two_ranks()
    ranks = [
        replace(r, passes=tuple(replace(p, samples=case.run.passes[p.merged].samples) for p in r.passes)) for r in case.run.ranks
    ]
    assert isinstance(CHECK.detect(Case(replace(case.run, ranks=tuple(ranks)))), Clear)
    assert isinstance(CHECK.detect(two_ranks()), Clear)


def test_one_process_is_not_judged() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
    assert quiet(CHECK.detect(healthy()))
