"""The plain sound way through each stage of a training program, and how far the program's own lies from it.

One file a stage. Each holds the reference (what a sound program does there) and compares the record with it; nothing is run
again for that. Where the reference is already written, in ``data``, ``features`` or ``stats``, it is used from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from valgap.features import Measurements
from valgap.reference import choosing, drawing, forward, losses, measuring, pairing, reading, updating
from valgap.reference.losses import loss_parts as loss_parts
from valgap.types import AskAgain, Compared, Intervention, RunRecord, Stage, Untreatable

# What stages before cost explains what a later one seems to, where it is at least this share of that.
EXPLAINED = 0.5
# What a training is given, and what its validation is: whatever is wrong there shows in all that is made of it.
GIVEN: tuple[Stage, ...] = ("draw", "pair", "read_train", "read_val")
NOT_COMPARED = Compared("unknown", "", missing="the causes of this stage are judged one by one, not as a whole")
CUT_SHORT = Compared("unknown", "", missing="a whole training: this one was cut short")


class Stages:
    """Implements ``types.CaseStages`` for one record and the images it is about (None: none of their files is there).

    ``ask`` asks the recorded weights once more; None where that is not wanted.
    """

    def __init__(self, run: RunRecord, images: Measurements | None, ask: AskAgain | None = None) -> None:
        self._ask = ask
        self._reading: reading.Sides | str | None = None
        self._known: dict[Stage, Compared] = {}
        self._run = run
        self._images = images
        self._ways: Mapping[Stage, Callable[[], Compared]] = {
            "draw": lambda: drawing.compare(run, images),
            "pair": lambda: pairing.compare(run, images),
            "read_train": lambda: reading.compare_train(self._sides()),
            "read_val": lambda: reading.compare_val(self._sides()),
            "forward": lambda: forward.against_published(run, self._sides(), forward.compare(run)),
            "loss": lambda: self._learned(*GIVEN, by=lambda found: losses.compare(run, found)),
            "update": lambda: updating.beside_steps(run, updating.settled(run, self._learned(*GIVEN, "loss", "choose"))),
            "choose": lambda: self._learned(*GIVEN, "loss", by=lambda found: choosing.compare(run, found)),
            "measure": lambda: measuring.compare(run),
        }

    def compared(self, stage: Stage) -> Compared:
        """The stage held against its reference; kept once it is known."""
        if stage not in self._known:
            self._known[stage] = self._ways[stage]() if stage in self._ways else NOT_COMPARED
        return self._known[stage]

    def reference(self, stage: Stage) -> Intervention | Untreatable:
        """What puts the reference in the stage's place in the program, whatever the comparison says; or why nothing can."""
        own = self.compared(stage).treatment
        if own is not None:
            return own
        way = {
            "forward": forward.treatment,
            "loss": losses.treatment,
            "update": updating.treatment,
            "choose": choosing.treatment,
        }.get(stage)
        return way(self._run) if way is not None else Untreatable("what the reference of this stage would take is not known here")

    def _learned(self, *upstream: Stage, by: Callable[[Compared], Compared] = lambda found: found) -> Compared:
        """What training left to a probe, where no stage before it explains that; seen in the light of ``by``."""
        if self._run.shortened is not None:
            return by(CUT_SHORT)
        found = updating.compare(self._run)
        faults = [c for c in map(self.compared, upstream) if c.verdict == "at fault" and c.points is not None]
        missing = sum(c.points.value for c in faults if c.points is not None)
        if found.verdict == "at fault" and found.points is not None and missing >= EXPLAINED * found.points.value:
            told = "what the finished network leaves to a probe comes from a stage before"
            return by(Compared("sound", told, evidence=found.evidence))
        return by(found)

    def _sides(self) -> reading.Sides | str:
        if self._reading is None:
            self._reading = reading.read(self._run, self._images, self._ask)
        return self._reading
