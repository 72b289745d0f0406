"""The one training loop: a module on a loader, validated each epoch, resumable to the same bits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import DataLoader

from valgap.engine.extract import is_out_of_memory
from valgap.engine.forward import has_bfloat16
from valgap.recipe import Recipe
from valgap.training.ranks import ALONE, Ranks, own_share
from valgap.training.saved import FitStore, below, damage_is_said, put_optimizer
from valgap.training.scores import errors_gained, losses, nll
from valgap.training.stages import make_optimizer

# Under a time limit the first steps are timed, and the schedule is cut to what fits into this share of the rest.
TIMED_STEPS = 4
TRAINING_SHARE = 0.75

Logits = npt.NDArray[np.float32]
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class EpochRow:
    """One line of the table: accuracies 0..1, losses in nats. Epoch 0 is the state before the loop, such as the probe."""

    epoch: int
    train_loss: float  # running, as trained; nan for epoch 0
    val_accuracy: float
    val_loss: float


# Val puts the probe back where the mean rise of its loss is so many of its standard errors: held-out train cannot see that
# validation images are of another kind. A rise of next to nothing, where both are nearly perfect, is no sign of that.
CLEARLY, LEAST_RISE = 2.0, 0.01


@dataclass
class Watch:
    """Time, and what is told on the way."""

    deadline: float = math.inf  # time.monotonic() at which the loop must have ended
    bar: Callable[[Iterable[Any], str], Iterator[Any]] = field(default=lambda items, what: iter(items))
    row: Callable[[EpochRow], None] = field(default=lambda row: None)
    say: Callable[[str], None] = field(default=lambda text: None)
    # Entered for what is no part of the training itself, so that a recorder may look away.
    aside: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class Course:
    """How far a training goes, where held-out train said so: its last epoch, and how far from the first weights to the last.

    Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", section 3 (WiSE-FT).
    """

    epochs: int
    share: float  # 0: the weights that it began with; 1: those that it ended with
    temperature: float = 1.0  # of the logits there
    probe_temperature: float = 1.0  # of those that it began with


@dataclass
class FitResult:
    """Where the loop ended: the module holds the chosen weights."""

    rows: list[EpochRow]
    chosen: str  # such as "epoch 3"
    val_logits: Logits
    ended: str  # "", or why it ended early
    refused: str = ""  # "", or why val put the first weights back


class Fit:
    """Trains what has gradients in ``module``; ``head`` is its last layer, with a rate of its own."""

    def __init__(
        self,
        module: nn.Module,
        head: nn.Module,
        train_loader: DataLoader[Any],
        val_loader: DataLoader[Any],
        recipe: Recipe,
        epochs: int,
        seed: int,
        store: FitStore | None,
        watch: Watch,
        ranks: Ranks = ALONE,
        known: Logits | None = None,
        course: Course | None = None,
    ) -> None:
        """``known``: the val logits (N, C) of the module as it is now, where they need not be found out again.

        With a ``course`` val only measures; without one it chooses among the epochs.
        """
        self.ranks, self.known, self.course = ranks, known, course
        self.begin = {k: v.clone() for k, v in _moving(module)}
        self.module, self.head, self.recipe, self.epochs, self.seed = module, head, recipe, epochs, seed
        self.train_loader, self.val_loader, self.store, self.watch = train_loader, val_loader, store, watch
        self.device = next(head.parameters()).device
        self.val_labels = np.array([y for _, y in val_loader.dataset.samples], np.int64)  # type: ignore[attr-defined]
        self.optimizer = make_optimizer(module, head, recipe)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.total_steps = max(1, epochs * len(train_loader))
        self.step = 0
        self.micro_batch = recipe.batch_size
        self.rows: list[EpochRow] = []
        self.best: list[tuple[int, State, Logits]] = []  # of the lowest val losses, best first
        self.refused = ""
        self.mean: State | None = None  # the moving average, where the recipe asks for one

    def run(self) -> FitResult:
        """Train, choose, and leave the chosen weights in the module. Ctrl-C and the deadline keep the best so far."""
        found = self.ranks.same(self.store.read) if self.store is not None else None
        if found is not None and self.store is not None:
            with damage_is_said(self.store.folder):
                self.restore(found)
        # Where a resumed run's processes lie on other machines, or a library drew weights otherwise, they begin alike.
        self.ranks.spread(self.module.state_dict().values())
        if found is None:
            self.finish_epoch(0, float("nan"))
        ended = ""
        try:
            for epoch in range(len(self.rows), (self.course.epochs if self.course is not None else self.epochs) + 1):
                if self.step >= self.total_steps and epoch > 1:
                    ended = "the time is up"
                    break
                ended = self.tired()
                if ended:
                    break
                loss = self.train_epoch(epoch)
                if loss is None:
                    ended = "the time is up"
                    break
                self.finish_epoch(epoch, loss)
        except KeyboardInterrupt:
            if self.ranks.world > 1:  # the others may be anywhere: what is on disk can be resumed
                raise
            ended = "interrupted"
        chosen, logits = self.choose()
        return FitResult(self.rows, chosen, logits, ended, self.refused)

    def tired(self) -> str:
        """Why no further epoch is worth its time, such as a val loss that has not fallen for long; "" where it is."""
        course = [r.val_loss for r in self.rows]
        waited = self.course is None and len(course) - 1 - int(np.argmin(course)) >= self.recipe.patience
        return f"no lower loss for {self.recipe.patience} epochs" if waited else ""

    def rate(self) -> float:
        """The share of each group's rate at this step: warm-up, then the schedule. Source: Loshchilov and Hutter 2017."""
        warm = min(self.recipe.warmup_steps, self.total_steps // 10)
        if self.step < warm:
            return (self.step + 1) / (warm + 1)
        if self.recipe.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (self.step - warm) / max(1, self.total_steps - warm)))

    def train_epoch(self, epoch: int) -> float | None:
        """The mean loss of one pass; None when the deadline came first. Random numbers depend on seed and epoch alone."""
        torch.manual_seed(self.seed * 100_003 + epoch)
        generator = self.train_loader.generator
        if generator is not None:
            generator.manual_seed(self.seed * 100_003 + epoch)
        self.train_loader.dataset.epoch = epoch  # type: ignore[attr-defined]
        base = [g.setdefault("base_lr", g["lr"]) for g in self.optimizer.param_groups]
        self.module.train()
        total, seen, started = 0.0, 0, time.monotonic()
        for number, (images, target) in enumerate(self.watch.bar(self.train_loader, f"epoch {epoch}/{self.epochs}")):
            if self.is_late():
                return None
            for group, rate in zip(self.optimizer.param_groups, base, strict=True):
                group["lr"] = rate * self.rate()
            whole = self.batch_of(number, len(target))
            total += self.learn(images.to(self.device), target.to(self.device), whole) * whole
            seen += whole
            self.step += 1
            self.follow()
            if self.step == TIMED_STEPS and math.isfinite(self.watch.deadline):
                self.total_steps = self.ranks.same(lambda: self.shortened((time.monotonic() - started) / TIMED_STEPS))
            if self.step >= self.total_steps:
                break
        return self.ranks.total(total, self.device) / max(1, seen)

    def is_late(self) -> bool:
        """Whether the deadline is over, by the first process's clock."""
        return math.isfinite(self.watch.deadline) and self.ranks.same(lambda: time.monotonic() > self.watch.deadline)

    def batch_of(self, number: int, own: int) -> int:
        """Images in the whole batch of that number, of which this process has ``own``."""
        if self.ranks.world == 1:
            return own
        size = self.recipe.batch_size
        return min(size, len(self.train_loader.dataset) - number * size)  # type: ignore[arg-type]

    def shortened(self, step_s: float) -> int:
        """Steps after which the schedule ends within the time that is left, of which a part goes to validation and scores."""
        left = TRAINING_SHARE * (self.watch.deadline - time.monotonic()) / step_s
        return max(self.step, min(self.total_steps, self.step + int(left)))

    def learn(self, images: torch.Tensor, target: torch.Tensor, whole: int) -> float:
        """One optimizer step on a batch of ``whole`` images; returns the loss, or this process's part of it."""
        if self.ranks.world > 1:
            own = own_share(whole, self.ranks)
            images, target = images[:own], target[:own]
        loss = self.gradients(images, target, whole)
        self.ranks.add_gradients(self.learned().values())
        nn.utils.clip_grad_norm_(self.learned().values(), self.recipe.clip_norm)
        self.optimizer.step()
        return loss

    def gradients(self, images: torch.Tensor, target: torch.Tensor, whole: int) -> float:
        """The gradients of the batch's mean loss, and the loss. Where memory runs out, the images go through in halves."""
        while True:
            try:
                self.optimizer.zero_grad()
                return float(sum(self.part_loss(x, y, whole) for x, y in self.parts(images, target)))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.micro_batch == 1:
                    raise
            self.micro_batch = max(1, min(self.micro_batch, len(target)) // 2)
            self.watch.say(f"out of memory: batches now go through the network in parts of {self.micro_batch} images")

    def parts(self, images: torch.Tensor, target: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batch, or its parts where it does not fit into memory."""
        if self.micro_batch >= len(target):
            if len(target):
                yield images, target
        else:
            yield from zip(images.split(self.micro_batch), target.split(self.micro_batch), strict=True)

    def part_loss(self, images: torch.Tensor, target: torch.Tensor, whole: int) -> float:
        """The part's share of the batch's mean loss, back-propagated."""
        other = target
        share = 1.0
        if self.recipe.mixup > 0:
            share = float(torch.distributions.Beta(self.recipe.mixup, self.recipe.mixup).sample())
            order = torch.randperm(len(target), device=target.device)
            images, other = share * images + (1 - share) * images[order], target[order]
        with learning_precision(self.device, self.recipe.precision):
            logits = self.module(images)
        logits = logits.float()
        loss = self.criterion(logits, target)
        if share < 1.0:
            loss = share * loss + (1 - share) * self.criterion(logits, other)
        loss = loss * (len(target) / whole)
        loss.backward()
        return float(loss.detach())

    def follow(self) -> None:
        """Let the moving average follow."""
        if self.recipe.ema <= 0:
            return
        learned = self.learned()
        if self.mean is None:
            self.mean = {k: v.detach().clone() for k, v in learned.items()}
        for name, value in learned.items():
            self.mean[name].lerp_(value.detach(), 1 - min(self.recipe.ema, (1 + self.step) / (10 + self.step)))

    def learned(self) -> State:
        """The parameters that have gradients, by name."""
        return {k: p for k, p in self.module.named_parameters() if p.requires_grad}

    def put(self, state: State) -> None:
        """Put these values into the module."""
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                if name in state:
                    parameter.copy_(state[name])

    def finish_epoch(self, epoch: int, train_loss: float) -> None:
        """Validate, keep the epoch if it is among the best, and save what a resumed run needs."""
        # BatchNorm that is not held saw another part of each batch in every process: the first one's counts.
        self.ranks.spread(self.module.buffers())
        current = {k: v.detach().clone() for k, v in self.learned().items()}
        if self.mean is not None:
            self.put(self.mean)
        logits = self.validate() if epoch or self.known is None else self.known
        state = {k: v.detach().clone() for k, v in self.learned().items()}
        self.put(current)
        row = EpochRow(epoch, train_loss, *self.measured(logits))
        self.rows.append(row)
        if self.course is not None:
            self.best = [(epoch, state, logits)]
        else:
            self.best = sorted([*self.best, (epoch, state, logits)], key=lambda b: self.rows[b[0]].val_loss)
            self.best = self.best[: self.recipe.average_best]
        self.watch.row(row)
        if self.store is not None and self.ranks.first:
            self.store.keep(self)

    def validate(self) -> Logits:
        """(N, C) logits of the validation images, in order."""
        return logits_of(self.module, self.val_loader, self.device, self.watch, self.ranks)

    def measured(self, logits: Logits) -> tuple[float, float]:
        """(accuracy 0..1, loss in nats) of what these logits (N, C) say of the validation images."""
        return float((logits.argmax(1) == self.val_labels).mean()), nll(logits, self.val_labels)

    def choose(self) -> tuple[str, Logits]:
        """(what was chosen, its val logits): of the best epochs and their mean, the most accurate, then the lowest loss.

        With a course: its share of the way from the first weights to those of the last whole epoch.
        """
        if self.course is not None:
            epoch, state, _ = self.best[0]
            self.put(state)
            self.mix(self.course.share)
            way = "" if self.course.share == 1 or not epoch else f", {self.course.share:.2f} of the way there from the probe"
            logits = self.validate()
            self.refused = self.ranks.same(lambda: self.clearly_worse(logits)) if epoch else ""
            if self.refused and self.known is not None:
                self.mix(0.0)
                return "epoch 0", self.known
            return f"epoch {epoch}{way}", logits
        options = [(f"epoch {epoch}", state, logits) for epoch, state, logits in self.best]
        if len(options) > 1:
            mean = {k: torch.stack([s[k] for _, s, _ in self.best]).mean(0) for k in self.best[0][1]}
            self.put(mean)
            numbers = ", ".join(str(e) for e in sorted(e for e, _, _ in self.best))
            with self.watch.aside():
                options.insert(0, (f"mean of epochs {numbers}", mean, self.validate()))
        name, state, _ = max(options, key=lambda o: (self.measured(o[2])[0], -self.measured(o[2])[1]))
        self.put(state)
        # Once more, though it is known: BatchNorm that was not held has moved on since, and a record ends with what is kept.
        return name, self.validate()

    def clearly_worse(self, logits: Logits) -> str:
        """Why the first weights are to be kept, where val, whose images may be others than train's, clearly says so; else ""."""
        if self.known is None or self.course is None or not len(self.val_labels):
            return ""
        pairs = ((self.known, self.course.probe_temperature), (logits, self.course.temperature))
        before, after = (losses(z / t, self.val_labels) for z, t in pairs)
        rise = after - before
        if not np.isfinite(after).all() or (errors_gained(rise) > CLEARLY and rise.mean() > LEAST_RISE):
            return f"validation's loss rose from {before.mean():.3f} to {after.mean():.3f}"
        return ""

    def mix(self, share: float) -> None:
        """Move the module to this share of the way from where it began to where it is."""
        if share != 1:
            for name, value in _moving(self.module):
                value.copy_(self.begin[name].lerp(value, share))

    def restore(self, found: tuple[dict[str, Any], State]) -> None:
        """Go on from what `FitStore.read` found."""
        place, tensors = found
        self.put(below(tensors, "now/"))
        self.mean = {k: v.to(self.device) for k, v in below(tensors, "mean/").items()} or None
        self.best = [(n, below(tensors, f"best/{n}/"), tensors[f"logits/{n}"].numpy()) for n in place["best"]]
        self.step, self.micro_batch = place["step"], place["micro_batch"]
        self.rows = [EpochRow(**r) for r in place["rows"]]
        put_optimizer(self.optimizer, tensors)
        for row in self.rows:
            self.watch.row(row)

    def facts(self) -> dict[str, Any]:
        """The loop's place, for a resumed run."""
        return {"step": self.step, "micro_batch": self.micro_batch, "rows": [asdict(r) for r in self.rows]}


def _moving(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """What may move in a training, by name: parameters with gradients, and the statistics of BatchNorm."""
    yield from ((k, p.detach()) for k, p in module.named_parameters() if p.requires_grad)
    yield from ((k, b) for k, b in module.named_buffers() if b.is_floating_point())


def learning_precision(device: torch.device, asked: Literal["auto", "fp32", "bf16"]) -> torch.autocast:
    """bf16 autocast as asked; ``auto``: on CUDA, and on processors that have instructions for it (emulated it is slower)."""
    fast = device.type == "cuda" or (device.type == "cpu" and has_bfloat16())
    return torch.autocast(device.type, torch.bfloat16, enabled={"auto": fast, "bf16": True, "fp32": False}[asked])


def scoring_precision(device: torch.device) -> torch.autocast:
    """bf16 autocast on CUDA; float32 elsewhere, as the model's users will score."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def logits_of(module: nn.Module, loader: DataLoader[Any], device: torch.device, watch: Watch, ranks: Ranks = ALONE) -> Logits:
    """(N, C) float32 logits in eval mode, of all images in order; each process answers its part."""
    module.eval()
    found = []
    with torch.no_grad(), scoring_precision(device):
        for images, _ in watch.bar(loader, "validation"):
            found.append(module(images.to(device)).float().cpu().numpy())
    return ranks.whole(np.concatenate(found) if found else None, len(loader.dataset))  # type: ignore[arg-type]


def logits_of_rows(head: nn.Module, features: npt.NDArray[np.float32], device: torch.device) -> npt.NDArray[np.float32]:
    """(N, C) logits of features (N, D)."""
    head.eval()
    with torch.no_grad():
        found: npt.NDArray[np.float32] = head(torch.from_numpy(np.array(features)).to(device)).float().cpu().numpy()
    return found
