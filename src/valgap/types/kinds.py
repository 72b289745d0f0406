"""Whether every field of a record is of the kind that its type says: a file of events may have been edited."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from valgap.types import SampleTable, StepTable

MOST = 10_000  # elements of one list or table of names that are looked at
NUMBERS = "biuf"  # kinds of numpy
MATRICES = {"learning_rate", "group_grad_norm", "group_update_ratio"}  # columns of steps with several values each


def check_kinds(value: Any, hint: Any = None, place: str = "") -> None:
    """Nothing, where ``value`` and all that it holds are of the kinds that its type, or ``hint``, says.

    Raises:
        TypeError: a field is of another kind; with its place.
    """
    if not _fits(value, type(value) if hint is None else hint, place):
        raise TypeError(f"{place or 'the record'} is {type(value).__name__} {str(value)[:40]!r}")


def _fits(value: Any, hint: Any, place: str) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, (str, typing.TypeVar)):
        return True
    if origin in (typing.Union, types.UnionType):
        return _of_one(value, inner, place)
    if origin is typing.Literal:
        return value in inner
    if origin is np.ndarray:
        return isinstance(value, np.ndarray) and value.dtype.kind in _kinds_of(hint)
    if dataclasses.is_dataclass(hint):
        return isinstance(value, typing.cast(type, hint)) and _fields_fit(value, place)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits_or_raises(v, inner[1], f"{place}[{k}]") for k, v in itertools.islice(value.items(), MOST)
        )
    if isinstance(origin, type) and issubclass(origin, (tuple, Sequence, set, frozenset)):
        return _elements_fit(value, origin, inner, place)
    if hint is float:
        return isinstance(value, (int, float, np.number))
    if hint is int:
        return isinstance(value, (int, np.integer))
    return not isinstance(hint, type) or isinstance(value, hint)


def _of_one(value: Any, hints: Sequence[Any], place: str) -> bool:
    for hint in hints:
        try:
            if _fits(value, hint, place):
                return True
        except TypeError:
            continue
    return False


def _elements_fit(value: Any, origin: type, inner: Sequence[Any], place: str) -> bool:
    if isinstance(value, (str, Mapping)) or not isinstance(value, (list, tuple, set, frozenset)):
        return False
    fixed = origin is tuple and not (len(inner) == 2 and inner[1] is ...)
    if fixed and len(value) != len(inner):
        return False
    hints = inner if fixed else itertools.repeat(inner[0])
    return all(
        _fits_or_raises(v, h, f"{place}[{i}]") for i, (v, h) in enumerate(zip(itertools.islice(value, MOST), hints, strict=False))
    )


def _fields_fit(value: Any, place: str) -> bool:
    hints = _hints(value.__class__)
    fit = all(_fits_or_raises(getattr(value, name), hint, f"{place}.{name}".lstrip(".")) for name, hint in hints.items())
    return fit and _columns_fit(value)


def _columns_fit(table: Any) -> bool:
    """Whether the columns of a table have its length, and are as wide as they are meant to be; of anything else: yes."""
    if isinstance(table, SampleTable):
        return all(getattr(table, name).shape == table.sample.shape[:1] for name in _hints(SampleTable))
    if isinstance(table, StepTable):
        columns = {name: getattr(table, name) for name in _hints(StepTable)}
        rows = table.loss.shape[:1]
        return all(c.ndim == 1 + (name in MATRICES) and c.shape[:1] in (rows, (0,)) for name, c in columns.items())
    return True


@functools.cache
def _kinds_of(hint: Any) -> str:
    """Of an array's type, the kinds of numpy that it allows: whole numbers stand for fractions too, never the other way."""
    of = [np.integer in typing.get_args(inner) for inner in typing.get_args(hint)]
    return "biu" if any(of) else NUMBERS


def _fits_or_raises(value: Any, hint: Any, place: str) -> bool:
    check_kinds(value, hint, place)
    return True


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    """The kind of each field of a dataclass."""
    known = typing.get_type_hints(kind)
    return {f.name: known[f.name] for f in dataclasses.fields(kind)}
