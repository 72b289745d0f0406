"""A Diagnosis on the terminal: one screen, everything, or a line for each finding."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding

from valgap.report.standing import LIKELY
from valgap.report.words import FEWEST, evidence_line, loss_parts_text, loss_text, safe, share_text
from valgap.types import SOUND, STAGE_WORDS, Clear, Crashed, Diagnosis, Finding, Judged, NotApplicable

# What a screen of 24 lines holds beside the ledger.
SCREEN_FINDINGS = 3
SCREEN_EVIDENCE = 1
MAX_EVIDENCE = 8
MAX_SUBJECTS = 5
SECONDS_TOLD = 95  # more is told in minutes
MIN_REASON = 30  # columns that the reasons of verdicts have, however narrow the screen is


def show_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print one screen: what happened, the account of the causes, evidence and remedy of the first ones."""
    likely = _head(diagnosis, console)
    for number, judged in enumerate(likely[:SCREEN_FINDINGS], 1):
        _finding(number, judged, console, SCREEN_EVIDENCE)
    _stages_in_short(diagnosis, console)
    _foot(diagnosis, console)
    hints = _hints(diagnosis)
    clear = sum(isinstance(j.outcome, Clear) for j in diagnosis.judged)
    unclear = sum(isinstance(j.outcome, NotApplicable) for j in diagnosis.judged)
    rest = f"{len(hints)} weak hint{'s' * (len(hints) > 1)}, " if hints else ""
    told = f"{rest}{clear} causes ruled out, {unclear} not judged; --details lists them"
    more = len(likely) - SCREEN_FINDINGS
    console.print(f"[dim]{f'{more} more findings, ' if more > 0 else ''}{told}[/]", highlight=False)


def show_details(diagnosis: Diagnosis, console: Console) -> None:
    """Print everything: all findings with their evidence and what they concern, hints, what was ruled out and not judged."""
    for number, judged in enumerate(_head(diagnosis, console), 1):
        _finding(number, judged, console, MAX_EVIDENCE)
        _concerned(judged, console)
    _stages(diagnosis, console)
    _gap(diagnosis, console)
    _foot(diagnosis, console)
    hints = _hints(diagnosis)
    if hints:
        console.print("Weak hints, not to be acted on alone: " + "; ".join(_hint(j) for j in hints))
    for title, kind in {"ruled out": Clear, "not judged": NotApplicable}.items():
        of_kind = [j for j in diagnosis.judged if isinstance(j.outcome, kind)]
        console.print(f"[dim]{title} ({len(of_kind)})[/]")
        for judged in of_kind:
            told = judged.outcome.summary if isinstance(judged.outcome, Clear) else f"needs {_missing(judged)}"
            text = f"[dim]{judged.check.code} {judged.check.name}: {safe(told)}[/]"
            console.print(Padding(text, (0, 0, 0, 2), expand=False), highlight=False)


def show_briefly(diagnosis: Diagnosis, console: Console) -> None:
    """Print a line for each likely finding, and nothing else: code, name, points, verdict."""
    for judged in _likely(diagnosis):
        console.print(
            f"{judged.check.code} {judged.check.name} {_points(judged):+.1f} {judged.verdict}", highlight=False, soft_wrap=True
        )


def _likely(diagnosis: Diagnosis) -> list[Judged]:
    return [j for j in diagnosis.findings if isinstance(j.outcome, Finding) and j.outcome.confidence >= LIKELY]


def _hints(diagnosis: Diagnosis) -> list[Judged]:
    return [j for j in diagnosis.findings if isinstance(j.outcome, Finding) and j.outcome.confidence < LIKELY]


def _points(judged: Judged) -> float:
    assert isinstance(judged.outcome, Finding)
    return judged.effect.value if judged.effect is not None else judged.outcome.severity_points


def _missing(judged: Judged) -> str:
    return judged.outcome.missing if isinstance(judged.outcome, NotApplicable) else ""


def _head(diagnosis: Diagnosis, console: Console) -> list[Judged]:
    """Result and account; returns the findings that we would bet on."""
    _result(diagnosis, console)
    likely = _likely(diagnosis)
    if diagnosis.experiments is not None:
        _statement(diagnosis, console)
    elif likely:
        _print_rows(_suspects(likely), console)
    if not likely:
        verdict, rests_on = diagnosis.without_finding
        open_ = sum(isinstance(j.outcome, NotApplicable) for j in diagnosis.judged)
        partly = verdict != SOUND
        more = f" {open_} causes could not be judged." if partly else ""
        console.print(f"[bold {'yellow' if partly else 'green'}]{verdict}[/]{safe(rests_on)}{more}", highlight=False)
        _limits(diagnosis, console)
    return likely


