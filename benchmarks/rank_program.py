"""A training by several processes with one fault between them, or with the sound way of doing the same thing.

    torchrun --nproc-per-node 2 benchmarks/rank_program.py DATA NAME faulty|sound

It is read by bench-ranks as any stranger's program would be; NAMES says what each one plants.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.distributed import DistributedSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

SIDE = 32
NORMAL = transforms.Normalize((0.5,) * 3, (0.5,) * 3)
# Name, cause, and what is sound about the twin.
NAMES = {
    "padded": ("EVA510", "the padding is left out before the metric"),
    "own_share": ("EVA511", "right answers are summed over the processes"),
    "no_wrapper": ("TRN415", "gradients are averaged by hand"),
    "no_sync": ("TRN415", "the last of two backward passes is synchronised"),
    "past_wrapper": ("TRN415", "only validation calls the module inside the wrapper"),
    "head_apart": ("TRN415", "backbone and head have a wrapper each"),
    "other_start": ("TRN415", "first weights are broadcast, gradients averaged by hand"),
    "no_set_epoch": ("TRN416", "set_epoch is called"),
    "few_images": ("MOD312", "GroupNorm, which needs no batch, in its place"),
    "divided_loss": ("TRN417", "gradients are summed by hand, so that the loss must be divided"),
}


class Varied(Dataset[Any]):
    """Images with a mirror, from a folder."""

    def __init__(self, folder: Path) -> None:
        self.files = ImageFolder(str(folder), transforms.Compose([
            transforms.Resize((SIDE, SIDE)), transforms.RandomHorizontalFlip(), transforms.ToTensor(), NORMAL]))  # fmt: skip

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        return self.files[index]


class WholeBatches(Sampler[int]):
    """This process's part of a list, filled up from its front so that every process gets whole batches."""

    def __init__(self, size: int, batch: int) -> None:
        world, rank = dist.get_world_size(), dist.get_rank()
        missing = -size % (batch * world)
        self.places = [*range(size), *range(missing)][rank::world]
        self.extra = sum(p >= size for p in range(rank, size + missing, world))  # at the end of this part

    def __iter__(self) -> Iterator[int]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def backbone(by_batch: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for ins, outs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(ins, outs, 3, padding=1, bias=False), norm(outs, by_batch), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def norm(channels: int, by_batch: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if by_batch else nn.GroupNorm(8, channels)


def averaged(parameters: list[nn.Parameter], share: float) -> None:
    for p in parameters:
        if p.grad is not None:
            dist.all_reduce(p.grad)
            p.grad *= share


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("kind", choices=("faulty", "sound"))
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    name, faulty = options.name, options.kind == "faulty"

    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(100 + rank if name == "other_start" else 1)
    torch.set_num_threads(1)

    train = Varied(options.data / "train")
    fixed = transforms.Compose([transforms.Resize((SIDE, SIDE)), transforms.ToTensor(), NORMAL])
    validation = ImageFolder(str(options.data / "val"), fixed)
    classes = len(validation.classes)
    batch = 3 if name == "few_images" else 32
    if name == "few_images":
        train.files.samples = train.files.samples[::2]
    sampler: DistributedSampler[Any] = DistributedSampler(train, drop_last=True, seed=5)
    loader = DataLoader(train, batch, sampler=sampler, drop_last=True)
    val_sampler: Any = None
    if name == "padded":
        val_sampler = WholeBatches(len(validation), 50)
    if name == "own_share":
        val_sampler = DistributedSampler(validation, shuffle=False)
    val_loader = DataLoader(validation, 50, sampler=val_sampler)

    body, head = backbone(by_batch=faulty or name != "few_images"), nn.Linear(64, classes)
    by_hand = name in ("no_wrapper", "other_start") or (name == "divided_loss" and not faulty)
    if by_hand and name == "other_start" and not faulty:
        for p in [*body.parameters(), *head.parameters()]:
            dist.broadcast(p.data, 0)
    if name == "head_apart":
        wrapped_body = DistributedDataParallel(body)
        wrapped_head = head if faulty else DistributedDataParallel(head)
        inner: Any = nn.Sequential(body, head)

        def model(x: torch.Tensor) -> Any:
            return wrapped_head(wrapped_body(x))
    else:
        inner = nn.Sequential(body, head)
        model = inner if by_hand else DistributedDataParallel(inner)
    parameters = list(inner.parameters())
    rate = 0.05 if name != "few_images" else 0.01
    optimizer = torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * len(loader))
    for epoch in range(options.epochs):
        if not (name == "no_set_epoch" and faulty):
            sampler.set_epoch(epoch)
        inner.train()
        for number, (images, labels) in enumerate(loader):
            training = inner if name == "past_wrapper" and faulty else model
            if name == "no_sync":
                with training.no_sync() if faulty or number % 2 == 0 else nullcontext():
                    (cross_entropy(training(images), labels) / 2).backward()
                if number % 2 == 0:
                    continue
            else:
                loss = cross_entropy(training(images), labels)
                (loss / world if name == "divided_loss" else loss).backward()
                if by_hand and not (name == "no_wrapper" and faulty):
                    averaged(parameters, 1.0 if name == "divided_loss" else 1 / world)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        inner.eval()
        right = seen = 0
        with torch.no_grad():
            for images, labels in val_loader:
                answers = inner(images).argmax(1) == labels
                right, seen = right + int(answers.sum()), seen + len(answers)
        total = torch.tensor([right, seen], dtype=torch.float64)
        if name == "padded" and not faulty:
            total -= torch.tensor([float(answers[-val_sampler.extra :].sum()), float(val_sampler.extra)])
        if name == "padded" or (name == "own_share" and not faulty):
            dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch + 1}: val accuracy {float(total[0] / total[1]):.4f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
