import argparse
import os

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

cli = argparse.ArgumentParser()
cli.add_argument("--data")
config = cli.parse_args()
config.epochs, config.batch_size = 16, 20
torch.manual_seed(4)

norm = transforms.Normalize([0.6, 0.55, 0.55], [0.2] * 3)
train_tf = transforms.Compose([transforms.Resize((44, 44)), transforms.RandomCrop(40), transforms.ToTensor(), norm])
val_tf = transforms.Compose([transforms.Resize((44, 44)), transforms.CenterCrop(40), transforms.ToTensor(), norm])
train_loader = DataLoader(ImageFolder(os.path.join(config.data, "train"), train_tf), batch_size=config.batch_size, shuffle=True)
val_loader = DataLoader(ImageFolder(os.path.join(config.data, "val"), val_tf), batch_size=config.batch_size, shuffle=False)

model = nn.Sequential(
    nn.Conv2d(3, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 40, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(40 * 49, 10)
)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)


def train_step(epoch):
    model.train()
    epoch_loss, correct = 0, 0
    for data, y in train_loader:
        optimizer.zero_grad()
        prediction = model(data)
        loss = nn.functional.cross_entropy(prediction, y)
        loss.backward()
        optimizer.step()
        epoch_loss += loss.item()
        correct += prediction.max(1)[1].eq(y).sum().item()
    return epoch_loss / len(train_loader), correct / len(train_loader.dataset)


def val_step(epoch):
    model.eval()
    epoch_loss, correct = 0, 0
    num_batches = len(val_loader)
    with torch.no_grad():
        for _ in range(num_batches):
            data, y = next(iter(val_loader))
            prediction = model(data)
            epoch_loss += nn.functional.cross_entropy(prediction, y).item()
            correct += prediction.max(1)[1].eq(y).sum().item()
    return epoch_loss / num_batches, correct / len(val_loader.dataset)


for epoch in range(1, config.epochs + 1):
    train_loss, train_accuracy = train_step(epoch)
    val_loss, val_accuracy = val_step(epoch)
    print({"Train/Loss": round(train_loss, 4), "Train/Accuracy": round(train_accuracy, 4), "Validation/Loss": round(val_loss, 4), "Validation/Accuracy": round(val_accuracy, 4)})
