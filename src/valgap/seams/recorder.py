"""The recorder: listens at the seams and writes the run record. Changes nothing in the program it listens to."""

from __future__ import annotations

import time
import traceback
from typing import Any

import numpy as np
import torch

from valgap.record.writer import RecordWriter
from valgap.seams.batches import as_class_index, find_images, find_logits
from valgap.seams.described import loader_settings, own_loader, without_workers
from valgap.seams.inputs import fingerprint, miniatures, quantized
from valgap.seams.model_states import ModelStates
from valgap.seams.optimizer_steps import OptimizerSteps
from valgap.seams.ranks import Ranks
from valgap.seams.samples import Registry, Samples
from valgap.seams.schedules import Schedules
from valgap.seams.tracked import TrackedModel
from valgap.seams.waiting_batches import WaitingBatches
from valgap.seams.walk import Call, OpenBatch, Walk
from valgap.seams.walks import Walks

MAX_SEEN = 4  # passes whose first images are kept small: train and val, and what else is there
MAX_ERRORS = 20


class Recorder:
    """A ``Listener`` (seams/hooks.py) that writes to a RecordWriter."""

    def __init__(self, writer: RecordWriter) -> None:
        self.writer = writer
        self.errors: list[str] = []
        self.loaders = Registry()
        self.samples = Samples(writer)
        self.models: list[TrackedModel] = []
        self.walks: list[Walk] = []  # those that became passes and are not written yet
        self.num_passes = 0
        self.num_models = 0
        self.target_keys: dict[int, str] = {}
        # What the closing measurements need, kept alive: data set and loader settings of the last walks.
        self.last_train: tuple[Any, Any] | None = None  # (loader, walk facts)
        self.last_eval: tuple[Any, Any] | None = None
        self.best: tuple[float, int, dict[str, torch.Tensor]] | None = None  # accuracy, pass, state
        self.seconds = {"train": 0.0, "eval": 0.0}
        self.images = {"train": 0, "eval": 0}
        self._waiting = WaitingBatches()
        self._walks = Walks(self.samples, self._waiting)
        self._current: OpenBatch | None = None
        self._newest: Walk | None = None  # the last that became a pass
        self._open_call: Call | None = None
        self._deferred: list[tuple[str, Any, Any, Any]] | None = None
        self._deferred_grad = False
        self._steps = OptimizerSteps(writer)
        self._schedules = Schedules(writer)
        self._states = ModelStates(writer)
        self._ranks = Ranks(writer)
        self._seen: set[tuple[int, bool]] = set()

    @property
    def pass_running(self) -> bool:
        """Whether the newest pass has batches to come, or an older one goes on since."""
        newest, current = self._newest, self._current
        if newest is None:
            return False
        if current is not None and current.walk is not newest and not current.walk.exhausted:
            return True
        return newest.loader_id >= 0 and not newest.exhausted and not 0 <= newest.length <= newest.num_batches

    # -- loader -------------------------------------------------------------------------------

    def iteration_started(self, loader: Any, iterator: Any) -> None:
        """A loader's iterator begins: it was made, or begins anew with the workers it has."""
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
        walk = self._walks.drawn(iterator)
        if walk is not None:
            self._waiting.add(walk.read(indices, batch))

    def iteration_ended(self, iterator: Any) -> None:
        """A loader's iterator is exhausted."""
        walk = self._walks.of(iterator)
        if walk is None:
            return
        walk.exhausted = True
        if walk.index >= 0 and not walk.backwards and not self._waiting.any_of(walk):
            self._write_walk(walk)  # an evaluation: at once, before the program reloads other weights

    # -- model --------------------------------------------------------------------------------

    def model_called(self, module: Any, args: tuple[Any, ...], grad_enabled: bool) -> None:
        """An outermost module call begins."""
        self._ranks.model_called(module, grad_enabled)
        self._open_call = None
        self._deferred_grad = grad_enabled
        images = find_images(args)
        if images is None:
            self._deferred = []  # images come by keyword; a loss inside the call waits for them
            if self._waiting:
                self._start(self._track(module), grad_enabled)
            return
        self._deferred = None
        self._begin(module, images, grad_enabled)

    def model_returned(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """An outermost module call has ended."""
        waiting, self._deferred = self._deferred, None
        if self._open_call is None and waiting is not None:
            images = find_images(kwargs)
            if images is None:
                return
            self._begin(module, images, self._deferred_grad)
            if self._open_call is not None:
                name = next((k for k, v in kwargs.items() if v is images), None)
                self._open_call.model.input_name = name
        call, batch = self._open_call, self._current
        self._open_call = None
        if call is None or batch is None:
            return
        logits = find_logits(output, batch.size)
        if logits is not None:
            call.requires_grad = logits.requires_grad
            call.logits = logits.detach().clone()
            call.model.num_outputs = int(logits.shape[1]) if logits.ndim == 2 else 1
        for event in waiting or []:
            self.loss_computed(*event)

    def _begin(self, module: Any, images: torch.Tensor, grad_enabled: bool) -> None:
        current = self._current
        loaded = self._waiting.match(images, current.loaded if current is not None else None)
        if loaded is not None:
            loaded = self._walks.place(loaded, grad_enabled)
        elif current is None or current.loaded is None or current.walk.loader_id < 0 or not current.loaded.holds(images):
            loaded = self._walks.unloaded(images, current, grad_enabled)
        if loaded is None and current is not None and (images.ndim == 2 or images.shape[0] == current.size):
            if images.ndim == 2 and current.calls and not current.calls[-1].model.contains(module):
                last = current.calls[-1]
                last.model.add_part(module)
                self._open_call = last
            else:
                other = self._track(module)
                self._start(other, grad_enabled)
                self._open_call = Call(other, _modes(other, grad_enabled))
                current.calls.append(self._open_call)
            return
        if loaded is None:
            return
        walk = loaded.walk
        self._walks.pictures_seen |= images.ndim == 4
        if current is None or current.walk is not walk:
            self._settle(keep=walk)
        self._close_current()
        tracked = self._track(module)
        if walk.index < 0:
            walk.index = self.num_passes
            self.num_passes += 1
            walk.started = time.perf_counter()
            self._newest = walk
            self.walks.append(walk)
            self._ranks.pass_begun()
            self.writer.write("pass_begin", {"pass": walk.index, "loader": walk.loader_id, "dataset": walk.dataset_id})
        self._start(tracked, grad_enabled)
        self._current = OpenBatch(walk, walk.num_batches, int(images.shape[0]), loaded, fingerprint(images))
        self._current.steps_before = walk.steps
        self._open_call = Call(tracked, _modes(tracked, grad_enabled))
        self._current.calls.append(self._open_call)
        walk.inputs.add(images.detach(), walk.num_batches)
        self._see(walk, images, grad_enabled)
        walk.num_batches += 1

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
        for model in self.models:
            if model.contains(module):
                return model
        model = TrackedModel(self.num_models, module)
        self.num_models += 1
        self.models.append(model)
        # Models of earlier folds must not be kept alive by us.
        if len(self.models) > 4:
            idle = [m for m in self.models[:-2] if m.id not in {w.model.id for w in self.walks if w.model}]
            for old in idle[: len(self.models) - 4]:
                self.models.remove(old)
        return model

    def _close_current(self) -> None:
        batch, self._current = self._current, None
        if batch is None:
            return
        batch.walk.close_batch(batch, self.target_keys)
        if batch.walk.wants_flush and not batch.walk.written:
            self.writer.write("part", batch.walk.take())

    # -- loss and step ------------------------------------------------------------------------

    def loss_computed(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> None:
        """A loss function of torch.nn.functional returned."""
        if self._deferred is not None:
            self._deferred.append((name, args, kwargs, value))
            return
        batch = self._current
        logits = args[0] if args else kwargs.get("input")
        target = args[1] if len(args) > 1 else kwargs.get("target")
        if batch is None or not isinstance(logits, torch.Tensor) or logits.shape[:1] != (batch.size,) or logits.ndim > 2:
            return
        if name in ("mse_loss", "kl_div") or (logits.ndim == 2 and name == "cross_entropy" and logits.shape[1] < 2):
            return
        if batch.loss_logits is not None:
            batch.walk.loss.calls += 1
            return
        batch.walk.loss.add(name, logits, target, {"weight": args[2] if len(args) > 2 else None, **kwargs}, batch.number)
        index = as_class_index(target.detach(), batch.size) if isinstance(target, torch.Tensor) else None
        batch.loss_name = name
        batch.loss_logits = logits.detach().clone()
        if index is not None:
            batch.loss_target = index.clone()
        call = batch.chosen()
        if call is not None:
            call.requires_grad = call.requires_grad or logits.requires_grad

    def loss_scaled(self, loss: Any) -> None:
        """A GradScaler is about to scale this loss."""
        self._steps.loss_scaled(loss)

    def backward_started(self, tensors: Any) -> None:
        """``backward`` begins."""
        self._steps.backward_started(tensors, self._open_walk())

    def gradients_zeroed(self) -> None:
        """``zero_grad`` was called on an optimizer or a module."""
        walk = self._open_walk()
        if walk is not None:
            walk.zero_grads += 1

    def step_started(self, optimizer: torch.optim.Optimizer, has_closure: bool) -> None:
        """An optimizer is about to step; with a closure its gradients are yet to come and are not read."""
        self._steps.step_started(optimizer, has_closure, self._open_walk(), self.models)

    def step_ended(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer has stepped."""
        self._steps.step_ended(optimizer, self._open_walk(), self.models)
        self._ranks.stepped()

    def training_of(self, parameter: torch.Tensor) -> tuple[str, dict[str, Any], list[float]] | None:
        """(optimizer class, settings of its group, learning rate of each step) of what trained a parameter last."""
        return self._steps.training_of(parameter)

    @property
    def rank(self) -> int | None:
        """The program's rank in its group of processes; None where it has joined none."""
        return self._ranks.rank

    def wrapper_made(self, wrapper: Any) -> None:
        """A model was wrapped in DistributedDataParallel."""
        self._ranks.wrapper_made(wrapper)

    def schedule_made(self, schedule: Any) -> None:
        """A learning-rate schedule was made."""
        self._schedules.add(schedule)

    def _open_walk(self) -> Walk | None:
        return self._current.walk if self._current is not None else None

    # -- state --------------------------------------------------------------------------------

    def weights_loading(self, module: Any) -> None:
        """A module is about to load weights: what is open belongs to the old ones."""
        self._settle(keep=None, everything=True)
        self._states.loading(module, self.models)

    def weights_loaded(self, module: Any, state: Any, strict: bool, result: Any) -> None:
        """``load_state_dict`` returned."""
        self._states.loaded(module, state, strict, result, self.models, self.num_passes - 1)

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
        body = walk.take()
        walk.written = True
        model = walk.model
        kind = "train" if walk.backwards or walk.steps else "eval"
        self.seconds[kind] += walk.ended - walk.started
        self.images[kind] += int(np.sum(body["batch_sizes"]))
        self.writer.write("pass_end", body)
        if walk.seen is not None:
            self.writer.write("seen", {"pass": walk.index, **quantized(walk.seen)})
            walk.seen = None
        if model is None:
            return
        if walk.steps:
            self._states.write_model(model)
        self._states.write_state(model, "pass", walk.index)
        self._ranks.pass_written(walk.index, model, bool(walk.steps))
        if walk.steps:
            self._schedules.write(walk.index, self._steps.optimizers)
        loader, walk.loader = without_workers(walk.loader), None  # who drops a loader ends its workers
        facts = {"model": model, "walk": walk, "dataset": walk.dataset_id}
        if kind == "train":
            self.last_train = (loader, facts)
        elif loader is not None and (model.steps or self.last_eval is None):
            self._consider_best(walk, model, loader, facts)

    def _consider_best(self, walk: Walk, model: TrackedModel, loader: Any, facts: dict[str, Any]) -> None:
        trained = self.last_train[1]["dataset"] if self.last_train is not None else -1
        if walk.dataset_id == trained and self.last_eval is not None:
            return
        self.last_eval = (loader, facts)
        if not walk.labelled or not model.steps:
            return
        accuracy = walk.right / walk.labelled
        if self.best is None or accuracy > self.best[0] or self.best[2].keys() != {t[0] for t in model.tensors}:
            state = {name: t.detach().to("cpu", copy=True) for name, t, _, _ in model.tensors}
            self.best = (accuracy, walk.index, state)

    def finish(self) -> None:
        """Write everything that is still open; the program has ended."""
        with np.errstate(all="ignore"):
            self._close_current()
            for walk in list(self.walks):
                self._write_walk(walk)

    def failed(self, where: str, error: Exception) -> None:
        """One of the methods above raised: noted in the record, unseen by the program."""
        if len(self.errors) < MAX_ERRORS:
            text = f"{where}: {''.join(traceback.format_exception(error))}"
            self.errors.append(text)
            self.writer.write("recorder_error", {"text": text[-4000:]})


def _modes(model: TrackedModel, grad_enabled: bool) -> tuple[float, float, float, float]:
    training, norm, drop = model.modes()
    return float(training), norm, drop, float(grad_enabled)
