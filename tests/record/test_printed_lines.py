"""The corpus of printed lines (printed_lines.py), read."""

from __future__ import annotations

import pytest

from tests.record.printed_lines import ENTRIES, Entry, half
from valgap.record.printed import numbers_in
from valgap.types import PrintedNumber

METRICS = {"accuracy": "acc", "top_k": "top", "loss": "loss"}
UNITS = {"percent": "%", "share": "share", None: "?"}


def reading(number: PrintedNumber) -> str:
    value = repr(number.value).removesuffix(".0")
    metric = METRICS[number.metric]
    unit = "-" if metric == "loss" else UNITS[number.unit]
    return f"{value} {metric} {unit} {number.side or '?'} {number.kind}"


def readings(text: str) -> list[str]:
    return sorted(reading(n) for n in numbers_in(text, 0) if n.metric in METRICS)


@pytest.mark.parametrize("entry", ENTRIES, ids=[f"{half(e)}-{e.format}-{i}" for i, e in enumerate(ENTRIES)])
def test_the_reading_is_a_persons(entry: Entry) -> None:
    assert readings(entry.text) == sorted(entry.readings)
