"""A small training, as anybody would write it; killed at random moments by make bench-trust PART=killed."""

import random
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

random.seed(0), np.random.seed(0), torch.manual_seed(0)
tf = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
train, val = (datasets.ImageFolder(f"photos/{s}", tf) for s in ("train", "val"))
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 3))
optimizer = torch.optim.Adam(model.parameters(), 0.01)
for epoch in range(3):
    model.train()
    for x, y in DataLoader(train, 8, shuffle=True, num_workers=epoch == 1):
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    right = 0
    with torch.no_grad():
        for x, y in DataLoader(val, 8):
            right += (model(x).argmax(1) == y).sum().item()
    print(f"epoch {epoch} val acc {right / len(val):.3f}", flush=True)
Path("ended").touch()