def _result(diagnosis: Diagnosis, console: Console) -> None:
    val, run = diagnosis.validation, diagnosis.run
    if run.stopped:
        console.print(f"[yellow]The record is not whole:[/] {safe(run.stopped)}")
    if val is not None:
        console.print(
            f"[bold]validation accuracy {val.value:.1%}[/]  ({val.n} images, 95 % interval {val.low:.1%} .. {val.high:.1%})",
            highlight=False,
        )
    if diagnosis.loss is not None:
        console.print(f"validation loss {loss_parts_text(diagnosis.loss)}", highlight=False)
    _processes(diagnosis, console)
    parts = [
        f"{share_text(value, known)} {how}"
        for value, known, how in (
            (diagnosis.train_reported, diagnosis.reported, "as the last epoch ran"),
            (diagnosis.train_rescored, diagnosis.rescored, "re-scored like validation"),
        )
        if value is not None and (known is None or known.n >= FEWEST)
    ]
    if parts:
        console.print(f"train accuracy {', '.join(parts)}", highlight=False)


def _processes(diagnosis: Diagnosis, console: Console) -> None:
    """Which processes shared the last validation, and what several of them saw."""
    last = diagnosis.run.last_validation
    if last is None or len(diagnosis.run.group) < 2:
        return
    text = f"{len(diagnosis.run.group)} processes trained together; {last.processes} of them validated"
    if last.repeated:
        text += f", {last.repeated} of the images more than once (counted once here)"
    console.print(text, highlight=False)


def _stages(diagnosis: Diagnosis, console: Console) -> None:
    """The account by stage: a line each, the most costly first."""
    if not diagnosis.stages:
        return
    console.print("[bold]Stage by stage, beside a sound way to do it[/]", highlight=False)
    rows = []
    for line in diagnosis.stages:
        points = f"{line.points.value:+.1f}" if line.points is not None else ""
        span = f"({line.points.low:+.1f} .. {line.points.high:+.1f})" if line.points is not None else ""
        nats = f"loss {loss_text(line.nats)}" if line.nats is not None else ""
        told = line.summary or (f"needs {line.missing}" if line.missing else "")
        text = "  ".join((f"{line.verdict:<8}", *(t for t in (span, nats, safe(told)) if t)))
        rows.append(_Row(STAGE_WORDS[line.stage], points, text, "bold red" if line.verdict == "at fault" else "default"))
    _print_rows(rows, console)


def _stages_in_short(diagnosis: Diagnosis, console: Console) -> None:
    """One line: which stages are at fault, sound and not known."""
    verdicts = ("at fault",), ("sound", "gain"), ("unknown",)
    kinds = {v: [x.stage for x in diagnosis.stages if x.verdict in v] for v in verdicts}
    words = zip(("at fault", "sound", "not compared"), kinds.values(), strict=True)
    told = "; ".join(f"{how}: {', '.join(stages)}" for how, stages in words if stages)
    if told:
        needs = kinds[verdicts[2]] and diagnosis.images is None
        more = " (what needs the image files is compared by valgap diagnose)" if needs else ""
        console.print(f"[dim]stages {told}{more}[/]", highlight=False)


def _limits(diagnosis: Diagnosis, console: Console) -> None:
    """What limits a sound run: the noise of its validation set, and what its features can give."""
    val = diagnosis.validation
    if val is None or diagnosis.run.shortened is not None:
        return
    noise = 50 * (val.high - val.low)
    console.print(
        f"What limits it: {val.n} validation images cannot tell differences below about {noise:.0f} points.", highlight=False
    )
    closing = diagnosis.run.closing
    reached = max((closing.numbers.get(k, 0.0) for k in ("probe_initial", "probe_final")), default=0.0) if closing else 0.0
    if reached:
        does = "reaches" if reached > val.value else "does no better:"
        console.print(f"A linear probe on this run's features {does} {reached:.1%}.", highlight=False)


