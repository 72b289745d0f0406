"""results/mutants.md, of the rows and of what was said of the survivors by who looked at each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mutants.asked import ALL_S
from mutants.session import ROWS, Row, read, rows

LOOKED_AT = Path(__file__).resolve().parents[1] / "results" / "mutants_looked_at.jsonl"
TABLE = ROWS.with_suffix(".md")
HEAD = """# Mutants

Made by `make bench-mutants`, part by part; what it means: docs/trust.md.

[mutmut](https://github.com/boxed/mutmut) makes all mutants of `src/valgap/{checks,experiments,seams}` and `stats.py`, those of
texts, annotations and decorators left out; the sample is the first 1,500 of them in the order of a hash of file, function,
operator and occurrence, and is put in this order, so that any beginning of a part is a random draw of it. A mutant is put to the
tests that run its statement, the quickest of each file first, until one fails: those that take 5 s at most, of files that take
20 s at most, and pass in a fork of one interpreter; together MOST s a mutant (measured while lines were watched). *Late*: no
answer in six times its time and 20 s, which on a busy machine need not be the mutant's doing; left out of the figures. *Not run*:
no such test runs the statement. The figures are low ones therefore: `make test` has whole programs as well, and asks all tests.
*First*: killed when first put, before tests were written for survivors; *at last*: the same mutants, so that it is a high figure
for what those tests were written from. *Asked in part*: survivors of which there was no time for all tests that run them.
*Equivalent*: looked at, and nothing that a caller could see differs. Both shares are of those run, with 95 % intervals (Wilson).
"""
Looked = dict[tuple[str, str], Row]
PARTS = ("checks", "stats.py", "experiments", "seams")


def write_table(names: Sequence[str]) -> str:
    """Write the table of a sample of these names; its text."""
    wanted = set(names)
    newest, first = ([row for row in own if row["name"] in wanted] for own in (rows(), rows(newest=False)))
    text = "\n".join(lines(newest, first, said(), names)) + "\n"
    TABLE.write_text(text, encoding="utf-8")
    return text


def said() -> Looked:
    """What was said of mutants that somebody looked at, by name and mark."""
    return {(row["name"], row["mark"]): row for row in map(json.loads, read(LOOKED_AT))}


def came(row: Row, looked: Looked) -> str:
    """What came of a mutant; `equivalent` where that was said of a survivor."""
    if row["came"] == "survived" and looked.get((row["name"], row["mark"]), {}).get("said") == "equivalent":
        return "equivalent"
    return "late" if row.get("by") == "time" else str(row["came"])


def lines(found: Sequence[Row], first: Sequence[Row], looked: Looked, names: Sequence[str]) -> list[str]:
    """Of the table: the newest row of each mutant, and its first one."""
    told = [HEAD.replace("MOST", f"{ALL_S:g}")]
    told += [
        "| of | sample | put | killed | survived | asked in part | equivalent | not run | late | killed at first | at last |"
    ]
    told += ["|---" * 11 + "|"]
    for part in ("", *PARTS):
        counts, began = (Counter(came(row, looked) for row in every if _of(row, part)) for every in (found, first))
        partly = sum(came(row, looked) == "survived" and bool(row.get("left")) for row in found if _of(row, part))
        put, size = counts.total(), sum(name.startswith(part) for name in names)
        cells = [size, put, counts["killed"], counts["survived"], partly, counts["equivalent"], counts["not run"], counts["late"]]
        whole = bool(part) or put == size  # parts that are not put equally far do not make a whole
        figures = [share(c["killed"], c["killed"] + c["survived"]) if whole else "-" for c in (began, counts)]
        told.append(f"| {part or '**all**'} | " + " | ".join([*(f"{c:,}" for c in cells), *figures]) + " |")
    told += ["", "## By operator", "", "| operator | killed | survived | equivalent | not run |", "|---|---|---|---|---|"]
    for operator, _ in Counter(operator_of(row) for row in found).most_common():
        own = Counter(came(row, looked) for row in found if operator_of(row) == operator)
        told.append(f"| {operator} | " + " | ".join(str(own[c]) for c in ("killed", "survived", "equivalent", "not run")) + " |")
    by = Counter(row["by"] if row["by"] in ("end", "import") else "a test" for row in found if came(row, looked) == "killed")
    told += ["", "Killed by " + ", ".join(f"{name} {number}" for name, number in by.most_common()) + "."]
    told += ["", "## Survivors", ""]
    for row in sorted(found, key=lambda row: str(row["name"])):
        if row["came"] == "survived":
            word = looked.get((row["name"], row["mark"]), {"said": "not looked at"})
            why = f": {word['why']}" if word.get("why") else ""
            told.append(f"- `{row['name']}` (line {row['line']}): {short(row['old'], row['new'])}: {word['said']}{why}")
    return told


def _of(row: Row, part: str) -> bool:
    return str(row["name"]).startswith(part)


def operator_of(row: Row) -> str:
    """mutmut's name of it."""
    return str(row["name"]).split(":")[-2]


def share(part: int, whole: int) -> str:
    """`90 % (88 .. 92)`."""
    if not whole:
        return "-"
    from valgap.stats import wilson_interval  # not before the copy is first on the path

    low, high = wilson_interval(part, whole)
    return f"{100 * part / whole:.1f} % ({100 * low:.1f} .. {100 * high:.1f})"


def short(old: str, new: str) -> str:
    """The two, cut to where they begin to differ."""
    old, new = " ".join(old.split()), " ".join(new.split())
    first = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, first - 30)
    dots = "..." * bool(start)
    return f"`{dots}{old[start : start + 70]}` to `{dots}{new[start : start + 70]}`"
