"""The stages of a program that trains an image classifier, and what is lost in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from valgap.types.arrays import FloatArray
from valgap.types.evidence import Evidence
from valgap.types.interventions import Intervention, Untreatable

Stage = Literal["files", "draw", "pair", "read_train", "read_val", "forward", "loss", "update", "choose", "measure"]
# In the order in which a program goes through them.
STAGES: tuple[Stage, ...] = get_args(Stage)
STAGE_WORDS: Mapping[Stage, str] = {
    "files": "files, labels and splits",
    "draw": "drawing training samples",
    "pair": "pairing images and labels",
    "read_train": "reading training images",
    "read_val": "reading validation images",
    "forward": "the forward pass",
    "loss": "the loss",
    "update": "the updates",
    "choose": "the choice of the epoch",
    "measure": "the measurement",
}
StageVerdict = Literal["at fault", "sound", "gain", "unknown"]


@dataclass(frozen=True)
class Measured:
    """A difference with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TwiceAnswered:
    """What recorded weights say of the same N samples: as the program gives them, and under a change."""

    right: npt.NDArray[np.bool_]  # (2, N)
    loss: FloatArray  # (2, N) nats, bounded
    changed: float  # share of the samples that are given another answer, 0..1


@dataclass(frozen=True)
class AskedAgain:
    """Both sides answered twice; None where a side was not asked, or not enough of it."""

    val: TwiceAnswered | None
    train: TwiceAnswered | None


# Asks the recorded weights under a change, in a re-run that trains nothing; a sentence where that cannot be done.
AskAgain = Callable[[Intervention], AskedAgain | str]


@dataclass(frozen=True)
class LossParts:
    """The mean validation loss of the finished model, in nats: what one temperature takes off it, and the rest."""

    value: float
    confidence: Measured  # how sure the answers are; each fifth's temperature is fitted on the others
    discrimination: float  # which answers are given
    n: int
    recorded: float | None = None  # what the program's own last validation came to, in whatever mode it scored


@dataclass(frozen=True)
class StageShare:
    """What re-runs gave to a stage: its share where several were mended, or what its reference alone changed."""

    stage: Stage
    points: Measured
    nats: Measured | None
    # "cost": mending it gives back; "gain": the reference does worse; "none": nothing within what is worth a remedy.
    told: Literal["cost", "gain", "none"]
    together: tuple[Stage, ...] = ()  # stages whose references were tried at once, where it was not tried alone


@dataclass(frozen=True)
class Compared:
    """One stage as the program does it, held against the reference of that stage; nothing was run again for it.

    ``points`` (of validation accuracy) and ``nats`` (of validation loss) are what the reference in its place gives back.
    """

    verdict: StageVerdict
    summary: str
    points: Measured | None = None
    nats: Measured | None = None
    confidence: float = 0.0  # 0..1 that the stage is at fault
    evidence: tuple[Evidence, ...] = ()
    remedy: str = ""
    missing: str = ""  # where the verdict is "unknown": what would be needed
    pictures: tuple[tuple[str, str], ...] = ()  # (name, file) of samples of RunRecord.kept that show it
    # What kind of fault it is, where that is plain: "few" are drawn; images are "turned", "changed" from pass to pass or
    # "blank"; the loss is "summed" or "bent"; weights of another epoch are "loaded"; "" where it has no name.
    kind: str = ""
    own: bool = False  # whether points and nats are those of the program's own weights, and no probe's
    # What puts the reference in the stage's place in the running program, or why nothing can; None: not known.
    treatment: Intervention | Untreatable | None = None
    # Points that a published network makes of what the model is given, beyond the program's own; None: not asked.
    published: Measured | None = None


class CaseStages(Protocol):
    """The stages of a Case; each is compared when it is first asked for, and once."""

    def compared(self, stage: Stage) -> Compared: ...

    def reference(self, stage: Stage) -> Intervention | Untreatable:
        """What puts the reference in the stage's place in the program, whatever the comparison says; or why nothing can."""


@dataclass(frozen=True)
class StageLine:
    """One line of the account by stage."""

    stage: Stage
    points: Measured | None
    nats: Measured | None
    verdict: StageVerdict
    confidence: float
    proved: bool  # a re-run confirmed a cause of this stage
    causes: tuple[str, ...]  # codes of the findings that sit in this stage, the likeliest first
    summary: str
    evidence: tuple[Evidence, ...] = ()
    missing: str = ""  # where the verdict is "unknown": what would be needed
    pictures: tuple[tuple[str, str], ...] = ()  # (name, file) of samples of RunRecord.kept that show it
