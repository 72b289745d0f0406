"""A small training program: ``program.py RUN HOW...`` with faults, and ways to end, of choice. It waits for what it provokes."""

import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

told, how = Path(sys.argv[1]) / "live.jsonl", sys.argv[2:]
torch.manual_seed(0)
made = torch.Generator().manual_seed(1)
base = F.interpolate(torch.randn(4, 3, 4, 4, generator=made), 16, mode="bilinear")


def images(n):
    y = torch.arange(n) % 4
    return TensorDataset(base[y] + 0.5 * torch.randn(n, 3, 16, 16, generator=made), y)


def wait():
    until = time.monotonic() + 60
    while not told.exists() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.4)  # the recorder looks three times a second


train, val = images(160), images(80)
net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(392, 4))
given = net[:4].parameters() if "no_head" in how else net.parameters()
optimizer = torch.optim.SGD(given, 0.05, momentum=0.9)
try:
    for epoch in range(4):
        net.train()
        for a, b in DataLoader(train, 16, shuffle=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(a), b)
            loss.backward()
            optimizer.step()
        if "no_eval" not in how:
            net.eval()
        with torch.no_grad():
            right = sum((net(a).argmax(1) == b).sum().item() for a, b in DataLoader(val, 16))
        print(f"epoch {epoch} loss {loss.item():.9f} val acc {right / 80:.4f}", flush=True)
        if epoch == 0 and "wait" in how:
            wait()
        if ("dies_early" in how and epoch == 0) or ("dies_late" in how and epoch == 2):
            os.kill(os.getpid(), signal.SIGKILL)
except KeyboardInterrupt:
    if "saves" not in how:
        raise
    print("saved on the interrupt", flush=True)
print("weights", [p.double().sum().item().hex() for p in net.parameters()], torch.rand(1).item().hex(), flush=True)