@dataclass(frozen=True)
class _Row:
    """One line of an account; ``style`` is rich's, of the name."""

    name: str
    points: str
    text: str
    style: str


def _print_rows(rows: list[_Row], console: Console) -> None:
    """Names and points in columns; the text is cut where the screen ends, but for reasons (dim), which are told whole."""
    widest = max((len(r.name) for r in rows), default=0)
    for row in rows:
        first, rest = row.text, []
        if row.style == "dim":
            first, *rest = textwrap.wrap(row.text, max(MIN_REASON, console.width - widest - 13)) or [""]
            first = f"[dim]{first}[/]"
        line = f"  [{row.style}]{row.name:<{widest}}  {row.points:>7}[/]  {first}"
        console.print(line, highlight=False, no_wrap=True, overflow="ellipsis")
        for more in rest:
            console.print(f"{' ' * (widest + 13)}[dim]{more}[/]", highlight=False)


def _suspects(likely: list[Judged]) -> list[_Row]:
    rows = []
    for judged in likely:
        finding = judged.outcome
        assert isinstance(finding, Finding)
        verdict = judged.verdict if judged.verdict != "untested" else f"{finding.confidence:.0%} sure"
        text = f"{verdict:<9}  {judged.check.code}{f'  {safe(judged.reason)}' if judged.reason else ''}"
        known = judged.effect is not None or finding.cost_known
        about = "~" if judged.effect is None and any(e.assumed for e in finding.evidence) else ""  # measured by nobody
        rows.append(_Row(judged.check.name, f"{about}{_points(judged):+.1f}" if known else "?", text, "bold red"))
    return rows


# Of the names of ledger lines, by their kind.
_STYLES = {"cause": "bold red", "measurement": "bold red", "gain": "green"}


def _statement(diagnosis: Diagnosis, console: Console) -> None:
    """The gap ledger, as a bank statement, and how it was measured."""
    facts = diagnosis.experiments
    assert facts is not None
    rows: list[_Row] = []
    verdicts = {j.check.name: j for j in diagnosis.findings}
    for line in diagnosis.ledger:
        judged = verdicts.get(line.name)
        span = f"({line.low:+.1f} .. {line.high:+.1f})" if line.low is not None and line.high is not None else ""
        nats = f"loss {loss_text(line.nats)}" if line.nats is not None and line.kind != "measurement" else ""
        shown = judged is not None and judged.verdict != "untested" and line.kind in ("cause", "measurement")
        verdict = f"[bold]{judged.verdict}[/]" if judged is not None and shown else ""
        if judged is not None and judged.rests_on == "loss":
            verdict += " by the loss alone"
        if line.kind == "confidence":
            span = ""
        proof = " ".join(t for t in (verdict, span, nats, safe(line.note)) if t)
        rows.append(_Row(line.name, f"{line.points:+.1f}", proof, _STYLES.get(line.kind, "default")))
    listed = {line.name for line in diagnosis.ledger}
    for judged in diagnosis.findings:
        tried = judged.verdict in ("refuted", "inconclusive") or judged.reason.startswith("not tried")
        if tried and judged.check.name not in listed:
            points = f"({judged.effect.value:+.1f})" if judged.effect is not None else "(?)"
            rows.append(_Row(judged.check.name, points, f"{judged.verdict}: {safe(judged.reason)}", "dim"))
    if diagnosis.reached is not None:
        rows.append(_Row("with every confirmed remedy", f"{diagnosis.reached:.1f} %", "", "bold"))
    _print_rows(rows, console)
    if not any(j.verdict == "confirmed" for j in diagnosis.findings):
        console.print("No cause was confirmed.")
    _proposal(diagnosis, console)
    short = "" if facts.epochs == facts.recorded_epochs else f", shortened to {facts.epochs} of {facts.recorded_epochs} epochs"
    short += "" if facts.train_fraction == 1 else f", {facts.train_fraction:.0%} of the training images"
    images = max((j.effect.samples for j in diagnosis.findings if j.effect is not None), default=0)
    seeds = f"{facts.seeds} seeds" + (f", {images} validation images" if images else "")
    console.print(
        f"[dim]{facts.arms} re-runs ({facts.reused} from an earlier call) in {facts.seconds:.0f} s, {seeds}{short}; "
        f"{safe(facts.fidelity)}[/]",
        highlight=False,
    )
    for note in facts.notes:
        console.print(f"[dim]{safe(note)}[/]", highlight=False)


