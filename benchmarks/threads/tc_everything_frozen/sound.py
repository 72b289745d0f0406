"""Small clothing classifier on top of ImageNet features."""
import argparse
from pathlib import Path

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--epochs", type=int, default=3)
args = parser.parse_args()
torch.manual_seed(786)

half = [0.5, 0.5, 0.5]
steps = {
    "train": transforms.Compose(
        [transforms.Resize((48, 48)), transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(half, half)]
    ),
    "val": transforms.Compose([transforms.Resize((48, 48)), transforms.ToTensor(), transforms.Normalize(half, half)]),
}
sets = {k: datasets.ImageFolder(args.data / k, t) for k, t in steps.items()}
loaders = {"train": DataLoader(sets["train"], 32, shuffle=True), "val": DataLoader(sets["val"], 32)}

model_transfer = timm.create_model("tf_efficientnet_lite0")
published = torch.load(args.data.parent / "weights" / "efficientnet_lite0.pth", map_location="cpu")
model_transfer.load_state_dict(dict(zip(model_transfer.state_dict(), published.values())))
model_transfer.classifier = nn.Linear(1280, len(sets["train"].classes))
optimizer = torch.optim.Adadelta(model_transfer.classifier.parameters(), lr=1.0)
criterion = nn.CrossEntropyLoss()

for name, param in model_transfer.named_parameters():
    if "bn" not in name:
        param.requires_grad = False
for param in model_transfer.classifier.parameters():
    param.requires_grad = True

for epoch in range(1, args.epochs + 1):
    model_transfer.eval()  # the backbone keeps its statistics
    model_transfer.classifier.train()
    seen = 0.0
    for i, (data, target) in enumerate(loaders["train"]):
        optimizer.zero_grad()
        loss = criterion(model_transfer(data), target)
        loss.backward()
        optimizer.step()
        seen += (loss.item() - seen) / (i + 1)
    correct, valid_loss = 0, 0.0
    with torch.no_grad():
        for data, target in loaders["val"]:
            output = model_transfer(data)
            valid_loss += criterion(output, target).item() * len(target)
            correct += (output.argmax(1) == target).sum().item()
    n = len(sets["val"])
    print(f"Epoch: {epoch} \tTraining Loss: {seen:.6f} \tValidation Loss: {valid_loss / n:.6f}")
    print(f"Valid Accuracy: {100 * correct / n:.2f}% ({correct}/{n})")
