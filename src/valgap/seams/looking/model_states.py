"""The states of the models: at the start, at the end of every pass, and around a load of weights."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from valgap.record.writer import RecordWriter
from valgap.seams.looking.described import model_facts
from valgap.seams.looking.tracked import TrackedModel, unwrap

FIRST_STATE = -2  # stands for a pass: the state before the first one
# So many numbers of a loaded tensor are kept, to see whether it still has them when training begins; half precision rounds.
KEPT_NUMBERS, ROUNDED = 64, 0.01


class ModelStates:
    """Writes models and their states, and knows a state again when it is loaded."""

    def __init__(self, writer: RecordWriter) -> None:
        self.writer = writer
        self._written: dict[int, str] = {}  # model -> digest of its facts as they stand in the record
        self._last_pass: dict[tuple[int, bytes], int] = {}  # (model, digest of its state) -> the last pass that ended in it
        self._before_load: bytes | None = None
        self._given: dict[int, _Given] = {}  # tensors that load_state_dict gave a value, by id()

    def write_start(self, model: TrackedModel) -> None:
        """Before the first call with gradients, which moves BatchNorm: remember the state. Later calls do nothing."""
        if not model.start_taken:
            if not model.is_current():
                model.describe()
            self.rewrite_start(model)

    def training_begins(self, model: TrackedModel) -> None:
        """The first call of a training pass is under way: of a model with new layers, what it begins with is another start."""
        if model.start_taken and model.renew():
            model.forget_start()
            self.rewrite_start(model)

    def rewrite_start(self, model: TrackedModel) -> None:
        """The model's tensors are others than those of the start that stands in the record: write it again."""
        given = [(t, g) for _, t, _, _ in model.tensors if (g := self._given.get(id(t))) is not None and g.tensor() is t]
        model.loaded |= {id(t) for t, _ in given}
        if not model.steps:
            model.altered = {id(t) for t, g in given if g.altered()}
        model.take_start()
        self.write_model(model)
        self._write(model, "start", -1, model.start_snapshot())

    def write_model(self, model: TrackedModel) -> None:
        """Write what is to be said of a model, where it is not what the record says already."""
        model.once_frozen |= {id(t) for _, t, is_parameter, _ in model.tensors if is_parameter and not t.requires_grad}
        body = model_facts(model)
        key = hashlib.blake2b(b"".join(_bytes_of(v) for v in body.values())).hexdigest()
        if self._written.get(model.id) != key:
            self._written[model.id] = key
            self.writer.write("model", body)

    def write_state(self, model: TrackedModel, moment: str, pass_index: int) -> bytes:
        """Write sums and norms of a model's tensors as they are now; returns what tells this state from others."""
        if model.id not in self._written:
            self.write_model(model)
        return self._write(model, moment, pass_index, model.snapshot())

    def _write(self, model: TrackedModel, moment: str, pass_index: int, state: tuple[torch.Tensor, torch.Tensor]) -> bytes:
        sums, norms = state
        told = state_digest(sums, norms)
        self._last_pass[model.id, told] = FIRST_STATE if moment == "start" else pass_index
        self.writer.write(
            "state",
            {"model": model.id, "moment": moment, "pass": pass_index, "sums": sums.numpy(), "norms": norms.numpy()},
        )
        return told

    def loading(self, module: Any, models: Sequence[TrackedModel]) -> None:
        """A module is about to load weights."""
        model = _trained_holder(module, models)
        self._before_load = state_digest(*model.snapshot()) if model is not None else None

    def loaded(self, module: Any, state: Any, strict: bool, result: Any, models: Sequence[TrackedModel], last_pass: int) -> None:
        """``load_state_dict`` returned ``result``; ``last_pass`` is the one that began last, -1 for none."""
        if next(module.parameters(), None) is None or not hasattr(state, "keys"):
            return
        for name, tensor in module.state_dict(keep_vars=True).items():
            if type(tensor) in (torch.Tensor, torch.nn.Parameter) and not tensor.is_meta and name in state:
                self._given[id(tensor)] = _Given(weakref.ref(tensor), _few(tensor).clone())
        given = len(state)
        missing = list(getattr(result, "missing_keys", []) or [])
        unexpected = list(getattr(result, "unexpected_keys", []) or [])
        trained = _trained_holder(module, models)
        for model in models:
            if not model.steps and _holds(module, model):
                model.forget_start()  # the start is after the last load
        self.writer.write(
            "weights_loaded",
            {
                "model_kind": type(unwrap(module)).__name__,
                "before_training": trained is None,
                "strict": bool(strict),
                "given": given,
                "matched": given - len(unexpected),
                "missing": len(missing),
                "unexpected": len(unexpected),
                "examples": [*missing[:3], *unexpected[:3]],
                "expected": len(module.state_dict()),
                "after_pass": last_pass,
                **self._what_loading_did(trained, state),
            },
        )

    def _what_loading_did(self, model: TrackedModel | None, state: Any) -> dict[str, Any]:
        """Whether a trained model's weights changed, whether they were its own tensors, which pass ended in the new state."""
        if model is None or self._before_load is None:
            return {"changed": None, "state_of_pass": -1, "own_tensors": False}
        now = state_digest(*model.snapshot())
        living = {t.data_ptr() for _, t, is_parameter, _ in model.tensors if is_parameter and t.numel()}
        given = {t.data_ptr() for t in state.values() if isinstance(t, torch.Tensor) and t.numel()}
        return {
            "changed": now != self._before_load,
            "state_of_pass": self._last_pass.get((model.id, now), -1),
            "own_tensors": bool(living) and living <= given,
        }


@dataclass(frozen=True)
class _Given:
    """A tensor with some of the numbers that it was loaded with."""

    tensor: weakref.ref[torch.Tensor]
    numbers: torch.Tensor

    def altered(self) -> bool:
        """Whether it has other numbers now."""
        tensor = self.tensor()
        if tensor is None or not tensor.is_floating_point():
            return False
        now, then = _few(tensor).float().cpu(), self.numbers.float().cpu()
        return now.shape == then.shape and bool((now - then).norm() > ROUNDED * then.norm())


def _few(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, len(flat) // KEPT_NUMBERS)][:KEPT_NUMBERS]


def _trained_holder(module: Any, models: Sequence[TrackedModel]) -> TrackedModel | None:
    """The model that has been trained and is this module, or is held by it, as by a LightningModule."""
    trained = [m for m in models if m.steps]
    return next((m for m in trained if m.contains(module)), next((m for m in trained if _holds(module, m)), None))


def _holds(module: Any, model: TrackedModel) -> bool:
    """Whether the model is the module or lies inside it."""
    return model.contains(module) or any(m is unwrap(model.parts[0]) for m in module.modules())


def state_digest(sums: torch.Tensor, norms: torch.Tensor) -> bytes:
    """Equal states, equal digests."""
    return hashlib.blake2b(torch.stack([sums, norms]).numpy().tobytes(), digest_size=16).digest()


def _bytes_of(value: Any) -> bytes:
    """Equal values, equal bytes. Writing out an array in words takes longer than a small model's step."""
    return value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
