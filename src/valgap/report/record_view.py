"""A RunRecord on the terminal: where from, what ran, every pass."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from valgap.report.words import safe
from valgap.types import Pass, RunRecord


def show_record(run: RunRecord, console: Console) -> None:
    """Print a summary of the record: where from, what ran, every pass."""
    header = run.header
    console.print(f"[bold]{safe(str(header.get('script', '?')))}[/]  recorded in {safe(run.path)}")
    console.print(f"exit status {run.exit_status}, {run.seconds:.1f} s, {len(run.passes)} passes", highlight=False)
    if run.stopped:
        console.print(f"[yellow]not whole:[/] {safe(run.stopped)}")
    for rank in run.ranks:
        place = f"rank {rank.rank} of {rank.world_size}" if rank.rank is not None else rank.how or "first process"
        ended = f"exit status {rank.exit_status}" if rank.exit_status is not None else safe(rank.stopped or "no end")
        device = next((p.device for p in rank.passes if p.device), "no device")
        console.print(f"process {rank.pid}: {place}, {device}, {len(rank.passes)} passes, {ended}", highlight=False)
    for model in run.models.values():
        trained = int(model.requires_grad.sum())
        console.print(
            f"model {safe(model.kind)}: {int(model.numel[model.is_parameter].sum()):,} parameters, "
            f"{trained} of {int(model.is_parameter.sum())} tensors trainable{'' if model.trained else ', never trained'}",
            highlight=False,
        )
    for data in run.datasets.values():
        console.print(f"data {data.id}: {safe(data.kind)}, {data.size} samples, root {safe(str(data.root))}")
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
