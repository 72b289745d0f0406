"""Printed lines as tokens: words, numbers, bars and marks. What only looks like a number (dates, versions, times) is opaque."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from valgap.record.drawn import last_state

Kind = Literal["number", "word", "opaque", "bar", "mark"]

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[()][A-Z0-9]|\x08")
UPRIGHT = str.maketrans(dict.fromkeys("┃│║┆┊", "|") | dict.fromkeys("\xa0\u2009\u202f", " "))
# A rule between parts of a text or a table: nothing but lines and crosses.
RULE = re.compile(r"^[\s|+:=_*#~\-\u2500-\u257f]*$")
LEVEL = re.compile(
    r"^(.{0,100}?)(?<![A-Za-z])(?:DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|SUCCESS)\b\]?(?::[\w.]+:|\s*\|?\s*[\w.<>]+:[\w.<>]+:\d+\s+-|:)?"
)
LOGGER = re.compile(r"^[\s:|-]*[\w.]+\s+[-|]\s+")
GLOG = re.compile(r"^[IWEF]\d{4} [\d:.]+\s+\d+ \S+\] ")

TOKEN = re.compile(
    r"""
    (?P<opaque>
        \d{4}[-/]\d{1,2}[-/]\d{1,2}(?:[T\ ]\d{1,2}:\d\d(?::\d\d)?(?:[.,]\d+)?Z?)?   # dates
      | \d{1,2}/\d{1,2}(?:/\d{2,4})?(?=,?\ \d{1,2}:\d\d)
      | (?<![\w.])\d+:\d\d(?::\d\d)?(?:[.,]\d+)?(?![\w.])                            # times
      | (?<![\w.])v?\d+\.\d+\.\d+[\w.+-]*                                            # versions, addresses
      | 0x[0-9a-fA-F]+ | (?:cuda|cpu|xpu|mps|npu):\d+
    )
  | (?P<bar>
        \|[█▉▊▋▌▍▎▏\#\d\ ]*\|(?=\s*\d+/) | \[[=>.\ -]{4,}\] | \[[\#.\ -]{4,}\] | [━╸╺╴─═]{3,} | [█░▒▓]{2,}
    )
  | (?P<number>
        (?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?
    )
    (?P<suffix>/s\b|[A-Za-zµ][\w/]*)?
  | (?P<word> [^\W\d](?:[\w@]|[./-](?=[^\W_]))* )
  | (?P<mark> \S )
    """,
    re.VERBOSE,
)


KINDS: dict[str, Kind] = {k: k for k in ("opaque", "bar", "number", "word", "mark")} | {"suffix": "opaque"}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a line."""

    kind: Kind
    text: str
    start: int
    end: int
    gap: int  # blanks before it; a tabulator counts as four

    @property
    def integer(self) -> bool:
        """Whether it is a number without a point."""
        return self.kind == "number" and self.text.lstrip("+-").isdigit()


def cleaned(line: str) -> str:
    """The line as a person sees it: its last state, without colours and what a logger puts in front."""
    text = last_state(ESCAPES.sub("", line)).translate(UPRIGHT)
    text = GLOG.sub("", text)
    level = LEVEL.match(text)
    if level is None:
        return text
    rest = text[level.end() :]
    return LOGGER.sub("", rest, count=1) if level.group(1).strip() else rest


def is_rule(text: str) -> bool:
    """Whether a line only separates: dashes, crosses and blanks."""
    return RULE.match(text) is not None


@lru_cache(maxsize=64)
def tokens_of(text: str) -> list[Token]:
    """The tokens of a cleaned line. A number with a unit stuck to it ("12.1s", "3GB") is opaque."""
    found: list[Token] = []
    end = 0
    for match in TOKEN.finditer(text):
        kind: Kind = KINDS[match.lastgroup or "mark"]
        gap = sum(4 if c == "\t" else 1 for c in text[end : match.start()])
        found.append(Token(kind, match.group(), match.start(), match.end(), gap))
        end = match.end()
    return found
