"""Mutants of checks, stats, experiments and seams, and the tests that notice them; writes results/mutants.md.

    python benchmarks/mutants.py [--minutes 9] [--python PYTHON] [--only NAME ...]

mutmut makes the mutants (--python: one that has it; it need not have valgap). The sample is fixed: the first of all mutants in
the order of a hash of file, function, operator and occurrence. At first it is seen which test runs which lines; then each mutant
is put to the tests that run its statement, the quickest first, until one fails. A row goes to results/mutants.jsonl at once, and
is made again only if the function has changed: one calls it until nothing is left. What was seen of the tests is kept in --keep;
without it tests are seen again. --only puts single mutants again; --survivors what no test noticed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from filelock import FileLock
from mutants.asked import ALL_S
from mutants.session import ROOT, sample, work
from mutants.source import PARTS, name_of
from mutants.table import write_table

COUNT = 1500


def main() -> None:
    """Do what is missing, until time is up; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-mutants" / "bin" / "python", help="that has mutmut")
    parser.add_argument(
        "--keep", type=Path, default=ROOT / ".bench-mutants", help="what is seen of the tests; a copy of the sources"
    )
    parser.add_argument("--count", type=int, default=COUNT, help="of the sample")
    parser.add_argument("--most-s", type=float, default=ALL_S, help="what the tests of a mutant take together, undisturbed")
    parser.add_argument("--survivors", action="store_true", help="put again what no test noticed")
    parser.add_argument("--part", action="append", choices=PARTS, help="of the sources; all, unless given")
    parser.add_argument("--only", action="append", metavar="NAME", help="FILE:FUNCTION:OPERATOR:OCCURRENCE, put again")
    parser.add_argument("--tests", action="append", metavar="PATH", help="only these")
    given = parser.parse_args()
    given.keep = given.keep.resolve()
    given.keep.mkdir(exist_ok=True)
    with FileLock(given.keep / "lock", timeout=0):  # two would write one copy of the sources
        done = work(given, time.monotonic() + 60 * given.minutes)
    print(write_table([name_of(made) for made in sample(given.keep, given.python, given.count)]))
    print("nothing is left" if done else "time is up: call it again")


if __name__ == "__main__":
    main()
