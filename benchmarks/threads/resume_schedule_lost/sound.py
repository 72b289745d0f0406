"""Trains in two sittings, as the queue of the cluster kills jobs: main(first) and main(second) read one checkpoint."""
import argparse
import os
import tempfile

import torch
from torch import nn, optim
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

parser = argparse.ArgumentParser()
parser.add_argument("--data")
args = parser.parse_args()
EPOCHS, KILLED_AFTER = 16, 14
mean, std = (0.6, 0.55, 0.55), (0.2, 0.2, 0.2)
aug = transforms.Compose([transforms.Resize((36, 36)), transforms.RandomCrop(32), transforms.ToTensor(), transforms.Normalize(mean, std)])
plain = transforms.Compose([transforms.Resize((36, 36)), transforms.CenterCrop(32), transforms.ToTensor(), transforms.Normalize(mean, std)])
train_set = datasets.ImageFolder(os.path.join(args.data, "train"), aug)
val_set = datasets.ImageFolder(os.path.join(args.data, "val"), plain)


def conv(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(True))


def build():
    model = nn.Sequential(conv(3, 16), nn.MaxPool2d(2), conv(16, 24), nn.MaxPool2d(2), conv(24, 48), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48 * 16, 10))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    scheduler = optim.lr_scheduler.MultiStepLR(optimizer, milestones=[9, 13], gamma=0.2)
    return model, optimizer, scheduler


def test(model, loader):
    model.eval()
    total = correct = 0
    with torch.no_grad():
        for images, labels in loader:
            _, guess = model(images).max(1)
            correct += guess.eq(labels).sum().item()
            total += labels.size(0)
    return 100.0 * correct / total


def sitting(checkpoint, until):
    model, optimizer, scheduler = build()
    first = 0
    if os.path.exists(checkpoint):
        kept = torch.load(checkpoint)
        first = kept["epoch"]
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        scheduler.load_state_dict(kept["scheduler"])
        print("=> resumed at epoch", first)
    train_loader = DataLoader(train_set, batch_size=20, shuffle=True)
    val_loader = DataLoader(val_set, batch_size=100)
    for epoch in range(first, until):
        model.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        scheduler.step()
        print(f"epoch {epoch:2d} Acc@1 {test(model, val_loader):.3f}", flush=True)
        torch.save({"epoch": epoch + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, checkpoint)


torch.manual_seed(2)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "checkpoint.pth")
    sitting(path, KILLED_AFTER)
    sitting(path, EPOCHS)
