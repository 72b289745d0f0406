"""One measured value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Evidence:
    """One measured value beside what it would be in a sound run."""

    name: str
    value: float | str | None
    reference: float | str | None = None
    unit: str = ""
    n: int | None = None
    low: float | None = None
    high: float | None = None

    @property
    def assumed(self) -> bool:
        """Whether it is a cost that nobody measured: so the checks end its name."""
        return self.name.endswith(": assumed")
