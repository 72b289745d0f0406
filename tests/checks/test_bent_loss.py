"""TRN419."""

from dataclasses import replace

import pytest

from tests.checks.cases import found, healthy
from tests.checks.test_stage_faults import FAULT, SOUND, Known
from valgap.checks.training.bent_loss import CHECK
from valgap.types import Clear, Intervention, NotApplicable, Stage


@pytest.mark.parametrize("stage", ["loss"])
def test_a_stage_at_fault_of_this_kind_has_this_name(stage: Stage) -> None:
    fault = replace(FAULT, kind="bent")
    finding = found(CHECK.detect(replace(healthy(), stages=Known(**{stage: fault}))))
    assert finding.severity_points == 20 and finding.summary == FAULT.summary
    assert finding.remedy != FAULT.remedy


@pytest.mark.parametrize("stage", ["loss"])
def test_another_fault_or_none_has_not(stage: Stage) -> None:
    assert isinstance(CHECK.detect(replace(healthy(), stages=Known(**{stage: FAULT}))), Clear)
    assert isinstance(CHECK.detect(replace(healthy(), stages=Known(**{stage: SOUND}))), Clear)
    assert CHECK.detect(replace(healthy(), stages=Known())) == NotApplicable("a reason")
    assert isinstance(CHECK.detect(healthy()), NotApplicable)


def test_the_loss_is_exchanged_where_it_is_at_fault() -> None:
    assert CHECK.treat is not None
    own = Intervention("reference_loss", {"classes": 4})
    fault = replace(FAULT, kind="bent", treatment=own)
    case = replace(healthy(), stages=Known(loss=fault))
    assert CHECK.treat(case, found(CHECK.detect(case))) == own
