"""fastai over torch's own loaders and optimizer: one callback records the fit. Usage: python with_fastai.py DATA [--out RUN]"""

import argparse
from functools import partial

import torch
from fastai.vision.all import CrossEntropyLossFlat, DataLoaders, Learner, OptimWrapper, accuracy, set_seed
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from valgap.integrations.fastai import ValgapCallback

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--out")
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    set_seed(0)
    prepare = transforms.Compose(
        [transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)]
    )
    train, val = (datasets.ImageFolder(f"{args.data}/{split}", prepare) for split in ("train", "val"))
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(256, len(train.classes)),
    )
    learn = Learner(
        DataLoaders(DataLoader(train, 8, shuffle=True), DataLoader(val, 8), device="cpu"),
        net,
        loss_func=CrossEntropyLossFlat(),
        opt_func=partial(OptimWrapper, opt=torch.optim.Adam),
        metrics=accuracy,
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(args.epochs, 1e-2, cbs=ValgapCallback(out=args.out))
    print(f"val acc {learn.recorder.values[-1][-1]:.6f}")
