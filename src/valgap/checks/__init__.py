"""The catalogue: one visible line per cause, in the order of CAUSES. Nothing registers itself."""

from __future__ import annotations

from valgap.types import Check

CATALOGUE: tuple[Check, ...] = ()
