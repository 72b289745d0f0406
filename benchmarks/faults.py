"""The bench of the whole catalogue: planted faults and healthy controls, recorded, diagnosed, scored; writes results/faults.md.

python benchmarks/faults.py FOLDER_WITH_THE_DATA_SETS [--keep FOLDER] [--only 'NAME;...'] [--budget 1m]

With a budget every suspicion is tried by re-runs, and the page is results/faults_proved.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fault_cases import CIFAR, CLOTHES, FAULTY, HEALTHY, INSECTS, SIGNS, Case
from record_side_by_side import record_all, small_copy

from valgap import diagnose
from valgap.checks import CATALOGUE
from valgap.diagnosis import judge, order, suspected
from valgap.errors import ValgapError
from valgap.record.reader import read_record
from valgap.types import Case as RecordedCase
from valgap.types import Diagnosis, Judged

RESULTS = Path(__file__).parent / "results" / "faults.md"
PROVED = Path(__file__).parent / "results" / "faults_proved.md"
TOP = 3
DATA = (SIGNS, CLOTHES, INSECTS, CIFAR)
INTRODUCTION = (
    "Made by `make bench-faults DATA=FOLDER`. Programs of benchmarks/fault_programs.py on parts of real data sets at 80 px and",
    "below, recorded by the code of `valgap run` and diagnosed without re-runs (`--budget 0`). The cost of a fault is the",
    "last validation accuracy of the same program without it, minus its own: mean and standard deviation of the seeds. Where",
    "a fault has two names in the catalogue, both are right answers; the first is the expected one. Thresholds, and which of",
    "two causes is named first, were set while looking at these very cases: they show that each cause is told apart here, and",
    "are no independent test.",
)


@dataclass
class Answer:
    """What valgap said of one case."""

    case: Case
    named: list[str]  # codes of the suspicions, in order
    hints: list[str]
    costs: list[float]  # points below the healthy twin, of each seed; empty for healthy controls
    seconds: float
    tried: list[Judged] = field(default_factory=list)  # with a verdict from re-runs

    def confirmed(self, planted: bool) -> list[Judged]:
        """What re-runs confirmed, of the planted causes or of all others."""
        right = {c for codes in self.case.causes for c in codes}
        return [j for j in self.tried if j.verdict == "confirmed" and (j.check.code in right) == planted]

    @property
    def cost(self) -> str:
        """Mean of the costs and their standard deviation, in words."""
        known = [c for c in self.costs if not math.isnan(c)]
        spread = f" +- {statistics.stdev(known):.1f}" if len(known) > 1 else ""
        return f"{statistics.mean(known):+.1f}{spread}" if known else ""

    def place(self, codes: Sequence[str]) -> int | None:
        """Where the first of the right answers stands, from 0; None if it does not."""
        return next((i for i, c in enumerate(self.named) if c in codes), None)

    @property
    def first(self) -> bool:
        """Whether the first answer names one of the planted causes."""
        return bool(self.named) and any(self.named[0] in codes for codes in self.case.causes)

    def found(self) -> list[bool]:
        """For each planted cause, whether it is among the first answers (one more for each further cause)."""
        most = TOP + len(self.case.causes) - 1
        return [(p := self.place(codes)) is not None and p < most for codes in self.case.causes]


def twin_of(case: Case) -> str:
    """A name for the healthy twin; cases with equal twins share it."""
    return f"twin-{case.data}-{case.style}-{case.settings.replace(' ', '-').replace('=', '')}"


def record_cases(cases: Sequence[Case], data: dict[str, str], folder: Path, parallel: int, seeds: int) -> None:
    """Record every case and the twins of the faulty ones, with further seeds for the cost; nothing is recorded twice."""
    jobs = {folder / "runs" / safe(c.name): c.arguments(data[c.data]) for c in cases}
    jobs |= {folder / "runs" / twin_of(c): c.arguments(data[c.data], "") for c in cases if c.faults}
    record_all([(a, o) for o, a in jobs.items()], parallel)
    faulty = [c for c in cases if c.faults]
    for seed in range(1, seeds):
        more = {of_seed(folder, seed) / safe(c.name): c.arguments(data[c.data], seed=seed) for c in faulty}
        more |= {of_seed(folder, seed) / twin_of(c): c.arguments(data[c.data], "", seed) for c in faulty}
        record_all([(a, o) for o, a in more.items()], parallel, closing=False)


def of_seed(folder: Path, seed: int) -> Path:
    """Where the records of a seed lie; those of the first are diagnosed."""
    return folder / ("runs" if seed == 0 else f"seed-{seed}")


def costs(case: Case, folder: Path) -> list[float]:
    """Last validation accuracy of the healthy twin less that of the faulty program, in points, of each recorded seed."""
    found = []
    for seed in itertools.count():
        faulty, twin = (of_seed(folder, seed) / n for n in (safe(case.name), twin_of(case)))
        if not case.faults or not is_recorded(faulty) or not is_recorded(twin):
            return found
        found.append(accuracy(twin) - accuracy(faulty))
    return found


def is_recorded(folder: Path) -> bool:
    """Whether an earlier call recorded it to its end."""
    return (folder / "recorded").is_file()


def safe(name: str) -> str:
    """The name as that of a folder."""
    return "".join(c if c.isalnum() else "-" for c in name)


def accuracy(folder: Path) -> float:
    """Last validation accuracy of a record, in points; nan where there is none."""
    last = read_record(folder).last_validation
    return 100 * last.samples.accuracy if last is not None else float("nan")


def from_record_alone(run: Path) -> Diagnosis:
    """The diagnosis without a look at the images: the data family then sees what the record holds and no more."""
    record = read_record(run)
    return Diagnosis(record, tuple(order(judge(RecordedCase(record), CATALOGUE))), None, None, None)


def answer(case: Case, folder: Path, budget: str, images: bool) -> tuple[Answer, list[Judged]]:
    """Diagnose one recorded case."""
    run = folder / safe(case.name)
    begun = time.monotonic()
    try:
        diagnosis = diagnose(run, budget=budget) if images else from_record_alone(run)
        found, everything = suspected(diagnosis), diagnosis.findings
        crashed = [j.check.code for j in diagnosis.crashed]
        assert not crashed, (case.name, crashed)
    except ValgapError as problem:
        print(f"{case.name}: {problem}")
        found, everything = [], ()
    seconds = time.monotonic() - begun
    hints = [j.check.code for j in everything if j not in found]
    tried = [j for j in everything if j.verdict != "untested"]
    return Answer(case, [j.check.code for j in found], hints, costs(case, folder.parent), seconds, tried), list(everything)


def table(answers: Sequence[Answer]) -> list[str]:
    """Rows of Markdown, one per case."""
    lines = [
        "| case | data, style | planted | cost, points | answers (hints) | first | in first 3 |",
        "|---|---|---|---|---|---|---|",
    ]
    for a in answers:
        hints = f" ({', '.join(a.hints)})" if a.hints else ""
        planted = ", ".join("/".join(c) for c in a.case.causes) or "-"
        found = a.found()
        marks = ("yes" if a.first else "**no**", f"{sum(found)} of {len(found)}") if found else ("", "")
        name = f"[{a.case.name}]({a.case.thread})" if a.case.thread else a.case.name
        said = f"{', '.join(a.named) or '-'}{hints}"
        lines.append(f"| {name} | {a.case.data}, {a.case.style} | {planted} | {a.cost} | {said} | {marks[0]} | {marks[1]} |")
    return lines


def proved_table(answers: Sequence[Answer]) -> list[str]:
    """Rows of Markdown, one per case: what re-runs said of every suspicion."""
    lines = ["| case | data, style | planted | cost, points | verdicts of the re-runs | seconds |", "|---|---|---|---|---|---|"]
    for a in answers:
        planted = ", ".join("/".join(c) for c in a.case.causes) or "-"
        said = "; ".join(verdict(j) for j in a.tried) or ("-" if a.named else "nothing suspected")
        lines.append(f"| {a.case.name} | {a.case.data}, {a.case.style} | {planted} | {a.cost} | {said} | {a.seconds:.0f} |")
    return lines


def verdict(judged: Judged) -> str:
    """Code, verdict and effect with its interval."""
    e = judged.effect
    return f"{judged.check.code} {judged.verdict}" + (f" {e.value:+.1f} ({e.low:+.1f} .. {e.high:+.1f})" if e is not None else "")


def proved_summary(faulty: Sequence[Answer], healthy: Sequence[Answer]) -> list[str]:
    """The figures of the re-runs."""
    verdicts = [j.verdict for a in faulty for j in a.tried]
    false = [(a.case.name, j.check.code) for a in (*faulty, *healthy) for j in a.confirmed(planted=False)]
    seconds = sorted(a.seconds for a in (*faulty, *healthy))
    counted = ", ".join(f"{verdicts.count(v)} {v}" for v in ("confirmed", "refuted", "inconclusive"))
    right = sum(len(a.confirmed(planted=True)) for a in faulty)
    return [
        f"- suspicions that were tried on {len(faulty)} faulty programs: {counted}; {right} confirmed are planted causes",
        f"- confirmed beside what was planted: {len(false)}" + "".join(f"; {code} on {name}" for name, code in false),
        f"- confirmed on {len(healthy)} healthy controls: {sum(bool(a.confirmed(planted=False)) for a in healthy)}",
        f"- `valgap diagnose` with its re-runs, median {seconds[len(seconds) // 2]:.0f} s, longest {seconds[-1]:.0f} s, "
        f"together {sum(seconds) / 60:.0f} min",
    ]


def proved_page(faulty: Sequence[Answer], healthy: Sequence[Answer], budget: str, notes: Sequence[str]) -> str:
    """The page of the re-runs."""
    parts = [
        "# Faults, proved",
        "",
        f"Made by `python benchmarks/faults.py FOLDER --budget {budget}`: the cases of faults.md, every suspicion tried by",
        "re-runs. An effect is what the removal of that one cause gains, in points, with its 95 % interval; `inconclusive` are",
        "effects that the validation images (100 as a rule) and the budget cannot tell from the luck of a seed.",
        "",
        *proved_summary(faulty, healthy),
        *summary(faulty, healthy)[1:4],
        *notes,
        "",
        *proved_table([*faulty, *healthy]),
        "",
    ]
    return "\n".join(parts)


def summary(faulty: Sequence[Answer], healthy: Sequence[Answer]) -> list[str]:
    """The figures."""
    hits = [f for a in faulty for f in a.found()]
    alarms = [a for a in healthy if a.named]
    seconds = sorted(a.seconds for a in (*faulty, *healthy))
    single = [a for a in faulty if len(a.case.causes) == 1]
    return [
        f"- {len(faulty)} faulty programs ({len(faulty) - len(single)} with two causes, "
        f"{sum(bool(a.case.thread) for a in faulty)} reproductions of public threads), {len(healthy)} healthy controls",
        f"- first answer right: {sum(a.first for a in faulty)} of {len(faulty)} ({percent([a.first for a in faulty])})",
        f"- planted causes among the first three: {sum(hits)} of {len(hits)} ({percent(hits)})",
        f"- suspicions (confidence 0.5 or more) on healthy controls: {sum(len(a.named) for a in alarms)}, "
        f"on {len(alarms)} of {len(healthy)}",
        f"- `valgap diagnose`, median {seconds[len(seconds) // 2]:.2f} s, longest {seconds[-1]:.2f} s",
    ]


def percent(values: Sequence[bool]) -> str:
    """Share of true values."""
    return f"{100 * sum(values) / max(1, len(values)):.0f} %"


def page(faulty: Sequence[Answer], healthy: Sequence[Answer], notes: Sequence[str]) -> str:
    """The whole page."""
    parts = [
        "# Faults",
        "",
        *INTRODUCTION,
        "",
        *summary(faulty, healthy),
        *notes,
        "",
        "## Faulty",
        "",
        *table(faulty),
        "",
        "## Healthy",
        "",
        *table(healthy),
        "",
    ]
    return "\n".join(parts)


def main() -> None:
    """Record, diagnose, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the records, used again by a later call")
    parser.add_argument("--only", default="", help="names of cases, separated by semicolons; writes no page")
    parser.add_argument("--recorded", action="store_true", help="only the cases that lie in --keep already")
    parser.add_argument("--record-alone", action="store_true", help="measure nothing on the images")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1, help="trainings from which the cost of a fault is measured")
    parser.add_argument("--budget", default="0", help="time for re-runs of each case")
    parser.add_argument("--details", action="store_true", help="print every finding")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        data = {
            n: str(small_copy(args.data / n, folder / "data", factor=2 if n == CIFAR else 1))
            for n in (SIGNS, CLOTHES, INSECTS, CIFAR)
        }
        wanted = set(filter(None, args.only.split(";")))
        cases = [c for c in (*FAULTY, *HEALTHY) if not wanted or c.name in wanted]
        if args.recorded:
            cases = [c for c in cases if is_recorded(folder / "runs" / safe(c.name))]
        else:
            record_cases(cases, data, folder, args.parallel, args.seeds)
        answers = []
        for case in cases:
            said, everything = answer(case, folder / "runs", args.budget, not args.record_alone)
            answers.append(said)
            print(*table([said])[2:], *(proved_table([said])[2:] if said.tried else ()), sep="\n", flush=True)
            if args.details:
                for j in everything:
                    print(f"    {j.check.code} {j.verdict} {j.outcome}")
        faulty, healthy = ([a for a in answers if bool(a.case.causes) == kind] for kind in (True, False))
        print("\n".join(summary(faulty, healthy)))
        if not wanted:
            left = len(FAULTY) + len(HEALTHY) - len(cases)
            notes = ["- judged with `--record-alone`: nothing was measured on the images"] if args.record_alone else []
            notes += [f"- **{left} of {left + len(cases)} cases of fault_cases.py are not recorded yet**"] if left else []
            if args.budget == "0":
                RESULTS.write_text(page(faulty, healthy, notes))
            else:
                PROVED.write_text(proved_page(faulty, healthy, args.budget, notes))


if __name__ == "__main__":
    main()
