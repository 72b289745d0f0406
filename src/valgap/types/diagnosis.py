"""What checks see and say, and what experiments make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from valgap.types.arrays import RestsOn, Verdict
from valgap.types.evidence import Evidence
from valgap.types.images import CaseImages
from valgap.types.interventions import Intervention, Untreatable
from valgap.types.record import RunRecord
from valgap.types.stages import STAGE_WORDS, CaseStages, LossParts, Measured, Stage, StageLine, StageShare

# Points that a stage may cost for all that is known, beyond its interval: with them open nothing is called sound.
OPEN_POINTS = 5.0
SOUND = "Nothing is broken"  # said only where all was seen and nothing is open


@dataclass(frozen=True)
class Case:
    """All that a check may see. Read-only."""

    run: RunRecord  # RunRecord.empty(...) where only images are judged
    images: CaseImages | None = None  # None: no image file of this run is there
    stages: CaseStages | None = None  # None: not compared with any reference

    @property
    def num_classes(self) -> int | None:
        """Number of classes by the training data set's map, else by the largest target of trainings with as many outputs.

        A program may learn one task first, and then another with a new last layer.
        """
        last = self.run.last_train
        if last is None:
            return None
        dataset = self.run.datasets.get(last.dataset)
        if dataset is not None and dataset.class_to_idx:
            return len(dataset.class_to_idx)
        outputs = last.loss.num_outputs if last.loss is not None else -1
        alike = [p for p in self.run.of_phase("train") if p.loss is None or outputs in (-1, p.loss.num_outputs)]
        top = max((int(p.samples.target.max(initial=-1)) for p in alike), default=-1)
        return top + 1 if top >= 0 else None


@dataclass(frozen=True)
class Ranked:
    path: str
    score: float
    given: str | None = None
    likely: str | None = None
    seen: str | None = None  # what the pretrained network calls it, where that is no class here: "fly"


@dataclass(frozen=True)
class Finding:
    """A suspected cause. Severity (points of validation accuracy) and confidence are separate things."""

    summary: str  # one line, in words about this run: "val images are not normalised"
    severity_points: float  # expected gain in validation accuracy when removed; < 0: val is too good
    confidence: float  # 0..1 that the fault is there, as calibrated in the check's file
    evidence: tuple[Evidence, ...]
    remedy: str
    subjects: tuple[str, ...] = ()
    ranking: tuple[Ranked, ...] = ()
    # Where ``severity_points`` is assumed: the most that such a fault may cost; what is measured further on may then be its work.
    most_points: float = 0.0
    stage: Stage | None = None  # where the check can tell that it sits elsewhere than such faults mostly do

    @property
    def cost_known(self) -> bool:
        """False where it may cost much, and nothing says how much."""
        return self.severity_points != 0 or self.most_points == 0


@dataclass(frozen=True)
class Clear:
    """The cause was looked for and is not there."""

    summary: str
    evidence: tuple[Evidence, ...] = ()
    ranking: tuple[Ranked, ...] = ()


@dataclass(frozen=True)
class NotApplicable:
    """The cause cannot be judged here; ``missing`` says what would be needed."""

    missing: str


@dataclass(frozen=True)
class Crashed:
    """The check itself failed. Made by the runner alone."""

    traceback: str


Outcome = Finding | Clear | NotApplicable | Crashed


@dataclass(frozen=True)
class Check:
    """One cause of the catalogue, with the function that looks for it and the one that removes it."""

    code: str
    name: str
    detect: Callable[[Case], Finding | Clear | NotApplicable]
    doc: str
    stage: Stage  # where in the program the cause sits
    # None: the catalogue knows no treatment, so the cause is judged on evidence alone.
    treat: Callable[[Case, Finding], Intervention | Untreatable] | None = None
    # Whether it makes the recorded accuracy one of something else than new images: the points of all others are then moot.
    voids_accuracy: bool = False
    # Whether it costs loss and no accuracy: a part of the loss, and no rival of what costs accuracy.
    loss_alone: bool = False
    # Told by what the model answers to validation: where those images are read wrongly, it may be no more than that.
    by_answers: bool = False
    # Told by what became of the features: a training that was given something wrong spoils them, whatever its updates are.
    by_features: bool = False
    # Whether it tells what limits all that can be known, and no fault: no stage is at fault for it.
    limit: bool = False
    # What of a whole training it rests on: a run that was cut short on purpose cannot tell it. "" where it can.
    needs_whole_run: str = ""
    # Where it is told without a whole training: what of its effect comes late in one. "" where a few epochs show it.
    shows_late: str = ""

    @property
    def whole_training(self) -> str:
        """What takes a whole training to show its effect, in words; empty where a few epochs show it."""
        return self.needs_whole_run or self.shows_late


@dataclass(frozen=True)
class Effect:
    """Paired gain in validation accuracy of a treatment, in points, over seeds and validation samples."""

    value: float
    low: float  # 95 % interval, not corrected for the number of causes tried
    high: float
    p_value: float  # corrected for the number of causes tried
    seeds: int
    samples: int
    nats: Measured | None = None  # by how much the mean validation loss falls; None where the loss is not known
    nats_p_value: float | None = None  # of these nats, corrected likewise
    looks: int = 1  # how often arms were compared, with more seeds each time; the interval and the p-values hold for all of them
    trained: float = 1.0  # share of the recorded training that its arms had: it is the effect in a program of that length


@dataclass(frozen=True)
class Judged:
    """A check with what it said, and what the controlled re-runs said of it."""

    check: Check
    outcome: Outcome
    verdict: Verdict = "untested"
    effect: Effect | None = None
    reason: str = ""  # why the verdict is what it is, in words
    rests_on: RestsOn = ""  # what a confirmation by re-runs rests on
    # Of each outcome by itself, where re-runs compared it.
    points_verdict: Verdict | None = None
    nats_verdict: Verdict | None = None
    tried: Intervention | None = None  # what re-runs put in the cause's place, where that is a remedy


@dataclass(frozen=True)
class LedgerLine:
    """One line of the account, in points of accuracy and nats of loss; the points of the lines up to a total add up to it."""

    name: str
    points: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    # "cause", "gain" and "rest" lead from the run's validation accuracy on; "measurement" leads to it from what the script
    # reports. "gain": what the program does better than the reference. "confidence": a part of the loss alone.
    kind: Literal["cause", "measurement", "rest", "gain", "confidence"] = "cause"
    stage: Stage | None = None  # where its cause sits
    nats: Measured | None = None  # by how much the mean validation loss falls with it mended; None: not known
    alone: bool = False  # its effect alone, beside others: re-runs that mend them together are missing
    # Where re-runs were cut short: what it would be in whole ones, points and nats. None: these are of the whole training.
    whole: Measured | None = None
    whole_nats: Measured | None = None


@dataclass(frozen=True)
class GapPart:
    """One part of the gap between reported training and recorded validation accuracy, in points (valgap.gap)."""

    name: str
    points: float
    low: float | None  # 95 % interval, None where there is none
    high: float | None
    told: str  # how it is measured
    kind: Literal["part", "beside"] = "part"  # parts sum to the gap; what stands beside them does not


@dataclass(frozen=True)
class Experiments:
    """How the re-runs were made, for the report."""

    arms: int  # finished, those reused included
    reused: int
    seeds: int
    epochs: int  # training passes per arm
    recorded_epochs: int
    train_fraction: float  # of the training samples, 0..1
    fidelity: str  # how well the control reproduced the record, in words
    reproduced: bool
    seconds: float
    replayed: int = 0  # model calls, over all arms, whose frozen part was read and not computed
    notes: tuple[str, ...] = ()
    forked: int = 0  # arms that began at their program's first loader


@dataclass(frozen=True)
class Proposal:
    """More time for re-runs that would decide a cause, as far as its arms and intervals so far can tell."""

    code: str
    seconds: float  # beyond what was given


@dataclass(frozen=True)
class Accuracy:
    """A share of correct answers with its 95 % interval, all 0..1."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What `valgap diagnose` says of a run."""

    run: RunRecord
    judged: tuple[Judged, ...]  # findings first, in the order of the report
    train_reported: float | None
    train_rescored: float | None
    validation: Accuracy | None
    ledger: tuple[LedgerLine, ...] = ()
    experiments: Experiments | None = None
    images: CaseImages | None = None  # what was looked at beside the record
    gap: tuple[GapPart, ...] = ()
    budget_s: float = 0.0  # seconds that were given for re-runs; 0: none were asked for
    reported: Accuracy | None = None  # train_reported and train_rescored with their intervals
    rescored: Accuracy | None = None
    stages: tuple[StageLine, ...] = ()  # the account by stage, most costly first
    shares: tuple[StageShare, ...] = ()  # what re-runs gave to each stage
    loss: LossParts | None = None  # of the finished model's validation loss
    unseen: tuple[str, ...] = ()  # what was not seen of a whole training and validation of one model, in words
    proposals: tuple[Proposal, ...] = ()  # for causes that re-runs left undecided, the cheapest first
    unmeasured: str = ""  # why closing measurements that did not fit after the run could not be made later

    def __repr__(self) -> str:
        found = ", ".join(f"{j.check.name} ({j.verdict})" for j in self.findings)
        return f"Diagnosis({self.run.path!r}: {found or 'no finding'})"

    @property
    def findings(self) -> tuple[Judged, ...]:
        return tuple(j for j in self.judged if isinstance(j.outcome, Finding))

    @property
    def reached(self) -> float | None:
        """Validation accuracy with every confirmed remedy, in percent; None where re-runs have confirmed none."""
        confirmed = {j.check.name for j in self.findings if j.verdict == "confirmed"}
        if self.validation is None or not confirmed:
            return None
        lines = [line for line in self.ledger if line.kind == "cause" and line.name in confirmed]
        # What several give together is known from joint re-runs only.
        gains = [line.points for line in lines]
        gained = max(gains, key=abs) if any(line.alone for line in lines) else sum(gains)
        return round(100 * self.validation.value, 1) + gained

    @property
    def sources(self) -> str:
        """What the diagnosis rests on, in words."""
        if self.experiments is not None:
            return "record and re-runs"
        return "the record alone" if self.run.passes else "the images alone"

    @property
    def without_finding(self) -> tuple[str, str]:
        """What is to be said where nothing was found: the verdict in a few words, and what it rests on or lacks."""
        cut = self.run.shortened
        if cut is not None:
            return "Nothing is suspected", ", as far as so short a run can tell."
        missing = self.unseen or self.run.unseen or ((self.unmeasured,) if self.unmeasured else ())
        if missing:
            return "No fault shows in what was seen", f", which is not the whole: {'; '.join(missing)}."
        left = [x for x in self.stages if x.verdict == "unknown" and x.points is not None and x.points.low >= OPEN_POINTS]
        if left and left[0].points is not None:
            needs = f"; it takes {left[0].missing} to tell" if left[0].missing else ""
            told = f", though {left[0].points.value:.0f} points are open at {STAGE_WORDS[left[0].stage]}{needs}."
            return "No cause is named", told
        return SOUND, f" as far as {self.sources} can tell."

    @property
    def untold(self) -> tuple[Judged, ...]:
        """What a run that was cut short on purpose cannot tell; empty for any other."""
        return tuple(j for j in self.judged if j.check.needs_whole_run) if self.run.shortened is not None else ()

    @property
    def crashed(self) -> tuple[Judged, ...]:
        return tuple(j for j in self.judged if isinstance(j.outcome, Crashed))
