"""PyTorch Lightning: one callback records the fit. Usage: python with_lightning.py DATA [--out RUN], then: valgap diagnose RUN"""

import argparse

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from valgap.integrations.lightning import ValgapCallback


class Classifier(L.LightningModule):
    def __init__(self, num_classes):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(256, num_classes),
        )

    def training_step(self, batch, _):
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def validation_step(self, batch, _):
        images, labels = batch
        self.log("val_acc", (self.net(images).argmax(1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--out")
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    L.seed_everything(0)
    prepare = transforms.Compose(
        [transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)]
    )
    train, val = (datasets.ImageFolder(f"{args.data}/{split}", prepare) for split in ("train", "val"))
    trainer = L.Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[ValgapCallback(out=args.out)],
    )
    trainer.fit(Classifier(len(train.classes)), DataLoader(train, 8, shuffle=True), DataLoader(val, 8))
    print(f"val acc {trainer.callback_metrics['val_acc'].item():.6f}")
