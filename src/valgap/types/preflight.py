"""What is said of a program before it trains for hours."""

from __future__ import annotations

from dataclasses import dataclass

from valgap.types.diagnosis import Diagnosis
from valgap.types.shortened import EndedBy


@dataclass(frozen=True)
class Projection:
    """What the whole training takes, as far as its first epoch lets expect; None: not known."""

    epochs: int | None
    epochs_from: str  # where their number is known from; why it is not, where it is not
    steps_per_epoch: int | None  # batches that the training loaders give
    seconds_per_step: float | None
    seconds_per_epoch: float | None  # with its validation, and what comes after
    seconds: float | None  # of all, with the start
    memory_bytes: int | None  # the most that the process held so far
    gpu_bytes: int | None  # the most that torch held on a GPU so far
    disk_bytes: int | None  # of what it writes; of one epoch where the number of epochs is not known
    disk_each_epoch: bool  # whether each epoch leaves files of its own
    free_bytes: int | None  # on the disk where the largest file goes


@dataclass(frozen=True)
class SourcePlace:
    """A line of the program's source that is wrong."""

    cause: str  # name of the cause; "graph_kept" and "schedule_before_step" are none of the catalogue
    code: str | None  # of the cause in the catalogue
    file: str
    line: int
    text: str
    told: str
    remedy: str
    confirmed: bool  # by what was seen as it ran; else it was read in the source alone


@dataclass(frozen=True)
class ScriptEnd:
    """How the shortened program ended."""

    status: int
    ended_by: EndedBy
    error: str | None
    file: str | None  # where it failed, of its own
    line: int | None
    text: str | None  # that line
    tail: str  # what it printed last
    after_cut: bool  # whether a walk had been cut before: the failure may come of that


@dataclass(frozen=True)
class Preflight:
    """Everything that a shortened run lets say of a program."""

    record: str
    end: ScriptEnd
    diagnosis: Diagnosis | None  # None: nothing can be judged, for the reason in ``unjudged``
    unjudged: str
    projection: Projection | None
    places: tuple[SourcePlace, ...]
    seconds: float  # beyond the program's own start
    unguarded: tuple[str, ...] = ()  # what the kernel did not keep it from, in words
