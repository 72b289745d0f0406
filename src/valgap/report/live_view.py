"""A run as it is now, on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from valgap.types import EpochView, LiveWarning, RunView, SideView
from valgap.visible import visible

ROWS = 12
BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60
STYLE = {"running": "green", "finished": "bold", "died": "bold red"}


def live_view(view: RunView) -> RenderableType:
    """The run: its state, its curves with intervals, where time goes, and its warnings."""
    head = Text.assemble(
        (visible(view.script), "bold"),
        "  ",
        (view.state, STYLE[view.state]),
        f"  {_duration(view.seconds)}  {visible(view.told)}",
    )
    given = f", {len(view.epochs)} of {view.given} epochs" if view.given is not None else ""
    parts: list[RenderableType] = [head, Text(f"recorded in {visible(view.path)}{given}", "dim")]
    if view.epochs:
        parts += [_table(view), *_curves(view.epochs), *_time(view.epochs)]
    else:
        parts.append(Text("no pass over data has ended yet", "dim"))
    if view.going:
        parts.append(Text(f"under way: {view.going}"))
    parts += [line for warning in view.warnings for line in _warning(warning)]
    if not view.warnings:
        parts.append(Text("no warnings", "dim"))
    return Group(*parts)


def _table(view: RunView) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("epoch", "train loss", "acc", "val loss", "acc", "95 % interval", "images/s", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in view.epochs[-ROWS:]:
        train, val = row.train, row.validation
        interval = f"{val.accuracy.low:.1%}..{val.accuracy.high:.1%}" if val is not None and val.accuracy is not None else "-"
        speed = next((s.images_per_second for s in (train, val) if s is not None), None)
        seconds = sum(s.seconds for s in (train, val) if s is not None)
        cells = (str(row.epoch), _loss(train), _share(train), _loss(val), _share(val), interval)
        table.add_row(*cells, f"{speed:.0f}" if speed is not None else "-", f"{seconds:.1f}")
    return table


def _curves(epochs: Sequence[EpochView]) -> list[Text]:
    """A line each for what changes over the epochs."""
    wanted: tuple[tuple[str, Callable[[EpochView], float | None]], ...] = (
        ("train loss", lambda e: e.train.loss if e.train is not None else None),
        ("val loss", lambda e: e.validation.loss if e.validation is not None else None),
        ("train acc", lambda e: e.train.accuracy.value if e.train is not None and e.train.accuracy is not None else None),
        ("val acc", lambda e: e.validation.accuracy.value if e.validation is not None and e.validation.accuracy else None),
    )
    lines = []
    for name, of in wanted:
        values = [v for v in map(of, epochs) if v is not None][-WIDTH:]
        if len(values) > 1:
            text = "{:.1%} .. {:.1%}" if name.endswith("acc") else "{:.3g} .. {:.3g}"
            lines.append(Text(f"{name:<10} {spark(values)}  {text.format(min(values), max(values))}"))
    return lines


def spark(values: Sequence[float]) -> str:
    """A character a value, as high as it lies between the lowest and the highest."""
    low, high = min(values), max(values)
    if high <= low:
        return BARS[0] * len(values)
    return "".join(BARS[min(len(BARS) - 1, int((v - low) / (high - low) * len(BARS)))] for v in values)


def _time(epochs: Sequence[EpochView]) -> list[Text]:
    """Where the time of the last epoch went, a line a side."""
    lines = []
    for name in ("train", "validation"):
        side: SideView | None = next((s for e in reversed(epochs) if (s := getattr(e, name)) is not None), None)
        if side is None or not side.spent or sum(side.spent.values()) <= 0:
            continue
        whole = sum(side.spent.values())
        shares = ", ".join(f"{kind} {seconds / whole:.0%}" for kind, seconds in side.spent.items() if seconds > 0)
        lines.append(Text(f"time of {name}: {shares}", "dim"))
    return lines


def _warning(warning: LiveWarning) -> list[Text]:
    when = "in the first epoch" if warning.epoch < 1 else f"after epoch {warning.epoch}"
    head = f"{visible(warning.code)} {visible(warning.what)}"
    lines = [Text.assemble((head, "bold yellow"), f"  ({when}, stage {visible(warning.stage)}, {warning.confidence:.0%} sure)")]
    lines += [Text(f"   {visible(why)}", "dim") for why in warning.why]
    return [*lines, Text(f"   remedy: {visible(warning.remedy)}", "green")]


def _loss(side: SideView | None) -> str:
    return f"{side.loss:.4f}" if side is not None and side.loss is not None else "-"


def _share(side: SideView | None) -> str:
    return f"{side.accuracy.value:.1%}" if side is not None and side.accuracy is not None else "-"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6_000 else f"{seconds / 3600:.1f} h"
