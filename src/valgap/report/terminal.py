"""A Diagnosis and a RunRecord on the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from valgap.types import Clear, Crashed, Diagnosis, Evidence, Finding, Judged, NotApplicable, Pass, RunRecord

LIKELY = 0.5
MAX_EVIDENCE = 4
MAX_SUBJECTS = 5


def show_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print what happened, the suspected causes with evidence and remedy, and what was ruled out."""
    _headline(diagnosis, console)
    likely = [j for j in diagnosis.findings if isinstance(j.outcome, Finding) and j.outcome.confidence >= LIKELY]
    hints = [j for j in diagnosis.findings if j not in likely]
    if diagnosis.experiments is not None:
        _statement(diagnosis, console)
    if likely:
        if diagnosis.experiments is None:
            console.print(_ledger(likely))
        for number, judged in enumerate(likely, 1):
            _details(number, judged, console)
        if diagnosis.experiments is None:
            console.print(
                "[dim]Points are what the record alone lets expect. Verdict 'untested': no controlled re-run was made.[/]"
            )
    else:
        sources = "record and re-runs" if diagnosis.experiments is not None else "the record alone"
        console.print(f"[bold green]Nothing is broken[/] as far as {sources} can tell.")
        _limits(diagnosis, console)
    if hints:
        console.print("Weak hints, not to be acted on alone: " + "; ".join(_hint(j) for j in hints))
    _rest(diagnosis, console)


def _headline(diagnosis: Diagnosis, console: Console) -> None:
    val = diagnosis.validation
    run = diagnosis.run
    if run.stopped:
        console.print(f"[yellow]The record is not whole:[/] {escape(run.stopped)}")
    if val is not None:
        console.print(
            f"[bold]validation accuracy of this run {val.value:8.1%}[/]   ({val.n} images, 95 % interval "
            f"{val.low:.1%} .. {val.high:.1%})"
        )
    parts = []
    if diagnosis.train_reported is not None:
        parts.append(f"{diagnosis.train_reported:.1%} as the last epoch ran")
    if diagnosis.train_rescored is not None:
        parts.append(f"{diagnosis.train_rescored:.1%} re-scored like validation")
    if parts:
        console.print(f"train accuracy {', '.join(parts)}")


def _limits(diagnosis: Diagnosis, console: Console) -> None:
    """What limits a sound run: the noise of its validation set, and what its features can give."""
    val = diagnosis.validation
    if val is None:
        return
    noise = 50 * (val.high - val.low)
    console.print(
        f"What limits it: {val.n} validation images cannot tell differences below about {noise:.0f} points.", highlight=False
    )
    closing = diagnosis.run.closing
    reached = max((closing.numbers.get(k, 0.0) for k in ("probe_initial", "probe_final")), default=0.0) if closing else 0.0
    if reached:
        console.print(f"A linear probe on this run's features reaches {reached:.1%}.", highlight=False)


def _ledger(likely: list[Judged]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=True, header_style="dim")
    for name, justify in (("cause", "left"), ("what", "left"), ("points", "right"), ("verdict", "left")):
        table.add_column(name, justify=justify, no_wrap=name == "cause")  # type: ignore[arg-type]
    for judged in likely:
        finding = judged.outcome
        assert isinstance(finding, Finding)
        table.add_row(
            f"[bold red]{judged.check.name}[/]",
            escape(finding.summary),
            f"{finding.severity_points:+.1f}",
            f"{judged.verdict} (confidence {finding.confidence:.2f})",
        )
    return table


def _statement(diagnosis: Diagnosis, console: Console) -> None:
    """The gap ledger, as a bank statement, and how it was measured."""
    facts, val = diagnosis.experiments, diagnosis.validation
    assert facts is not None
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify, no_wrap=justify == "left" and not table.columns)
    verdicts = {j.check.name: j for j in diagnosis.findings}
    total = round(100 * val.value, 1) if val is not None else 0.0
    reported = total - sum(line.points for line in diagnosis.ledger if line.kind == "measurement")
    if reported != total:
        table.add_row("[bold]as the script reports it[/]", f"[bold]{reported:.1f} %[/]", "")
    for line in diagnosis.ledger:
        span = f"{line.low:+.1f} .. {line.high:+.1f}" if line.low is not None and line.high is not None else ""
        judged = verdicts.get(line.name)
        counted = judged is not None and line.kind == "cause"
        proof = f"{judged.verdict} ({facts.seeds} seeds, {span})" if judged is not None and counted else escape(line.note)
        table.add_row(f"  {line.name}", f"{line.points:+.1f}", proof)
        total += line.points if counted else 0.0
    others = [j for j in diagnosis.findings if j.verdict in ("refuted", "inconclusive") or j.reason.startswith("not tried")]
    for judged in others:
        if judged.verdict != "confirmed":
            points = f"{judged.effect.value:+.1f}" if judged.effect is not None else "?"
            table.add_row(
                f"[dim]  {judged.check.name}[/]", f"[dim]({points})[/]", f"[dim]{judged.verdict}: {escape(judged.reason)}[/]"
            )
    if any(line.kind == "cause" for line in diagnosis.ledger):
        table.add_row("[bold]reached with every confirmed remedy[/]", f"[bold]{total:.1f} %[/]", "")
    console.print(table)
    short = "" if facts.epochs == facts.recorded_epochs else f", shortened to {facts.epochs} of {facts.recorded_epochs} epochs"
    short += "" if facts.train_fraction == 1 else f", {facts.train_fraction:.0%} of the training images"
    console.print(
        f"[dim]{facts.arms} re-runs ({facts.reused} from an earlier call) in {facts.seconds:.0f} s, {facts.seeds} seeds{short}; "
        f"{escape(facts.fidelity)}[/]",
        highlight=False,
    )
    if facts.replayed:
        console.print(
            f"[dim]the frozen part of {facts.replayed} model calls was computed in another re-run, and read[/]", highlight=False
        )
    for note in facts.notes:
        console.print(f"[dim]{escape(note)}[/]", highlight=False)
    if not any(j.verdict == "confirmed" for j in diagnosis.findings):
        console.print("No cause was confirmed.")


