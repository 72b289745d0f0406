"""results/campaign.md: how often the stage and the name are right, what is suspected of healthy programs, and how sure it was."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from campaign.kind import APART, HALVES, STAGES
from campaign.plan import Program, digest
from valgap.confidence import calibrated, log_odds
from valgap.stats import wilson_interval

SURE = 0.5
HARMLESS = 3.0
UNSOUND = 5.0
NEAR_POINTS, NEAR_SHARE = 5.0, 0.2
EDGES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)
NOTHING = "nothing"
RECORD_ALONE = "after"  # the label of the rows without re-runs
ALL_HAVE = ("programs, of them healthy", "no answer")
COLUMNS = (*HALVES, APART)
Row = Mapping[str, Any]
Rows = Mapping[tuple[str, str, int], Row]

INTRODUCTION = """Made by `make bench-campaign DATA=FOLDER`; what is in it: docs/campaign.md. The true cost of a fault
is the sound twin's accuracy on validation less the program's (of a fault of measurement: how far the printed accuracy is from the
true one), measured without valgap. Faults that cost less than 3 points are harmless and not asked for. Kinds are in the halves by
the hash of their names; neighbours (from threads of strangers) are in neither, and nothing is fitted on them. Single kinds are
told of for the calibration half and the neighbours only. Shares carry 95 % Wilson intervals."""


@dataclass(frozen=True)
class Verdict:
    """A stage that is told, how surely, at what cost in points, and whether that is right."""

    stage: str
    confidence: float
    points: float | None
    right: bool


@dataclass(frozen=True)
class Case:
    """A program, its true cost in points and nats, and what was said of it."""

    program: Program
    points: float
    nats: float | None
    row: Row

    @property
    def verdicts(self) -> list[Verdict]:
        """What is told first, second...: the stages at fault where stages are told, else the findings."""
        if self.row.get("stages") is not None:
            at_fault = [s for s in self.row["stages"] if s["verdict"] == "at fault"]
            return [
                Verdict(s["stage"], self.sureness(s["confidence"]), value(s["points"]), s["stage"] in self.program.stages)
                for s in at_fault
            ]
        told = self.row["findings"] or ([self.row["top"]] if self.row["top"] else [])
        return [Verdict(f["stage"], self.sureness(f["confidence"]), f["points"], self.met(f)) for f in told]

    def sureness(self, told: float | None) -> float:
        """The confidence as it would be told today: rows may be older than the line that is in force."""
        claims = claimed(told or 0.0, self.row.get("map", (0.0, 1.0)))
        return calibrated(claims)

    def met(self, finding: Row) -> bool:
        """The finding has a right stage; or a right name, whose stage our list of codes may see elsewhere."""
        return finding["stage"] in self.program.stages or finding["code"] in self.program.codes

    @property
    def sure(self) -> list[Verdict]:
        """What is told with confidence, of each stage the first."""
        found: dict[str, Verdict] = {}
        for verdict in self.verdicts:
            if verdict.confidence >= SURE:
                found.setdefault(verdict.stage, verdict)
        return list(found.values())

    @property
    def codes(self) -> list[str]:
        """The codes that are told with confidence, first things first."""
        return [f["code"] for f in self.row["findings"]]

    def right(self, among: int) -> bool:
        """One of the first stages that are told is a right one."""
        return any(v.right for v in self.sure[:among])

    @property
    def suspected(self) -> bool:
        """Anything is told with confidence."""
        return bool(self.sure or self.codes)

    @property
    def demanded(self) -> bool:
        """It is faulty, and the fault costs something."""
        return not self.program.healthy and self.points >= HARMLESS


def claimed(told: float, line: Sequence[float]) -> float:
    """What the checks claimed, where ``line`` (offset, slope) made that confidence of it; hints as they are."""
    if told < SURE or tuple(line) == (0.0, 1.0):
        return told
    return 1 / (1 + math.exp(-(log_odds(told) - line[0]) / line[1]))


def value(points: Any) -> float | None:
    """The number of {"value": ...} or of a number."""
    return points.get("value") if isinstance(points, dict) else points


def true_cost(program: Program, rows: Rows) -> tuple[float, float | None] | None:
    """Points and nats that the program's fault costs, over the seeds that were run; None where it was not run."""
    if not program.kinds:
        return 0.0, 0.0
    points, nats = [], []
    for seed in (0, 1):
        own, twin = (rows.get(("bare", name, seed)) for name in (program.name, digest(program.base.name)))
        if own is None or twin is None or "accuracy" not in own or "accuracy" not in twin:
            continue
        lost = 100 * (twin["accuracy"] - own["accuracy"])
        if "measure" in program.stages:
            shown = own["printed"]
            lost = max(lost, 100 * abs(shown - own["accuracy"]) if shown is not None else 0.0)
        points.append(lost)
        if own["nll"] is not None and twin["nll"] is not None:
            nats.append(own["nll"] - twin["nll"])
    return (sum(points) / len(points), sum(nats) / len(nats) if nats else None) if points else None


