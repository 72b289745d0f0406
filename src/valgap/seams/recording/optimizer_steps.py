"""The optimizers of a program and their steps, with the backwards that led to each."""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Any

import torch

from valgap.record.writer import RecordWriter
from valgap.seams.looking.described import as_float, optimizer_settings
from valgap.seams.looking.inputs import FIRST_BATCHES, is_sampled
from valgap.seams.looking.samples import Registry
from valgap.seams.looking.tracked import TrackedModel
from valgap.seams.recording.head_pull import HeadPull
from valgap.seams.recording.own_updates import OWN_UPDATE, OwnUpdates
from valgap.seams.recording.step_norms import StepMeter
from valgap.seams.recording.step_rows import StepRow
from valgap.seams.recording.taken_back import TakenBack
from valgap.seams.recording.walk import Walk

MAX_KEPT_RATES = 6_001  # steps of which the learning rate is kept for the closing measurements
MAX_WATCHED = 8  # optimizers whose gradients are looked at as backward passes begin

# Of the first steps of a pass that is not the first one, so many are measured.
LATER = 2


class OptimizerSteps:
    """Adds each step to the walk that it belongs to: that of the open batch, else that of the last backward."""

    def __init__(self, writer: RecordWriter) -> None:
        self.writer = writer
        self.optimizers = Registry()
        self._last_backward: Walk | None = None
        self._backwards_since = 0
        self._asked: int | None = None  # backward passes within the step under way, where it has a closure
        self._gathers = False  # whether a step was made on more than one backward pass
        self._loss: torch.Tensor | None = None  # what the last backward began at
        self._unscaled: torch.Tensor | None = None
        self._unclean: dict[int, torch.Tensor] = {}  # a parameter of each of the optimizers that stepped last
        self._stale: dict[int, torch.Tensor] = {}  # whether it had a gradient as every backward since its optimizer's step began
        self._meter = StepMeter()
        self._own = OwnUpdates()
        self._back = TakenBack()
        self._taken_back: torch.Tensor | None = None  # before the step that has begun
        self.pull = HeadPull()
        self._pulled: torch.Tensor | None = None  # at the step that has begun
        self._first_walk: int | None = None  # the first pass that had a step
        self._own_written: set[int] = set()
        self._trainings: dict[int, _Training] = {}  # by optimizer id
        self.rates_elsewhere: dict[
            int, Any
        ] = {}  # by optimizer number the rates (S, K) of every step, where another process has trained
        self._belongs: dict[tuple[int, int, int, int], bool] = {}
        self._in_vain: dict[int, int] = {}  # parameters of an optimizer that have no gradient and belong to no model

    def loss_scaled(self, loss: Any) -> None:
        """A GradScaler is about to scale this loss."""
        if isinstance(loss, torch.Tensor):
            self._unscaled = loss.detach().clone()

    def backward_started(self, tensors: Any, open_walk: Walk | None, model: TrackedModel | None) -> float | torch.Tensor:
        """``backward`` begins, on what ``model`` gave. Returns by how much a GradScaler has scaled the loss."""
        if self._asked is not None:
            # A step that searches along its way (LBFGS) asks again and again: that is one gradient, and a search of its own.
            self._asked += 1
            if self._asked > 1:
                return 1.0
        self.look()
        if isinstance(tensors, (tuple, list)):
            tensors = tensors[0] if tensors else None
        walk = open_walk if open_walk is not None else self._last_backward
        self._last_backward = walk
        if walk is not None:
            walk.backwards += 1
        self._backwards_since += 1
        if model is not None and (self._gathers or model.steps == model.own_updates):
            self._own.watch(model)
        loss = self._unscaled if self._unscaled is not None else tensors
        scale: float | torch.Tensor = 1.0
        if self._unscaled is not None and isinstance(tensors, torch.Tensor) and tensors.numel() == self._unscaled.numel() == 1:
            scale = (tensors.detach().float() / self._unscaled.float()).reshape(())
        self._unscaled = None
        self.pull.scaled(scale)
        if isinstance(loss, torch.Tensor):
            self._loss = loss.detach().float().mean() if loss.numel() else None
        # Of two optimizers in turn one has its gradients while the other's loss goes backward: they are cleared before its own.
        for number, watched in self._unclean.items():
            there = (watched.grad != 0).any() if watched.grad is not None else torch.zeros((), dtype=torch.bool)
            before = self._stale.get(number)
            self._stale[number] = there if before is None else before.to(there.device) & there
        return scale

    def step_started(
        self, optimizer: torch.optim.Optimizer, has_closure: bool, open_walk: Walk | None, models: Sequence[TrackedModel]
    ) -> None:
        """An optimizer is about to step; with a closure its gradients are yet to come and are not read."""
        walk = self._walk(open_walk)
        self._asked = 0 if has_closure else None
        self._meter.outside()
        self._meter.forget()
        self._pulled = self.pull.stepping()
        self._taken_back = self._back.step_started(optimizer, walk.index) if walk is not None else None
        if walk is None or has_closure or not self._is_measured(walk):
            return
        self._meter.before(optimizer, models)

    def _is_measured(self, walk: Walk) -> bool:
        """Whether the coming step is: as batches are, but in later passes fewer of the first ones; norms cost memory traffic."""
        self._first_walk = self._first_walk if self._first_walk is not None else walk.index
        return is_sampled(walk.steps) and not (walk.index != self._first_walk and LATER <= walk.steps < FIRST_BATCHES)

    def step_ended(self, optimizer: torch.optim.Optimizer, open_walk: Walk | None, models: Sequence[TrackedModel]) -> None:
        """An optimizer has stepped."""
        self._asked = None
        self._own.forget()
        self._back.step_ended(optimizer)
        optimizer_id, new = self.optimizers.number(optimizer)
        if new:
            self.writer.write("optimizer", {"id": optimizer_id, **optimizer_settings(optimizer)})
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        for model in models:
            if self._trains(optimizer_id, parameters, model):
                model.steps += 1
        walk = self._walk(open_walk)
        if walk is None:
            return
        rates = [as_float(g.get("lr")) for g in optimizer.param_groups]
        norms = self._meter.after()
        if norms is not None:
            walk.traced.add("gradient", norms.every_grad)
            walk.traced.add("update", norms.every_update)
            norms.every_grad = norms.every_update = None
        row = StepRow(optimizer_id, self._backwards_since, rates, self._loss, self._stale.pop(optimizer_id, None), norms)
        row.taken_back, row.pulled = self._taken_back, self._pulled
        walk.step_rows.append(row)
        walk.steps += 1
        if new or optimizer_id not in self._trainings:
            self._trainings[optimizer_id] = _Training(optimizer)
        self._trainings[optimizer_id].add(rates)
        if is_sampled(walk.steps - 1):
            known = [p for p in parameters if p.grad is None and not any(id(p) in m.position for m in models)]
            self._in_vain[optimizer_id] = len(known)
        self._gathers |= self._backwards_since > 1
        self._backwards_since = 0
        smallest = min((p for p in parameters if p.requires_grad), key=lambda p: p.numel(), default=None)
        if smallest is not None:
            self._watch(optimizer_id, smallest)

    def look(self) -> None:
        """Between a backward and what comes next: has the program changed the model itself?"""
        if self._asked:
            return  # its own search moves the weights
        seen = self._own.look()
        walk = self._last_backward
        if seen is None or walk is None or walk.written:
            return
        model, changed, parameter = seen
        row = StepRow(
            -1, self._backwards_since, [], self._loss, self._stale.pop(-1 - model.id, None), changed=changed, model=model
        )
        walk.step_rows.append(row)
        self._backwards_since = 0
        self._watch(-1 - model.id, parameter)

    def _watch(self, number: int, parameter: torch.Tensor) -> None:
        """Look at this parameter's gradient until the optimizer's next step; those that stepped long ago step no more."""
        self._unclean.pop(number, None)
        self._unclean[number] = parameter
        while len(self._unclean) > MAX_WATCHED:
            first = next(iter(self._unclean))
            del self._unclean[first]
            self._stale.pop(first, None)

    def settle(self, walk: Walk) -> None:
        """Read which of the walk's possible own updates were made; those that were not become part of the next step."""
        rows: list[StepRow] = []
        self_made: dict[int, TrackedModel] = {}
        carried = 0
        stale: torch.Tensor | None = None
        for row in walk.step_rows:
            row.backwards += carried
            row.stale = stale if carried and row.model is not None else row.stale  # an optimizer has its own
            if row.model is not None and not bool(row.changed):
                carried, stale = row.backwards, row.stale
                continue
            if row.model is not None and row.model.steps > row.model.own_updates:
                # What a torch optimizer trains was only moved to where the next gradient is taken: it has used this one.
                carried, stale = 0, None
                continue
            carried, stale = 0, None
            rows.append(row)
            if row.model is not None:
                row.optimizer = self.optimizers.number(row.model)[0]
                self_made[row.optimizer] = row.model
                row.model.steps += 1
                row.model.own_updates += 1
                walk.steps += 1
                row.model = None
        walk.step_rows = rows
        if walk is self._last_backward:
            self._backwards_since += carried
        for number, model in self_made.items():
            if number not in self._own_written:
                self._own_written.add(number)
                learning = sum(is_parameter and t.requires_grad for _, t, is_parameter, _ in model.tensors)
                self.writer.write("optimizer", {"id": number, "kind": OWN_UPDATE, "groups": [{}], "num_parameters": [learning]})

    def _trains(self, optimizer_id: int, parameters: list[torch.Tensor], model: TrackedModel) -> bool:
        """Whether an optimizer holds parameters of a model; the first time, and when either changes, they are noted."""
        key = (optimizer_id, model.id, len(parameters), id(model.position))
        if key not in self._belongs:
            own = {id(p) for p in parameters if id(p) in model.position}
            self._belongs[key] = bool(own)
            model.optimized |= own
        return self._belongs[key]

    def describe(self, model: TrackedModel) -> None:
        """Tell a model the highest rate that each of its parameters had, and what its optimizers hold in vain."""
        for training in self._trainings.values():
            for number, place in training.places.items():
                if number in model.position:
                    model.rates[number] = max(model.rates.get(number, 0.0), max(training.rates[place], default=0.0))
        if model.own_updates:
            model.note_moved()
        model.foreign = sum(self._in_vain.values())

    def _walk(self, open_walk: Walk | None) -> Walk | None:
        if open_walk is not None:
            return open_walk
        return self._last_backward if self._last_backward is not None and not self._last_backward.written else None

    def training_of(self, parameter: torch.Tensor) -> tuple[str, dict[str, Any], list[float]] | None:
        """(optimizer class, settings of its group, learning rate of each step) of what trained a parameter last."""
        for number in sorted(self._trainings, reverse=True):
            place = self._trainings[number].places.get(id(parameter))
            if place is not None:
                training = self._trainings[number]
                elsewhere = self.rates_elsewhere.get(number)
                if elsewhere is not None and place < elsewhere.shape[1]:
                    return training.kind, training.groups[place], elsewhere[:MAX_KEPT_RATES, place].tolist()
                return training.kind, training.groups[place], list(training.rates[place])
        return None


class _Training:
    """How one optimizer trains: its settings, which parameter is in which group, and the rates of its first steps."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.kind = type(optimizer).__name__
        self.groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        self.places = {id(p): i for i, g in enumerate(optimizer.param_groups) for p in g["params"]}
        self.rates = [array.array("f") for _ in self.groups]

    def add(self, rates: list[float]) -> None:
        """One step at these rates, one per group."""
        for kept, rate in zip(self.rates, rates, strict=False):
            if len(kept) < MAX_KEPT_RATES:
                kept.append(rate)
