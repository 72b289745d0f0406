"""A Comparison on the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.padding import Padding

from valgap.report.words import safe
from valgap.types import STAGE_WORDS, Accuracy, Comparison, DataDifference, Departure, Effect, Proved, SourceDifference

SCHEMA = 2
LEVEL = 0.05
MAX_VALUE = 300
MAX_LINES = 40  # of a diff on the terminal; JSON has more
VERDICTS = {
    "equal": "[green]equal[/]",
    "rounding": "[green]equal but for rounding[/]",
    "chance": "[green]the same but for chance[/]",
    "parted": "[red]parted[/]",
    "unknown": "[yellow]not known[/]",
}


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """JSON-ready object: accuracies 0..1, gains in points and nats; positive where the second run is better."""
    body = asdict(comparison)
    runs = [
        {"run": path, "val": asdict(accuracy) if accuracy is not None else None}
        for path, accuracy in zip(comparison.paths, comparison.accuracy, strict=True)
    ]
    names = ("headline", "departures", "parted", "growth", "source", "settings", "data", "missing", "proofs")
    return {
        "schema": SCHEMA,
        "verdict": comparison.verdict,
        "why": comparison.why,
        "runs": runs,
        "gain_points": body["gain"],
        "gain_best_points": body["best_gain"],
        "why_no_gain": comparison.why_no_gain,
        **{name: _plain(body[name]) for name in names},
    }


def _plain(value: Any) -> Any:
    """JSON has neither infinities nor NaN: they are null there."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not -1e300 < value < 1e300 else value


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Print the verdict, the evidence for it, what differs besides, and what to do."""

    def line(text: str, indent: int = 0) -> None:
        console.print(Padding(text, (0, 0, 0, indent), expand=False), highlight=False)

    line(f"[bold]Verdict[/]  {VERDICTS[comparison.verdict]}: {safe(comparison.why)}.")
    line(f"[bold]Result[/]   {_gain(comparison.gain, comparison.why_no_gain)}")
    widest = max(len(path) for path in comparison.paths)
    for path, accuracy in zip(comparison.paths, comparison.accuracy, strict=True):
        line(f"{safe(path):<{widest}}  {_reached(accuracy)}", 9)
    if comparison.best_gain is not None and comparison.best_gain != comparison.gain:
        line(f"best epochs: {_gain(comparison.best_gain, '')}", 9)
    if comparison.departures:
        console.print("[bold]Where they part[/], in the order in which one comes out of the other")
    for number, one in enumerate(comparison.departures, 1):
        line(f"{number}. {_departure(one)}", 2)
        for text in one.evidence:
            line(f"[dim]{safe(text)}[/]", 5)
    if comparison.parted is not None and comparison.parted not in comparison.departures:
        line(f"[bold]First bit[/] {safe(comparison.parted.where)}: {safe(comparison.parted.text)} ({comparison.parted.nature})")
    if comparison.growth:
        told = ", ".join(f"step {s} {d:.1g}" for s, d in comparison.growth)
        line(f"relative difference of the losses: {told}", 2)
    _show_inputs(comparison, line)
    for proof in comparison.proofs:
        line(f"[bold]Proof[/] {_proof(proof)}")
    for text in comparison.missing:
        line(f"[dim]not compared: {safe(text)}[/]")
    for text in _next(comparison):
        line(f"[bold]Next[/]     {safe(text)}")


def _show_inputs(comparison: Comparison, line: Any) -> None:
    for data in comparison.data:
        line(f"{data.phase} data: {_data(data)}")
        for example in data.examples:
            line(f"[dim]{safe(example)}[/]", 2)
    for file in comparison.source:
        _show_source(file, line)
    if not comparison.settings:
        line("no recorded setting differs")
    for one in comparison.settings:
        first, second = (safe(v[:MAX_VALUE]) if v is not None else "[dim]not there[/]" for v in (one.first, one.second))
        line(f"[bold]{safe(one.group)}[/]: {safe(one.name)}")
        line(f"[red]-[/] {first}\n[green]+[/] {second}", 2)


def _show_source(file: SourceDifference, line: Any) -> None:
    if file.inessential:
        line(f"source {safe(file.path)}: only comments and layout differ")
        return
    line(f"source {safe(file.path)} differs" + ("" if file.lines else " (its text was not kept)"))
    for text in file.lines[2 : 2 + MAX_LINES]:
        style = {"+": "green", "-": "red"}.get(text[:1], "dim")
        line(f"[{style}]{safe(text)}[/]", 2)
    if len(file.lines) > MAX_LINES + 2:
        line(f"[dim]{len(file.lines) - MAX_LINES - 2} more lines: --json[/]", 2)


def _departure(one: Departure) -> str:
    where = f", {safe(one.where)}" if one.where else ""
    follows = " [dim](follows from what comes before)[/]" if one.follows else ""
    return f"[bold]{STAGE_WORDS[one.stage]}[/]{where}: {safe(one.text)}{follows}"


def _proof(proof: Proved) -> str:
    told = f": {_with_it(proof.gain)}" if proof.gain is not None else ""
    return f"{safe(proof.name)} [bold]{safe(proof.verdict)}[/]{told}; {safe(proof.text)}"


def _with_it(gain: Effect) -> str:
    nats = ""
    if gain.nats is not None:
        nats = f", loss {-gain.nats.value:+.3f} nats ({-gain.nats.high:+.3f} .. {-gain.nats.low:+.3f})"
    points = f"{gain.value:+.1f} points ({gain.low:+.1f} .. {gain.high:+.1f})"
    return f"in the second program it gives {points}{nats} in {gain.seeds} seeds"


def _next(comparison: Comparison) -> Iterator[str]:
    good, bad = comparison.paths
    if comparison.verdict == "parted" and not comparison.proofs:
        yield f"valgap compare {good} {bad} --budget 10m  proves by re-runs what makes the difference"
    if comparison.verdict == "parted":
        yield f"valgap diagnose {bad}  says which of the second run's stages loses accuracy"
    if comparison.verdict == "chance" and comparison.gain is not None and comparison.gain.p_value < LEVEL:
        yield "the results differ by more than these images' chance, and nothing in the programs does: compare more seeds of each"


def _reached(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return "no validation result"
    return f"{accuracy.value:.1%}  ({accuracy.n} images, 95 % interval {accuracy.low:.1%} .. {accuracy.high:.1%})"


def _gain(gain: Effect | None, why: str) -> str:
    if gain is None:
        return f"no paired comparison: {safe(why)}"
    told = "better than chance" if gain.p_value < LEVEL and gain.value > 0 else "worse than chance"
    if gain.p_value >= LEVEL:
        told = "within chance"
    nats = ""
    if gain.nats is not None:
        nats = f"; loss {-gain.nats.value:+.3f} nats ({-gain.nats.high:+.3f} .. {-gain.nats.low:+.3f})"
    return (
        f"second minus first: {gain.value:+.1f} points ({gain.low:+.1f} .. {gain.high:+.1f}) on {gain.samples} common "
        f"images, p = {gain.p_value:.2g}: {told}{nats}"
    )


def _data(data: DataDifference) -> str:
    if not (data.only_first or data.only_second or data.other_label):
        return f"the same {data.common} images with the same labels"
    return (
        f"{data.common} images in common, {data.only_first} in the first only, {data.only_second} in the second only, "
        f"{data.other_label} with another label"
    )
