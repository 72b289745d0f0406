"""Everything at the top level, as in a first notebook."""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

torch.manual_seed(0)
data = sys.argv[1]
workers = int(sys.argv[2]) if len(sys.argv) > 2 else 0
tf = transforms.Compose([transforms.Resize((32, 32)), transforms.RandomHorizontalFlip(), transforms.ToTensor()])
vtf = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])
train = datasets.ImageFolder(data + "/train", tf)
val = datasets.ImageFolder(data + "/val", vtf)
train_dl = DataLoader(train, 8, shuffle=True, num_workers=workers)
val_dl = DataLoader(val, 8, num_workers=workers)
net = nn.Sequential(
    nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 3)
)
opt = torch.optim.Adam(net.parameters(), 1e-3)
for epoch in range(2):
    net.train()
    for x, y in train_dl:
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
    net.eval()
    correct = 0
    with torch.no_grad():
        for x, y in val_dl:
            correct += (net(x).argmax(1) == y).sum().item()
    print(f"epoch {epoch} loss {loss.item():.6f} val acc {correct / len(val):.6f}")
print("weights", sum(p.double().sum().item() for p in net.state_dict().values()))
