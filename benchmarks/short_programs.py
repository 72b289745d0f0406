"""Small training programs that end early: healthy long recipes cut short, and faults that show even in so little.

Images are made up (smooth patterns, one a class, with noise), so that no data are needed; networks are tiny. A program is
told in words, the fields of ``Program``; benchmarks/short_runs.py records them and asks every check.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

SIDE = 32
MEAN, STD = 0.45, 0.25


@dataclass(frozen=True)
class Program:
    """One program; ``kind`` names what it is for, ``fault`` what is planted (empty: healthy)."""

    kind: str
    seed: int = 0
    classes: int = 10
    images: int = 200
    val_images: int = 80
    batch: int = 16
    epochs: int = 1
    steps: int = 0  # batches an epoch after which the loop breaks off; 0: none
    val_batches: int = 0  # the same for validation
    sorted_val: bool = True
    named: bool = False  # whether the data sets have class_to_idx
    network: str = "bn"  # bn, plain, group, dropout
    start: str = "scratch"  # scratch, pretrained, frozen, calibrated
    optimizer: str = "sgd"
    rate: float = 0.05
    decay: float = 1e-4
    schedule: str = "none"
    per: str = "epoch"  # where the schedule is stepped
    accumulate: int = 1
    loss: str = "plain"  # plain, smooth, mixup, binary
    average: float = 0.0  # decay of an average of the weights
    validates: str = "each"  # each, last, before, average, test, fresh_test
    scaler: bool = False
    outputs: int = 0
    fault: str = ""


class Pictures(Dataset[Any]):
    """Patterns of classes with noise, normalised."""

    def __init__(self, program: Program, n: int, offset: int, ordered: bool) -> None:
        draw = torch.Generator().manual_seed(1000 + offset)
        shared = torch.Generator().manual_seed(7)
        coarse = torch.rand(program.classes, 3, 4, 4, generator=shared)
        self.patterns = F.interpolate(coarse, SIDE, mode="bilinear", align_corners=True)
        self.targets = torch.randint(program.classes, (n,), generator=draw).tolist()
        if ordered:
            self.targets.sort()
        fine = F.interpolate(torch.rand(n, 3, 8, 8, generator=draw), SIDE, mode="bilinear", align_corners=True)
        images = 0.5 * self.patterns[self.targets] + 0.5 * fine
        images = images * (0.7 + 0.3 * torch.rand(n, 1, 1, 1, generator=draw))
        self.images = (255 * images).round() / 255
        self.mean, self.std, self.gain = MEAN, STD, 1.0
        self.scramble = False
        if program.named:
            self.class_to_idx = {f"kind {i:04d}": i for i in range(program.classes)}

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        image = (self.images[i] * self.gain - self.mean) / self.std
        if self.scramble:
            image = image.permute(1, 2, 0).reshape(3, SIDE, SIDE)
        return image, self.targets[i]


def norm(kind: str, channels: int) -> nn.Module:
    """A layer of normalisation of this kind."""
    return {"bn": nn.BatchNorm2d(channels), "group": nn.GroupNorm(4, channels)}.get(kind, nn.Identity())


class Net(nn.Module):
    """Three convolutions and a linear head."""

    def __init__(self, kind: str, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in ((3, 8), (8, 16), (16, 32)):
            layers += [nn.Conv2d(a, b, 3, 2, 1), norm("bn" if kind == "dropout" else kind, b), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.drop = nn.Dropout(0.3) if kind == "dropout" else nn.Identity()
        self.head = nn.Linear(128, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.features(x)))


GIVEN: dict[str, Any] = {}


def given_weights(kind: str) -> Any:
    """Weights of a network that was taught other patterns; made once, outside of any record."""
    if kind not in GIVEN:
        state = torch.get_rng_state()
        torch.manual_seed(99)
        data = Pictures(Program("given", classes=12), 400, 50, False)
        net, images = Net(kind, 12), torch.stack([data[i][0] for i in range(400)])
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for step in range(120):
            chosen = torch.arange(step * 32, step * 32 + 32) % 400
            optimizer.zero_grad()
            F.cross_entropy(net(images[chosen]), torch.tensor(data.targets)[chosen]).backward()
            optimizer.step()
        GIVEN[kind] = {k: v for k, v in net.state_dict().items() if not k.startswith("head")}
        torch.set_rng_state(state)
    return GIVEN[kind]


def prepare(p: Program) -> None:
    """What is to be made before recording begins."""
    if p.start in ("pretrained", "frozen"):
        given_weights(p.network)


def make_optimizer(p: Program, net: nn.Module) -> torch.optim.Optimizer:
    """The optimizer by name."""
    wanted = [q for q in net.parameters() if q.requires_grad]
    if p.fault == "missing_head":
        wanted = list(net.features.parameters())  # type: ignore[union-attr,operator]
    if p.optimizer == "sgd":
        return torch.optim.SGD(wanted, p.rate, momentum=0.9, weight_decay=p.decay)
    if p.optimizer == "plain_sgd":
        return torch.optim.SGD(wanted, p.rate)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
    return kinds[p.optimizer](wanted, p.rate, weight_decay=p.decay)


def make_schedule(p: Program, optimizer: torch.optim.Optimizer, batches: int) -> Any:
    """The schedule by name; those of long recipes are for 90 epochs or 10,000 steps."""
    s = torch.optim.lr_scheduler
    whole = p.epochs * max(1, batches // p.accumulate)
    long = 90 if p.per == "epoch" else 10_000
    made: dict[str, Any] = {
        "none": lambda: None,
        "step": lambda: s.StepLR(optimizer, 30 if p.per == "epoch" else 3_000, 0.1),
        "step7": lambda: s.StepLR(optimizer, 7, 0.1),
        "multi": lambda: s.MultiStepLR(optimizer, [long // 3, 2 * long // 3], 0.1),
        "cosine": lambda: s.CosineAnnealingLR(optimizer, long),
        "cosine_own": lambda: s.CosineAnnealingLR(optimizer, p.epochs if p.per == "epoch" else whole),
        "onecycle": lambda: s.OneCycleLR(optimizer, p.rate, total_steps=long),
        "onecycle_own": lambda: s.OneCycleLR(optimizer, p.rate, total_steps=whole + 1),
        "warmup": lambda: s.LinearLR(optimizer, 0.001, total_iters=5 if p.per == "epoch" else 500),
        "warmup_cosine": lambda: s.SequentialLR(
            optimizer,
            [s.LinearLR(optimizer, 0.01, total_iters=long // 18), s.CosineAnnealingLR(optimizer, long - long // 18)],
            [long // 18],
        ),
        "lambda_warmup": lambda: s.LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / (5 if p.per == "epoch" else 500))),
        "exponential": lambda: s.ExponentialLR(optimizer, 0.97),
        "poly": lambda: s.PolynomialLR(optimizer, long, 0.9),
        "restarts": lambda: s.CosineAnnealingWarmRestarts(optimizer, 10 if p.per == "epoch" else 1_000),
        "plateau": lambda: s.ReduceLROnPlateau(optimizer, patience=10),
        "step1": lambda: s.StepLR(optimizer, 1, 0.3),
        "cosine_short": lambda: s.CosineAnnealingLR(optimizer, max(2, whole // 4)),
        "onecycle_steps": lambda: s.OneCycleLR(optimizer, p.rate, total_steps=whole),
        "cosine_steps": lambda: s.CosineAnnealingLR(optimizer, whole),
    }
    return made[p.schedule]()


def loss_of(p: Program, net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The loss of one batch."""
    if p.loss == "mixup":
        share, order = 0.7, torch.randperm(len(x))
        logits = net(share * x + (1 - share) * x[order])
        return share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[order])
    logits = net(x)
    if p.loss == "binary":
        if p.fault == "sigmoid":
            logits = logits.sigmoid()
        return F.binary_cross_entropy_with_logits(logits.flatten(), y.float())
    if p.fault == "softmax":
        logits = logits.softmax(1)
    if p.fault == "relu":
        logits = logits.relu()
    if p.fault == "nan":
        logits = logits / (logits - logits)
    return F.cross_entropy(logits, y, label_smoothing=0.1 if p.loss == "smooth" else 0.0)


