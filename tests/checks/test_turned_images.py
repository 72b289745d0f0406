"""PRE210."""

from dataclasses import replace

import pytest

from tests.checks.cases import found, healthy
from tests.checks.test_stage_faults import FAULT, SOUND, Known
from valgap.checks.preprocessing.turned_images import CHECK
from valgap.types import Clear, NotApplicable, Stage


@pytest.mark.parametrize("stage", ["read_val", "read_train"])
def test_a_stage_at_fault_of_this_kind_has_this_name(stage: Stage) -> None:
    fault = replace(FAULT, kind="turned")
    finding = found(CHECK.detect(replace(healthy(), stages=Known(**{stage: fault}))))
    assert finding.severity_points == 20 and finding.summary == FAULT.summary
    assert finding.remedy != FAULT.remedy


@pytest.mark.parametrize("stage", ["read_val", "read_train"])
def test_another_fault_or_none_has_not(stage: Stage) -> None:
    assert isinstance(CHECK.detect(replace(healthy(), stages=Known(**{stage: FAULT}))), Clear)
    assert isinstance(CHECK.detect(replace(healthy(), stages=Known(**{stage: SOUND}))), Clear)
    assert CHECK.detect(replace(healthy(), stages=Known())) == NotApplicable("a reason")
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