def cases(programs: Iterable[Program], rows: Rows, label: str) -> list[Case]:
    """The programs that this valgap was asked about."""
    found = []
    for program in programs:
        row, cost = rows.get((label, program.name, 0)), true_cost(program, rows)
        if row is not None and cost is not None:
            found.append(Case(program, *cost, row))
    return found


def share(hits: Sequence[bool]) -> str:
    """Such as 3 of 4, 75 % (30-95)."""
    if not hits:
        return "0 of 0"
    low, high = wilson_interval(sum(hits), len(hits))
    return f"{sum(hits)} of {len(hits)}, {100 * sum(hits) / len(hits):.0f} % ({100 * low:.0f}-{100 * high:.0f})"


def figures(of: Sequence[Case]) -> dict[str, str]:
    """What is told of one half."""
    faulty = [c for c in of if c.demanded]
    single = [c for c in faulty if len(c.program.kinds) == 1]
    healthy = [c for c in of if c.program.healthy and c.points < UNSOUND]
    named = [c for c in faulty if c.program.codes]
    told = [c for c in faulty if c.right(1) and c.sure[0].points is not None]
    return {
        "programs, of them healthy": f"{len(of)}, {len(healthy)}",
        "stage right first": share([c.right(1) for c in faulty]),
        "of one fault only": share([c.right(1) for c in single]),
        "stage right within the first two": share([c.right(2) for c in faulty]),
        "name right first, where there is one": share([bool(set(c.codes[:1]) & set(c.program.codes)) for c in named]),
        "name right within the first two": share([bool(set(c.codes[:2]) & set(c.program.codes)) for c in named]),
        "nothing told": share([not c.suspected for c in faulty]),
        "false suspicion on a healthy program": share([c.suspected for c in healthy]),
        "told cost near the true one, where the stage is right": share([near(c) for c in told]),
        "ECE": f"{expected_error(reliability(of)):.3f}" if of else "",
        "harmless faults (not asked for), suspected": share(
            [c.suspected for c in of if not c.program.healthy and not c.demanded]
        ),
        "no answer": share(["error" in c.row for c in of]),
    }


def near(case: Case) -> bool:
    """The cost that is told is within 5 points or a fifth of the true one."""
    told = case.sure[0].points
    return told is not None and abs(told - case.points) <= max(NEAR_POINTS, NEAR_SHARE * case.points)


Bin = tuple[float, float, int, float, float]


def reliability(of: Sequence[Case]) -> list[Bin]:
    """Edges, number, mean confidence and share of right stages of the first thing that is told; harmless faults left out."""
    pairs = []
    for case in of:
        asked = case.demanded or (case.program.healthy and case.points < UNSOUND)
        if asked and case.verdicts:
            pairs.append((case.verdicts[0].confidence, case.verdicts[0].right))
    bins: list[Bin] = []
    for low, high in pairwise(EDGES):
        inside = [(c, right) for c, right in pairs if low <= c < high]
        if inside:
            mean = sum(c for c, _ in inside) / len(inside)
            bins.append((low, min(high, 1.0), len(inside), mean, sum(r for _, r in inside) / len(inside)))
    return bins


