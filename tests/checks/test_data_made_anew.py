"""The same data once more in another object, or other data: the curve of validation goes on over the first alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.checks.test_overtraining import course as case_of
from valgap.checks.shared.progress import course, made_anew
from valgap.types import RunRecord


def twice(**changes: Any) -> RunRecord:
    """A course whose last validation is over a data set of its own."""
    run = case_of([0.6, 0.7, 0.8, 0.7]).run
    last = run.passes[-1]
    first = run.datasets[last.dataset]
    first = replace(first, sample=np.arange(len(last.samples)) if first.sample is None else first.sample)
    other = replace(first, id=99, **changes)
    passes = (*run.passes[:-1], replace(last, dataset=99))
    return replace(run, datasets={**run.datasets, last.dataset: first, 99: other}, passes=passes)


def test_the_same_images_prepared_alike_are_the_same_data() -> None:
    run = twice()
    assert len(made_anew(run, 99)) == 2
    seen = course(run)
    assert seen is not None and len(seen.passes) == 4


@pytest.mark.parametrize(
    "changes",
    [{"transform_text": "FiveCrop()"}, {"sample": np.arange(5) + 7}, {"sample": None}, {"targets": np.arange(300)}, {"size": 3}],
    ids=lambda c: next(iter(c)),
)
def test_other_images_or_another_transform_are_not(changes: dict[str, Any]) -> None:
    run = twice(**changes)
    assert made_anew(run, 99) == {99}
    assert course(run) is None
