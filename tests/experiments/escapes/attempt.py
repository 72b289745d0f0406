"""What an attempt to get out of the sandbox is: a name, what it tries, and what must come of it."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from valgap.experiments.kernel.calls import NUMBERS

# The program is told by an ordinary error; or it goes on, and what it did happened in its own world.
REFUSED, LED = "refused", "led"

LIBC = ctypes.CDLL(None, use_errno=True)
MORE = {  # system calls that the sandbox itself has no use for
    "renameat2": (316, 276), "linkat": (265, 37), "name_to_handle_at": (303, 264), "connect": (42, 203), "clone": (56, 220),
}  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """One of them; ``guard``: the field of Guards that must hold it (empty: the overlay, on every system)."""

    name: str
    tries: str
    function: Callable[[Any], object]
    comes: str
    guard: str


def gather() -> tuple[Callable[..., Any], list[Attempt]]:
    """A decorator and the list that it fills, for one file of attempts."""
    found: list[Attempt] = []

    def attempt(tries: str, guard: str = "", comes: str = REFUSED) -> Any:
        def keep(function: Callable[[Any], object]) -> Callable[[Any], object]:
            found.append(Attempt(function.__name__, tries, function, comes, guard))
            return function

        return keep

    return attempt, found


def syscall(name: str, *arguments: Any) -> int:
    """What the kernel says, with nothing of Python's in between."""
    both = {**NUMBERS, **MORE}
    found = both[name][0 if platform.machine() == "x86_64" else 1]
    assert found is not None
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(LIBC.syscall(ctypes.c_long(found), *given))


def checked(result: int) -> int:
    """The result of a function of the C library; raises what it says."""
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def started(status: int) -> None:
    """Raise where a child program has failed, as it says."""
    if status:
        raise ChildProcessError(f"status {status}")
