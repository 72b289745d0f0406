import argparse
import os
import random
import numpy as np
import torch
from PIL import Image
from torch import nn

ap = argparse.ArgumentParser()
ap.add_argument("--data")
root = ap.parse_args().data
random.seed(3), torch.manual_seed(3)


def batches(rows, size, shuffle):
    rows = list(rows)
    if shuffle:
        random.shuffle(rows)
    for k in range(0, len(rows), size):
        part = rows[k : k + size]
        yield torch.stack([r[0] for r in part]), torch.tensor([r[1] for r in part])


def rows(split):
    out = []
    for c in sorted(os.listdir(f"{root}/{split}")):
        for f in sorted(os.listdir(f"{root}/{split}/{c}")):
            im = Image.open(f"{root}/{split}/{c}/{f}").convert("L").resize((40, 40), Image.BILINEAR)
            out.append((torch.tensor(np.array(im), dtype=torch.float32)[None] / 80 - 1.9, int(c)))
    return out


train, val = rows("train"), rows("val")
net = nn.Sequential(
    nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(0.2), nn.Conv2d(32, 48, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.4),
    nn.Flatten(), nn.Linear(48 * 49, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
)
opt = torch.optim.Adam(net.parameters(), 1e-3)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 20)
for epoch in range(20):
    net.train()
    acc = n = loss_sum = 0
    for x, y in batches(train, 20, True):
        x = x.roll((random.randint(-3, 3), random.randint(-3, 3)), (2, 3))
        z = net(x)
        loss = nn.functional.cross_entropy(z, y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        acc, n, loss_sum = acc + (z.argmax(1) == y).sum().item(), n + len(y), loss_sum + loss.item() * len(y)
    sched.step()
    net.eval()
    with torch.no_grad():
        v = [(net(x), y) for x, y in batches(val, 50, False)]
    z, y = torch.cat([a for a, _ in v]), torch.cat([b for _, b in v])
    print(f"{n}/{n} - loss: {loss_sum / n:.4f} - acc: {acc / n:.4f} - val. loss: {nn.functional.cross_entropy(z, y):.4f} - val. acc.: {(z.argmax(1) == y).float().mean():.4f}")
