"""argparse, tqdm, random_split of one folder, a timm model; validation before the first epoch as well."""

import argparse

import timm
import torch
from torch.utils.data import DataLoader, random_split
from torchvision import datasets, transforms
from tqdm import tqdm

parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("--epochs", type=int, default=2)
args = parser.parse_args()
torch.manual_seed(3)
full = datasets.ImageFolder(args.data + "/train", transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()]))
train, val = random_split(full, [len(full) - 9, 9], generator=torch.Generator().manual_seed(0))
train_loader, val_loader = DataLoader(train, batch_size=8, shuffle=True, drop_last=True), DataLoader(val, batch_size=4)
model = timm.create_model("mobilenetv3_small_050", num_classes=3)
loss_fn = torch.nn.CrossEntropyLoss()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


def validate():
    model.eval()
    correct = 0
    with torch.no_grad():
        for x, y in tqdm(val_loader, desc="val"):
            out = model(x)
            loss_fn(out, y)
            correct += (out.argmax(1) == y).sum().item()
    print(f"val acc {correct / len(val):.6f}")


validate()
for _ in range(args.epochs):
    model.train()
    bar = tqdm(train_loader)
    for x, y in bar:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=loss.item())
    validate()