def _proposal(diagnosis: Diagnosis, console: Console) -> None:
    """What more time would decide."""
    if not diagnosis.proposals:
        return
    first = diagnosis.proposals[0]
    more = f"{10 * math.ceil(first.seconds / 10)} s" if first.seconds < SECONDS_TOLD else f"{math.ceil(first.seconds / 60)} min"
    whole = math.ceil((diagnosis.budget_s + first.seconds) / 60)
    console.print(f"{more} more would decide {first.code}, as things stand: --budget {whole}m", highlight=False)


def _finding(number: int, judged: Judged, console: Console, most: int) -> None:
    finding = judged.outcome
    assert isinstance(finding, Finding)
    console.print(f"[bold]{number}. {judged.check.code}[/] {safe(finding.summary)}", highlight=False)
    for evidence in finding.evidence[:most]:
        text = f"[dim]{safe(evidence_line(evidence))}[/]"
        console.print(Padding(text, (0, 0, 0, 3), expand=False), highlight=False)
    console.print(Padding(f"[green]remedy:[/] {safe(finding.remedy)}", (0, 0, 0, 3), expand=False), highlight=False)


def _concerned(judged: Judged, console: Console) -> None:
    finding = judged.outcome
    assert isinstance(finding, Finding)
    if finding.subjects:
        shown = ", ".join(finding.subjects[:MAX_SUBJECTS])
        more = f" and {len(finding.subjects) - MAX_SUBJECTS} more" if len(finding.subjects) > MAX_SUBJECTS else ""
        console.print(Padding(f"concerns: {safe(shown)}{more}", (0, 0, 0, 3), expand=False), highlight=False)
    if judged.reason:
        console.print(Padding(f"{judged.verdict}: {safe(judged.reason)}", (0, 0, 0, 3), expand=False), highlight=False)
    console.print(f"   [dim]more: valgap explain {judged.check.code}[/]\n")


def _gap(diagnosis: Diagnosis, console: Console) -> None:
    """The parts of the gap between train and val, then what stands beside them."""
    if not diagnosis.gap:
        return
    total = sum(p.points for p in diagnosis.gap if p.kind == "part")
    console.print(f"[bold]The gap of {total:.1f} points between train as reported and val, in parts[/]", highlight=False)
    widest = max(len(p.name) for p in diagnosis.gap)
    for part in sorted(diagnosis.gap, key=lambda p: p.kind != "part"):
        span = f" ({part.low:+.1f} .. {part.high:+.1f})" if part.low is not None and part.high is not None else ""
        sign = f"{part.points:+7.1f}" if part.kind == "part" else f"{part.points:7.1f}"
        line = Padding(f"{part.name:<{widest}} {sign}{span}  [dim]{safe(part.told)}[/]", (0, 0, 0, 2), expand=False)
        console.print(line, highlight=False)


def _hint(judged: Judged) -> str:
    finding = judged.outcome
    assert isinstance(finding, Finding)
    return f"{judged.check.name} ({safe(finding.summary)}; confidence {finding.confidence:.2f})"


def _foot(diagnosis: Diagnosis, console: Console) -> None:
    """What the points mean, what was not measured, and valgap's own faults."""
    if diagnosis.unmeasured:
        console.print(f"[dim]Not all was measured: {safe(diagnosis.unmeasured)}[/]")
    if diagnosis.experiments is None and diagnosis.run.passes and _likely(diagnosis):
        cut = diagnosis.run.shortened is not None
        asked = "No re-run was made, for the reasons given." if diagnosis.budget_s else "--budget 10m proves them by re-runs."
        asked = "" if cut else asked
        console.print(f"[dim]Points: what the record lets expect. {asked}[/]")
    for judged in diagnosis.crashed:
        outcome = judged.outcome
        assert isinstance(outcome, Crashed)
        trace = "\n".join(safe(line) for line in outcome.traceback.splitlines())
        console.print(f"[red]check {judged.check.code} crashed[/] (a fault of valgap):\n{trace}")
    for error in diagnosis.run.recorder_errors[:1]:
        last = error.splitlines()[-1] if error else ""
        console.print(f"[yellow]the recorder missed something[/] (a fault of valgap): {safe(last)}")
