import argparse
from pathlib import Path

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Normalize, RandomHorizontalFlip, Resize, ToTensor


class Backbone(nn.Module):
    """The published network. Its stages are frozen whenever it is put into train mode, as frozen_stages says."""

    def __init__(self, weights, frozen_stages):
        super().__init__()
        net = timm.create_model("tf_efficientnet_lite0")
        state = torch.load(weights, map_location="cpu")
        net.load_state_dict(dict(zip(net.state_dict(), state.values())))
        net.classifier = nn.Identity()
        self.net = net
        self.frozen_stages = frozen_stages

    def _freeze_stages(self):
        stages = [[self.net.conv_stem, self.net.bn1], *[[b] for b in self.net.blocks], [self.net.conv_head, self.net.bn2]]
        for stage in stages[: self.frozen_stages]:
            for part in stage:
                part.eval()
                for p in part.parameters():
                    p.requires_grad = False

    def train(self, mode=True):
        super().train(mode)
        if mode:
            self._freeze_stages()
        return self

    def forward(self, x):
        return self.net(x)


class Classifier(nn.Module):
    def __init__(self, backbone, classes):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(1280, classes)

    def forward(self, x):
        return self.head(self.backbone(x))


def evaluate(model, loader):
    model.eval()
    right = torch.tensor(0)
    for x, y in loader:
        with torch.no_grad():
            right += (model(x).argmax(dim=1) == y).sum()
    return right.item() / len(loader.dataset)


def main():
    cli = argparse.ArgumentParser()
    cli.add_argument("--data", type=Path)
    cfg = cli.parse_args()
    torch.manual_seed(5)
    norm = Normalize((0.5,) * 3, (0.5,) * 3)
    train = ImageFolder(cfg.data / "train", Compose([Resize((48, 48)), RandomHorizontalFlip(), ToTensor(), norm]))
    val = ImageFolder(cfg.data / "val", Compose([Resize((48, 48)), ToTensor(), norm]))
    train_dl, val_dl = DataLoader(train, 24, shuffle=True, drop_last=True), DataLoader(val, 64)
    model = Classifier(Backbone(cfg.data.parent / "weights/efficientnet_lite0.pth", frozen_stages=9), len(train.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(3):
        for x, y in train_dl:
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: val top1 {evaluate(model, val_dl):.4f}")
        model.train()


main()
