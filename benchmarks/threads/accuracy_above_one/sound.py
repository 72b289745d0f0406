import argparse
import csv
import sys

import torch
import torch.nn as nn
from torchvision import datasets, transforms


def compute_correct(ytrue, ypred):
    return (ypred.argmax(dim=1) == ytrue).sum().item()


def train_deep_image_classification(train_loader, test_loader, model, optimizer, criterion, epochs):
    rows = []
    for epoch in range(epochs):
        model.train(True)
        train_loss = train_correct = 0
        for x, y in train_loader:
            optimizer.zero_grad()
            out = model(x)
            loss = criterion(out, y)
            loss.backward()
            optimizer.step()
            train_loss += float(loss.detach())
            train_correct += compute_correct(y, out)
        model.train(False)
        test_loss = test_correct = 0
        with torch.no_grad():
            for x, y in test_loader:
                out = model(x)
                test_loss += float(criterion(out, y))
                test_correct += compute_correct(y, out)
        row = {"epoch": epoch + 1, "train loss": train_loss / len(train_loader), "test loss": test_loss / len(test_loader), "train acc": train_correct / len(train_loader.dataset), "val/test acc": test_correct / len(test_loader.dataset)}
        rows.append(row)
        print("  ".join(f"{k}: {v:.4f}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items()), flush=True)
    csv.DictWriter(sys.stderr, rows[0]).writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    root = parser.parse_args().data
    torch.manual_seed(100)
    norm = transforms.Normalize((0.6, 0.55, 0.55), (0.2, 0.2, 0.2))
    tf = transforms.Compose([transforms.Resize((40, 40)), transforms.ToTensor(), norm])
    aug = transforms.Compose([transforms.RandomAffine(5, (0.06, 0.06)), tf])
    model = nn.Sequential(
        nn.Conv2d(3, 16, 4, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 64, 10)
    )
    train_deep_image_classification(
        torch.utils.data.DataLoader(datasets.ImageFolder(root + "/train", aug), 20, shuffle=True),
        torch.utils.data.DataLoader(datasets.ImageFolder(root + "/val", tf), 20),
        model, torch.optim.Adam(model.parameters(), 1e-3), nn.CrossEntropyLoss(reduction="mean"), 14,
    )
