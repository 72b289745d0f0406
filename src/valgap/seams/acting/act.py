"""What an intervention is: the places at which it may act, one method each."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn


class Act:
    """One intervention at work. A subclass overrides the seams that it acts at; ``acted`` counts how often it did."""

    by_position = False  # whether it wants to know which samples a batch is made of

    def __init__(self, phase: str = "both") -> None:
        self.phase = phase
        self.acted = 0
        self.training = False  # whether the loader that is about to be iterated, or the call of a model, is of training
        # Number of the data set, and the position in it of each row: of the batch, or of the images at a model's input.
        self.drawn: tuple[int, list[int]] | None = None
        self.loss_scale: float = 1.0  # by which a GradScaler has scaled the loss of the coming or running backward pass
        self.replaced: Callable[[Any, Any], None] = lambda old, new: None  # told of exchanged data sets

    def wants(self, phase: str) -> bool:
        """Whether it acts in this phase."""
        return self.phase in ("both", phase)

    def iterating(self, loader: Any) -> None:
        """A loader of a wanted phase is about to be iterated."""

    def turning(self) -> None:
        """A program without loaders turns to a wanted phase."""

    def dataset(self, dataset: Any) -> Any:
        """The data set of a wanted phase."""
        return dataset

    def sampler(self, sampler: Any, loader: Any) -> Any:
        """The sampler that a loader of a wanted phase draws from."""
        return sampler

    def batch(self, batch: Any) -> Any:
        """What a loader of a wanted phase returns."""
        return batch

    def loading(self, module: nn.Module, state: Any) -> Any:
        """The weights that a module is about to load; the phase is that of the batch before, if any."""
        return state

    def before_call(self, model: nn.Module) -> None:
        """A model is about to be called on images in a wanted phase."""

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """The images that reach a model in a wanted phase, (N, C, H, W)."""
        return images

    def modes(self, model: nn.Module) -> list[tuple[nn.Module, bool]]:
        """The modes to set during a model call of a wanted phase."""
        return []

    def loss_input(self, value: torch.Tensor) -> torch.Tensor:
        """What a loss is taken of."""
        return value

    def returned(self, output: Any, whole: bool) -> None:
        """A model returned this, called on images (``whole``) or, as a part, on what another made of them."""

    def before_step(self, optimizer: torch.optim.Optimizer, model: nn.Module | None) -> None:
        """An optimizer is about to step in a wanted phase."""

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """It has stepped, and the recorder has not seen it yet."""

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """It has stepped, and the recorder has seen it."""

    def schedule_step(self, schedule: Any, step: Callable[[], Any]) -> Any:
        """The program steps a learning-rate schedule; ``step`` does it."""
        return step()

    def instead(self, module: nn.Module) -> nn.Module:
        """The model that is called in place of ``module``."""
        return module

    def before_backward(self, first_since_step: bool, optimizers: Collection[torch.optim.Optimizer]) -> None:
        """A backward pass is about to begin in a wanted phase."""

    def after_backward(self, model: nn.Module | None) -> None:
        """A backward pass has ended in a wanted phase; ``model`` was called last."""
