"""What a preflight says, on the terminal and as JSON."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding

from valgap.report.as_json import SCHEMA, diagnosis_to_json, finite
from valgap.report.terminal import show_details, show_diagnosis
from valgap.report.words import safe
from valgap.types import Preflight, Projection, ScriptEnd, SourcePlace

TAIL_SHOWN = 8
GIB = 1 << 30


def show_preflight(found: Preflight, console: Console, details: bool = False) -> None:
    """Print how the script ended, what is suspected, where in the source, what is not told, and what the whole takes."""
    _end(found, console)
    if found.diagnosis is not None:
        (show_details if details else show_diagnosis)(found.diagnosis, console)
        _untold(found, console)
    elif found.unjudged:
        console.print(f"[yellow]Nothing is judged:[/] {safe(found.unjudged)}", highlight=False)
    for place in found.places:
        _place(place, console)
    if found.projection is not None:
        for line in projection_lines(found.projection):
            console.print(line, highlight=False)
    for told in found.unguarded:
        console.print(f"[dim]not guarded by the kernel here: {told}[/]", highlight=False)
    console.print(
        f"[dim]{found.seconds:.0f} s beyond the script's own start; recorded in {safe(found.record)}[/]", highlight=False
    )


def preflight_to_json(found: Preflight, exit_status: int) -> dict[str, Any]:
    """The diagnosis as ``valgap diagnose --json`` gives it, with ``preflight`` beside it; without one, that alone."""
    body: dict[str, Any] = (
        diagnosis_to_json(found.diagnosis) if found.diagnosis is not None else {"schema": SCHEMA, "findings": []}
    )
    body["run"] = found.record
    untold = found.diagnosis.untold if found.diagnosis is not None else ()
    shortened = found.diagnosis.run.shortened if found.diagnosis is not None else None
    body["preflight"] = finite(
        {
            "exit_status": exit_status,
            "script": asdict(found.end),
            "unjudged": found.unjudged or None,
            "seconds": round(found.seconds, 1),
            "unguarded": list(found.unguarded),
            "start_seconds": shortened.start_s if shortened is not None else None,
            "untold": [{"code": j.check.code, "name": j.check.name, "needs": j.check.needs_whole_run} for j in untold],
            "source": [asdict(p) for p in found.places],
            "projected": asdict(found.projection) if found.projection is not None else None,
        }
    )
    return body


def _end(found: Preflight, console: Console) -> None:
    end = found.end
    if end.ended_by == "failure":
        where = f" at {safe(_near(end.file))}:{end.line}" if end.file is not None else ""
        console.print(f"[bold red]The script fails{where}:[/] {safe(end.error or 'no reason was given')}", highlight=False)
        if end.text:
            console.print(Padding(safe(end.text), (0, 0, 0, 3), expand=False), highlight=False)
        if end.after_cut and _may_come_of_it(end):
            told = "Loaders had been cut short by then: what needs all images, or all classes, may fail by that alone."
            console.print(Padding(f"[dim]{told}[/]", (0, 0, 0, 3), expand=False), highlight=False)
        if end.file is None and end.tail:
            for line in end.tail.splitlines()[-TAIL_SHOWN:]:
                console.print(Padding(f"[dim]{safe(line)}[/]", (0, 0, 0, 3), expand=False), highlight=False)
        return
    told = {
        "itself": "The script came to its own end, with shortened loaders.",
        "epoch": "The script came to the end of its first epoch, with shortened loaders, and was ended there.",
        "time": "The time was up before the first epoch had ended.",
    }[end.ended_by]
    console.print(told, highlight=False)


def _may_come_of_it(end: ScriptEnd) -> bool:
    return not (end.error or "").startswith(
        ("PermissionError", "FileNotFoundError", "NameError", "ModuleNotFoundError", "OSError")
    )


def _untold(found: Preflight, console: Console) -> None:
    assert found.diagnosis is not None
    names = ", ".join(j.check.name for j in found.diagnosis.untold)
    if names:
        console.print(f"[dim]Not told by so short a run: {names}[/]", highlight=False)


def _place(place: SourcePlace, console: Console) -> None:
    sure = "" if place.confirmed else " (read in the source, not seen to run)"
    code = f"{place.code} " if place.code else ""
    console.print(f"[bold]{safe(_near(place.file))}:{place.line}[/] {code}{safe(place.told)}{sure}", highlight=False)
    for sign, text in (("-", place.text), ("+", place.remedy)):
        for line in text.splitlines():
            console.print(Padding(f"[dim]{sign}[/] {safe(line)}", (0, 0, 0, 3), expand=False), highlight=False)


def _near(file: str | None) -> str:
    """A path below the working directory as one relative to it."""
    if file is None:
        return "?"
    try:
        return str(Path(file).relative_to(os.getcwd()))  # noqa: PTH109
    except ValueError:
        return file


def projection_lines(one: Projection) -> list[str]:
    """What the whole training takes: a line each for time, memory and disk."""
    if one.seconds is not None:
        time = f"about {duration(one.seconds)}"
        detail = f"{one.epochs} epochs by {one.epochs_from}, {duration(one.seconds_per_epoch or 0.0)} each"
    elif one.seconds_per_epoch is not None:
        time, detail = f"{duration(one.seconds_per_epoch)} an epoch", f"how many epochs is unknown: {one.epochs_from}"
    else:
        time, detail = "unknown", "no step could be timed"
    if one.seconds_per_step is not None:
        detail += f"; {one.steps_per_epoch} steps an epoch, {one.seconds_per_step:.3g} s a step"
    memory = f"{size(one.memory_bytes)} so far" if one.memory_bytes is not None else "unknown"
    if one.gpu_bytes is not None:
        memory += f", on the GPU {size(one.gpu_bytes)}"
    disk = "unknown"
    if one.disk_bytes is not None:
        disk = size(one.disk_bytes)
        if one.disk_each_epoch:
            disk += " (each epoch leaves files of its own" + (")" if one.epochs is not None else "; of one epoch)")
        if one.free_bytes is not None:
            disk += f", {size(one.free_bytes)} are free"
            disk += " [bold red]: not enough[/]" if one.free_bytes < one.disk_bytes else ""
    return [f"The whole training: {time} ({detail})", f"  memory {memory}; disk {disk}"]


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6_000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(number: int) -> str:
    """Bytes as people say them."""
    if number < 1 << 20:
        return f"{number / 1024:.0f} KiB"
    return f"{number / (1 << 20):.0f} MiB" if number < GIB else f"{number / GIB:.1f} GiB"
