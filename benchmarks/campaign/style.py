"""A way to write a training program: a text with named slots, and what its variables are called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

FOLDER = Path(__file__).resolve().parent / "styles"
MARK = re.compile(r"^( *)#: (\S+)$")
FIXED = "."


@dataclass(frozen=True)
class Piece:
    """Lines of a program: of a slot, or (slot == ".") such as no fault touches. They are kept without their indentation."""

    slot: str
    indent: str
    text: str


@dataclass(frozen=True)
class Style:
    """A program's text in pieces, the names of its variables, and how its lists, readers and samplers are written."""

    name: str
    words: dict[str, str]
    pieces: tuple[Piece, ...]

    @property
    def slots(self) -> dict[str, str]:
        """The text of each slot."""
        return {p.slot: p.text for p in self.pieces if p.slot != FIXED}

    def render(self, slots: dict[str, str], settings: dict[str, str]) -> str:
        """The program with these slots and settings.

        Raises:
            KeyError: a $name in a slot is neither a setting nor a variable of the style.
        """
        lines: list[str] = []
        for piece in self.pieces:
            text = piece.text if piece.slot == FIXED else slots[piece.slot]
            lines += [piece.indent + line if line and piece.slot != FIXED else line for line in text.split("\n") if text]
        return filled("\n".join(lines) + "\n", {**self.words, **settings})

    def way(self, key: str) -> tuple[str, ...] | None:
        """The parts of what the style says under that key, such as read.train.pil; None where it has no such way."""
        return tuple(self.words[key].split(" | ")) if key in self.words else None


def filled(text: str, words: dict[str, str]) -> str:
    """The text with every $name replaced, also in what replaces it."""
    for _ in range(4):
        if "$" not in text:
            return text
        text = Template(text).substitute(words)
    raise ValueError(f"names that go in a circle: {text}")


def read_style(path: Path) -> Style:
    """The style in that file: `key = value` lines, a line ---, and the program; `#: slot` begins a slot, `#: .` ends it."""
    head, _, body = path.read_text(encoding="utf-8").partition("\n---\n")
    words = dict(line.replace("\\n", "\n").split(" = ", 1) for line in head.split("\n"))
    pieces: list[Piece] = []
    slot, indent, lines = FIXED, "", []  # type: str, str, list[str]
    for line in [*body.rstrip("\n").split("\n"), "#: ."]:
        mark = MARK.match(line)
        if not mark:
            lines.append(line[len(indent) :] if slot != FIXED else line)
            continue
        if slot != FIXED or lines:
            pieces.append(Piece(slot, indent, "\n".join(lines)))
        indent, slot, lines = mark[1], mark[2], []
    return Style(path.stem, words, tuple(pieces))


def styles() -> dict[str, Style]:
    """All styles by name."""
    return {path.stem: read_style(path) for path in sorted(FOLDER.glob("*.txt"))}
