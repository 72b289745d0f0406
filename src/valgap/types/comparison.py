"""Two runs side by side: where they part, why, and whether the results differ beyond chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from valgap.types.arrays import Phase
from valgap.types.diagnosis import Accuracy, Effect
from valgap.types.exhibits import Difference
from valgap.types.stages import Stage

# What two runs may part in, in the order in which one comes out of the other.
Quantity = Literal[
    "data",
    "drawn",
    "images",
    "targets",
    "weights",
    "mode",
    "logits",
    "loss",
    "gradients",
    "optimizer",
    "rate",
    "update",
    "statistics",
    "val data",
    "val images",
    "val targets",
    "val mode",
    "val logits",
    "length",
    "metric",
]
# "rounding": of the size of float arithmetic; "chance": another draw of the same thing; "substance": another program or data
Nature = Literal["rounding", "chance", "substance"]
# "equal": to the last bit that the records hold; "rounding", "chance": they differ in nothing else
RunsVerdict = Literal["equal", "rounding", "chance", "parted", "unknown"]


@dataclass(frozen=True)
class Departure:
    """Something in which the second run parts from the first."""

    quantity: Quantity
    stage: Stage
    nature: Nature
    text: str  # one sentence
    where: str = ""  # in words: "epoch 1, batch 3"; "" for what holds from the first step on
    pass_index: int = -1  # position in both records' passes; -1 where it is none of one pass
    batch: int = -1
    size: float = float("nan")  # relative difference; nan where there is none to tell
    evidence: tuple[str, ...] = ()
    told: bool = False  # the program says so itself (a setting, a file): it follows from no other difference
    follows: bool = False  # what comes before it explains it


@dataclass(frozen=True)
class DataDifference:
    """How the samples of one phase differ between two runs. Examples are names, at most a handful."""

    phase: Phase
    common: int
    only_first: int
    only_second: int
    other_label: int  # common samples whose label differs
    examples: tuple[str, ...]
    classes: tuple[tuple[str, int, int], ...] = ()  # (class, samples in the first, in the second) where they differ


@dataclass(frozen=True)
class SourceDifference:
    """A file of the program that differs; ``lines`` is a unified diff, empty where a text was not kept."""

    path: str
    lines: tuple[str, ...]
    inessential: bool  # only comments, layout and docstrings


@dataclass(frozen=True)
class Proved:
    """One thing of the first run put into the second's program, or the whole program run anew, by re-runs."""

    name: str
    gain: Effect | None  # of the change over the second program as it is; None where it was not run
    verdict: str  # "makes the difference", "makes none", "undecided", "not proved"
    text: str
    seeds: int = 0


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side; gains are second minus first, on the validation samples that both have."""

    paths: tuple[str, str]
    accuracy: tuple[Accuracy | None, Accuracy | None]
    settings: tuple[Difference, ...]
    data: tuple[DataDifference, ...]
    gain: Effect | None  # paired over common validation samples; None where there are none
    why_no_gain: str
    best_gain: Effect | None = None  # points, each run's best validation
    verdict: RunsVerdict = "unknown"
    why: str = ""  # the verdict in one or two sentences
    headline: Departure | None = None  # what comes first and is of substance
    departures: tuple[Departure, ...] = ()  # in causal order, the headline among them
    parted: Departure | None = None  # the first difference in any bit, whatever its nature
    growth: tuple[tuple[int, float], ...] = ()  # (optimizer step, relative difference of the losses) after parting by rounding
    source: tuple[SourceDifference, ...] = ()
    missing: tuple[str, ...] = ()  # what the records do not hold, and so could not be compared
    proofs: tuple[Proved, ...] = ()