def expected_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: how far confidence and share of right answers are apart, weighted by number."""
    total = sum(n for _, _, n, _, _ in bins)
    return sum(n * abs(mean - right) for _, _, n, mean, right in bins) / total if total else 0.0


def table(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> list[str]:
    """A table of Markdown."""
    rows = [heads, ["---"] * len(heads), *lines]
    return ["| " + " | ".join(str(c).replace("|", "/") for c in row) + " |" for row in rows] + [""]


def confusion(of: Sequence[Case]) -> list[str]:
    """Lines: where the fault is; columns: what is told first. Of two right stages the one told counts, else the first."""
    counts: Counter[tuple[str, str]] = Counter()
    for case in of:
        if not case.demanded and not case.program.healthy:
            continue
        said = case.sure[0].stage if case.sure else NOTHING
        truth = said if said in case.program.stages else (case.program.stages or (NOTHING,))[0]
        counts[truth, said] += 1
    names = (*STAGES, NOTHING)
    return table(["fault in / told", *names], [[t, *(counts[t, s] or "" for s in names)] for t in names])


def by_kind(of: Sequence[Case]) -> list[str]:
    """Each kind: how often its stage is right, and what is told of it."""
    groups: dict[str, list[Case]] = {}
    for case in of:
        groups.setdefault(" + ".join(k.name for k in case.program.kinds) or "(no change)", []).append(case)
    lines = []
    for name, group in groups.items():
        faulty = [c for c in group if c.demanded]
        stages = "/".join(dict.fromkeys(s for c in group for s in c.program.stages)) or "healthy"
        hits = [c.right(1) for c in faulty] if stages != "healthy" else [not c.suspected for c in group]
        costs = ", ".join(f"{c.points:.0f}" for c in group)
        said = "; ".join(" ".join(f"{f['code']} {f['confidence']:.2f}" for f in c.row["findings"][:3]) or "-" for c in group)
        lines.append((len(hits) - sum(hits), [name, stages, f"{sum(hits)} of {len(hits)}", costs, said]))
    lines.sort(key=lambda line: (-line[0], line[1][0]))
    return table(["kind", "stage", "right", "points lost", "told"], [line for _, line in lines])


def beside(halves: Mapping[str, Sequence[Case]], alone: Mapping[str, Sequence[Case]]) -> list[str]:
    """The figures of the same programs by the record alone."""
    told = {}
    for half, of in halves.items():
        names = {c.program.name for c in of}
        told[half] = figures([c for c in alone[half] if c.program.name in names])
    lines = [[what, *(told[h][what] for h in COLUMNS)] for what in told[COLUMNS[0]] if what not in ALL_HAVE]
    return ["The same programs from the record alone:", "", *table(["", *COLUMNS], lines)]


def write_table(programs: Sequence[Program], rows: Rows, to: Path) -> None:
    """The whole report."""
    text = ["# Campaign", "", INTRODUCTION, ""]
    for label in dict.fromkeys(label for label, _, _ in rows if label != "bare"):
        halves = {half: cases([p for p in programs if p.half == half], rows, label) for half in COLUMNS}
        told = {half: figures(of) for half, of in halves.items()}
        text += [f"## {label}", ""]
        text += table(["", *COLUMNS], [[what, *(told[h][what] for h in COLUMNS)] for what in told[COLUMNS[0]]])
        if label != RECORD_ALONE:
            text += beside(halves, {half: cases([p for p in programs if p.half == half], rows, RECORD_ALONE) for half in COLUMNS})
        for half, of in halves.items():
            if of:
                text += [f"### {label}, {half}: confidence, and stages", ""]
                lines = [[f"{lo:g}-{hi:g}", n, f"{m:.2f}", f"{r:.2f}"] for lo, hi, n, m, r in reliability(of)]
                text += table(["confidence", "programs", "mean", "right"], lines) + confusion(of)
        for half in ("calibration", APART):
            if halves[half]:
                text += [f"### {label}, {half}: kinds", "", *by_kind(halves[half])]
    to.write_text("\n".join(text), encoding="utf-8")
