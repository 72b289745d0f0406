"""The recorder: listens at the seams and writes the run record. Changes nothing in the program it listens to."""

from __future__ import annotations

import array
import hashlib
import time
import traceback
import weakref
from typing import Any

import numpy as np
import torch

from valgap.record.writer import RecordWriter
from valgap.seams.batches import LoadedBatch, as_class_index, find_images, find_logits, read_batch
from valgap.seams.described import SCHEDULE_SETTINGS, as_float, loader_settings, model_facts, optimizer_settings, plain
from valgap.seams.inputs import fingerprint, is_sampled, miniatures, quantized
from valgap.seams.samples import Registry, Samples
from valgap.seams.step_norms import StepMeter
from valgap.seams.tracked import TrackedModel, unwrap
from valgap.seams.walk import Call, OpenBatch, StepRow, Walk

MAX_PENDING = 64
MAX_SEEN = 4  # passes whose first images are kept small: train and val, and what else is there
MAX_ERRORS = 20
MAX_KEPT_RATES = 6_001  # steps of which the learning rate is kept for the closing measurements
FIRST_STATE = -2  # stands for a pass: the state before the first one


class Recorder:
    """A ``Listener (seams/hooks.py) that writes to a RecordWriter."""

    def __init__(self, writer: RecordWriter) -> None:
        self.writer = writer
        self.errors: list[str] = []
        self.loaders = Registry()
        self.samples = Samples(writer)
        self.optimizers = Registry()
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
        self._iterators: weakref.WeakKeyDictionary[Any, Walk] = weakref.WeakKeyDictionary()
        self._pending: list[LoadedBatch] = []
        self._sliced: LoadedBatch | None = None  # the one whose micro-batches are being used
        self._current: OpenBatch | None = None
        self._open_call: Call | None = None
        self._deferred: list[tuple[str, Any, Any, Any]] | None = None
        self._deferred_grad = False
        self._last_backward: Walk | None = None
        self._backwards_since: int = 0
        self._loss_value: torch.Tensor | None = None
        self._unscaled: torch.Tensor | None = None
        self._unclean: dict[int, Any] = {}  # optimizers that stepped and saw no backward since
        self._stale: torch.Tensor | None = None
        self._meter = StepMeter()
        self._model_lines: dict[int, Any] = {}
        self._seen: set[tuple[int, bool]] = set()
        self._trainings: dict[int, _Training] = {}  # by optimizer id
        self._schedules: list[tuple[weakref.ref[Any], str, Any]] = []  # (schedule, its class, its optimizer)
        self._states: dict[tuple[int, bytes], int] = {}  # (model, digest of its state) -> the last pass that ended in it
        self._before_load: bytes | None = None

    # -- loader -------------------------------------------------------------------------------

    def iteration_started(self, loader: Any, iterator: Any) -> None:
        """A DataLoader's ``__iter__`` was called."""
        self._settle(keep=None)
        loader_id, new = self.loaders.number(loader)
        dataset_id = self.samples.dataset_id(loader.dataset)
        if new:
            self.writer.write("loader", {"id": loader_id, "dataset": dataset_id, **loader_settings(loader)})
        old = self._iterators.get(iterator)
        if old is not None:
            self._pending = [b for b in self._pending if b.walk is not old]
        for walk in self.walks:
            if walk.loader_id == loader_id and not walk.exhausted:
                walk.exhausted = walk.dead = True  # its loop was left with break
        walk = Walk(loader, loader_id, dataset_id, self.samples.ids.get(dataset_id))
        self._iterators[iterator] = walk
        self._settle(keep=walk)

    def batch_loaded(self, iterator: Any, indices: Any, batch: Any) -> None:
        """A loader's iterator returned a batch."""
        walk = self._iterators.get(iterator)
        if walk is not None:
            self._pending.append(read_batch(walk, indices, batch))
            del self._pending[:-MAX_PENDING]

    def iteration_ended(self, iterator: Any) -> None:
        """A loader's iterator is exhausted."""
        walk = self._iterators.get(iterator)
        if walk is None:
            return
        walk.exhausted = True
        if walk.index >= 0 and not walk.backwards and not any(b.walk is walk for b in self._pending):
            self._write_walk(walk)  # an evaluation: at once, before the program reloads other weights

    # -- model --------------------------------------------------------------------------------

    def model_called(self, module: Any, args: tuple[Any, ...], grad_enabled: bool) -> None:
        """An outermost module call begins."""
        self._open_call = None
        self._deferred_grad = grad_enabled
        images = find_images(args)
        if images is None:
            self._deferred = []  # images come by keyword; a loss inside the call waits for them
            if self._pending:
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
        loaded = self._match(images)
        current = self._current
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
        if images.ndim == 2 and loaded is None:
            return  # a call on vectors that come from nowhere we know
        walk = loaded.walk if loaded is not None else self._loaderless(grad_enabled)
        if current is None or current.walk is not walk:
            self._settle(keep=walk)
        self._close_current()
        tracked = self._track(module)
        if walk.index < 0:
            walk.index = self.num_passes
            self.num_passes += 1
            walk.started = time.perf_counter()
            self.walks.append(walk)
            self.writer.write("pass_begin", {"pass": walk.index, "loader": walk.loader_id, "dataset": walk.dataset_id})
        self._start(tracked, grad_enabled)
        self._current = OpenBatch(walk, walk.num_batches, int(images.shape[0]), loaded, fingerprint(images))
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
        """Before the first call with gradients, which moves BatchNorm: remember the state."""
        if grad_enabled and not model.start_taken:
            if not model.is_current():
                model.describe()
            model.take_start()
            self._write_state(model, "start", -1)

    def _match(self, images: torch.Tensor) -> LoadedBatch | None:
        """The loaded batch that these images are: by identity, else the oldest of the loader that is in use."""
        current = self._current
        if current is not None and current.loaded is not None and current.loaded.holds(images):
            return None  # the same batch once more
        chosen = next((b for b in (*self._pending, self._sliced) if b is not None and b.part(images) is not None), None)
        if chosen is not None:
            self._use(chosen)
            self._sliced = chosen  # its other micro-batches are still to come
            return chosen.part(images)
        chosen = next((b for b in self._pending if b.holds(images)), None)
        if chosen is None:
            fitting = [b for b in self._pending if b.size and (images.shape[0] == b.size)]
            if not fitting:
                fitting = [b for b in self._pending if b.size and images.shape[0] % b.size == 0 and images.ndim >= 4]
            if not fitting:
                return None
            newest = fitting[-1].walk
            chosen = next(b for b in fitting if b.walk is newest)
        self._use(chosen)
        self._sliced = None
        return chosen

    def _use(self, chosen: LoadedBatch) -> None:
        """Take a batch out of those that wait, with what the same loader gave before: that was drawn and not used."""
        place = next((i for i, b in enumerate(self._pending) if b is chosen), -1)
        self._pending = [b for i, b in enumerate(self._pending) if i > place or b.walk is not chosen.walk]

    def _loaderless(self, grad_enabled: bool) -> Walk:
        current = self._current
        if current is not None and current.walk.loader_id < 0 and bool(current.calls[0].modes[3]) == grad_enabled:
            return current.walk
        return Walk(None, -1, -1, None)

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
        if isinstance(loss, torch.Tensor):
            self._unscaled = loss.detach().clone()

    def backward_started(self, tensors: Any) -> None:
        """``backward`` begins."""
        if isinstance(tensors, (tuple, list)):
            tensors = tensors[0] if tensors else None
        walk = self._current.walk if self._current is not None else self._last_backward
        self._last_backward = walk
        if walk is not None:
            walk.backwards += 1
        self._backwards_since += 1
        loss = self._unscaled if self._unscaled is not None else tensors
        self._unscaled = None
        if isinstance(loss, torch.Tensor):
            self._loss_value = loss.detach().float().mean() if loss.numel() else None
        for watched in self._unclean.values():
            if watched.grad is not None:
                self._stale = (watched.grad != 0).any()
            else:
                self._stale = torch.zeros((), dtype=torch.bool)
        self._unclean = {}

    def gradients_zeroed(self) -> None:
        """``zero_grad`` was called on an optimizer or a module."""
        walk = self._current.walk if self._current is not None else None
        if walk is not None:
            walk.zero_grads += 1

    def step_started(self, optimizer: torch.optim.Optimizer, has_closure: bool) -> None:
        """An optimizer is about to step; with a closure its gradients are yet to come and are not read."""
        walk = self._step_walk()
        self._meter.forget()
        if walk is None or has_closure or not is_sampled(walk.steps):
            return
        self._meter.before(optimizer, self.models)

    def step_ended(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer has stepped."""
        optimizer_id, new = self.optimizers.number(optimizer)
        if new:
            self.writer.write("optimizer", {"id": optimizer_id, **optimizer_settings(optimizer)})
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        for model in self.models:
            if any(id(p) in model.position for p in parameters[:1] + parameters[-1:]):
                model.steps += 1
                model.optimized.update(id(p) for p in parameters)
        walk = self._step_walk()
        if walk is None:
            return
        rates = [as_float(g.get("lr")) for g in optimizer.param_groups]
        row = StepRow(optimizer_id, self._backwards_since, rates, self._loss_value, self._stale, self._meter.after())
        walk.step_rows.append(row)
        walk.steps += 1
        if new or optimizer_id not in self._trainings:
            self._trainings[optimizer_id] = _Training(optimizer)
        self._trainings[optimizer_id].add(rates)
        self._backwards_since = 0
        self._stale = None
        smallest = min((p for p in parameters if p.requires_grad), key=lambda p: p.numel(), default=None)
        if smallest is not None:
            self._unclean[optimizer_id] = smallest

    def training_of(self, parameter: torch.Tensor) -> tuple[str, dict[str, Any], list[float]] | None:
        """(optimizer class, settings of its group, learning rate of each step) of what trained a parameter last."""
        for number in sorted(self._trainings, reverse=True):
            place = self._trainings[number].places.get(id(parameter))
            if place is not None:
                training = self._trainings[number]
                return training.kind, training.groups[place], list(training.rates[place])
        return None

    def schedule_made(self, schedule: Any) -> None:
        """A learning-rate schedule was made."""
        optimizer = getattr(schedule, "optimizer", None)
        self._schedules.append((weakref.ref(schedule), type(schedule).__name__, optimizer and weakref.ref(optimizer)))

    def _write_schedules(self, walk: Walk) -> None:
        """Where every living schedule stands at the end of a training pass."""
        for reference, kind, of in self._schedules:
            schedule, optimizer = reference(), of() if of else None
            if schedule is None or optimizer is None:
                continue
            settings = {k: plain(getattr(schedule, k, None)) for k in SCHEDULE_SETTINGS}
            self.writer.write(
                "schedule",
                {
                    "pass": walk.index,
                    "optimizer": self.optimizers.number(optimizer)[0],
                    "kind": kind,
                    "steps": int(getattr(schedule, "last_epoch", -1)),
                    "settings": {k: v for k, v in settings.items() if v is not None},
                },
            )

    def _step_walk(self) -> Walk | None:
        if self._current is not None:
            return self._current.walk
        return self._last_backward if self._last_backward is not None and not self._last_backward.written else None

    # -- state --------------------------------------------------------------------------------

    def weights_loading(self, module: Any) -> None:
        """A module is about to load weights: what is open belongs to the old ones."""
        self._settle(keep=None, everything=True)
        model = self._trained_holder(module)
        self._before_load = _digest(*model.snapshot()) if model is not None else None

    def _trained_holder(self, module: Any) -> TrackedModel | None:
        """The model that has been trained and is this module."""
        return next((m for m in self.models if m.steps and m.contains(module)), None)

    def weights_loaded(self, module: Any, state: Any, strict: bool, result: Any) -> None:
        """``load_state_dict`` returned."""
        if next(module.parameters(), None) is None or not hasattr(state, "keys"):
            return
        given = len(state)
        missing = list(getattr(result, "missing_keys", []) or [])
        unexpected = list(getattr(result, "unexpected_keys", []) or [])
        trained = any(m.steps for m in self.models if m.contains(module))
        for model in self.models:
            if model.contains(module) and not model.steps:
                model.start_taken = False  # the start is after the last load
        self.writer.write(
            "weights_loaded",
            {
                "model_kind": type(unwrap(module)).__name__,
                "before_training": not trained,
                "strict": bool(strict),
                "given": given,
                "matched": given - len(unexpected),
                "missing": len(missing),
                "unexpected": len(unexpected),
                "examples": [*missing[:3], *unexpected[:3]],
                "expected": len(module.state_dict()),
                "after_pass": self.num_passes - 1,
                **self._what_loading_did(module, state),
            },
        )

    def _what_loading_did(self, module: Any, state: Any) -> dict[str, Any]:
        """Whether a trained model's weights changed, whether they were its own tensors, which pass ended in the new state."""
        model = self._trained_holder(module)
        if model is None or self._before_load is None:
            return {"changed": None, "state_of_pass": -1, "own_tensors": False}
        now = _digest(*model.snapshot())
        living = {t.data_ptr() for _, t, is_parameter, _ in model.tensors if is_parameter and t.numel()}
        given = {t.data_ptr() for t in state.values() if isinstance(t, torch.Tensor) and t.numel()}
        return {
            "changed": now != self._before_load,
            "state_of_pass": self._states.get((model.id, now), -1),
            "own_tensors": bool(living) and living <= given,
        }

    # -- writing ------------------------------------------------------------------------------

    def _settle(self, keep: Walk | None, everything: bool = False) -> None:
        """Write the walks that have ended, except ``keep``."""
        waiting = {id(b.walk) for b in self._pending}
        for walk in list(self.walks):
            ended = walk.exhausted and id(walk) not in waiting
            if walk is not keep and (ended or (everything and walk.exhausted)):
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
        if walk.steps or model.id not in self._model_lines:
            self._write_model(model)
        self._write_state(model, "pass", walk.index)
        if walk.steps:
            self._write_schedules(walk)
        loader = walk.loader
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

    def _write_model(self, model: TrackedModel) -> None:
        body = model_facts(model)
        key = hashlib.blake2b(repr({k: str(v) for k, v in body.items()}).encode()).hexdigest()
        if self._model_lines.get(model.id) != key:
            self._model_lines[model.id] = key
            self.writer.write("model", body)

    def _write_state(self, model: TrackedModel, moment: str, pass_index: int) -> None:
        if model.id not in self._model_lines:
            self._write_model(model)
        sums, norms = model.snapshot()
        self._states[model.id, _digest(sums, norms)] = FIRST_STATE if moment == "start" else pass_index
        self.writer.write(
            "state",
            {"model": model.id, "moment": moment, "pass": pass_index, "sums": sums.numpy(), "norms": norms.numpy()},
        )

    def finish(self) -> None:
        """Write everything that is still open; the program has ended."""
        self._close_current()
        for walk in list(self.walks):
            self._write_walk(walk)

    def failed(self, where: str, error: Exception) -> None:
        """One of the methods above raised: noted in the record, unseen by the program."""
        if len(self.errors) < MAX_ERRORS:
            text = f"{where}: {''.join(traceback.format_exception(error))}"
            self.errors.append(text)
            self.writer.write("recorder_error", {"text": text[-4000:]})


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


def _digest(sums: torch.Tensor, norms: torch.Tensor) -> bytes:
    """Equal states, equal digests."""
    return hashlib.blake2b(torch.stack([sums, norms]).numpy().tobytes(), digest_size=16).digest()


def _modes(model: TrackedModel, grad_enabled: bool) -> tuple[float, float, float, float]:
    training, norm, drop = model.modes()
    return float(training), norm, drop, float(grad_enabled)
