"""What is said of a program while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from valgap.types.diagnosis import Accuracy

# "died": it has no end, and no process of it is on this machine.
RunState = Literal["running", "finished", "died"]


@dataclass(frozen=True)
class LiveWarning:
    """A cause that a running program is suspected of, told once."""

    time: float  # Unix time
    epoch: int  # training passes that had ended
    pass_index: int  # position in RunRecord.passes of the last pass that had ended; of the first one, while it goes on
    code: str
    name: str
    stage: str
    confidence: float  # 0..1
    what: str
    why: tuple[str, ...]  # pieces of evidence, a line each
    remedy: str


@dataclass(frozen=True)
class SideView:
    """What one pass of an epoch shows."""

    accuracy: Accuracy | None  # None where no answer was seen
    loss: float | None  # mean cross-entropy in nats; None where it is no number
    images: int
    seconds: float
    spent: Mapping[str, float]  # seconds by kind, see Pass.spent; "other" is the rest

    @property
    def images_per_second(self) -> float | None:
        """None for a pass too short to be timed."""
        return self.images / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True)
class EpochView:
    """One epoch: its training pass and the last validation after it."""

    epoch: int  # from 1; 0 is what was validated before any training
    train: SideView | None
    validation: SideView | None


@dataclass(frozen=True)
class RunView:
    """A run as it is now."""

    path: str
    script: str
    state: RunState
    told: str  # the state in words
    seconds: float  # since it began, or until its end
    epochs: tuple[EpochView, ...]  # of passes that have ended
    given: int | None  # epochs that it was given, where that is known
    going: str  # the pass that is under way, in words; "" where none is
    warnings: tuple[LiveWarning, ...]
