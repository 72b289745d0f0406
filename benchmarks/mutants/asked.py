"""Which tests are asked about a mutant, and in which order."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mutants.source import SOURCE, Row, outermost, span

ROOT = SOURCE.parent
MOST_S = 5.0  # a test that takes longer is not asked
ALL_S = 6.0  # what the tests of one mutant take together, undisturbed; --most-s asks more
OWN = 0.2  # a test that is about the module goes before others of a fifth of its time


class Known(NamedTuple):
    """One test, as it went undisturbed."""

    name: str
    file: str
    outcome: str  # passed; anything else is not asked
    seconds: float
    lines: frozenset[int]  # numbers of all lines that it ran, of all files one after the other
    shares: bool  # its file keeps results from test to test


class Numbers:
    """Lines of all files, numbered through."""

    def __init__(self, lengths: dict[str, int]) -> None:
        self.start: dict[str, int] = {}
        total = 0
        for file, length in lengths.items():
            self.start[file] = total
            total += length + 2
        self.total = total

    def of(self, file: str, lines: range) -> frozenset[int]:
        """The numbers of some lines of a file."""
        return frozenset(self.start[file] + line for line in lines)


def wanted(made: Row, numbers: Numbers) -> frozenset[int]:
    """The lines of which a test must have run one: those of the statement; outside of functions, those of the whole file."""
    node = outermost(made["file"], made["line"])
    if node is None:
        end = (made["file"], range(1, 10_000_000))
        following = sorted(start for start in numbers.start.values() if start > numbers.start[end[0]])
        return frozenset(range(numbers.start[end[0]], following[0] if following else numbers.total))
    if made["line"] < node.body[0].lineno:
        return numbers.of(made["file"], range(node.lineno, node.body[0].lineno))
    return numbers.of(made["file"], span(made["file"], made["line"]))


def chosen(made: Row, tests: Sequence[Known], numbers: Numbers) -> list[Known]:
    """Tests that run the mutated statement, the quickest of each file first; then others that share results with them."""
    lines = wanted(made, numbers)
    fast = [t for t in tests if t.outcome == "passed" and t.seconds <= MOST_S]
    running = [t for t in fast if t.lines & lines]
    if outermost(made["file"], made["line"]) is None:  # what a module holds is looked at without running it as well
        files = {t.file for t in running}
        running = [t for t in fast if t.file in files]
    shared = {t.file for t in running if t.shares}
    asked = {t.name for t in running}
    also = [t for t in fast if t.file in shared and t.name not in asked]
    return [*_spread(running, made["file"]), *_spread(also, made["file"])]


def within(tests: Sequence[Known], most_s: float) -> list[Known]:
    """The first ones whose times together are no more than that, and at least one."""
    kept: list[Known] = []
    for test in tests:
        if not kept or sum(t.seconds for t in kept) + test.seconds <= most_s:
            kept.append(test)
    return kept


def shares(file: Path) -> bool:
    """Whether a file of tests keeps results from one test to the next."""
    return bool(
        re.search(r"functools\.cache|lru_cache|scope=\"(module|session|class|package)\"", file.read_text(encoding="utf-8"))
    )


@functools.cache
def about(test: str, file: str) -> bool:
    """Whether a file of tests has the name of a module, or imports it."""
    module = Path(file).with_suffix("")
    text = (ROOT / test).read_text(encoding="utf-8")
    named = re.search(rf"from {'.'.join(module.parent.parts)} import [^\n]*\b{module.name}\b|{'.'.join(module.parts)}\b", text)
    return Path(test).stem == f"test_{module.name}" or named is not None


def _spread(tests: Sequence[Known], file: str) -> list[Known]:
    """By time, the second of a file at twice its time, the third at three times."""
    places: Counter[str] = Counter()
    ranks: dict[str, float] = {}
    for test in sorted(tests, key=lambda t: t.seconds):
        places[test.file] += 1
        own = about(test.file, file)
        ranks[test.name] = test.seconds * (OWN if own else 1.0) * places[test.file]
    return sorted(tests, key=lambda t: ranks[t.name])
