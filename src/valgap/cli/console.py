"""What several commands share: lines on standard error, progress bars, the page beside a run."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valgap.errors import ValgapError

PAGE = "report.html"


def say(text: str) -> None:
    print(f"valgap: {text}", file=sys.stderr)


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
def images_bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar over image files on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def page_of(diagnosis: Any) -> str:
    """The HTML page of a diagnosis."""
    from valgap.exhibits import gather
    from valgap.fix import code_of_remedies
    from valgap.report.as_html import diagnosis_to_html

    return diagnosis_to_html(diagnosis, gather(diagnosis, code_of_remedies(diagnosis)))


def write_new(path: Path, text: str, opening: str = "<!doctype html>") -> None:
    """Write a file; one that is there is replaced only where it begins as ours do."""
    if path.exists() and not path.read_text(errors="replace").startswith(opening):
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
