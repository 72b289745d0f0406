"""What the last layer sees: its inputs gathered while batches are scored, and linear probes on them.

A probe is a ridge classifier fitted on training features and scored on validation: what the features can give, whatever
the program's own head made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from valgap.seams.looking.ridge import ridge_answers
from valgap.seams.looking.tracked import TrackedModel, unwrap

MIN_PROBE_IMAGES = 20
# On one core of 2.5 GHz: a fit by rows x min(rows, width) x (rows + width) (1.1e-10 to 2.3e-10 s measured, for 250 to 2,000 rows
# of 512 to 2,048 numbers).
FIT_S = 2.3e-10
# Of few images of a class, probes on parts of them say what twice as many would give: percent of them, and how often drawn.
CURVE_PER_CLASS, CURVE_SHARES, CURVE_DRAWS = 15, (30, 55, 100), 8
# Images are kept for a second look under the first weights as long as they take no more memory than this.
MAX_KEPT_BYTES = 1 << 28
# Where the features of an earlier layer are read: this share of the convolutional layers from the input.
MIDDLE_DEPTH = 0.7


@dataclass
class Gathered:
    """What one walk over a data set gave; lists have one entry per batch."""

    features: list[torch.Tensor] = field(default_factory=list)  # (n, D) under the last state
    middle: list[torch.Tensor] = field(default_factory=list)  # (n, D') of an earlier layer, averaged over positions
    before: list[torch.Tensor] = field(default_factory=list)  # (n, D'') of the last layer with weights before the head
    first_statistics: list[torch.Tensor] = field(default_factory=list)  # (n, D) under the first BatchNorm statistics
    start: list[torch.Tensor] = field(default_factory=list)  # (n, D) under the whole first state
    images: list[torch.Tensor] = field(default_factory=list)  # kept for `start`
    targets: list[torch.Tensor] = field(default_factory=list)  # (n,)
    kept_bytes: int = 0

    def target(self, most: int | None = None) -> Any:
        """(N,) class indices of the first ``most`` batches."""
        return torch.cat(self.targets[:most]).cpu().numpy()


class Head:
    """The last linear layer of a model and what leads into it."""

    def __init__(self, model: TrackedModel) -> None:
        self.model = model
        modules = [m for p in model.parts for m in unwrap(p).modules()]
        linear = [m for m in modules if isinstance(m, nn.Linear)]
        fitting = [m for m in linear if m.out_features == model.num_outputs]
        self.layer: nn.Linear | None = fitting[-1] if fitting else linear[-1] if linear else None
        convolutions = [m for m in modules if isinstance(m, nn.Conv2d)]
        place = int(MIDDLE_DEPTH * len(convolutions))
        self.middle = convolutions[place] if 0 < place < len(convolutions) else None
        self._weighted = [m for m in modules if m is not self.layer and next(m.parameters(recurse=False), None) is not None]
        self.dropout = _dropout_before(modules, self.layer)
        self._caught: list[torch.Tensor] = []
        self._caught_middle: list[torch.Tensor] = []
        self._last: Any = None  # what the layer with weights that was called last gave
        self._caught_before: torch.Tensor | None = None

    def name_of(self, parameter: str) -> str | None:
        """The name of the layer's ``weight`` or ``bias`` among the model's tensors."""
        wanted = getattr(self.layer, parameter, None)
        return next((name for name, tensor, _, _ in self.model.tensors if tensor is wanted), None)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the layer's input, and the earlier layer's output, of the calls within."""
        handles = []
        self._caught, self._caught_middle, self._caught_before = [], [], None
        if self.layer is not None:
            handles.append(self.layer.register_forward_pre_hook(lambda _, args: self._arriving(args[0])))
        for module in self._weighted:
            handles.append(module.register_forward_hook(lambda *call: setattr(self, "_last", call[2])))
        if self.middle is not None:
            handles.append(self.middle.register_forward_hook(lambda *call: self._caught_middle.append(_rows(call[2]))))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._last = None

    def _arriving(self, value: torch.Tensor) -> None:
        """The layer is about to be called with this."""
        self._caught.append(_rows(value))
        last = self._last
        rows = isinstance(last, torch.Tensor) and last.ndim in (2, 4) and len(last) == len(value)
        # What an activation would let through of it: that one kills all of it is the work of a training that blew up.
        self._caught_before = _rows(last.clamp_min(0)) if rows else None

    def caught_before(self, n: int) -> torch.Tensor | None:
        """The positive part of what the last layer with weights before this one gave, averaged over positions, (n, D'')."""
        return self._caught_before if self._caught_before is not None and len(self._caught_before) == n else None

    def caught(self, n: int) -> torch.Tensor | None:
        """The layer's input at the last call, (n, D)."""
        good = [f for f in self._caught if f.shape[0] == n]
        return good[-1] if good else None

    def caught_middle(self, n: int) -> torch.Tensor | None:
        """The earlier layer's output at the last call, averaged over positions, (n, D')."""
        good = [f for f in self._caught_middle if f.shape[0] == n]
        return good[-1] if good else None

    # -- states -------------------------------------------------------------------------------

    def first_statistics(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """BatchNorm statistics that moved in layers whose own weights are frozen: (now, as they were first)."""
        first = self.model.initial_state
        if first is None:
            return []
        values = {id(t): first[name] for name, t, _, _ in self.model.tensors if name in first}
        frozen = {
            id(b)
            for m in self.model.batchnorms
            if m.weight is not None and id(m.weight) in values and torch.equal(m.weight.detach().cpu(), values[id(m.weight)])
            for b in (m.running_mean, m.running_var)
            if b is not None
        }
        return self._changed(lambda tensor: id(tensor) in frozen)

    def first_features(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """All tensors but the layer's own that moved: (now, as they were first); empty where no weight moved."""
        own = set() if self.layer is None else {id(p) for p in self.layer.parameters()}
        pairs = self._changed(lambda tensor: id(tensor) not in own)
        weights = {id(t) for _, t, is_parameter, _ in self.model.tensors if is_parameter}
        return pairs if any(id(t) in weights for t, _ in pairs) else []

    def _changed(self, wanted: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
        first = self.model.initial_state
        if first is None:
            return []
        return [
            (t, first[name])
            for name, t, _, _ in self.model.tensors
            if name in first and wanted(t) and not torch.equal(t.detach().cpu(), first[name])
        ]


@contextmanager
def put_back(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    """The tensors with their first values, for the time within."""
    kept = [t.detach().clone() for t, _ in pairs]
    for tensor, first in pairs:
        tensor.data.copy_(first)
    try:
        yield
    finally:
        for (tensor, _), value in zip(pairs, kept, strict=True):
            tensor.data.copy_(value)


def probe_answers(train: Any, target: Any, val: Any) -> Any:
    """(N val,) classes that a ridge classifier fitted on train features (N, D) gives."""
    return ridge_answers(_finite(train), target, _finite(val))


def fitting_s(train: Gathered, fits: int = 1) -> float:
    """Seconds, roughly, that so many probes on these features take, on one core."""
    rows = sum(len(f) for f in train.features)
    width = train.features[0].shape[1] if train.features else 0
    return fits * FIT_S * rows * min(rows, width) * (rows + width)


def probe_numbers(train: Gathered, val: Gathered) -> dict[str, float] | str:
    """The probes' numbers (see ``types.Closing``), or why there are none."""
    if not train.features or not val.features:
        return "no features were gathered"
    y_train, y_val = train.target(len(train.features)), val.target(len(val.features))
    few = _too_few(y_train, y_val)
    if few:
        return few
    values: dict[str, float] = {"probe_n": float(len(y_val)), "probe_train_n": float(len(y_train))}
    final = _right(train.features, y_train, val.features, y_val)
    values["probe_final"] = float(final.mean())
    if train.first_statistics and val.first_statistics:
        initial = _right(train.first_statistics, y_train, val.first_statistics, y_val)
        values["probe_initial"] = float(initial.mean())
        values["probe_difference_se"] = _error(initial, final)
    if train.middle and val.middle:
        middle = _right(train.middle, y_train, val.middle, y_val)
        values["probe_middle"] = float(middle.mean())
        values["probe_middle_se"] = _error(middle, final)
    if len(train.before) == len(train.features) and len(val.before) == len(val.features):
        before = _right(train.before, y_train, val.before, y_val)
        values["probe_before"] = float(before.mean())
        values["probe_before_se"] = _error(before, final)
    return values


def start_numbers(train: Gathered, val: Gathered) -> dict[str, float] | str:
    """Probes under the first and under the last weights, on the images that were kept."""
    y_train, y_val = train.target(len(train.start)), val.target(len(val.start))
    few = _too_few(y_train, y_val)
    if few:
        return few
    start = _right(train.start, y_train, val.start, y_val)
    end = _right(train.features[: len(train.start)], y_train, val.features[: len(val.start)], y_val)
    return {
        "probe_start": float(start.mean()),
        "probe_end": float(end.mean()),
        "probe_start_n": float(len(y_val)),
        "probe_start_se": _error(start, end),
    }


def curve_numbers(train: list[torch.Tensor], y_train: Any, val: list[torch.Tensor], y_val: Any) -> dict[str, float] | str:
    """Validation accuracies of probes on parts of the training images, of each class as large a part, drawn several times."""
    few = _too_few(y_train, y_val) or ("some training images have no label" if (y_train < 0).any() else "")
    if few:
        return few
    members = [np.flatnonzero(y_train == c) for c in np.unique(y_train)]
    if np.median([len(m) for m in members]) >= CURVE_PER_CLASS:
        return f"{CURVE_PER_CLASS} images of a class and more: the image files tell"
    x, z, rng = torch.cat(train).numpy(), torch.cat(val).numpy(), np.random.default_rng(0)
    values = {"curve_n": float(len(y_train))}
    for share in CURVE_SHARES:
        for draw in range(CURVE_DRAWS if share < 100 else 1):
            part = np.concatenate([rng.permutation(m)[: max(1, round(len(m) * share / 100))] for m in members])
            values[f"curve_{share}_{draw}"] = float((probe_answers(x[part], y_train[part], z) == y_val).mean())
            values[f"curve_{share}_n"] = float(len(part))
    return values


def augmentation_numbers(plain: Gathered, augmented: Gathered) -> dict[str, float] | str:
    """How well a probe fitted on one half of the plain training images reads the other half, plain and augmented."""
    if not augmented.features or not plain.features:
        return "no features were gathered"
    n = min(sum(len(f) for f in g.features) for g in (plain, augmented))
    x, z = (torch.cat(g.features)[:n].numpy() for g in (plain, augmented))
    y = plain.target()[:n]
    if n < 2 * MIN_PROBE_IMAGES or not np.array_equal(y, augmented.target()[:n]) or len(np.unique(y)) < 2:
        return f"too few images ({n})"
    halves = np.arange(n) % 2
    right = {"plain": np.zeros(n, bool), "augmented": np.zeros(n, bool)}
    for half in (0, 1):
        fit, held = halves != half, halves == half
        if len(np.unique(y[fit])) < 2:
            return "a half of the training images has one class only"
        answers = probe_answers(x[fit], y[fit], np.concatenate([x[held], z[held]]))
        right["plain"][held] = answers[: held.sum()] == y[held]
        right["augmented"][held] = answers[held.sum() :] == y[held]
    return {
        "probe_plain": float(right["plain"].mean()),
        "probe_augmented": float(right["augmented"].mean()),
        "probe_augmented_n": float(n),
        "probe_augmented_se": _error(right["plain"], right["augmented"]),
    }


def _too_few(y_train: Any, y_val: Any) -> str:
    """Why no probe can be fitted and scored; empty where one can."""
    known = [int((y >= 0).sum()) for y in (y_train, y_val)]
    if min(known) < MIN_PROBE_IMAGES or len(np.unique(y_train[y_train >= 0])) < 2:
        return f"too few labelled images ({known[0]} train, {known[1]} val)"
    return "some validation images have no label" if known[1] < len(y_val) else ""


def _right(train: list[torch.Tensor], y_train: Any, val: list[torch.Tensor], y_val: Any) -> Any:
    known = y_train >= 0
    answers = probe_answers(torch.cat(train).numpy()[known], y_train[known], torch.cat(val).numpy())
    return answers == y_val


def _error(a: Any, b: Any) -> float:
    """Standard error of the mean paired difference."""
    delta = a.astype(float) - b.astype(float)
    return float(delta.std() / np.sqrt(len(delta)))


def _finite(values: Any) -> Any:
    return np.nan_to_num(np.asarray(values, np.float32), nan=0.0, posinf=1e6, neginf=-1e6)


def _rows(value: torch.Tensor) -> torch.Tensor:
    """(n, D) on the CPU: positions of a map are averaged."""
    value = value.detach().float()
    return (value.mean((2, 3)) if value.ndim == 4 else value.flatten(1)).cpu()


def _dropout_before(modules: list[nn.Module], layer: nn.Module | None) -> float:
    """Probability of the Dropout between the last layer and what comes before it; 0 without."""
    p = 0.0
    for module in modules:
        if module is layer:
            return p
        if isinstance(module, nn.Dropout):
            p = float(module.p)
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            p = 0.0
    return p
