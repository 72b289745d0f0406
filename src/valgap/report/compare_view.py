"""A Comparison on the terminal and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.padding import Padding

from valgap.report.words import safe
from valgap.types import Accuracy, Comparison, DataDifference, Effect

SCHEMA = 1
LEVEL = 0.05
MAX_VALUE = 300


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """JSON-ready object: accuracies 0..1, the gain in points."""
    body = asdict(comparison)
    runs = [
        {"run": path, "val": asdict(accuracy) if accuracy is not None else None}
        for path, accuracy in zip(comparison.paths, comparison.accuracy, strict=True)
    ]
    return {
        "schema": SCHEMA,
        "runs": runs,
        "gain_points": body["gain"],
        "why_no_gain": comparison.why_no_gain,
        "settings": body["settings"],
        "data": body["data"],
    }


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Print the two results, the paired gain, and what differs in data and settings."""
    widest = max(len(path) for path in comparison.paths)
    for path, accuracy in zip(comparison.paths, comparison.accuracy, strict=True):
        console.print(f"{safe(path):<{widest}}  {_reached(accuracy)}", highlight=False)
    console.print(f"[bold]{_gain(comparison.gain, comparison.why_no_gain)}[/]", highlight=False)
    for data in comparison.data:
        console.print(f"{data.phase} data: {_data(data)}", highlight=False)
        for example in data.examples:
            console.print(Padding(f"[dim]{safe(example)}[/]", (0, 0, 0, 2), expand=False), highlight=False)
    if not comparison.settings:
        console.print("no recorded setting differs")
    for one in comparison.settings:
        first, second = (safe(v[:MAX_VALUE]) if v is not None else "[dim]not there[/]" for v in (one.first, one.second))
        console.print(f"[bold]{safe(one.group)}[/]: {safe(one.name)}", highlight=False)
        console.print(Padding(f"[red]-[/] {first}\n[green]+[/] {second}", (0, 0, 0, 2), expand=False), highlight=False)


def _reached(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return "no validation result"
    return f"{accuracy.value:.1%}  ({accuracy.n} images, 95 % interval {accuracy.low:.1%} .. {accuracy.high:.1%})"


def _gain(gain: Effect | None, why: str) -> str:
    if gain is None:
        return f"no paired comparison: {why}"
    told = "better than chance" if gain.p_value < LEVEL and gain.value > 0 else "worse than chance"
    if gain.p_value >= LEVEL:
        told = "within chance"
    return (
        f"second minus first: {gain.value:+.1f} points ({gain.low:+.1f} .. {gain.high:+.1f}) on {gain.samples} common "
        f"images, p = {gain.p_value:.2g}: {told}"
    )


def _data(data: DataDifference) -> str:
    if not (data.only_first or data.only_second or data.other_label):
        return f"the same {data.common} images with the same labels"
    return (
        f"{data.common} images in common, {data.only_first} in the first only, {data.only_second} in the second only, "
        f"{data.other_label} with another label"
    )
