"""Campaigns that try to break valgap, in parts; writes results/trust.md.

    python benchmarks/trust.py [hostile | undisturbed | killed] [--minutes 9] [--data FOLDER] ...
    python benchmarks/trust.py [PART] --again "NAME"

hostile: inputs that a stranger made. undisturbed: programs bare and recorded. killed: kill -9 at random moments, and other ends.
A row goes to the part's own file in results/ at once, and is not made again: one calls it until nothing is left.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

BENCHMARKS = Path(__file__).resolve().parent
TABLE = BENCHMARKS / "results" / "trust.md"
HEAD = """# Trust

Made by `make bench-trust PART=...`, part by part; what it means: docs/trust.md.
"""


class Part(NamedTuple):
    """What a part's module gives."""

    work: Callable[[argparse.Namespace, float], bool]  # does what has no row, until that moment; whether nothing is left
    again: Callable[[str, argparse.Namespace], None]  # one trial once more, told in full
    section: Callable[[], list[str]]  # of the table


PARTS = {"hostile": "hostile.part", "undisturbed": "undisturbed.part", "killed": "killed.part"}


def part(name: str) -> Part:
    """A part by its name."""
    module = importlib.import_module(PARTS[name])
    return Part(module.work, module.again, module.section)


def main() -> None:
    """Do what is missing of a part, until time is up; write the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=PARTS, default="hostile")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--again", metavar="NAME", help='one trial, told in full: "image 123", "stranger p01", "train 7"')
    parser.add_argument("--kind", action="append", help="only these, in this order; may be given again")
    parser.add_argument("--most", type=int, default=1 << 30, help="trials of a kind")
    parser.add_argument("--before", action="store_true", help="hostile: an older valgap is asked (PYTHONPATH), rows of their own")
    parser.add_argument("--data", type=Path, help="undisturbed, killed: the folder with the data sets")
    parser.add_argument("--cases", type=Path, help="undisturbed: the folder of public reports (../shared/cases)")
    parser.add_argument("--keep", type=Path, default=Path(".bench-trust"), help="undisturbed, killed: where sets and runs lie")
    given = parser.parse_args()
    if given.part != "hostile" and given.data is None:
        parser.error(f"{given.part} needs --data")
    if given.again:
        part(given.part).again(given.again, given)
        return
    done = part(given.part).work(given, time.monotonic() + 60 * given.minutes)
    write_table()
    print(TABLE.read_text(encoding="utf-8"))
    print("nothing is left" if done else "time is up: call it again")


def write_table() -> None:
    """results/trust.md, of the rows that are there."""
    lines = [line for name in PARTS for line in [*part(name).section(), ""]]
    TABLE.write_text(HEAD + "\n" + "\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
