"""Before and after, on the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from valgap.report.as_json import finite
from valgap.report.words import safe
from valgap.types import Accuracy

SCHEMA = 1


def show_scores(scores: Sequence[Any], console: Console) -> None:
    """Print a line for each set of validation images: before, after, the paired gain with its interval."""
    widest = max((len(s.name) for s in scores), default=0)
    for one in scores:
        gain = one.gain
        console.print(
            f"[bold]{one.name:<{widest}}[/]  {_text(one.before)} -> {_text(one.after)}  ({gain.samples} images)\n"
            f"{'':<{widest}}  gain {gain.value:+.1f} points ({gain.low:+.1f} .. {gain.high:+.1f}), p = {gain.p_value:.2g}",
            highlight=False,
        )


def show_fix(result: Any, console: Console) -> None:
    """Print what was remedied, what is left, and before and after."""
    if result.remedied:
        console.print(f"remedied: {', '.join(result.remedied)}", highlight=False)
    changed = [r for r in result.rows if not r.kept or r.label != r.given]
    if changed:
        left_out = sum(not r.kept for r in changed)
        console.print(f"images: {left_out} left out, {len(changed) - left_out} relabelled (manifest.csv)", highlight=False)
    for edit in result.patch.edits if result.patch is not None else ():
        console.print(f"edit [bold]{safe(str(edit.file))}:{edit.line}[/] ({edit.cause})", highlight=False)
        for line in edit.new.splitlines():
            console.print(f"  [green]+ {safe(line)}[/]", highlight=False, no_wrap=True, overflow="ellipsis")
    if result.by_hand:
        console.print(f"[yellow]still to be mended by hand[/] (edits.txt): {', '.join(result.by_hand)}", highlight=False)
    show_scores(result.scores, console)
    console.print(f"[dim]everything is in {safe(str(result.out))}[/]", highlight=False)


def fix_to_json(result: Any) -> dict[str, Any]:
    """JSON-ready object (schema 1): accuracies 0..1, gains in points."""
    changed = [r for r in result.rows if not r.kept or r.label != r.given]
    left_out = sum(not r.kept for r in changed)
    body: dict[str, Any] = finite(
        {
            "schema": SCHEMA,
            "out": str(result.out),
            "run": str(result.run) if result.run is not None else None,
            "remedied": list(result.remedied),
            "verdicts": {j.check.name: j.verdict for j in result.diagnosis.findings if j.check.name in result.remedied},
            "by_hand": list(result.by_hand),
            "images": {"left_out": left_out, "relabelled": len(changed) - left_out},
            "edits": [{**asdict(e), "file": str(e.file)} for e in (result.patch.edits if result.patch is not None else ())],
            "scores": [asdict(s) for s in result.scores],
        }
    )
    return body


def _text(accuracy: Accuracy) -> str:
    return f"{accuracy.value:.1%} ({accuracy.low:.1%} .. {accuracy.high:.1%})"
