"""The head trained again on cached features, as recorded and with one setting changed: seconds instead of re-runs.

A linear head on fixed features is what most fine-tuning scripts train. All variants run side by side as one batched
problem, on the same batches in the same order, so that their differences are paired. Where the variant "recorded" does not repeat
what the program reached, the others say nothing; that is for the reader of the numbers to judge.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from valgap.seams.closing.attempts import OutOfTimeError
from valgap.stats import paired_p_value

LONGER = 4  # how many times as long the longer variant is
MAX_STEPS = 6_000  # of the longest variant
MAX_FEATURES = 1 << 25  # numbers in the training features
KINDS = ("SGD", "Adam", "AdamW")
# What a fitting optimizer is compared with; the usual choice for a new head.
FITTING_RATE = 1e-3


@dataclass(frozen=True)
class Settings:
    """One way to train the head; ``rates`` (S,) has one learning rate per step."""

    kind: str
    rates: Any
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    dropout: float = 0.0


def settings_of(kind: str, group: Mapping[str, Any], rates: Sequence[float], dropout: float) -> Settings | None:
    """The recorded settings; None for an optimizer that is not repeated here."""
    if kind not in KINDS or group.get("maximize") or group.get("amsgrad") or not rates:
        return None
    betas = group.get("betas")
    return Settings(
        kind=kind,
        rates=np.asarray(rates, np.float32),
        momentum=float(group.get("momentum") or 0.0),
        nesterov=bool(group.get("nesterov")),
        betas=(float(betas[0]), float(betas[1])) if isinstance(betas, (tuple, list)) else (0.9, 0.999),
        eps=float(group.get("eps") or 1e-8),
        weight_decay=float(group.get("weight_decay") or 0.0),
        dropout=dropout,
    )


def variants(recorded: Settings) -> dict[str, Settings]:
    """The recorded settings and those with one change each."""
    rates = recorded.rates
    changed = recorded.__dict__

    def with_(**changes: Any) -> Settings:
        return Settings(**{**changed, **changes})

    found = {
        "recorded": recorded,
        "rate_x10": with_(rates=rates * 10),
        "rate_x0.1": with_(rates=rates * 0.1),
        "longer": with_(rates=np.repeat(rates, LONGER)),
    }
    if rates.max() > 1.01 * rates.min():
        found["constant_rate"] = with_(rates=np.full_like(rates, rates.max()))
    if recorded.kind == "SGD" and recorded.momentum < 0.5:
        found["momentum"] = with_(momentum=0.9, nesterov=False)
    found["fitting"] = with_(kind="Adam", rates=np.full_like(rates, FITTING_RATE), weight_decay=0.0)
    if recorded.weight_decay > 0:
        found["decay_x0.1"] = with_(weight_decay=0.1 * recorded.weight_decay)
    if recorded.dropout > 0:
        found["no_dropout"] = with_(dropout=0.0)
    return found


def replay_numbers(
    train: tuple[Any, Any], val: tuple[Any, Any], start: tuple[torch.Tensor, torch.Tensor | None], recorded: Settings,
    batch_size: int, deadline: float,
) -> dict[str, float] | str:  # fmt: skip
    """``replay_NAME`` (val accuracy), ``replay_NAME_p`` (paired with the recorded one) of each variant, or why there are none.

    Args:
        train: features (N, D) and class indices (N,).
        val: the same of validation.
        start: the head's first weight (C, D) and bias (C,).
        recorded: how the program trained it.
        batch_size: images per step.
        deadline: ``time.perf_counter`` value at which to give up.
    """
    x, y = (np.asarray(v) for v in train)
    keep = (y >= 0) & (y < len(start[0]))
    x, y = x[keep], y[keep]
    if not len(x) or x.size > MAX_FEATURES or x.shape[1] != start[0].shape[1]:
        return "the training features do not fit"
    ways = variants(recorded)
    if LONGER * len(recorded.rates) > MAX_STEPS:
        ways.pop("longer")
    if len(recorded.rates) > MAX_STEPS:
        return f"more than {MAX_STEPS} steps"
    names = list(ways)
    answers = _answers(_trained((x, y), start, list(ways.values()), batch_size, deadline), np.asarray(val[0]))
    if answers is None:
        raise OutOfTimeError("the time budget ended")
    right = answers == np.asarray(val[1])[None]
    values = {"replay_n": float(right.shape[1])}
    for name, row in zip(names, right, strict=True):
        values[f"replay_{name}"] = float(row.mean())
        if name != "recorded":
            values[f"replay_{name}_p"] = paired_p_value(right[0], row)
    return values


def _answers(weights: torch.Tensor | None, val: Any) -> Any:
    """(V, N) classes; None without weights."""
    if weights is None:
        return None
    x = torch.from_numpy(np.concatenate([val, np.ones((len(val), 1))], 1).astype(np.float32))
    return torch.einsum("nd,vdc->vnc", x, weights).nan_to_num(0.0).argmax(2).numpy()


def _trained(
    train: tuple[Any, Any],
    start: tuple[torch.Tensor, torch.Tensor | None],
    ways: list[Settings],
    batch_size: int,
    deadline: float,
) -> torch.Tensor | None:
    """Weights (V, D + 1, C) after training; the last row is the bias. None when the deadline came first."""
    x = torch.from_numpy(np.concatenate([train[0], np.ones((len(train[0]), 1))], 1).astype(np.float32))
    y = torch.from_numpy(train[1]).long()
    bias = start[1] if start[1] is not None else torch.zeros(len(start[0]))
    first = torch.cat([start[0].float().T, bias.float()[None]], 0)
    weights = first.repeat(len(ways), 1, 1)
    state = _State(weights, ways)
    drops = sorted({w.dropout for w in ways if w.dropout > 0})
    draw = torch.Generator().manual_seed(0)
    size = min(batch_size, len(x))
    order = torch.randperm(len(x), generator=draw)
    place = 0
    for step in range(max(len(w.rates) for w in ways)):
        if step % 64 == 0 and time.perf_counter() > deadline:
            return None
        if place + size > len(x):
            order, place = torch.randperm(len(x), generator=draw), 0
        chosen = order[place : place + size]
        place += size
        live = [v for v, w in enumerate(ways) if step < len(w.rates)]
        batch = x[chosen].expand(len(live), -1, -1)
        if drops:
            batch = _dropped(batch, [ways[v].dropout for v in live], draw)
        logits = torch.bmm(batch, weights[live])
        slope = logits.softmax(2)
        slope[:, torch.arange(size), y[chosen]] -= 1
        gradient = torch.bmm(batch.transpose(1, 2), slope) / size
        state.step(live, gradient, step)
    return weights


def _dropped(batch: torch.Tensor, drops: Sequence[float], draw: torch.Generator) -> torch.Tensor:
    """The batch with each variant's share of features dropped; the bias column stays."""
    noise = torch.rand(batch.shape[1:], generator=draw)
    kept = []
    for one, p in zip(batch, drops, strict=True):
        mask = (noise >= p) / max(1 - p, 1e-6)
        mask[:, -1] = 1.0
        kept.append(one * mask)
    return torch.stack(kept)


