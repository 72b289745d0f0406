"""All lines of a run: tables, headings, and what numbers at the same place of the same print have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from valgap.record.printed.found import Found, Line
from valgap.record.printed.reading import read_line
from valgap.record.printed.tables import Header, header_of
from valgap.record.printed.tokens import cleaned, is_rule, tokens_of
from valgap.record.printed.words import Meaning, meaning_of, parts_of
from valgap.types import PrintedNumber

PHASE_WORD = re.compile(r"(?<![a-z])(train|val|valid|test|eval|dev)\w*", re.IGNORECASE)
MAX_LABEL = 60
# A heading speaks of the lines that are indented below it, and of so many others (with a colon, without one).
HEADED_LINES = (4, 2)
DONE = {"finished", "complete", "completed", "done", "saving", "saved", "loading", "loaded", "start", "starting"}


@dataclass(frozen=True)
class Spoken:
    """A printed line and when it came."""

    line: str
    after_pass: int  # the pass that had begun last; -1 before any
    running: bool = False  # that pass was not over yet


@dataclass
class _Heading:
    said: Meaning
    words: tuple[str, ...]
    indent: int
    lines_left: int


def numbers_of(spoken: Iterable[Spoken]) -> tuple[PrintedNumber, ...]:
    """The numbers of all lines, in order, each with what it means."""
    return tuple(_in_one_unit(list(_Reader().numbers(spoken))))


class _Reader:
    """Keeps the last table's names and the last heading."""

    def __init__(self) -> None:
        self.header: Header | None = None
        self.heading: _Heading | None = None

    def numbers(self, spoken: Iterable[Spoken]) -> Iterable[PrintedNumber]:
        for one in spoken:
            for part in one.line.split("\n"):
                text = cleaned(part)
                if text.strip() and not is_rule(text):
                    yield from self._line(text, replace(one, line=part))

    def _line(self, text: str, spoken: Spoken) -> list[PrintedNumber]:
        tokens = tokens_of(text)
        # A header has no numbers but those of a bar behind it.
        barred = any(t.kind == "bar" for t in tokens)
        if not any(t.kind == "number" for t in tokens) or (barred and header_of(text) is not None):
            self._without_numbers(text)
            return _as_printed(read_line(text), text, spoken) if any(c.isdigit() for c in text) else []
        row = self.header.row(text) if self.header is not None else None
        if row is not None:
            return _as_printed(Line(row), text, spoken, table=True)
        line = read_line(text)
        self._apply_heading(line, text)
        if line.heads and line.words:
            self.heading = _Heading(meaning_of(line.words), line.words, _indent(text), HEADED_LINES[0])
        return _as_printed(line, text, spoken)

    def _without_numbers(self, text: str) -> None:
        header = header_of(text)
        if header is not None:
            self.header, self.heading = header, None
            return
        words = tuple(t.text for t in tokens_of(text) if t.kind == "word")
        if not words or {w.lower() for w in words} & DONE:
            self.heading = None
            return
        colon = text.rstrip().endswith((":", "{"))
        self.heading = _Heading(meaning_of(words), words, _indent(text), HEADED_LINES[0 if colon else 1])

    def _apply_heading(self, line: Line, text: str) -> None:
        heading = self.heading
        if heading is None:
            return
        below = _indent(text) > heading.indent
        listed = (
            heading.said.metric == "accuracy" and heading.said.kind == "class" and any(n.metric != "other" for n in line.numbers)
        )
        heading.lines_left -= not below
        if heading.lines_left < 0 or (listed and not below):
            self.heading = None
            return
        for number in line.numbers:
            if number.metric == "other" and len(line.numbers) == 1 and number.labelled and heading.said.metric == "accuracy":
                # "Accuracy of each class:" and then "ant: 0.5": so many names, so many classes.
                number.metric, number.kind = "accuracy", heading.said.kind or "class"
            if number.metric != "other" and not number.side:
                number.side = heading.said.side
            if number.metric != "other" and heading.said.kind == "model" and not number.kind:
                number.kind = "model"


def _as_printed(line: Line, text: str, spoken: Spoken, table: bool = False) -> list[PrintedNumber]:
    labels = {n.token.start: n for n in line.numbers}
    found: list[PrintedNumber] = []
    seen: dict[str, int] = {}
    start = 0
    tokens = [n.token for n in line.numbers] if table else [t for t in tokens_of(text) if t.kind == "number"]
    for token in tokens:
        one = labels.get(token.start) if not table else line.numbers[len(found)]
        if one is None:
            one = Found(token)
        label = " ".join(one.words).lower() if table else text[start : token.start].strip(" \t|,;/:=()[]{}'\"").lower()
        start = token.end
        said = PHASE_WORD.findall(text[: token.start])
        if not table and said and not PHASE_WORD.search(label):
            label = f"{said[-1].lower()} {label}"
        place = _series(one)
        seen[place] = seen.get(place, 0) + 1
        found.append(
            PrintedNumber(
                label=label[-MAX_LABEL:],
                value=one.value,
                after_pass=spoken.after_pass,
                line=spoken.line,
                decimals=len(re.split("[eE]", token.text)[0].partition(".")[2]),
                metric="other" if one.kind == "count" else one.metric,
                k=one.k,
                unit=one.unit,
                side=one.side,
                kind=one.kind or "value",
                epoch=line.epoch,
                finished=line.finished,
                running=spoken.running,
                series=f"{place} {seen[place]}",
            )
        )
    return found


def _series(one: Found) -> str:
    """What is the same in every line of one print statement: the label without its digits, and its reading."""
    words = " ".join(p for w in one.words for p in parts_of(w) if not p.isdigit())
    return f"{words} / {one.metric} {one.k} {one.side} {one.kind}"


def _in_one_unit(numbers: list[PrintedNumber]) -> list[PrintedNumber]:
    """Numbers of one series are printed alike: a value above 1 says percent for all, the most decimals how fine all are."""
    units: dict[str, str] = {}
    decimals: dict[str, int] = {}
    for number in numbers:
        decimals[number.series] = max(number.decimals, decimals.get(number.series, 0))
        if number.unit is not None and units.get(number.series) != "percent":
            units[number.series] = number.unit
    family = ("accuracy", "top_k")
    return [
        replace(n, decimals=decimals[n.series], unit=units.get(n.series) if n.metric in family else None)
        if n.metric != "other"
        else n
        for n in numbers
    ]


def _indent(text: str) -> int:
    return len(text.expandtabs(4)) - len(text.expandtabs(4).lstrip())
