"""Fine-tunes the last stages of a published network on ants and bees."""
import argparse
from pathlib import Path

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2 as T


class Wrapped(nn.Module):
    """Our way to hold any network: `self.model` and a head of our own."""

    def __init__(self, classes):
        super().__init__()
        self.model = timm.create_model("tf_efficientnet_lite0", num_classes=0)
        self.head = nn.Linear(1280, classes)

    def forward(self, x):
        return self.head(self.model(x))


def load_published(net, path):
    bare = torch.load(path, map_location="cpu", weights_only=True)
    names = [k for k in timm.create_model("tf_efficientnet_lite0").state_dict()]
    state = {k: v for k, v in zip(names, bare.values()) if not k.startswith("classifier")}
    net.load_state_dict(state, strict=False)
    return net


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--data", type=Path)
    args = ap.parse_args()
    torch.manual_seed(13)
    prepare = [T.Resize((48, 48)), T.ToImage(), T.ToDtype(torch.float32, scale=True), T.Normalize([0.5] * 3, [0.5] * 3)]
    train = ImageFolder(args.data / "train", T.Compose([T.RandomHorizontalFlip(), *prepare]))
    val = ImageFolder(args.data / "val", T.Compose(prepare))
    net = load_published(Wrapped(len(train.classes)), args.data.parent / "weights" / "efficientnet_lite0.pth")
    net.model.requires_grad_(False)
    net.model.conv_head.requires_grad_(True)
    net.model.blocks[-1].requires_grad_(True)
    opt = torch.optim.AdamW([{"params": net.head.parameters(), "lr": 3e-3}, {"params": [p for p in net.model.parameters() if p.requires_grad], "lr": 3e-4}])
    loader, val_loader = DataLoader(train, 24, shuffle=True), DataLoader(val, 51)
    for epoch in range(4):
        net.eval()  # statistics of the published network are kept
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
        with torch.no_grad():
            hit = sum((net(x).argmax(1) == y).sum().item() for x, y in val_loader)
        print(f"epoch={epoch} val_acc={hit / len(val):.4f}")


main()
