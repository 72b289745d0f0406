"""Tables in what is printed: a line of names, then rows of numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from valgap.record.printed.found import Found
from valgap.record.printed.tokens import Token, tokens_of
from valgap.record.printed.words import meaning_of

BAR_BEHIND = re.compile(r":?\s*\d+%\s*(?:\|[^|]*\|\s*\d+/\d|[━╸╺╴─]{3}|\[[=#>. -]{4}).*$")
MAX_WORDS = 4  # in one cell of a header
# Words of sentences, not of columns.
IN_SENTENCES = {"the", "a", "an", "of", "on", "for", "in", "at", "to", "with", "is", "and", "from", "not", "did"}
CLASSES = {"class", "classes", "name", "names", "category", "label"}
WHOLE = {"all", "overall", "total", "val", "test", "valid", "validation"}


@dataclass(frozen=True)
class Header:
    """The names of a table's columns and what parts them."""

    names: tuple[str, ...]
    mark: str  # "|", ",", "tab", "wide" (two blanks or more) or "blank"

    def row(self, text: str) -> list[Found] | None:
        """The numbers of a row under their names; None when the line is no row of this table."""
        cells = _cells(BAR_BEHIND.sub("", text), self.mark)
        names = self.names
        if len(cells) == len(names) + 1 and self.mark in ("wide", "blank") and not _number(cells[0]):
            names = ("name", *names)  # a table whose first column has no name
        if len(cells) != len(names):
            return None
        read = [_number(cell) for cell in cells]
        plain = [bool(n) or _is_plain(cell) for n, cell in zip(read, cells, strict=True)]
        if not any(read) or not all(plain):
            return None
        if self.mark == "blank" and any(
            n is None and any(t.kind == "word" for t in tokens_of(c)) for n, c in list(zip(read, cells, strict=True))[1:]
        ):
            return None  # a sentence of as many words
        name = next((c for c, n in zip(cells, read, strict=True) if n is None), "")
        per_class = names[0].lower() in CLASSES and bool(name) and name.lower() not in WHOLE
        found = []
        for label, number in zip(names, read, strict=True):
            if number is not None:
                token, percent = number
                said = meaning_of(label.split())
                kind = said.kind or ("class" if per_class else "")
                one = Found(token, tuple(label.split()), said.metric or "other", said.k, said.side, bool(said.side), kind)
                one.percent, one.labelled = percent or "%" in label, True
                found.append(one)
        return found


def header_of(text: str) -> Header | None:
    """The header that a line without numbers is; None when it is none."""
    text = BAR_BEHIND.sub("", text)
    if any(t.kind in ("number", "opaque") for t in tokens_of(text)):
        return None
    for mark in ("|", ",", "tab", "wide", "blank"):
        cells = _cells(text, mark)
        if len(cells) < 2 or any(len(c.split()) > MAX_WORDS or not c for c in cells):
            continue
        if mark == "blank" and any(":" in c or "=" in c or c.lower() in IN_SENTENCES for c in cells):
            continue
        if any(meaning_of(c.split()).metric not in ("", "other") for c in cells):
            return Header(tuple(cells), mark)
    return None


def _cells(text: str, mark: str) -> list[str]:
    if mark == "|":
        return [c.strip() for c in text.strip().strip("|").split("|")] if "|" in text else []
    if mark == "tab":
        return [c.strip() for c in text.strip().split("\t") if c.strip()] if "\t" in text.strip() else []
    if mark == ",":
        return [c.strip() for c in text.strip().split(",")] if "," in text else []
    return re.split(r"\s{2,}", text.strip()) if mark == "wide" else text.split()


def _number(cell: str) -> tuple[Token, bool] | None:
    """(the number, whether it is in percent) of a cell that holds nothing else."""
    tokens = tokens_of(cell)
    if tokens and tokens[0].kind == "number" and [t.text for t in tokens[1:]] in ([], ["%"], ["+"], ["*"]):
        return tokens[0], len(tokens) > 1 and tokens[1].text == "%"
    return None


def _is_plain(cell: str) -> bool:
    """Whether a cell without a number is one name, a time, a progress or nothing."""
    tokens = tokens_of(cell)
    kinds = [t.kind for t in tokens if t.kind != "mark"]
    return len(kinds) <= 1 or (len(tokens) == 3 and tokens[1].text == "/")
