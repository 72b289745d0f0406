"""A field of another kind than its type says is refused, with its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.checks.cases import healthy
from valgap.record.encoding import decode_array
from valgap.types.kinds import check_kinds


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


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("samples", "target", np.zeros((3, 1), np.int32)),
        ("samples", "prediction", np.zeros(10, np.float32)),
        ("steps", "head_ratio", np.zeros((10, 1), np.float32)),
        ("steps", "learning_rate", np.zeros(10, np.float32)),
        ("steps", "update_ratio", np.zeros(11, np.float32)),
        ("steps", "optimizer", np.zeros(10, np.float32)),
    ],
)
def test_a_column_of_another_size_is_refused(table: str, column: str, value: Any) -> None:
    run = healthy().run
    first = next(p for p in run.passes if len(p.steps) not in (0, 11))
    edited = replace(first, **{table: replace(getattr(first, table), **{column: value})})
    with pytest.raises(TypeError, match=rf"passes\[0\]\.{table}"):
        check_kinds(replace(run, passes=(edited, *run.passes[1:])))


@pytest.mark.parametrize("dtype", ["(1,", "|O", "f4,i4", "[('a','O')]", "<i4\x1b", "x" * 99, ""])
def test_an_array_has_a_plain_dtype(dtype: str) -> None:
    with pytest.raises(ValueError, match="dtype"):
        decode_array({"nd": dtype, "shape": [0], "z": ""})
