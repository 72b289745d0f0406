"""Numbers in what a script printed, with the words before them."""

from __future__ import annotations

import re

from valgap.types import PrintedNumber

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+\.\d+(?:e[-+]?\d+)?|(?<![\w.])[-+]?\d+(?:e[-+]?\d+)?(?![\w.])", re.IGNORECASE)
# "train loss 0.3 acc 0.9": the second number is of training too, though the word stands before the first.
PHASE_WORD = re.compile(r"(?<![a-z])(train|val|valid|test|eval|dev)\w*", re.IGNORECASE)
MAX_LABEL = 60


def numbers_in(line: str, after_pass: int) -> list[PrintedNumber]:
    """The numbers of one printed line, in order; a label holds the words since the number before, and the phase they speak of."""
    found: list[PrintedNumber] = []
    start = 0
    for match in NUMBER.finditer(line):
        label = line[start : match.start()].strip(" \t|,;/:=()[]{}'\"").lower()[-MAX_LABEL:]
        words = PHASE_WORD.findall(line[: match.start()])
        if words and not PHASE_WORD.search(label):
            label = f"{words[-1].lower()} {label}"
        start = match.end()
        value = float(match.group())
        found.append(PrintedNumber(label=label, value=value, after_pass=after_pass, line=line))
    return found
