"""A field of another kind than its type says is refused, with its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.checks.cases import healthy
from valgap.record.kinds import check_kinds


def test_a_sound_record_is_of_its_kinds() -> None:
    check_kinds(healthy().run)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("prediction", {"nd": "<i4"}),
        ("prediction", None),
        ("loss", -1),
        ("loss", np.array(["a"])),
        ("target", np.array([[1], [1, 2]], dtype=object)),
        ("batch", np.zeros(3, np.int32)),
    ],
)
def test_a_column_of_another_kind_is_refused(column: str, value: Any) -> None:
    run = healthy().run
    first = run.passes[0]
    edited = replace(first, samples=replace(first.samples, **{column: value}))
    with pytest.raises(TypeError, match=r"passes\[0\]\.samples"):
        check_kinds(replace(run, passes=(edited, *run.passes[1:])))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backwards", "<script>"),
        ("num_batches", None),
        ("seconds", [[1]]),
        ("phase", "elsewhere"),
        ("spent", [1]),
        ("loops", ((1,),)),
    ],
)
def test_a_number_or_word_of_another_kind_is_refused(name: str, value: Any) -> None:
    run = healthy().run
    edited = replace(run.passes[0], **{name: value})
    with pytest.raises(TypeError, match=rf"passes\[0\]\.{name}"):
        check_kinds(replace(run, passes=(edited, *run.passes[1:])))
