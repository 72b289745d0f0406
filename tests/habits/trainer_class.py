"""A Trainer class, mixed precision, gradient accumulation, a progress of its own."""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Linear(128, classes)

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


class Trainer:
    def __init__(self, model, train_loader, val_loader, lr, accumulate):
        self.model, self.train_loader, self.val_loader, self.accumulate = model, train_loader, val_loader, accumulate
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, lr, total_steps=20)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)

    def fit(self, epochs):
        for epoch in range(epochs):
            self.model.train()
            for i, batch in enumerate(self.train_loader):
                self.training_step(i, batch)
            print(f"epoch={epoch} val acc {self.validate():.6f}")

    def training_step(self, i, batch):
        x, y = batch
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.nll_loss(nn.functional.log_softmax(self.model(x).float(), dim=1), y)
        self.scaler.scale(loss / self.accumulate).backward()
        if (i + 1) % self.accumulate == 0:
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            self.scheduler.step()

    def validate(self):
        self.model.eval()
        right = total = 0
        with torch.inference_mode():
            for x, y in self.val_loader:
                right += int((self.model(x).argmax(1) == y).sum())
                total += y.numel()
        return right / total


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("data")
    p.add_argument("--workers", type=int, default=0)
    a = p.parse_args()
    torch.manual_seed(2)
    t = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32), transforms.ToTensor()])
    tr, va = (datasets.ImageFolder(f"{a.data}/{s}", t) for s in ("train", "val"))
    trainer = Trainer(
        Net(3),
        DataLoader(tr, 4, shuffle=True, num_workers=a.workers, persistent_workers=a.workers > 0),
        DataLoader(va, 8, num_workers=a.workers, persistent_workers=a.workers > 0),
        1e-3,
        2,
    )
    trainer.fit(2)
    print("weights", sum(p.double().sum().item() for p in trainer.model.parameters()))
