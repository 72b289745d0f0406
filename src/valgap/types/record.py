"""What the five seams saw: a run directory, read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from valgap.types.arrays import IntArray, Phase
from valgap.types.closing import Closing
from valgap.types.passes import KeptInputs, KeptRows, Pass, SeenInputs
from valgap.types.program import (
    DatasetInfo,
    LoaderInfo,
    ModelInfo,
    OptimizerInfo,
    Provenance,
    ScheduleState,
    StateSnapshot,
    WeightsLoaded,
)
from valgap.types.ranks import RankInfo
from valgap.types.shortened import Shortened
from valgap.types.traced import SourceFile, TracedBatches

# What the records of `valgap train` have for a script.
TRAINED = "valgap train"
MIXED = 20  # images that were seen to be mixed, which say that training mixes


@dataclass(frozen=True)
class PrintedNumber:
    """A number that the script printed or logged, with the words before it and what they mean."""

    label: str  # the words before the number in that line, lower case, at most 60 characters
    value: float
    after_pass: int  # index of the pass that had begun last; -1 before any
    line: str
    decimals: int = 0  # digits after the point, as printed
    metric: str = "other"  # "accuracy", "top_k", "loss" or "other"
    k: int = 1  # of a top-k accuracy
    unit: str | None = None  # of an accuracy: "percent" or "share"; None where it cannot be known
    side: str = ""  # "train", "val", "test"; "" where it is not said
    # "value"; "running" (of a batch, or so far), "average" (of a meter), "best" (so far), "class" (of one class), "model" (of
    # another model: averaged, a teacher), "count" (right answers), "other"
    kind: str = "value"
    epoch: float | None = None  # as its line says
    finished: bool | None = None  # whether the progress in its line is at its end; None where the line shows none
    running: bool = False  # printed before that pass was over
    series: str = ""  # equal for numbers at the same place of the same print


@dataclass(frozen=True)
class Scored:
    """Answers that the program scored by a library, and the classes that it took for true."""

    true: IntArray  # (N,)
    predicted: IntArray  # (N,)
    after_pass: int  # index of the pass that had begun last; -1 before any


@dataclass(frozen=True, repr=False)
class RunRecord:
    """A run directory, read."""

    path: str
    schema: int
    header: Mapping[str, object]  # argv, cwd, versions, seeds, git, environment, started
    sample_names: tuple[str, ...]  # path, or "dataset3[17]" where a sample has none
    datasets: Mapping[int, DatasetInfo]
    loaders: Mapping[int, LoaderInfo]
    models: Mapping[int, ModelInfo]
    optimizers: Mapping[int, OptimizerInfo]
    passes: tuple[Pass, ...]
    states: tuple[StateSnapshot, ...]
    weights_loaded: tuple[WeightsLoaded, ...]
    printed: tuple[PrintedNumber, ...]
    closing: Closing | None
    recorder_errors: tuple[str, ...]
    exit_status: int | None  # None: the program was killed or is still running
    stopped: str | None  # why the record is not whole, in words
    seconds: float
    seen: tuple[SeenInputs, ...] = ()  # of the first pass over each data set
    kept: tuple[KeptInputs, ...] = ()  # of the first and the last pass over each data set, with and without gradients
    rows: tuple[KeptRows, ...] = ()  # features that a model made, or was given; of the same passes
    made_once: bool = False  # training learned from features that were made of the images before; see features/feature_rows.py
    schedules: tuple[ScheduleState, ...] = ()
    ranks: tuple[RankInfo, ...] = ()  # the processes of a program of several; empty for a process alone
    unseen: tuple[str, ...] = ()  # what keeps a sound result from being told sound, a sentence each; see record/whole.py
    provenance: Mapping[int, Provenance] = field(default_factory=dict)  # by data set; none without closing measurements
    # (file, class index) of training images that a loop took from arrays, where a folder tells them; see features/loop_files.py
    unlisted: tuple[tuple[str, int], ...] = ()
    unlisted_told: int = 0  # of them, those that were told by their looks: their targets are what the loss saw
    shortened: Shortened | None = None  # cut short on purpose: it is no whole training
    traced: tuple[TracedBatches, ...] = ()  # of a process alone; empty in records of before
    scored: tuple[Scored, ...] = ()  # of the first process; empty in records of before
    sources: tuple[SourceFile, ...] = ()  # the program's own files; empty in records of before

    def __repr__(self) -> str:
        return f"RunRecord({self.path!r}: {len(self.passes)} passes, exit status {self.exit_status})"

    @classmethod
    def empty(cls, path: str) -> RunRecord:
        """The record of no run at all: images are judged that no program was seen to train on."""
        return cls(path, 1, {}, (), {}, {}, {}, {}, (), (), (), (), None, (), None, None, 0.0)

    def of_phase(self, phase: Phase) -> tuple[Pass, ...]:
        """All passes of one phase with the trained model's data, in order."""
        return tuple(p for p in self.passes if p.phase == phase)

    @property
    def running(self) -> bool:
        """Whether it is judged while it goes on: what it has not shown yet may still come."""
        return self.shortened is not None and self.shortened.ended_by == "running"

    @property
    def own_updates(self) -> bool:
        """Whether the program changes its weights itself, or by another library's optimizer: rates and settings are not known."""
        return any(o.kind == "own update" for o in self.optimizers.values())

    def mixes(self, one: Pass) -> bool:
        """Whether a pass's targets are those of images mixed anew in every pass (mixup, cutmix): they are no labels of samples.

        They are soft, or the loss is asked for both parts in turn, where a loss was seen, and the largest part, or the first, of
        one changes from pass to pass.
        """
        mixed = sum(p.mix.images for p in self.of_phase(one.phase) if p.mix is not None) >= MIXED
        if one.loss is not None and one.loss.target_kind != "soft" and not mixed:
            return False
        seen: dict[int, set[int]] = {}
        for table in (p.samples for p in self.of_phase(one.phase) if p.dataset == one.dataset):
            for sample, target in zip(table.sample.tolist(), table.target.tolist(), strict=True):
                if sample >= 0:
                    seen.setdefault(sample, set()).add(target)
        return any(len(targets) > 1 for targets in seen.values())

    @property
    def group(self) -> tuple[RankInfo, ...]:
        """The processes that trained as one group, by rank; empty where none did."""
        return tuple(sorted((r for r in self.ranks if r.rank is not None and r.passes), key=lambda r: r.rank or 0))

    @property
    def last_train(self) -> Pass | None:
        """The last training pass."""
        return next(iter(reversed(self.of_phase("train"))), None)

    @property
    def last_validation(self) -> Pass | None:
        """The last validation pass that has labelled samples (else the last one at all)."""
        passes = self.of_phase("validation")
        labelled = [p for p in passes if p.samples.labelled.any()]
        return next(iter(reversed(labelled or list(passes))), None)

    @property
    def best_validation(self) -> Pass | None:
        """The validation pass with the highest accuracy (the earliest of equals)."""
        labelled = [p for p in self.of_phase("validation") if p.samples.answered]
        return max(labelled, key=lambda p: (p.samples.accuracy, -p.index), default=None)

    @property
    def trained_model(self) -> ModelInfo | None:
        """The model that the training passes trained."""
        last = self.last_train
        return self.models.get(last.model) if last else None
