"""Steps of optimizers that are not torch's: fastai's and Keras's change the weights by themselves, and are seen by that alone."""

from __future__ import annotations

from typing import Any

import torch

from valgap.record.writer import RecordWriter
from valgap.seams.optimizer_steps import OptimizerSteps
from valgap.seams.tracked import TrackedModel
from valgap.seams.walk import OpenBatch, StepRow, Walk

WATCHED = 4  # parameters of a model that are watched: the smallest, and the last one
KIND = "not of torch"


class ForeignSteps:
    """While no torch optimizer has stepped: a batch with a backward after which the weights are others was a step."""

    def __init__(self, writer: RecordWriter, steps: OptimizerSteps) -> None:
        self.writer = writer
        self.steps = steps
        self._number = -1  # as an optimizer; -1 before its first step
        self._before: dict[int, torch.Tensor] = {}  # by model
        self._batches: dict[int, list[tuple[torch.Tensor, int, TrackedModel]]] = {}  # by walk

    @property
    def _is_alone(self) -> bool:
        return self.steps.optimizers.count == (self._number >= 0)

    def opened(self, model: TrackedModel, grad_enabled: bool) -> None:
        """A model is called on a new batch."""
        if grad_enabled and self._is_alone and model.id not in self._before:
            self._before[model.id] = _look(model)

    def closed(self, batch: OpenBatch) -> None:
        """A batch is over: what followed it has been done."""
        call = batch.chosen()
        if call is None or call.model.id not in self._before or not self._is_alone:
            return
        backwards = batch.walk.backwards - sum(n for _, n, _ in self._batches.get(id(batch.walk), []))
        if not backwards:
            return
        after = _look(call.model)
        before, self._before[call.model.id] = self._before[call.model.id], after
        moved = (after != before).any() if after.shape == before.shape else torch.ones((), dtype=torch.bool)
        self._batches.setdefault(id(batch.walk), []).append((moved, backwards, call.model))

    def settle(self, walk: Walk) -> None:
        """A walk is about to be written: its steps are counted."""
        waiting = 0
        for moved, backwards, model in self._batches.pop(id(walk), []):
            waiting += backwards
            if not bool(moved):
                continue
            if self._number < 0:
                self._number = self.steps.optimizers.number(self)[0]
                count = sum(1 for _, t, is_parameter, _ in model.tensors if is_parameter and t.requires_grad)
                settings: dict[str, Any] = {"kind": KIND, "groups": [{"lr": float("nan")}], "num_parameters": [count]}
                self.writer.write("optimizer", {"id": self._number, **settings})
            walk.step_rows.append(StepRow(self._number, waiting, []))
            walk.steps += 1
            model.steps += 1
            waiting = 0
        if walk.steps and walk.model is not None and self._number >= 0 and self._is_alone:
            _mark_moved(walk.model)


def _look(model: TrackedModel) -> torch.Tensor:
    """(2 W,) float64 that are others as soon as the watched parameters are."""
    parameters = [t for _, t, is_parameter, _ in model.tensors if is_parameter and t.requires_grad]
    watched = [*sorted(parameters, key=lambda p: p.numel())[: WATCHED - 1], *parameters[-1:]]
    if not watched:
        return torch.zeros(0, dtype=torch.float64)
    device = watched[0].device
    sums = [v for p in watched for v in (p.detach().double().sum(), p.detach().double().square().sum())]
    return torch.stack([v.to(device) for v in sums])


def _mark_moved(model: TrackedModel) -> None:
    """The parameters that are not as they were at the start are those that the optimizer holds."""
    first = model.initial_state or {}
    for name, tensor, is_parameter, _ in model.tensors:
        if is_parameter and tensor.requires_grad:
            start = first.get(name)
            if start is None or start.shape != tensor.shape or not torch.equal(start, tensor.detach().to("cpu")):
                model.optimized.add(id(tensor))
