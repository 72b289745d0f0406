"""A Dataset of one's own over a CSV file, read with pandas; BCE on one-hot targets."""

import sys
from pathlib import Path

import pandas as pd
import torch
import torch.nn as nn
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

torch.manual_seed(6)
root = Path(sys.argv[1])
rows = [(str(p), p.parent.name, p.parts[-3]) for p in sorted(root.rglob("*.jpg"))]
table = pd.DataFrame(rows, columns=["image", "label", "split"])
names = sorted(table.label.unique())


class Photos(Dataset):
    def __init__(self, frame):
        self.df = frame.reset_index(drop=True)
        self.t = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])

    def __len__(self):
        return len(self.df)

    def __getitem__(self, i):
        row = self.df.iloc[i]
        onehot = torch.zeros(len(names))
        onehot[names.index(row.label)] = 1.0
        return {"image": self.t(Image.open(row.image).convert("RGB")), "target": onehot, "path": row.image}


train = DataLoader(Photos(table[table.split == "train"]), batch_size=8, shuffle=True)
val = DataLoader(Photos(table[table.split == "val"]), batch_size=8)
model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, len(names)))
criterion = nn.BCEWithLogitsLoss()
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
for epoch in range(2):
    model.train()
    for batch in train:
        loss = criterion(model(batch["image"]), batch["target"])
        model.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    right = 0
    for batch in val:
        with torch.no_grad():
            right += (model(batch["image"]).argmax(1) == batch["target"].argmax(1)).sum().item()
    print(f"val acc {right / len(val.dataset):.6f}")
