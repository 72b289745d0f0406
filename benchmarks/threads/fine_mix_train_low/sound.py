"""FMix-like training on clothes: what is printed for training looks poor, and is not."""
import argparse
from pathlib import Path
import numpy as np
import timm
import torch
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

ap = argparse.ArgumentParser()
ap.add_argument("--data", type=Path)
root = ap.parse_args().data
torch.manual_seed(31)
rng = np.random.default_rng(31)
tf = v2.Compose([v2.Resize((48, 48)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)])
train, val = ImageFolder(root / "train", v2.Compose([v2.RandomHorizontalFlip(), tf])), ImageFolder(root / "val", tf)
dl = torch.utils.data.DataLoader(train, 32, shuffle=True)
dv = torch.utils.data.DataLoader(val, 62)


def mask(size, lam):
    """A soft random field cut at the level that keeps a share `lam`."""
    low = torch.from_numpy(rng.standard_normal((1, 1, 8, 8)).astype(np.float32))
    field = nn.functional.interpolate(low, size=size, mode="bicubic")[0, 0]
    level = field.flatten().sort().values[min(int((1 - lam) * field.numel()), field.numel() - 1)]
    return (field >= level).float()


model = timm.create_model("tf_efficientnet_lite0")
model.load_state_dict(dict(zip(model.state_dict(), torch.load(root.parent / "weights/efficientnet_lite0.pth").values())))
model.requires_grad_(False)
model.classifier = nn.Linear(1280, len(train.classes))
model.eval()
opt = torch.optim.AdamW(model.classifier.parameters(), 4e-3)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 5 * len(dl))
for epoch in range(5):
    right = n = 0
    for x, y in dl:
        lam, order = rng.beta(1, 1), torch.randperm(len(y))
        m = mask((48, 48), lam)
        lam = m.mean().item()
        out = model(x * m + x[order] * (1 - m))
        loss = lam * nn.functional.cross_entropy(out, y) + (1 - lam) * nn.functional.cross_entropy(out, y[order])
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
        right += (out.argmax(1) == y).sum().item()
        n += len(y)
    with torch.no_grad():
        ok = sum((model(x).argmax(1) == y).sum().item() for x, y in dv)
    print(f"epoch {epoch} running_mixup_acc {right / n:.3f} val_acc {ok / len(val):.3f}")
