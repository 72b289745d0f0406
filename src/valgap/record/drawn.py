"""Lines that are drawn over with carriage returns: what a terminal leaves of them."""

from __future__ import annotations


def last_state(line: str) -> str:
    """The last state of a line that is not blank; "" where none is."""
    return next((part for part in reversed(line.split("\r")) if part.strip()), "")
