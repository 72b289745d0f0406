"""`valgap train`: frozen features in one pass, a probe, then a plain loop from the probe's head. Read it top to bottom."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.utils.data import DataLoader

from valgap.data import ImageTable, load_folder
from valgap.errors import RecordError
from valgap.models import LoadedModel, create_model
from valgap.models.preprocessing import Preprocessing
from valgap.recipe import RECIPE
from valgap.stats import wilson_interval
from valgap.train.checkpoint import WEIGHTS, save
from valgap.train.images import ImageDataset
from valgap.train.probe import Probe, fit_probe

Item = TypeVar("Item")


@dataclass(frozen=True)
class EpochRow:
    """One line of the table: accuracies 0..1, losses in nats. Epoch 0 is the probe."""

    epoch: int
    train_rescored: float
    val_accuracy: float
    val_low: float
    val_high: float
    val_loss: float


@dataclass(frozen=True)
class TrainResult:
    """What came out: the best epoch's numbers on validation, and every epoch's."""

    run: Path
    best: EpochRow
    epochs: tuple[EpochRow, ...]
    probe: Probe
    interrupted: bool


def train(
    data: Path,
    out: Path,
    *,
    backbone: str = "resnet50",
    weights: str = "default",
    epochs: int = 5,
    size: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    num_workers: int = 0,
    console: Console | None = None,
) -> TrainResult:
    """Train a classifier on the images below ``data`` and keep the best epoch in ``out``.

    Args:
        data: folder with train/ and val/, or with class folders alone (then split).
        out: run directory; must hold no checkpoint yet.
        backbone: any timm or torchvision name, or ``efficientnet_lite0`` (bundled).
        weights: ``default``, ``none`` or a file.
        epochs: passes over the augmented training images after the probe; 0 keeps the probe.
        size: image side in pixels; None: what the weights expect.

    Raises:
        DataError: the folder cannot be used.
        WeightsError: the weights cannot be had.
        RecordError: ``out`` already holds a checkpoint.
    """
    screen = console or Console(quiet=True)
    if (out / WEIGHTS).exists():
        raise RecordError(f"{out} already holds a checkpoint: choose another --out, nothing is overwritten")
    table = load_folder(data, seed, lambda files: _bar(files, "reading images", screen))
    for line in table.report.lines():
        screen.print(line, markup=False)
    torch.manual_seed(seed)
    loaded = create_model(backbone, len(table.classes), weights, lambda text: screen.print(text, markup=False))
    if loaded.weights is not None:
        screen.print(loaded.weights.line(), markup=False)
    preprocessing = loaded.preprocessing.at(size)
    out.mkdir(parents=True, exist_ok=True)
    return _Program(table, loaded, preprocessing, out, backbone, batch_size, num_workers, seed, screen).run(epochs)


class _Program:
    """The state of one training."""

    def __init__(
        self,
        table: ImageTable,
        loaded: LoadedModel,
        preprocessing: Preprocessing,
        out: Path,
        backbone: str,
        batch_size: int,
        num_workers: int,
        seed: int,
        screen: Console,
    ) -> None:
        self.table, self.preprocessing, self.out, self.backbone = table, preprocessing, out, backbone
        self.seed, self.screen = seed, screen
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self.head = loaded.model.to(self.device), loaded.head
        for parameter in self.model.parameters():
            parameter.requires_grad = False
        for parameter in self.head.parameters():
            parameter.requires_grad = True
        plain = preprocessing.eval_transform()
        train_set = ImageDataset(*table.part(val=False), table.classes, preprocessing.train_transform())
        plain_set = ImageDataset(*table.part(val=False), table.classes, plain)
        val_set = ImageDataset(*table.part(val=True), table.classes, plain)
        shared: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers}
        order = torch.Generator().manual_seed(seed)
        self.train_loader = DataLoader(train_set, shuffle=True, generator=order, **shared)
        self.plain_loader = DataLoader(plain_set, **shared)
        self.val_loader = DataLoader(val_set, **shared)
        self.criterion = nn.CrossEntropyLoss()
        self.rows: list[EpochRow] = []

    def run(self, epochs: int) -> TrainResult:
        """Probe, then the loop; Ctrl-C keeps the best so far."""
        features, labels = self.frozen_features()
        probe = fit_probe(features.numpy(), labels.numpy(), len(self.table.classes), RECIPE, self.seed)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(probe.weight))  # type: ignore[operator]
            self.head.bias.copy_(torch.from_numpy(probe.bias))  # type: ignore[operator]
        self.screen.print(
            f"probe: cross-validated on train {probe.train_accuracy:.1%} at inverse L2 {probe.inverse_l2:g}",
            markup=False,
        )
        self.screen.print(f"{'epoch':>5}  {'train re-scored':>15}  {'val':>6}  {'95 % interval':>16}  {'val loss':>8}")
        interrupted = False
        try:
            self.finish_epoch(0, features, labels)
            optimizer = torch.optim.AdamW(self.head.parameters(), lr=RECIPE.learning_rate, weight_decay=RECIPE.weight_decay)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * len(self.train_loader)))
            for epoch in range(1, epochs + 1):
                self.train_epoch(epoch, optimizer, schedule)
                self.finish_epoch(epoch, features, labels)
        except KeyboardInterrupt:
            if not self.rows:
                raise
            interrupted = True
            self.screen.print("interrupted: the best epoch so far is kept")
        best = self.best()
        self.screen.print(
            f"best: epoch {best.epoch}, val accuracy {best.val_accuracy:.1%} ({best.val_low:.1%} .. {best.val_high:.1%}); "
            "chosen on val, so a little optimistic",
            markup=False,
        )
        return TrainResult(self.out, best, tuple(self.rows), probe, interrupted)

    def frozen_features(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (N, D) and labels (N,) of the training images: one pass in eval mode."""
        self.model.eval()
        found: list[torch.Tensor] = []
        labels: list[torch.Tensor] = []
        catch = self.head.register_forward_pre_hook(lambda _, args: found.append(args[0].detach().float().cpu()))
        with torch.no_grad():
            for images, target in _bar(self.plain_loader, "features", self.screen):
                self.model(images.to(self.device))
                labels.append(target)
        catch.remove()
        return torch.cat(found), torch.cat(labels)

    def train_epoch(self, epoch: int, optimizer: torch.optim.Optimizer, schedule: Any) -> None:
        """One pass over the augmented images; the frozen backbone and its BatchNorm stay in eval mode."""
        self.model.eval()
        self.head.train()
        for images, target in _bar(self.train_loader, f"epoch {epoch}", self.screen):
            optimizer.zero_grad()
            loss = self.criterion(self.model(images.to(self.device)), target.to(self.device))
            loss.backward()
            optimizer.step()
            schedule.step()

    def finish_epoch(self, epoch: int, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Re-score train on the frozen features, validate, and keep the epoch if it is the best."""
        self.model.eval()
        right, loss, seen = 0, 0.0, 0
        with torch.no_grad():
            rescored = float((self.head(features.to(self.device)).argmax(1).cpu() == labels).float().mean())
            for images, target in _bar(self.val_loader, "validation", self.screen):
                logits = self.model(images.to(self.device))
                target = target.to(self.device)
                loss += float(self.criterion(logits, target)) * len(target)
                right += int((logits.argmax(1) == target).sum())
                seen += len(target)
        low, high = wilson_interval(right, seen)
        row = EpochRow(epoch, rescored, right / seen, low, high, loss / seen)
        self.rows.append(row)
        self.screen.print(
            f"{epoch:5d}  {rescored:15.1%}  {row.val_accuracy:6.1%}  {low:7.1%} .. {high:5.1%}  {row.val_loss:8.4f}",
            markup=False,
            highlight=False,
        )
        if self.best() is row:
            save(self.out, self.model, self.facts(row), self.preprocessing)

    def best(self) -> EpochRow:
        """The epoch with the best val accuracy; of equals the one with the lowest val loss."""
        return max(self.rows, key=lambda r: (r.val_accuracy, -r.val_loss))

    def facts(self, row: EpochRow) -> dict[str, Any]:
        """What the checkpoint says of itself."""
        packages = ("valgap", "torch", "torchvision", "timm")
        return {
            "backbone": self.backbone,
            "classes": list(self.table.classes),
            "recipe": asdict(RECIPE),
            "seed": self.seed,
            "epoch": asdict(row),
            "versions": {name: importlib.metadata.version(name) for name in packages},
        }


def _bar(items: Sequence[Item] | Iterable[Item], what: str, screen: Console) -> Iterator[Item]:
    """The items, with a progress bar where the screen is a terminal."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        yield from progress.track(items, total=len(items))  # type: ignore[arg-type]
