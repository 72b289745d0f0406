"""The recorder: listens at the seams and writes the run record. Changes nothing in the program it listens to."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from valgap.record.writer import RecordWriter
from valgap.seams.looking.batches import find_images, find_logits, logit_heads, of_each_image, tensors_in
from valgap.seams.looking.described import loader_settings, own_loader
from valgap.seams.looking.fingerprints import Chosen
from valgap.seams.looking.inputs import fingerprint, is_sampled, miniatures
from valgap.seams.looking.known_models import KnownModels
from valgap.seams.looking.logit_gradients import LogitGradient
from valgap.seams.looking.mixing import mixed_of
from valgap.seams.looking.routes import KEPT_IMAGES, Given, functions_given, given
from valgap.seams.looking.samples import Registry, Samples
from valgap.seams.looking.traces import Trace
from valgap.seams.looking.tracked import TrackedModel, unwrap
from valgap.seams.recording.inner_calls import InnerCalls, core_of
from valgap.seams.recording.labels_used import compare
from valgap.seams.recording.losses_taken import take_loss
from valgap.seams.recording.open_batch import Call, OpenBatch
from valgap.seams.recording.pass_writer import PassWriter
from valgap.seams.recording.time_spent import BACKWARD, FORWARD, LOADING, STEP, TimeSpent
from valgap.seams.recording.waiting_batches import WaitingBatches
from valgap.seams.recording.walk import Walk
from valgap.seams.recording.walks import Walks

MAX_SEEN = 4  # passes whose first images are kept small: train and val, and what else is there
MAX_ERRORS = 20
LEARNING_WORK = 3  # forward and backward, in forward passes


class Recorder:
    """A ``Listener`` (seams/attaching/listener.py) that writes to a RecordWriter."""

    def __init__(self, writer: RecordWriter) -> None:
        self.writer = writer
        self.errors: list[str] = []
        self.loaders = Registry()
        self.samples = Samples(writer)
        self.models = KnownModels()
        self.walks: list[Walk] = []  # those that became passes and are not written yet
        self.target_keys: dict[int, str] = {}
        self._waiting = WaitingBatches()
        self._walks = Walks(self.samples, self._waiting)
        self._current: OpenBatch | None = None
        self._newest: Walk | None = None  # the last that became a pass
        self._open_call: Call | None = None
        self._deferred: list[tuple[str, Any, Any, Any]] | None = None
        self._deferred_grad = False
        self.work = 0  # images through the models, those with gradients LEARNING_WORK times
        self.passes = PassWriter(writer)
        self.last = self.passes.last
        self._steps, self._states, self._ranks = self.passes.steps, self.passes.states, self.passes.ranks
        self._chosen = Chosen()
        self._seen: set[tuple[int, bool]] = set()
        self._spent = TimeSpent()
        self._inner = InnerCalls()
        self._inside_loss: torch.Tensor | None = None  # what went into a loss inside the open call
        # Told of each batch that a model is called on, and whether with gradients: what cuts a program short may end it there.
        self.used: Callable[[Walk, Any, bool], None] | None = None
        # Called before each call of a model: what looks at a running program may speak to its user there, or end it.
        self.between: Callable[[], None] | None = None
        self.early = 0  # after so many batches the first pass that learns is written as far as it has come; 0: it waits

    @property
    def pass_running(self) -> bool:
        """Whether the newest pass has batches to come, or an older one goes on since."""
        newest, current = self._newest, self._current
        if newest is None:
            return False
        if current is not None and current.walk is not newest and not current.walk.exhausted:
            return True
        return newest.loader_id >= 0 and not newest.exhausted and not 0 <= newest.length <= newest.num_batches

    def walk_of(self, iterator: Any) -> Walk | None:
        """The walk that a loader's iterator is on."""
        return self._walks.of(iterator)

    # -- loader -------------------------------------------------------------------------------

    def iteration_started(self, loader: Any, iterator: Any) -> None:
        """A loader's iterator begins: it was made, or begins anew with the workers it has."""
        self._steps.look()
        self._settle(keep=None)
        loader = own_loader(loader)
        loader_id, new = self.loaders.number(loader)
        dataset_id = self.samples.dataset_id(getattr(loader, "dataset", None))
        if new:
            self.writer.write("loader", {"id": loader_id, "dataset": dataset_id, **loader_settings(loader)})
        for walk in self.walks:
            if walk.loader_id == loader_id and not walk.exhausted:
                walk.exhausted = walk.dead = True  # its loop was left with break
        self._settle(keep=self._walks.begin(iterator, loader, loader_id, dataset_id))

    def batch_loaded(self, iterator: Any, indices: Any, batch: Any) -> None:
        """A loader's iterator returned a batch."""
        self._spent.ends(self._open_walk())
        walk = self._walks.drawn(iterator)
        if walk is not None:
            walk.spent[LOADING] += getattr(iterator, "_valgap_waited", 0.0)
            self._waiting.add(walk.read(indices, batch))

    def iteration_ended(self, iterator: Any) -> None:
        """A loader's iterator is exhausted."""
        self._spent.ends(self._open_walk())
        walk = self._walks.of(iterator)
        if self._current is not None:
            self._current.forget_graphs()
        if walk is None:
            return
        walk.exhausted = True
        self._steps.look()
        if walk.index >= 0 and not walk.backwards and not self._waiting.any_of(walk):
            self._write_walk(walk)  # an evaluation: at once, before the program reloads other weights

    # -- model --------------------------------------------------------------------------------

    def model_called(self, module: Any, args: tuple[Any, ...], grad_enabled: bool) -> None:
        """An outermost module call begins."""
        self._spent.ends(self._open_walk())
        if self.between is not None:
            self.between()
        self._call_begins(module, args, grad_enabled)
        self._spent.begins(FORWARD)

    def _call_begins(self, module: Any, args: tuple[Any, ...], grad_enabled: bool) -> None:
        self._ranks.model_called(module, grad_enabled)
        self._steps.look()
        self._open_call = None
        self._inner.clear()
        self._deferred_grad = grad_enabled
        if self.models.is_unfinished(module):
            self._deferred = None
            return
        images = find_images(args)
        if images is None:
            self._deferred = []  # images come by keyword; a loss inside the call waits for them
            if self._waiting:
                self._start(self._track(module), grad_enabled)
            return
        self._deferred = None
        self._begin(module, args, images, grad_enabled)

    def looks_inside(self, module: Any) -> bool:
        """Whether the call that has begun is a model's first: then what it calls is of interest."""
        if self._open_call is None and not (self._deferred is not None and self._waiting):
            return False
        return self._inner.first_of(module)

    def inner_returned(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """A module inside the open call has returned."""
        self._inner.returned(module, args, kwargs, output, self._open_call.inputs if self._open_call is not None else None)

    def model_returned(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """An outermost module call has ended."""
        self._spent.ends(self._open_walk())
        waiting, self._deferred = self._deferred, None
        if self._open_call is None and waiting is not None:
            images = find_images(kwargs)
            if images is None:
                return
            self._begin(module, (kwargs,), images, self._deferred_grad)
        call, batch = self._open_call, self._current
        self._open_call = None
        working, inner = self._inner.take()
        if call is None or batch is None or call.inputs is None:
            return
        images, call.inputs = call.inputs, None
        if working:
            call.model.called = (call.model.called or set()) | {id(m) for m in working}
            call.model.note_strays(module, working)
        rows = batch.size * batch.views
        heads = logit_heads(output, rows)
        logits = of_each_image(find_logits(output, rows, call.model.head), batch.views)
        if inner:
            scores = logits if logits is not None else next((e[1][0] for e in waiting or [] if e[1]), self._inside_loss)
            self._narrow(call.model, module, core_of(inner, scores))
        self._inside_loss = None
        if logits is not None:
            call.requires_grad = logits.requires_grad
            call.logits = logits.detach().clone()
            if logits.requires_grad and logits.ndim == 2:
                self._steps.pull.called(logits, is_sampled(batch.number))
                if is_sampled(batch.number) or batch.walk.blind:
                    call.gradient = LogitGradient(logits)
        call.heads = heads if len(heads) > 1 else {}
        call.trace = Trace(output)
        if batch.number == 0:
            call.given = given(module, args, kwargs, images, module)
        for event in waiting or []:
            self._open_call = call
            self.loss_computed(*event)
        self._open_call = None

    def _narrow(self, model: TrackedModel, module: Any, core: Given | None) -> None:
        """Keep of the called module what maps images to the scores: not a loss, a teacher or a copy beside it."""
        if core is None or core.holder is None or model.parts != [module] or next(core.holder.parameters(), None) is None:
            return
        model.core = core
        self.models.is_known_as(core.holder, model)
        if unwrap(core.holder) is not unwrap(module):
            model.narrow(core.holder)
            if model.start_taken:
                self._states.rewrite_start(model)

    def _begin(self, module: Any, args: tuple[Any, ...], images: torch.Tensor, grad_enabled: bool) -> None:
        current = self._current
        if current is not None and current.calls and not self._waiting.has(images):
            inputs = [t for _, t in tensors_in(args) if t.ndim >= 2]
            sources = current.sources(inputs)
            first = any(module is p for p in current.calls[0].model.parts[:1])  # no part is called on what it made itself
            if not first and (sources or (not current.walk.exhausted and current.no_images(images))):
                self._continue(module, images, sources, grad_enabled)
                return
        loaded = self._waiting.match(images, current.loaded if current is not None else None)
        if loaded is not None:
            loaded = self._walks.place(loaded, grad_enabled)
        elif current is None or current.loaded is None or current.walk.loader_id < 0 or not current.loaded.holds(images):
            loaded = self._walks.unloaded(images, current, grad_enabled, unwrap(module).training)
        if loaded is None and current is not None and (images.ndim == 2 or images.shape[0] == current.size):
            other = self._track(module)
            self._start(other, grad_enabled)
            self._call(current, other, images, grad_enabled)
            return
        if loaded is None:
            return
        walk = loaded.walk
        if self.used is not None:
            self.used(walk, module, grad_enabled)
        self._walks.pictures_seen |= images.ndim == 4
        if current is None or current.walk is not walk:
            self._settle(keep=walk)
        self._close_current()
        tracked = self._track(module)
        if walk.index < 0:
            self._begin_pass(walk)
            if grad_enabled:
                self._states.training_begins(tracked)
        self._start(tracked, grad_enabled)
        rows, views = images, loaded.views_of(images) if not grad_enabled else 1
        walk.views, images = views, images[views - 1 :: views] if views > 1 else images
        size, shape = int(images.shape[0]), tuple(images.shape[1:])
        self._current = OpenBatch(walk, walk.num_batches, size, loaded, fingerprint(images), shape=shape, views=views)
        self._current.steps_before = walk.steps
        if grad_enabled and loaded.source is not None and not loaded.holds(images):
            self._current.mixed = mixed_of(loaded.source, images)
        self.work += size * (LEARNING_WORK if grad_enabled else 1)
        walk.traced.begin(walk.num_batches if self._chosen.next(grad_enabled) else None, images)
        self._call(self._current, tracked, rows, grad_enabled)
        if walk.num_batches == 0 and not tracked.modes()[0]:
            self._current.images = images[:KEPT_IMAGES].detach().clone()
            self._current.functions = functions_given(images)
        if self.passes.keeps_images:
            self._look_at(walk, images, grad_enabled)
        elif images.ndim == 2:
            walk.rows.add(images)
        walk.num_batches += 1

    def _begin_pass(self, walk: Walk) -> None:
        """The first batch of this walk is used."""
        walk.started = time.perf_counter()
        self._newest = walk
        self.walks.append(walk)
        self.passes.begin(walk)

    def _begin_anew(self, walk: Walk, batch: OpenBatch) -> None:
        """The open batch is the first of a training: what was in its walk before gave nothing that can learn."""
        walk.exhausted = True
        walk.num_batches -= 1
        other = walk.another()
        self._begin_pass(other)
        batch.walk, batch.number = other, 0
        if batch.loaded is not None:
            batch.loaded.walk = other
            other.meet(batch.loaded.marks())
            if batch.loaded.origin is not None:
                other.look_at(batch.loaded.origin, len(self.samples.names))
        other.num_batches = 1

    def _call(self, batch: OpenBatch, model: TrackedModel, images: torch.Tensor, grad_enabled: bool) -> Call:
        """Open a call on a batch."""
        call = Call(model, _modes(model, grad_enabled), inputs=images)
        batch.calls.append(call)
        self._open_call = call
        return call

    def _continue(self, module: Any, inputs: torch.Tensor, sources: list[Call], grad_enabled: bool) -> None:
        """A module is called on what another made of the open batch: both are parts of one model."""
        batch = self._current
        assert batch is not None
        sources = sources or [c for c in batch.calls if not c.consumed][-1:]
        model = sources[-1].model if sources else batch.calls[-1].model
        if not model.holds(module):
            voted = {number for walk in self.walks for number in walk.votes}
            model = self.models.joined(model, module, voted)
            if model.start_taken:
                self._states.rewrite_start(model)
            batch.owner = model.owner
        for source in sources:
            source.consumed = True
            source.model = model
        self._start(model, grad_enabled)
        self._call(batch, model, inputs, grad_enabled).sources = sources

    def _look_at(self, walk: Walk, images: torch.Tensor, grad_enabled: bool) -> None:
        """Statistics of a batch, and copies of some of its images."""
        walk.look_at(images, len(self.samples.names))
        if walk.given is not None and not walk.num_batches:
            walk.given.used = images[: len(walk.given.loaded)].detach().clone()
        self._see(walk, images, grad_enabled)

    def _see(self, walk: Walk, images: torch.Tensor, grad_enabled: bool) -> None:
        """Keep small copies of the first images of the first pass over each data set."""
        place = (walk.dataset_id, grad_enabled)
        if walk.num_batches or images.ndim != 4 or place in self._seen or len(self._seen) >= MAX_SEEN:
            return
        self._seen.add(place)
        walk.seen = miniatures(images.detach())

    def _start(self, model: TrackedModel, grad_enabled: bool) -> None:
        """Before a call: the state at the start is that before the first one with gradients."""
        if grad_enabled:
            self._states.write_start(model)

    def _track(self, module: Any) -> TrackedModel:
        return self.models.of(module, lambda: {w.model.id for w in self.walks if w.model})

    def _close_current(self) -> None:
        batch, self._current = self._current, None
        if batch is None:
            return
        batch.walk.close_batch(batch, self.target_keys)
        early = 0 < self.early <= batch.walk.num_batches and batch.walk.backwards > 0
        self.early = 0 if early else self.early
        if (batch.walk.wants_flush or early) and not batch.walk.written:
            self.passes.part(batch.walk)

    # -- loss and step ------------------------------------------------------------------------

    def loss_computed(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> None:
        """A loss function of torch.nn.functional returned."""
        if self._deferred is not None:
            self._deferred.append((name, args, kwargs, value))
            return
        batch, call = self._current, self._open_call
        logits = take_loss(batch, call, name, args, kwargs) if batch is not None else None
        if call is not None and logits is not None:
            self._inside_loss = logits

    @property
    def evaluating(self) -> bool:
        """Whether a batch is open of which nothing is learnt."""
        return self._current is not None and not self._current.with_gradients

    def compared(self, one: torch.Tensor, other: torch.Tensor) -> None:
        """The program held as many whole numbers against each other, one or more batches of them."""
        batch = self._current
        if batch is not None:
            compare(batch, one.reshape(-1), other.reshape(-1))

    def scored(self, true: npt.NDArray[np.int32], predicted: npt.NDArray[np.int32]) -> None:
        """The program scored answers (N,) against the classes (N,) that it takes for true."""
        self.writer.write("scored", {"true": true, "predicted": predicted, "after_pass": self.passes.count - 1})

    def loss_scaled(self, loss: Any) -> None:
        """A GradScaler is about to scale this loss."""
        self._steps.loss_scaled(loss)

    def backward_started(self, tensors: Any) -> None:
        """``backward`` begins."""
        self._spent.ends(self._open_walk())
        call = self._current.chosen() if self._current is not None else None
        walk = self._open_walk()
        if walk is not None and self._current is not None and self._current.walk is walk and walk.only_looked:
            self._begin_anew(walk, self._current)
        scale = self._steps.backward_started(tensors, self._open_walk(), call.model if call is not None else None)
        if call is not None and call.gradient is not None:
            call.gradient.scale = scale
        self._spent.begins(BACKWARD)

    def gradients_zeroed(self) -> None:
        """``zero_grad`` was called on an optimizer or a module."""
        walk = self._open_walk()
        if walk is not None:
            walk.zero_grads += 1

    def step_started(self, optimizer: torch.optim.Optimizer, has_closure: bool) -> None:
        """An optimizer is about to step; with a closure its gradients are yet to come and are not read."""
        self._spent.ends(self._open_walk())
        self._steps.step_started(optimizer, has_closure, self._open_walk(), self.models.all)
        self._spent.begins(STEP)

    def step_ended(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer has stepped."""
        self._spent.ends(self._open_walk())
        if self._current is not None:
            self._current.forget_graphs()
        self._steps.step_ended(optimizer, self._open_walk(), self.models.all)
        self._ranks.stepped()

    def wrapper_made(self, wrapper: Any) -> None:
        """A model was wrapped in DistributedDataParallel."""
        self._ranks.wrapper_made(wrapper)

    def schedule_made(self, schedule: Any) -> None:
        """A learning-rate schedule was made."""
        self.passes.schedules.add(schedule)

    def _open_walk(self) -> Walk | None:
        return self._current.walk if self._current is not None else None

    # -- state --------------------------------------------------------------------------------

    def weights_loading(self, module: Any) -> None:
        """A module is about to load weights: what is open belongs to the old ones."""
        self._settle(keep=None, everything=True)
        self._states.loading(module, self.models.all)

    def weights_loaded(self, module: Any, state: Any, strict: bool, result: Any) -> None:
        """``load_state_dict`` returned."""
        self._states.loaded(module, state, strict, result, self.models.all, self.passes.count - 1)

    # -- writing ------------------------------------------------------------------------------

    def _settle(self, keep: Walk | None, everything: bool = False) -> None:
        """Write the walks that have ended, except ``keep``."""
        for walk in list(self.walks):
            if walk is keep:
                continue
            if walk.loader_id < 0 and keep is not None:
                walk.exhausted = True  # images from no loader: their walk is over when another one is used
            if not walk.exhausted and not everything and self._open_walk() is walk:
                continue  # its last batch may still have to learn
            if walk.is_over and (everything or not self._waiting.any_of(walk)):
                self._write_walk(walk)

    def _write_walk(self, walk: Walk) -> None:
        if walk.written:
            return
        if self._current is not None and self._current.walk is walk:
            self._close_current()
        if walk in self.walks:
            self.walks.remove(walk)
        self.passes.end(walk)

    def finish(self) -> None:
        """Write everything that is still open; the program has ended."""
        with np.errstate(all="ignore"):
            self._steps.look()
            self._close_current()
            for walk in list(self.walks):
                self._write_walk(walk)
            self.passes.finish()

    def failed(self, where: str, error: Exception) -> None:
        """One of the methods above raised: noted in the record, unseen by the program."""
        if len(self.errors) < MAX_ERRORS:
            text = f"{where}: {''.join(traceback.format_exception(error))}"
            self.errors.append(text)
            self.writer.write("recorder_error", {"text": text[-4000:]})


def _modes(model: TrackedModel, grad_enabled: bool) -> tuple[float, float, float, float]:
    training, norm, drop = model.modes()
    return float(training), norm, drop, float(grad_enabled)
