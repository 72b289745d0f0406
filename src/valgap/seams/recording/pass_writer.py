"""Writes passes into the record as they begin and end, with what goes with them: states, steps, schedules, kept images."""

from __future__ import annotations

from typing import Any

from valgap.record.writer import RecordWriter
from valgap.seams.attaching.loops import Loops
from valgap.seams.looking.described import without_workers
from valgap.seams.looking.inputs import quantized
from valgap.seams.looking.model_states import ModelStates
from valgap.seams.looking.ranks import Ranks
from valgap.seams.looking.schedules import Schedules
from valgap.seams.recording.kept_inputs import KeptPasses
from valgap.seams.recording.last_walks import LastWalks
from valgap.seams.recording.optimizer_steps import OptimizerSteps
from valgap.seams.recording.walk import Walk


class PassWriter:
    """Owns what is written beside a pass; ``last`` are the passes that closing measurements go back to."""

    def __init__(self, writer: RecordWriter) -> None:
        self.writer = writer
        self.steps = OptimizerSteps(writer)
        self.states = ModelStates(writer)
        self.ranks = Ranks(writer)
        self.schedules = Schedules(writer)
        self.last = LastWalks()
        # Whether images and statistics of them are kept: an arm of which only the answers are read needs none.
        self.keeps_images = True
        self.count = 0
        self._loops = Loops()
        self._kept = KeptPasses(writer)

    def begin(self, walk: Walk) -> None:
        """The walk becomes the next pass."""
        walk.index = self.count
        self.count += 1
        self.ranks.pass_begun()
        place = {"pass": walk.index, "loader": walk.loader_id, "dataset": walk.dataset_id}
        self.writer.write("pass_begin", {**place, "loops": self._loops.turns()})

    def part(self, walk: Walk) -> None:
        """What has gathered of a pass that goes on."""
        self.steps.settle(walk)
        self.writer.write("part", walk.take())
        self._traced(walk)

    def end(self, walk: Walk) -> None:
        """The pass is over."""
        self.steps.settle(walk)
        body = walk.take()
        walk.written = True
        model = walk.model
        kind = "train" if walk.backwards or walk.steps else "eval"
        self.writer.write("pass_end", body)
        self._traced(walk)
        if walk.seen is not None:
            self.writer.write("seen", {"pass": walk.index, **quantized(walk.seen)})
            walk.seen = None
        self._kept.add(walk.index, walk.dataset_id, kind, "kept", walk.kept.result())
        self._kept.add(walk.index, walk.dataset_id, kind, "rows", walk.rows.result())
        if model is None:
            return
        if walk.steps:
            self.steps.describe(model)
            self.states.write_model(model)
        state = self.states.write_state(model, "pass", walk.index)
        self.ranks.pass_written(walk.index, model, bool(walk.steps))
        if walk.steps:
            self.schedules.write(walk.index, self.steps.optimizers)
        loader = without_workers(walk.loader)
        if walk.held is not None:
            earlier = self.last.train[1]["walk"].fingerprints if self.last.train is not None else None
            loader = walk.held.loader(earlier, walk.fingerprints)
        walk.drop_loader()
        if not self.keeps_images:
            return
        facts: dict[str, Any] = {"model": model, "walk": walk, "dataset": walk.dataset_id, "state": state}
        if kind == "train":
            self.last.trained(walk, loader, facts)
        elif loader is not None:
            self.last.evaluated(walk, loader, facts)

    def finish(self) -> None:
        """The program has ended, and all passes are written."""
        self._kept.finish()

    def _traced(self, walk: Walk) -> None:
        traced = walk.traced.take(walk.index)
        if traced is not None:
            self.writer.write("traced", traced)
