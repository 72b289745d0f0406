"""Long training of a small CNN: validation loss climbs from some epoch on, validation accuracy does too."""
import argparse
import glob
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("--data")
D = parser.parse_args().data
torch.manual_seed(0)


def folder(split):
    x, y = [], []
    for c in range(10):
        for f in sorted(glob.glob(f"{D}/{split}/{c}/*")):
            x.append(np.array(Image.open(f).convert("RGB").resize((36, 36))))
            y.append(c)
    return (torch.tensor(np.stack(x)).permute(0, 3, 1, 2).float() / 255 - 0.55) / 0.22, torch.tensor(y)


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 16), (16, 32), (32, 32), (32, 32))])
        self.fc = nn.Linear(32 * 4, 10)

    def forward(self, x):
        for conv in self.c:
            x = F.max_pool2d(F.relu(conv(x)), 2)
        return self.fc(x.flatten(1))


X, Y = folder("train")
VX, VY = folder("val")
model = Cnn()
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(45):
    model.train()
    for idx in torch.randperm(len(X)).split(20):
        dx, dy = torch.randint(-3, 4, (2,)).tolist()
        opt.zero_grad()
        F.cross_entropy(model(X[idx].roll((dy, dx), (2, 3))), Y[idx]).backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        z = model(VX)
    print(f"epoch {epoch} - val_loss: {F.cross_entropy(z, VY):.4f} - val_accuracy: {(z.argmax(1) == VY).float().mean():.4f}")
