"""DAT110."""

import numpy as np
import pytest

from tests.checks.cases import found, healthy
from tests.checks.pictures import Pictures, case, pictures
from valgap.checks.data.spurious_shortcut import CHECK
from valgap.types import Clear, NotApplicable


def shortcut(share: float, in_val: bool = False) -> Pictures:
    """In ``share`` of the training images (and of val's) of class 1, the border is wide."""
    images = pictures(400, 200)
    rng = np.random.default_rng(0)
    hit = (images.rows.labels % 2 == 1) & (rng.random(600) < share) & (~images.rows.is_val | in_val)
    images.attributes.numbers["border"][hit] = rng.uniform(0.2, 0.4, hit.sum())
    return images


@pytest.mark.parametrize("share", [1.0])
def test_a_border_on_half_of_the_classes(share: float) -> None:
    finding = found(CHECK.detect(case(shortcut(share))))
    assert "border" in finding.summary
    assert finding.evidence[0].value == pytest.approx(0.5, abs=0.05)


def test_true_in_val_as_well_or_weak_is_clear() -> None:
    assert isinstance(CHECK.detect(case(shortcut(1.0, in_val=True))), Clear)
    assert isinstance(CHECK.detect(case(shortcut(0.2))), Clear)
    assert isinstance(CHECK.detect(case(pictures())), Clear)


def test_missing() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
    assert isinstance(CHECK.detect(case(pictures(100, 10))), NotApplicable)