class _State:
    """The optimizers of all variants, as torch.optim computes them."""

    def __init__(self, weights: torch.Tensor, ways: list[Settings]) -> None:
        self.weights, self.ways = weights, ways
        self.first, self.second = torch.zeros_like(weights), torch.zeros_like(weights)

    def step(self, live: Sequence[int], gradients: torch.Tensor, step: int) -> None:
        for place, v in enumerate(live):
            way, weight, gradient = self.ways[v], self.weights[v], gradients[place]
            rate = float(way.rates[step])
            if way.kind == "AdamW":
                weight.mul_(1 - rate * way.weight_decay)
            elif way.weight_decay:
                gradient = gradient + way.weight_decay * weight
            if way.kind == "SGD":
                self._sgd(v, way, weight, gradient, rate)
            else:
                first, second = self.first[v], self.second[v]
                first.lerp_(gradient, 1 - way.betas[0])
                second.mul_(way.betas[1]).addcmul_(gradient, gradient, value=1 - way.betas[1])
                size = (second / (1 - way.betas[1] ** (step + 1))).sqrt_().add_(way.eps)
                weight.addcdiv_(first, size, value=-rate / (1 - way.betas[0] ** (step + 1)))

    def _sgd(self, v: int, way: Settings, weight: torch.Tensor, gradient: torch.Tensor, rate: float) -> None:
        if way.momentum:
            first = self.first[v].mul_(way.momentum).add_(gradient)
            gradient = gradient + way.momentum * first if way.nesterov else first
        weight.add_(gradient, alpha=-rate)