class Training:
    """The program's objects and its loop."""

    def __init__(self, p: Program) -> None:
        self.p = p
        torch.manual_seed(p.seed)
        self.train_set = Pictures(p, p.images, 0, p.fault == "unshuffled")
        self.val_set = Pictures(p, p.val_images, 1, p.sorted_val)
        self._spoil_validation()
        if p.fault == "val_is_train":
            self.val_set = self.train_set
        self.train = DataLoader(self.train_set, p.batch, shuffle=p.fault != "unshuffled", drop_last=p.images >= p.batch)
        self.val = DataLoader(self.val_set, max(p.batch, 8))
        self.net = Net(p.network, 1 if p.loss == "binary" else p.outputs or p.classes)
        if p.start in ("pretrained", "frozen"):
            self.net.load_state_dict(given_weights(p.network), strict=False)
        if p.start == "frozen" or p.fault == "random_frozen":
            self.net.features.requires_grad_(False)
        self.optimizer = make_optimizer(p, self.net)
        self.schedule = make_schedule(p, self.optimizer, min(len(self.train), p.steps or len(self.train)))
        self.average = copy.deepcopy(self.net) if p.average else None
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=10_000) if p.scaler else None
        self.best: tuple[float, Any] = (-1.0, None)

    def _spoil_validation(self) -> None:
        data, fault = self.val_set, self.p.fault
        if fault == "unnormalized":
            data.mean, data.std = 0.0, 1.0
        elif fault == "range255":
            data.gain, data.mean, data.std = 255.0, 0.0, 1.0
        elif fault == "dark":
            data.images = (255 * data.images * 0.3).round() / 255
        elif fault == "scrambled":
            data.scramble = True
        elif fault == "shifted":
            data.class_to_idx = {name: (i + 1) % self.p.classes for name, i in data.class_to_idx.items()}
            data.targets = [(t + 1) % self.p.classes for t in data.targets]

    def epoch(self, number: int, loader: Any) -> None:
        """One pass of training."""
        p = self.p
        self.net.train()
        if p.start == "frozen" or (p.fault == "eval_training" and number):
            self.net.eval()
        self.optimizer.zero_grad()
        for i, (x, y) in enumerate(loader):
            if p.steps and i == p.steps:
                break
            loss = loss_of(p, self.net, x, y) / p.accumulate
            (self.scaler.scale(loss) if self.scaler else loss).backward()
            if (i + 1) % p.accumulate == 0 and p.fault != "never_step":
                self.step()
            elif p.fault == "never_step":
                self.optimizer.zero_grad()
        if self.schedule is not None and p.per == "epoch":
            self.schedule.step(*([loss.detach()] if p.schedule == "plateau" else []))

    def step(self) -> None:
        """One step of the optimizer and what goes with it."""
        p = self.p
        for _ in range(2 if p.fault == "two_steps" else 1):
            if self.scaler:
                self.scaler.step(self.optimizer)
                self.scaler.update()
            else:
                self.optimizer.step()
        if p.fault != "no_zero":
            self.optimizer.zero_grad()
        if self.average is not None:
            with torch.no_grad():
                for a, b in zip(self.average.state_dict().values(), self.net.state_dict().values(), strict=True):
                    a.copy_(p.average * a + (1 - p.average) * b) if a.is_floating_point() else a.copy_(b)
        if self.schedule is not None and p.per == "batch":
            self.schedule.step(*([1.0] if p.schedule == "plateau" else []))

    def validate(self, net: nn.Module, loader: Any = None, most: int = 0) -> float:
        """Accuracy on the validation data, or on as many batches."""
        if self.p.fault == "steps_on_val":
            self.epoch(0, self.val)
            return 0.0
        net.train(self.p.fault == "train_mode")
        right = n = 0
        with torch.no_grad():
            for i, (x, y) in enumerate(loader or self.val):
                if most and i == most:
                    break
                out = net(x)
                answer = (out.flatten() > 0).long() if self.p.loss == "binary" else out.argmax(1)
                F.cross_entropy(out, y) if out.shape[1] > 1 else F.binary_cross_entropy_with_logits(out.flatten(), y.float())
                right, n = right + int((answer == y).sum()), n + len(y)
        return right / max(1, n)

    def run(self) -> None:
        """All epochs."""
        p = self.p
        if p.validates == "before":
            self.validate(self.net, most=2)
        for number in range(p.epochs):
            self.epoch(number, self.train)
            if p.validates in ("each", "before", "test", "fresh_test") or number == p.epochs - 1:
                if self.average is not None:
                    self.validate(self.average, most=p.val_batches)
                if p.validates != "average":
                    accuracy = self.validate(self.net, most=p.val_batches)
                    if accuracy > self.best[0]:
                        kept = self.net.state_dict()
                        self.best = (accuracy, kept if p.fault == "references" else copy.deepcopy(kept))
        if p.validates in ("test", "fresh_test"):
            net = self.net if p.validates == "test" else Net(p.network, self.net.head.out_features)
            net.load_state_dict(self.best[1])
            self.validate(net, DataLoader(Pictures(p, p.val_images, 2, False), max(p.batch, 8)))


def run(p: Program) -> None:
    """Run one program."""
    training = Training(p)
    training.run()
    assert p.fault or math.isfinite(float(next(iter(training.net.parameters())).detach().sum())), "a healthy program blew up"
