"""The batch that a model is working on, and the calls on it: which of them counts, and how it came to the logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from valgap.seams.attaching.comparing import beside, predictions
from valgap.seams.looking.batches import LoadedBatch
from valgap.seams.looking.logit_gradients import LogitGradient
from valgap.seams.looking.routes import KEPT_IMAGES, Given, Route
from valgap.seams.looking.traces import Trace
from valgap.seams.looking.tracked import TrackedModel

if TYPE_CHECKING:
    from valgap.seams.recording.walk import Walk


@dataclass
class Call:
    """One outermost call of a model on the open batch."""

    model: TrackedModel
    modes: tuple[float, float, float, float]  # training flag, BatchNorm, Dropout, gradients on
    requires_grad: bool = False
    logits: torch.Tensor | None = None
    inputs: torch.Tensor | None = None  # only while the call is open
    trace: Trace | None = None  # of what it returned
    gradient: LogitGradient | None = None  # at its logits, of a few batches
    given: Given | None = None  # how it was called, on the first batch of a pass
    heads: dict[str, torch.Tensor] = field(default_factory=dict)  # class scores in its output, where there are several
    consumed: bool = False  # another call worked on what it returned
    sources: list[Call] = field(default_factory=list)  # the calls on whose output this one worked


@dataclass
class OpenBatch:
    """The batch that the model is working on."""

    walk: Walk
    number: int
    size: int
    loaded: LoadedBatch | None
    fingerprint: torch.Tensor | None
    calls: list[Call] = field(default_factory=list)
    loss_logits: torch.Tensor | None = None
    loss_target: torch.Tensor | None = None
    # Whole numbers (N,) that the program held against each other.
    compared: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    views: int = 1  # so many rows at the model are one image
    loss_name: str = ""
    steps_before: int = 0  # optimizer steps of its walk when it was opened
    shape: tuple[int, ...] = ()  # of one image
    images: torch.Tensor | None = None  # a few of them, on the first batch of a pass
    functions: list[Given] = field(default_factory=list)  # of the program, that were given the images
    owner: Any = None  # the module whose method calls the parts
    loss_call: Call | None = None  # the one whose output went into the loss
    elsewhere: bool = False  # whether a loss that learns was given scores of other rows: what the call returned are none
    mixed: tuple[torch.Tensor, torch.Tensor] | None = None  # what its images are mixed of, see ``mixing.mixed_of``

    def sources(self, tensors: Sequence[torch.Tensor]) -> list[Call]:
        """The calls on this batch whose output these tensors are, or come from."""
        return [c for c in self.calls if c.trace is not None and any(c.trace.gave(t) for t in tensors)]

    def no_images(self, tensor: torch.Tensor) -> bool:
        """Whether it looks like what a part of the model made of the images: as many rows, but no image."""
        if not self.calls or not tensor.is_floating_point() or tensor.shape[0] != self.size:
            return False
        other = tensor.ndim < 4 or tensor.shape[1] != (self.shape[0] if self.shape else -1)
        return other and tensor[:1].numel() != math.prod(self.shape)

    def forget_graphs(self) -> None:
        """No further call on this batch works on what the calls returned."""
        for call in self.calls:
            call.heads = {}
            if call.trace is not None:
                call.trace.forget_graph()

    @property
    def targets(self) -> dict[str, torch.Tensor]:
        """What its loader gave that may be its labels, by their key in the batch."""
        return self.loaded.targets if self.loaded is not None else {}

    @property
    def target(self) -> torch.Tensor | None:
        """(N,) its labels as the program used them: a loss's, else the one thing that its answers were held against."""
        if self.loss_target is not None or not self.compared or self.targets:
            return self.loss_target
        for answers in map(predictions, self.scores()):
            against = [label for one, other in self.compared if (label := beside(answers, one, other)) is not None]
            if against:
                return against[0] if all(torch.equal(against[0], a) for a in against[1:]) else None
        return None

    def scores(self) -> list[torch.Tensor]:
        """(N, C) or (N,) each, what it may be answered by: the call that counts; the mean scores, or shares, of all such calls.

        A program may call its model on several views of the images, or several models, and answer by all of them.
        """
        call = self.chosen()
        if call is None or call.logits is None:
            return []
        own = call.logits
        alike = [c.logits for c in self.calls if not c.consumed and c.logits is not None and c.logits.shape == own.shape]
        if len(alike) < 2:
            return [own]
        every = torch.stack([a.to(own) for a in alike])
        return [own, every.mean(0), *([every.softmax(-1).mean(0)] if own.ndim == 2 and own.shape[1] > 1 else [])]

    @property
    def with_gradients(self) -> bool:
        """Whether its first call recorded gradients."""
        return bool(self.calls) and bool(self.calls[0].modes[3])

    @property
    def in_train_mode(self) -> bool:
        """Whether the module of its first call was in train mode."""
        return bool(self.calls) and bool(self.calls[0].modes[0])

    def chosen(self) -> Call | None:
        """The call that counts: that of the loss, one with gradient, of a trained model, the last model's first one."""
        if self.loss_call is not None:
            return self.loss_call
        ends = [c for c in self.calls if not c.consumed] or self.calls
        calls = [c for c in ends if c.logits is not None] or ends
        group = [c for c in calls if c.requires_grad] or [c for c in calls if c.model.steps] or calls
        if not group:
            return None
        return next(c for c in group if c.model is group[-1].model)

    def route(self, last: Call) -> Route | None:
        """How it came to the logits of this call; None where a call in between was not seen whole."""
        steps, call = [last], last
        while len(call.sources) == 1:
            call = call.sources[0]
            steps.insert(0, call)
        if call.sources or any(c.given is None for c in steps):
            steps = [last]
        own = last.logits is not None and (self.loss_logits is None or self.loss_logits.shape == last.logits.shape)
        logits = self.loss_logits if self.loss_logits is not None else last.logits
        return Route(
            steps=[c.given for c in steps if c.given is not None],
            functions=self.functions,
            owner=self.owner,
            images=self.images,
            logits=logits[:KEPT_IMAGES] if logits is not None else None,
            straight=own and len(steps) == 1 and not last.sources,
            head=last.model.head,
        )
