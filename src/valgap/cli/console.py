"""What several commands share: lines on standard error, progress bars, the page beside a run."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valgap.errors import ValgapError
from valgap.visible import visible

PAGE = "report.html"
# Where nobody watches a bar, a long pass is told of so often.
TOLD_EVERY_S = 30.0


def say(text: str) -> None:
    """One line on standard error, whatever names are in it."""
    print(f"valgap: {visible(text)}", file=sys.stderr)


def codes(text: str) -> list[str]:
    return [c.strip() for c in text.split(",") if c.strip()]


@contextmanager
def quick_imports() -> Iterator[None]:
    """Imports without the collector, which would go over all that torch and its kin make, again and again, and once more at
    the end of the process, and none of it is garbage.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.freeze)
        if was_on:
            gc.enable()


def yield_while_waiting() -> None:
    """Let threads sleep while they wait for each other, unless the user says otherwise; before torch is imported.

    Those of OpenMP spin at first: beside other programs they take several times the processor time and the clock's
    (`make bench-busy`). For commands whose work is our own; a script that is recorded keeps its ways.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def reruns_bar() -> Iterator[Callable[[int, int, float], None]]:
    """A progress bar for re-runs on standard error, from the first that has finished on; in a file, a line for each."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    if not Console(stderr=True).is_terminal:
        last = -1

        def tell(done: int, total: int, left: float) -> None:
            nonlocal last
            if done != last:
                last = done
                say(f"re-runs {done} of {total}, about {left / 60:.0f} min {left % 60:.0f} s left")

        yield tell
        return

    columns = TextColumn("re-runs"), BarColumn(), MofNCompleteColumn(), TextColumn("about {task.fields[left]} left")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, visible=False, left="")

        def show(done: int, total: int, left: float) -> None:
            bar.update(task, completed=done, total=total, visible=True, left=f"{left / 60:.0f} min {left % 60:.0f} s")

        yield show


@contextmanager
def images_bar() -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """(told of a pass: done, of how many; told what comes next), shown on standard error with the time that is left.

    On a terminal a bar; in a file a line for each new pass, and one every half minute.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not Console(stderr=True).is_terminal:
        yield lines_of_pass(time.monotonic), say
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("images", total=None)

        def begin(text: str) -> None:
            bar.console.print(f"valgap: {visible(text)}", highlight=False, markup=False)
            bar.reset(task, total=None, description=text.partition(":")[0])

        yield lambda done, total: bar.update(task, completed=done, total=total), begin


def lines_of_pass(clock: Callable[[], float]) -> Callable[[int, int], None]:
    """Told of a pass: says every TOLD_EVERY_S seconds of ``clock`` how far it is, and for how long it will go on."""
    begun, first, told, last = clock(), 0, clock(), 0

    def tell(done: int, total: int) -> None:
        nonlocal begun, first, told, last
        now = clock()
        if done < last or last == 0:  # another pass, or one that goes on where it was
            begun, first, told = now, done, now
        last = done
        if now - told >= TOLD_EVERY_S and done > first:
            told = now
            left = (total - done) * (now - begun) / (done - first)
            say(f"{done:,} of {total:,}, about {duration(left)} left")

    return tell


def duration(seconds: float) -> str:
    """Seconds in words: 40 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def page_of(diagnosis: Any) -> str:
    """The HTML page of a diagnosis."""
    from valgap.exhibits import gather
    from valgap.fix import code_of_remedies
    from valgap.report.as_html import diagnosis_to_html

    return diagnosis_to_html(diagnosis, gather(diagnosis, code_of_remedies(diagnosis)))


def write_new(path: Path, text: str, opening: str = "<!doctype html>") -> None:
    """Write a file; one that is there is replaced only where it begins as ours do, or is empty: somebody was killed there."""
    if path.exists() and not (path.read_text(errors="replace") or opening).startswith(opening):
        raise ValgapError(f"{path} exists and is no report of valgap: choose another file, nothing is overwritten")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValgapError(f"cannot write {path}: {error.strerror}") from error


def holds_verdicts(page: Path) -> bool:
    """Whether the page is there and tells of re-runs: a look at the record alone must not replace it."""
    return page.is_file() and 'name="valgap-reruns"' in page.read_text(encoding="utf-8", errors="replace")


def page_beside(run_directory: Path, diagnosis: Any) -> None:
    """Write RUN/report.html and say so; a page with more proof stays, and a folder that cannot be written to is left alone."""
    page = run_directory / PAGE
    if diagnosis.experiments is None and holds_verdicts(page):
        return
    try:
        write_new(page, page_of(diagnosis))
        say(f"page: {page} (valgap report {run_directory} --open)")
    except ValgapError as reason:
        say(str(reason))
