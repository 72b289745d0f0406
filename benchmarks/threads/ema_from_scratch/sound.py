"""Trains a small net; what is validated is the moving average of its weights, as in big recipes."""
import argparse
import copy
import math
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class Ema(nn.Module):
    def __init__(self, model, decay):
        super().__init__()
        self.module = copy.deepcopy(model).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, model):
        for mine, theirs in zip(self.module.state_dict().values(), model.state_dict().values()):
            mine.copy_(self.decay * mine + (1.0 - self.decay) * theirs)


def accuracy(model, loader):
    top1 = n = 0
    with torch.no_grad():
        for x, y in loader:
            top1 += (model(x).topk(1).indices[:, 0] == y).sum().item()
            n += y.numel()
    return 100 * top1 / n


p = argparse.ArgumentParser()
p.add_argument("--data", type=Path)
p.add_argument("--model-ema-decay", type=float, default=0.9)
p.add_argument("--epochs", type=int, default=16)
args = p.parse_args()
torch.manual_seed(42)
tail = [transforms.ToTensor(), transforms.Normalize([0.6, 0.55, 0.55], [0.2] * 3)]
train = datasets.ImageFolder(args.data / "train", transforms.Compose([transforms.RandomResizedCrop(48, (0.7, 1.0)), *tail]))
val = datasets.ImageFolder(args.data / "val", transforms.Compose([transforms.Resize(54), transforms.CenterCrop(48), *tail]))
net = nn.Sequential(
    nn.Conv2d(3, 16, 3, 2, bias=False), nn.BatchNorm2d(16), nn.GELU(), nn.Conv2d(16, 32, 3, 2, bias=False), nn.BatchNorm2d(32), nn.GELU(),
    nn.Conv2d(32, 64, 3, 2, bias=False), nn.BatchNorm2d(64), nn.GELU(), nn.Flatten(), nn.Linear(64 * 25, 10),
)
ema = Ema(net, args.model_ema_decay)
opt = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.02)
loader, val_loader = DataLoader(train, 15, shuffle=True), DataLoader(val, 50)
total, step = args.epochs * len(loader), 0
for epoch in range(args.epochs):
    net.train()
    for x, y in loader:
        for group in opt.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 20) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / total)))
        opt.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
        ema.update(net)
        step += 1
    print(f"Epoch {epoch} *Acc@1 (EMA) {accuracy(ema.module, val_loader):.2f}")
