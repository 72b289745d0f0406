"""That a program was cut short on purpose, and where: its record is no whole training and says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# How a shortened program ended: by itself, at the start of an epoch that was not wanted, when its time was up, or by a failure;
# "running": it was not cut, it is judged while it goes on.
EndedBy = Literal["itself", "epoch", "time", "failure", "running"]


@dataclass(frozen=True)
class CutPass:
    """What a walk over a loader gave of what there was."""

    given: int  # batches
    whole: int  # batches that the loader would have given; -1 unknown
    spread: bool  # evenly spread over all that there is, rather than its first
    batch_s: float  # median seconds from batch to batch, the first ones left out; nan where there are too few


@dataclass(frozen=True)
class WrittenFile:
    """A file that the program wrote, which stayed in the sandbox."""

    path: str  # where it would be
    size: int  # bytes


@dataclass(frozen=True)
class Shortened:
    """How a record was cut short."""

    steps: int  # optimizer steps of a training walk at most
    images: int  # of an evaluation at most
    seconds: float  # given beyond the program's own start
    passes: Mapping[int, CutPass] = field(default_factory=dict)  # by position in RunRecord.passes
    start_s: float = float("nan")  # until a model was first called
    epoch_s: float = float("nan")  # from the end of the last walk to the end: what comes after an epoch, as checkpoints
    next_mode: float | None = None  # training flag of the model when the next epoch began to train; None: it was not seen
    ended_by: EndedBy = "failure"
    files: tuple[WrittenFile, ...] = ()
    gpu_bytes: int | None = None  # most that torch held on a GPU; None: none was used

    def cut(self, position: int) -> bool:
        """Whether the pass at this position holds less than its loader would have given."""
        one = self.passes.get(position)
        return one is not None and one.given < one.whole
