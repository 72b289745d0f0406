"""What a re-run changes in a program, or why nothing can be changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Intervention:
    """One change at one seam of an unmodified program; what it does stands in seams/acting/interventions.py."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)  # JSON-ready


@dataclass(frozen=True)
class Untreatable:
    """No intervention can remove this cause from this program; ``reason`` completes "cannot be tried: ..."."""

    reason: str
