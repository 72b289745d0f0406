"""What learns, and how fast: parameter groups, BatchNorm held still, the tail of a cut network as a module of its own."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from valgap.recipe import Recipe


class Tail(nn.Module):
    """The last stage and the head, on activations that were stored flat: (N, D) -> logits (N, C)."""

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
    in_head = {id(p) for p in head.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 or recipe.decay_norm_and_bias
            groups.setdefault((id(parameter) in in_head, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.learning_rate * (1.0 if is_head else recipe.backbone_rate),
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
