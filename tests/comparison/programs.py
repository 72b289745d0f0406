"""A small training that is recorded in this process, with one thing changed at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn
from torch.utils.data import DataLoader, Dataset

import valgap
from valgap.record.reader import read_record
from valgap.types import RunRecord

PER_CLASS, CLASSES, SIDE = 16, 3, 12


class Pictures(Dataset[Any]):
    """Images of their class's brightness under noise; named by their place."""

    def __init__(self, part: int, program: Program) -> None:
        draw = torch.Generator().manual_seed(part)
        self.targets = [i % CLASSES for i in range(PER_CLASS * CLASSES)]
        level = torch.tensor(self.targets).float()[:, None, None, None]
        self.images = level * 0.3 + torch.randn(len(self.targets), 3, SIDE, SIDE, generator=draw)
        self.train, self.program = part == 0, program
        if self.train and program.dropped:
            self.images, self.targets = self.images[program.dropped :], self.targets[program.dropped :]
        self.samples = [
            (f"{'train' if self.train else 'val'}/{i + self.train * program.dropped}.png", t) for i, t in enumerate(self.targets)
        ]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, program = self.images[index], self.program
        image = image * program.train_scale if self.train else image * program.val_scale
        if self.train and program.noise:
            image = image + program.noise * torch.randn(image.shape)
        target = self.targets[index]
        return image, (target + 1) % CLASSES if self.train and index < program.relabelled else target


@dataclass
class Program:
    """What may be changed of it."""

    seed: int = 0
    epochs: int = 2
    batch: int = 8
    rate: float = 0.05
    decay: float = 1e-4
    optimizer: str = "SGD"
    shuffle: bool = True
    eval_mode: bool = True
    clear: bool = True
    smoothing: float = 0.0
    times: float = 1.0  # the loss
    parts: bool = False  # the loss as log_softmax and nll_loss
    train_scale: float = 1.0
    val_scale: float = 1.0
    noise: float = 0.0
    relabelled: int = 0
    dropped: int = 0
    gelu: bool = False
    dropout: float = 0.0
    momentum: float = 0.1  # of BatchNorm
    frozen: bool = False
    head_times: float = 1.0
    clip: float = 0.0
    accumulate: int = 1
    draw_before: bool = False  # a random number that serves nothing
    off: float = 0.0  # the printed accuracy
    half: bool = False  # forward in bfloat16
    split: bool = False  # one data set, shared out at random
    good_enough: float = 2.0  # it stops at this accuracy
    plateau: bool = False  # the rate falls where accuracy does not rise
    halve_after: int = 0  # epochs after which the learning rate is halved

    def network(self) -> nn.Sequential:
        """A convolution, BatchNorm and a head."""
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2),
            nn.BatchNorm2d(8, momentum=self.momentum),
            nn.GELU() if self.gelu else nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, CLASSES),
        )
        model[-1].weight.data.mul_(self.head_times)
        model[0].requires_grad_(not self.frozen)
        return model

    def train(self) -> nn.Module:
        """The whole training."""
        torch.manual_seed(self.seed)
        data: list[Dataset[Any]] = [Pictures(0, self), Pictures(1, self)]
        if self.split:
            data = list(torch.utils.data.random_split(data[0], [32, 16]))
        loaders = [DataLoader(d, self.batch if p == 0 else 16, shuffle=self.shuffle and p == 0) for p, d in enumerate(data)]
        model = self.network()
        if self.draw_before:
            torch.rand(1)
        make = getattr(torch.optim, self.optimizer)
        optimizer = make(model.parameters(), self.rate, weight_decay=self.decay)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", patience=0) if self.plateau else None
        for epoch in range(self.epochs):
            if self.halve_after and epoch == self.halve_after:
                optimizer.param_groups[0]["lr"] /= 2
            model.train()
            for number, (x, y) in enumerate(loaders[0]):
                if self.clear and number % self.accumulate == 0:
                    optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                    logits = model(x)
                self.loss(logits, y).backward()
                if self.clip:
                    nn.utils.clip_grad_norm_(model.parameters(), self.clip)
                if number % self.accumulate == self.accumulate - 1:
                    optimizer.step()
            if self.eval_mode:
                model.eval()
            with torch.no_grad():
                right = sum(int((model(x).argmax(1) == y).sum()) for x, y in loaders[1])
            if schedule is not None:
                schedule.step(right)
            if right >= self.good_enough * len(data[1]):  # type: ignore[arg-type]
                break
            print(f"epoch {epoch} val accuracy {right / PER_CLASS / CLASSES + self.off:.4f}")
        return model

    def loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""
        if self.parts:
            return functional.nll_loss(functional.log_softmax(logits, 1), target)
        return self.times * functional.cross_entropy(logits, target, label_smoothing=self.smoothing)


@contextmanager
def _same_random() -> Iterator[None]:
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def recorded(folder: Path, **changes: Any) -> RunRecord:
    """The record of the program with these changes."""
    with _same_random(), valgap.watch(out=folder, closing=0):
        Program(**changes).train()
    return read_record(folder)