def _details(number: int, judged: Judged, console: Console) -> None:
    finding = judged.outcome
    assert isinstance(finding, Finding)
    console.print(f"\n[bold]{number}. {judged.check.code} {judged.check.name}[/]: {escape(finding.summary)}")
    for evidence in finding.evidence[:MAX_EVIDENCE]:
        console.print(f"   {escape(evidence_line(evidence))}", highlight=False)
    if finding.subjects:
        shown = ", ".join(finding.subjects[:MAX_SUBJECTS])
        more = f" and {len(finding.subjects) - MAX_SUBJECTS} more" if len(finding.subjects) > MAX_SUBJECTS else ""
        console.print(f"   concerns: {escape(shown)}{more}", highlight=False)
    if judged.reason:
        console.print(f"   {judged.verdict}: {escape(judged.reason)}", highlight=False)
    console.print(f"   [green]remedy:[/] {escape(finding.remedy)}", highlight=False)
    console.print(f"   [dim]more: valgap explain {judged.check.code}[/]\n")


def evidence_line(evidence: Evidence) -> str:
    """One piece of evidence as text: name, value, interval, reference, n."""
    unit = f" {evidence.unit}" if evidence.unit else ""
    text = f"{evidence.name}: {number_text(evidence.value)}{unit}"
    if evidence.low is not None and evidence.high is not None:
        text += f" ({number_text(evidence.low)} .. {number_text(evidence.high)})"
    if evidence.reference is not None:
        text += f", in a sound run {number_text(evidence.reference)}{unit}"
    return text + (f"  [n = {evidence.n}]" if evidence.n is not None else "")


def number_text(value: float | str | None) -> str:
    """A number with four significant digits, or the text itself."""
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _hint(judged: Judged) -> str:
    finding = judged.outcome
    assert isinstance(finding, Finding)
    return f"{judged.check.name} ({escape(finding.summary)}; confidence {finding.confidence:.2f})"


def _rest(diagnosis: Diagnosis, console: Console) -> None:
    groups = {"ruled out": Clear, "not judged": NotApplicable}
    for title, kind in groups.items():
        names = [j.check.name for j in diagnosis.judged if isinstance(j.outcome, kind)]
        if names:
            console.print(f"[dim]{title} ({len(names)}): {', '.join(names)}[/]")
    for judged in diagnosis.crashed:
        outcome = judged.outcome
        assert isinstance(outcome, Crashed)
        console.print(f"[red]check {judged.check.code} crashed[/] (a fault of valgap):\n{escape(outcome.traceback)}")
    for error in diagnosis.run.recorder_errors[:1]:
        console.print(f"[yellow]the recorder missed something[/] (a fault of valgap): {escape(error.splitlines()[-1])}")


def show_record(run: RunRecord, console: Console) -> None:
    """Print a summary of the record: where from, what ran, every pass."""
    header = run.header
    console.print(f"[bold]{escape(str(header.get('script', '?')))}[/]  recorded in {escape(run.path)}")
    console.print(f"exit status {run.exit_status}, {run.seconds:.1f} s, {len(run.passes)} passes", highlight=False)
    if run.stopped:
        console.print(f"[yellow]not whole:[/] {escape(run.stopped)}")
    for model in run.models.values():
        trained = int(model.requires_grad.sum())
        console.print(
            f"model {escape(model.kind)}: {int(model.numel[model.is_parameter].sum()):,} parameters, "
            f"{trained} of {int(model.is_parameter.sum())} tensors trainable{'' if model.trained else ', never trained'}",
            highlight=False,
        )
    for data in run.datasets.values():
        console.print(f"data {data.id}: {escape(data.kind)}, {data.size} samples, root {escape(str(data.root))}")
    console.print(_pass_table(run.passes))


def _pass_table(passes: tuple[Pass, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("pass", "phase", "epoch", "images", "accuracy", "loss", "steps", "mode", "seconds"):
        table.add_column(name, justify="left" if name in ("phase", "mode") else "right")
    for one in passes:
        accuracy, loss = one.samples.accuracy, one.samples.mean_loss
        table.add_row(
            str(one.index),
            one.phase,
            str(one.epoch),
            str(len(one.samples)),
            "-" if math.isnan(accuracy) else f"{accuracy:.1%}",
            "-" if math.isnan(loss) else f"{loss:.4f}",
            str(one.optimizer_steps),
            "train" if one.modes.training_flag > 0.5 else "eval",
            f"{one.seconds:.1f}",
        )
    return table
