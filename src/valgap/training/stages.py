"""What learns, and how fast: where the network is cut, parameter groups, BatchNorm held still, the tail as a module."""

from __future__ import annotations

import types
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from valgap.engine import Cut, cut_before_last
from valgap.engine.extract import ACTIVATION_DTYPE
from valgap.engine.store import cache_limit
from valgap.recipe import Recipe

# How many of the last stages learn, by `Recipe.unfreeze`.
LAST: dict[str, Literal[1, 2]] = {"last": 1, "last2": 2}
STAGES = {"last": "the last stage", "last2": "the last two stages"}
LEARNED = {"head": "the head alone", **{k: f"{v} and the head" for k, v in STAGES.items()}, "all": "all layers"}
# (steps, epochs at least) by what learns, or from a random head, see `Recipe.epochs`; and epochs at most.
BUDGETS = {"last": (100, 2), "last2": (100, 2), "all": (200, 3), "random": (600, 6)}
MAX_EPOCHS = 20
# The usual rates of pretrained layers, see `Recipe.backbone_rate`.
FROM_PROBE, FROM_RANDOM = 3.0, 0.1


def cut_for(unfreeze: str, model: nn.Module, head: nn.Module, size: int, rows: int) -> Cut | None:
    """Where the network is cut for what is to learn; None where it cannot, or need not.

    ``auto`` takes the last two stages where the cache can hold so many rows of what goes into them, else the last one.
    """
    if unfreeze in LAST:
        return cut_before_last(LAST[unfreeze], model, head, size)
    if unfreeze != "auto":
        return None
    cut = cut_before_last(2, model, head, size)
    if cut is not None and rows * row_bytes(cut, size, next(model.parameters()).device) <= cache_limit():
        return cut
    return cut_before_last(1, model, head, size)


def row_bytes(cut: Cut, size: int, device: torch.device) -> int:
    """Bytes of what is kept before the cut for an image of ``size`` pixels a side."""
    with torch.no_grad():
        found: torch.Tensor = cut.front(torch.zeros(1, 3, size, size, device=device))
    return found.numel() * np.dtype(ACTIVATION_DTYPE).itemsize


def usual_epochs(recipe: Recipe, learns: str, images: int) -> int:
    """The recipe's, or as many as make the usual number of steps for what learns."""
    if recipe.epochs is not None:
        return recipe.epochs
    if learns == "head" and recipe.start == "probe":
        return 0
    steps, fewest = BUDGETS[learns if recipe.start == "probe" else "random"]
    return min(MAX_EPOCHS, max(fewest, round(steps / max(1, images // recipe.batch_size))))


class Tail(nn.Module):
    """The last stage, or the last two, and the head, on activations that were stored flat: (N, D) -> logits (N, C)."""

    def __init__(self, tail: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.tail, self.shape = tail, shape

    def forward(self, flat: torch.Tensor) -> Any:
        """The logits."""
        activations = flat.reshape(len(flat), *self.shape)
        if activations.ndim == 4:
            activations = activations.contiguous(memory_format=torch.channels_last)
        return self.tail(activations)


def hold_batchnorm(module: nn.Module) -> None:
    """Keep every BatchNorm in eval mode from now on, whatever ``train()`` is called: its statistics no longer move."""

    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        return nn.Module.train(self, False)

    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.train = types.MethodType(train, part)  # type: ignore[method-assign]
            part.eval()


def freeze_all_but(model: nn.Module, learning: nn.Module) -> None:
    """Gradients for the parameters of ``learning`` only."""
    model.requires_grad_(False)
    learning.requires_grad_(True)


def parameter_groups(module: nn.Module, head: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The optimizer's groups: head and pretrained layers at their rates, each with and without weight decay."""
    share = recipe.backbone_rate
    if share is None:
        share = FROM_PROBE if recipe.start == "probe" else FROM_RANDOM
    in_head = {id(p) for p in head.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 or recipe.decay_norm_and_bias
            groups.setdefault((id(parameter) in in_head, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.learning_rate * (1.0 if is_head else share),
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (is_head, decays), parameters in groups.items()
    ]


def make_optimizer(module: nn.Module, head: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all that has gradients."""
    groups = parameter_groups(module, head, recipe)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups)
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def add_dropout(head: nn.Module, share: float) -> None:
    """Dropout of this share on what goes into the head, in train mode only."""
    if share > 0:
        head.register_forward_pre_hook(lambda m, args: (nn.functional.dropout(args[0], share, m.training), *args[1:]))
