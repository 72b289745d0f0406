"""PyTorch Lightning with its Trainer."""

import logging
import sys
import warnings

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 3)
        )
        self.hits, self.seen = 0, 0

    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, _):
        x, y = batch
        self.hits += int((self.net(x).argmax(1) == y).sum())
        self.seen += len(y)

    def on_validation_epoch_end(self):
        print(f"val acc {self.hits / self.seen:.6f}")
        self.hits, self.seen = 0, 0

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


if __name__ == "__main__":
    L.seed_everything(4, verbose=False)
    t = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])
    train, val = (datasets.ImageFolder(f"{sys.argv[1]}/{s}", t) for s in ("train", "val"))
    model = Classifier()
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, DataLoader(train, 8, shuffle=True), DataLoader(val, 8))
    print("weights", sum(p.double().sum().item() for p in model.parameters()))
