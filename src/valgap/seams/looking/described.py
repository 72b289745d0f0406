"""Loaders, optimizers, schedules and models in plain values, as the record keeps them."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from valgap.seams.looking.datasets import held, length_of, safe_len
from valgap.seams.looking.dropouts import drop_probability
from valgap.seams.looking.tracked import TrackedModel, unwrap

# What a schedule says of its length and shape; other attributes are not recorded.
SCHEDULE_SETTINGS = (
    *("T_max", "T_0", "T_mult", "total_steps", "total_iters", "step_size", "milestones", "gamma", "eta_min"),
    *("mode", "patience", "factor"),
)

MAX_WRAPPED = 4  # samplers around a sampler


def loader_settings(loader: Any) -> dict[str, Any]:
    """Batch size, order and length of a DataLoader; what another kind of loader does not say is -1 or None."""
    sampler = getattr(loader, "sampler", None)
    batch_sampler = getattr(loader, "batch_sampler", None)
    inner: Any = getattr(batch_sampler, "sampler", sampler)
    for _ in range(MAX_WRAPPED):  # a sampler that repeats another one, or shares it out
        deeper = held(inner, "sampler")
        if deeper is None or deeper is inner:
            break
        inner = deeper
    name = type(inner if inner is not None else sampler).__name__
    shuffled = {
        "RandomSampler": True,
        "SequentialSampler": False,
        "WeightedRandomSampler": True,
        "SubsetRandomSampler": True,
    }.get(name)
    if shuffled is None and isinstance(getattr(inner, "shuffle", None), bool):
        shuffled = inner.shuffle
    if sampler is None and isinstance(getattr(loader, "shuffle", None), bool):
        name, shuffled = type(loader).__name__, loader.shuffle
    sizes = (getattr(owner, kind, None) for owner in (loader, batch_sampler) for kind in ("batch_size", "bs"))
    return {
        "batch_size": next((size for size in sizes if isinstance(size, int) and size > 0), -1),
        "sampler": name,
        "shuffled": shuffled,
        "drop_last": bool(getattr(loader, "drop_last", False)),
        "num_workers": int(getattr(loader, "num_workers", 0) or 0),
        "length": length_of(loader),
    }


class KeptLoader(types.SimpleNamespace):
    """What is needed of one of torch's loaders to read its data set again."""


def without_workers(loader: Any) -> Any:
    """The loader, or, where it keeps its worker processes, its settings, so that they are not held."""
    if getattr(loader, "_iterator", None) is None or not isinstance(loader, DataLoader):
        return loader
    names = ("dataset", "batch_size", "collate_fn", "num_workers", "drop_last", "worker_init_fn", "multiprocessing_context")
    return KeptLoader(**{name: getattr(loader, name, None) for name in names})


def own_loader(loader: Any) -> Any:
    """The program's own loader, where another library gives torch's iterators a stand-in whose data set is itself."""
    if held(loader, "dataset") is not loader:
        return loader
    own = [v for v in vars(loader).values() if v is not loader and held(v, "dataset") is not None]
    return own[0] if own else loader


def drawn_order(loader: Any) -> list[int] | None:
    """The positions that a loader without torch's samplers is about to draw, where it keeps them as one list; None elsewhere."""
    size = safe_len(getattr(loader, "dataset", None))
    if isinstance(loader, DataLoader) or size <= 0:
        return None
    for value in vars(loader).values():
        if isinstance(value, list) and 2 * len(value) > size and all(isinstance(i, (int, np.integer)) for i in value):
            positions = {int(i) for i in value}
            if len(positions) == len(value) and min(positions) >= 0 and max(positions) < size:
                return [int(i) for i in value]
    return None


def optimizer_settings(optimizer: Any) -> dict[str, Any]:
    """Class and groups of an optimizer."""
    groups = []
    for group in optimizer.param_groups:
        simple = {k: v for k, v in group.items() if isinstance(v, (int, float, str, bool)) or v is None}
        betas = group.get("betas")
        pair = {f"beta{i}": as_float(b) for i, b in enumerate(betas, 1)} if isinstance(betas, (tuple, list)) else {}
        groups.append({**simple, **pair, "lr": as_float(group.get("lr"))})
    return {
        "kind": type(optimizer).__name__,
        "groups": groups,
        "num_parameters": [len(g["params"]) for g in optimizer.param_groups],
    }


def _altered(model: TrackedModel, number: int) -> int:
    return int(number in model.altered) if number in model.loaded else -1


def model_facts(model: TrackedModel) -> dict[str, Any]:
    """A model as it is now: its tensors, what became of them, and what its weights expect."""
    expected = model.expected()
    idle = [s for s in model.strays.values() if s.idle]
    return {
        "id": model.id,
        "kind": type(unwrap(model.parts[0])).__name__,
        "trained": model.steps > 0,
        "tensor_names": [t[0] for t in model.tensors],
        "is_parameter": np.array([t[2] for t in model.tensors], bool),
        "numel": np.array([t[1].numel() for t in model.tensors], np.int64),
        "requires_grad": np.array([t[2] and t[1].requires_grad for t in model.tensors], bool),
        "in_optimizer": np.array([id(t[1]) in model.optimized for t in model.tensors], bool),
        "got_gradient": model.gradients_seen().numpy().copy(),
        "highest_rate": np.array([model.rates.get(id(t[1]), np.nan) for t in model.tensors], np.float32),
        "altered": np.array([_altered(model, id(t[1])) for t in model.tensors], np.int8),
        "newness": np.array([model.newness.get(id(t[1]), -1) for t in model.tensors], np.int8),
        "on_path": np.array(model.on_path(), bool),
        "released": np.array([id(t[1]) in model.once_frozen and t[1].requires_grad for t in model.tensors], bool),
        "held_in_vain": model.foreign,
        "strays": [type(s.layer).__name__ for s in idle],
        "stray_numbers": sum(p.numel() for s in idle for p in s.parameters),
        "layer_groups": model.layer_groups,
        "group_of": np.array(model.group_of, np.int32),
        "layer_kind": [t[3] for t in model.tensors],
        "num_outputs": model.num_outputs,
        "expected_mean": expected.mean if expected is not None else None,
        "expected_std": expected.std if expected is not None else None,
        "expected_size": expected.size if expected is not None else None,
        "expected_crop": expected.crop_share if expected is not None else None,
        "expected_whole": expected is not None and expected.whole,
        "expected_interpolation": expected.interpolation if expected is not None else None,
        "fresh_batchnorm": model.fresh_batchnorm,
        "dropout": [drop_probability(m) for m in model.dropouts],
    }


def plain(value: Any) -> Any:
    """A number, or a list of numbers, as JSON takes it; None for anything else."""
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple, dict)) and all(isinstance(v, int) for v in value):  # milestones may be a Counter
        return sorted(value)
    return None


def as_float(value: Any) -> float:
    """The number, nan for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
