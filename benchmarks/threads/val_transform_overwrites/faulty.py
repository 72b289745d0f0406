"""One set of images, split in two, a transform for either half."""
import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, random_split
from torchvision import datasets
from torchvision.transforms import v2

ap = argparse.ArgumentParser()
ap.add_argument("--data")
root = ap.parse_args().data
torch.manual_seed(9)
base = [v2.Resize((40, 40)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.55] * 3, [0.22] * 3)]
plain = v2.Compose(base)
augment = v2.Compose([v2.RandomAffine(8, translate=(0.1, 0.1), scale=(0.9, 1.1)), *base])

everything = datasets.ImageFolder(f"{root}/train")
parts = random_split(everything, [0.6, 0.4], torch.Generator().manual_seed(1))
train_part, val_part = parts
train_part.dataset.transform = augment
val_part.dataset.transform = plain

model = nn.Sequential(
    nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(),
    nn.Flatten(), nn.Linear(64 * 36, 64), nn.ReLU(), nn.Linear(64, 10),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
train_loader, val_loader = DataLoader(train_part, 12, shuffle=True), DataLoader(val_part, 60)
for epoch in range(22):
    model.train()
    for image, label in train_loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(image), label).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        good = torch.cat([model(image).argmax(1).eq(label) for image, label in val_loader])
    print(f"epoch {epoch}: val accuracy {good.float().mean().item():.4f}")
