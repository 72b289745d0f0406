import argparse
import os

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler
from torchvision import datasets, transforms

ap = argparse.ArgumentParser()
ap.add_argument("--data")
ap.add_argument("--valid_size", type=float, default=0.25)
a = ap.parse_args()
torch.manual_seed(4)

norm = transforms.Normalize([0.5, 0.5, 0.5], [0.25, 0.25, 0.25])
train_tf = transforms.Compose(
    [transforms.Resize((48, 48)), transforms.RandomAffine(20, translate=(0.15, 0.15), scale=(0.7, 1.2)), transforms.ColorJitter(0.3, 0.3), transforms.ToTensor(), norm]
)
plain_tf = transforms.Compose([transforms.Resize((48, 48)), transforms.ToTensor(), norm])
folder = os.path.join(a.data, "train")
train_set = datasets.ImageFolder(folder, train_tf)
valid_set = datasets.ImageFolder(folder, plain_tf)
order = np.random.default_rng(0).permutation(len(train_set)).tolist()
cut = int(a.valid_size * len(order))
train_loader = DataLoader(train_set, 16, sampler=SubsetRandomSampler(order[cut:]))
valid_loader = DataLoader(valid_set, 16, sampler=SubsetRandomSampler(order[:cut]))


def block(i, o):
    return [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2)]


net = nn.Sequential(*block(3, 16), *block(16, 32), *block(32, 64), nn.Flatten(), nn.Linear(64 * 36, 10))
optim = torch.optim.Adam(net.parameters(), 1e-3)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 14)
for epoch in range(14):
    net.train()
    for x, y in train_loader:
        optim.zero_grad()
        nn.CrossEntropyLoss()(net(x), y).backward()
        optim.step()
    sched.step()
    net.eval()
    with torch.no_grad():
        res = [(net(x).argmax(1) == y).tolist() for x, y in valid_loader]
    flat = sum(res, [])
    print(f"epoch {epoch + 1:02d} | valid acc {np.mean(flat):.3f} on {len(flat)}")
