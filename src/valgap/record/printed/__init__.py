"""Reads what a script printed: each number, with what it means.

A small grammar and no list of programs: ``tokens`` (words, numbers, bars, marks), ``words`` (which metric, whose images, of
which kind), ``reading`` (which label belongs to which number of a line), ``tables`` and ``lines`` (what goes over several lines).
"""

from __future__ import annotations

from valgap.record.printed.lines import Spoken, numbers_of
from valgap.types import PrintedNumber

__all__ = ["Spoken", "numbers_in", "numbers_of"]


def numbers_in(text: str, after_pass: int) -> list[PrintedNumber]:
    """The numbers of one printed text (a line or several), in order."""
    return list(numbers_of([Spoken(text, after_pass)]))
