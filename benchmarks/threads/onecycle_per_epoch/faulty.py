"""CIFAR with a small ResNet and the one-cycle policy."""
import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset


class Res(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a, self.b = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.na, self.nb = nn.BatchNorm2d(c), nn.BatchNorm2d(c)

    def forward(self, x):
        return F.relu(x + self.nb(self.b(F.relu(self.na(self.a(x))))))


class Small(nn.Module):
    def __init__(self, w=16):
        super().__init__()
        self.stem = nn.Conv2d(3, w, 3, 2, 1)
        self.r1, self.down, self.r2 = Res(w), nn.Conv2d(w, 2 * w, 3, 2, 1), Res(2 * w)
        self.out = nn.Linear(2 * w, 10)

    def forward(self, x):
        x = self.r2(self.down(self.r1(F.relu(self.stem(x)))))
        return self.out(x.mean((2, 3)))


def folder(root, every=1):
    xs, ys = [], []
    for c, d in enumerate(sorted(p for p in root.iterdir() if p.is_dir())):
        for f in sorted(d.iterdir())[::every]:
            xs.append(np.array(Image.open(f).convert("RGB")))
            ys.append(c)
    x = torch.tensor(np.array(xs)).permute(0, 3, 1, 2).float().sub(121).div(64)
    return TensorDataset(x, torch.tensor(ys))


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--data", type=Path)
    ap.add_argument("--epochs", type=int, default=10)
    args = ap.parse_args()
    torch.manual_seed(0)
    train_dl = DataLoader(folder(args.data / "train"), batch_size=64, shuffle=True)
    val_dl = DataLoader(folder(args.data / "val"), batch_size=250)
    model = Small()
    opt = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    sched = OneCycleLR(opt, max_lr=0.3, steps_per_epoch=len(train_dl), epochs=args.epochs)
    for epoch in range(args.epochs):
        model.train()
        for x, y in train_dl:
            if torch.rand(1) < 0.5:
                x = x.flip(3)
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            opt.step()
        sched.step()
        model.eval()
        with torch.no_grad():
            n_right = sum(int((model(x).argmax(1) == y).sum()) for x, y in val_dl)
        print({"epoch": epoch, "lr": round(opt.param_groups[0]["lr"], 5), "val_acc": n_right / len(val_dl.dataset)})
