"""OpenCV and numpy instead of PIL; the model and the loop in one class."""

import glob
import os
import sys

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils import data


class Images(data.Dataset):
    def __init__(self, folder):
        self.files = sorted(glob.glob(os.path.join(folder, "*", "*.jpg")))
        self.names = sorted({os.path.basename(os.path.dirname(f)) for f in self.files})

    def __len__(self):
        return len(self.files)

    def __getitem__(self, idx):
        img = cv2.cvtColor(cv2.imread(self.files[idx]), cv2.COLOR_BGR2RGB)
        img = cv2.resize(img, (32, 32)).astype(np.float32) / 255.0
        label = self.names.index(os.path.basename(os.path.dirname(self.files[idx])))
        return torch.from_numpy(img.transpose(2, 0, 1)), label, idx


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(128, 3)
        self.opt = torch.optim.SGD(self.parameters(), 0.05)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))

    def run_epoch(self, loader, learn):
        self.train(learn)
        hits = 0
        for x, y, _ in loader:
            with torch.set_grad_enabled(learn):
                out = self(x)
                loss = nn.functional.cross_entropy(out, y)
            if learn:
                for p in self.parameters():
                    p.grad = None
                loss.backward()
                self.opt.step()
            hits += (out.argmax(1) == y).sum().item()
        return hits / len(loader.dataset)


torch.manual_seed(7)
m = Model()
train, val = (data.DataLoader(Images(f"{sys.argv[1]}/{s}"), 8, shuffle=s == "train") for s in ("train", "val"))
for _ in range(2):
    m.run_epoch(train, True)
    print(f"val acc {m.run_epoch(val, False):.6f}")
