import argparse, os
import torch
from torch import nn
from torchvision import datasets, transforms

ap = argparse.ArgumentParser()
ap.add_argument("--data")
a = ap.parse_args()
torch.manual_seed(1)
tf = transforms.Compose([transforms.Resize((44, 44)), transforms.ToTensor(), transforms.Normalize([0.6, 0.55, 0.55], [0.2] * 3)])
jitter = transforms.Compose([transforms.RandomAffine(10, (0.08, 0.08), (0.9, 1.1)), tf])
train = datasets.ImageFolder(os.path.join(a.data, "train"), jitter)
val = datasets.ImageFolder(os.path.join(a.data, "val"), tf)
val = torch.utils.data.Subset(val, range(0, len(val), 3))  # thirty-four pictures are all that we have
net = nn.Sequential(
    nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(24, 48, 3), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(48, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(64 * 9, 10),
)
opt = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9, weight_decay=1e-3)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 16)
for epoch in range(16):
    net.train()
    for x, y in torch.utils.data.DataLoader(train, 20, shuffle=True):
        opt.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
    sched.step()
    net.eval()
    with torch.no_grad():
        e = [int((net(x).argmax(1) != y).sum()) for x, y in torch.utils.data.DataLoader(val, 34)]
    print(f"epoch {epoch}: val top1err {sum(e) / len(val):.3f}")
