"""DAT108."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checks.cases import found, healthy, quiet
from tests.checks.pictures import case, pictures
from valgap.checks.data.degraded_images import CHECK
from valgap.types import Clear, NotApplicable


@pytest.mark.parametrize("count", [1, 7])
def test_unreadable_files_are_listed(count: int) -> None:
    images = replace(pictures(), unreadable=dict.fromkeys(range(count), "truncated"))
    finding = found(CHECK.detect(case(images)))
    assert finding.evidence[0].value == count
    assert finding.subjects == images.rows.names[:count]
    assert [r.path for r in finding.ranking[:count]] == list(images.rows.names[:count])


def test_blurred_images_are_counted_and_ranked_first() -> None:
    images = pictures()
    images.attributes.numbers["sharpness"][:20] = 0.4
    outcome = CHECK.detect(case(images))
    assert quiet(outcome)  # blurred, but a probe is right on them
    assert outcome.evidence[1].value == 20  # type: ignore[union-attr]
    assert {r.path for r in outcome.ranking[:20]} == set(images.rows.names[:20])  # type: ignore[union-attr]


def test_odd_storage_counts_only_where_a_probe_fails_on_it() -> None:
    odd = np.arange(0, 200, 5)
    assert isinstance(CHECK.detect(case(replace(pictures(), oddities={"CMYK": odd}))), Clear)
    images = replace(pictures(), oddities={"CMYK": odd})
    assert images.embeddings is not None
    images.embeddings[odd] = np.random.default_rng(0).normal(size=(len(odd), images.embeddings.shape[1])) * 2
    assert "CMYK images are recognised worse" in found(CHECK.detect(case(images))).summary


def test_missing() -> None:
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
    assert isinstance(CHECK.detect(case(pictures())), Clear)
