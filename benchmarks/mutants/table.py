"""results/mutants.md, of the rows and of what was said of the survivors by who looked at each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mutants.session import ROWS, Row, read, rows

LOOKED_AT = Path(__file__).resolve().parents[1] / "results" / "mutants_looked_at.jsonl"
TABLE = ROWS.with_suffix(".md")
HEAD = """# Mutants

Made by `make bench-mutants`, part by part.

[mutmut](https://github.com/boxed/mutmut) makes all mutants of `src/valgap/{checks,experiments,seams}` and `stats.py`, those of
texts, annotations and decorators left out; the sample is the first {count:,} in the order of a hash of file, function, operator
and occurrence. A mutant is put to the tests that run its statement, the quickest first, until one fails: those of the folders
checks, contract, seams, experiments, record, report, comparison, live, ranks, exhibits, edits and integrations that take 5 s at
most and pass in a fork of one interpreter; together 30 s a mutant. What takes six times its time and 20 s more is killed as well.
*Not run*: no such test runs the statement (`make test` has others that do: whole programs, in processes of their own).
*Equivalent*: looked at, and nothing that a caller could see differs. In brackets: 95 % intervals of a share (Wilson).
"""


def write_table(count: int) -> str:
    """Write the table; its text."""
    text = "\n".join(lines(rows(), said(), count)) + "\n"
    TABLE.write_text(text, encoding="utf-8")
    return text


def said() -> dict[tuple[str, str], Row]:
    """What was said of mutants that somebody looked at, by name and mark."""
    return {(row["name"], row["mark"]): row for row in map(json.loads, read(LOOKED_AT))}


def came(row: Row, looked: dict[tuple[str, str], Row]) -> str:
    """What came of a mutant; `equivalent` where that was said of a survivor."""
    if row["came"] == "survived" and looked.get((row["name"], row["mark"]), {}).get("said") == "equivalent":
        return "equivalent"
    return str(row["came"])


def lines(found: Sequence[Row], looked: dict[tuple[str, str], Row], count: int) -> list[str]:
    """Of the table."""
    told = [HEAD.replace("{count:,}", f"{count:,}")]
    told += [
        "| of | mutants | killed | survived | equivalent | not run | killed of those run | of all |",
        "|---|---|---|---|---|---|---|---|",
    ]
    parts = ("checks", "stats.py", "experiments", "seams", "")
    for part in parts:
        own = Counter(came(row, looked) for row in found if row["name"].startswith(part) and row["came"] != "no program")
        run = own["killed"] + own["survived"]
        cells = [str(sum(own.values())), *(str(own[c]) for c in ("killed", "survived", "equivalent", "not run"))]
        cells += [share(own["killed"], run), share(own["killed"], run + own["not run"])]
        told.append(f"| {part or '**all**'} | " + " | ".join(cells) + " |")
    told += ["", "## By operator", "", "| operator | killed | survived | equivalent | not run |", "|---|---|---|---|---|"]
    for operator, _ in Counter(operator_of(row) for row in found).most_common():
        own = Counter(came(row, looked) for row in found if operator_of(row) == operator)
        told.append(f"| {operator} | " + " | ".join(str(own[c]) for c in ("killed", "survived", "equivalent", "not run")) + " |")
    by = Counter(row["by"] if row["by"] in ("time", "end", "import") else "a test" for row in found if row["came"] == "killed")
    told += ["", "Killed by " + ", ".join(f"{name} {number}" for name, number in by.most_common()) + "."]
    told += ["", "## Survivors", ""]
    for row in sorted(found, key=lambda row: str(row["name"])):
        if row["came"] == "survived":
            word = looked.get((row["name"], row["mark"]), {"said": "not looked at"})
            why = f": {word['why']}" if word.get("why") else ""
            told.append(f"- `{row['name']}` (line {row['line']}): {short(row['old'], row['new'])}: {word['said']}{why}")
    return told


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
