"""fit() and evaluate(), a scheduler per epoch, the best weights restored at the end."""

import copy
import sys

import torch
from torch import nn, optim
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms


def loaders(root):
    tf = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    sets = {s: datasets.ImageFolder(f"{root}/{s}", tf) for s in ["train", "val"]}
    return {s: DataLoader(sets[s], batch_size=8, shuffle=s == "train") for s in sets}


def train_one_epoch(model, loader, criterion, optimizer):
    model.train()
    for inputs, labels in loader:
        with torch.set_grad_enabled(True):
            loss = criterion(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def evaluate(model, loader):
    model.eval()
    hits = sum((model(x).argmax(dim=1) == y).float().sum() for x, y in loader)
    return hits.item() / len(loader.dataset)


def main():
    torch.manual_seed(1)
    dl = loaders(sys.argv[1])
    model = models.squeezenet1_1(num_classes=3)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    best, best_acc = copy.deepcopy(model.state_dict()), -1
    for epoch in range(2):
        train_one_epoch(model, dl["train"], criterion, optimizer)
        scheduler.step()
        acc = evaluate(model, dl["val"])
        print(f"val acc {acc:.6f}")
        if acc > best_acc:
            best, best_acc = copy.deepcopy(model.state_dict()), acc
    model.load_state_dict(best)
    print("weights", sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
