"""What a training shows on the way: lines and progress bars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from valgap.visible import visible

Item = TypeVar("Item")


def progress(what: str, screen: Console) -> Progress:
    """A progress bar that goes away when it is done; drawn on a terminal only."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)


def bar(items: Iterable[Item], what: str, screen: Console) -> Iterator[Item]:
    """The items, with a progress bar."""
    total = len(items)  # type: ignore[arg-type]
    with progress(what, screen) as shown:
        yield from shown.track(items, total=total)


def say(text: str, screen: Console) -> None:
    """One line, whatever names are in it."""
    screen.print(visible(text), markup=False, highlight=False, soft_wrap=True)
