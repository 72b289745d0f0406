import argparse, math, os.path as osp
import torch, tqdm
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms, datasets


class Trainer(object):
    """Validates every `interval_validate` iterations, in the middle of the epoch."""

    def __init__(self, model, optimizer, train_loader, val_loader, max_iter, interval_validate):
        self.model, self.optim = model, optimizer
        self.train_loader, self.val_loader = train_loader, val_loader
        self.max_iter, self.interval_validate = max_iter, interval_validate
        self.epoch = self.iteration = 0

    def validate(self):
        training = self.model.training
        self.model.eval()
        val_loss, n, ok = 0.0, 0, 0
        for data, target in self.val_loader:
            with torch.no_grad():
                score = self.model(data)
            val_loss += nn.functional.cross_entropy(score, target, reduction="sum").item()
            ok += (score.max(1)[1] == target).sum().item()
            n += len(target)
        print("iteration %4d  val/loss %.4f  val/acc %.4f" % (self.iteration, val_loss / n, ok / n))
        if training:
            self.model.train()

    def train_epoch(self):
        self.model.train()
        for data, target in tqdm.tqdm(self.train_loader, desc="Train epoch=%d" % self.epoch, leave=False, disable=True):
            if self.iteration % self.interval_validate == 0:
                self.validate()
            self.iteration += 1
            self.optim.zero_grad()
            loss = nn.functional.cross_entropy(self.model(data), target)
            if math.isnan(loss.item()):
                raise ValueError("loss is nan while training")
            loss.backward()
            self.optim.step()

    def train(self):
        while self.iteration < self.max_iter:
            self.train_epoch()
            self.epoch += 1
        self.validate()


def unit(i, o, drop):
    return nn.Sequential(nn.Conv2d(i, o, 3, 2), nn.BatchNorm2d(o), nn.ReLU(), nn.Dropout(drop))


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--data")
    root = p.parse_args().data
    torch.manual_seed(1337)
    tf = transforms.Compose([transforms.Resize((40, 40)), transforms.ToTensor(), transforms.Normalize((0.6, 0.55, 0.55), (0.2, 0.2, 0.2))])
    moved = transforms.Compose([transforms.RandomAffine(8, (0.08, 0.08)), tf])
    train = datasets.ImageFolder(osp.join(root, "train"), moved)
    val = datasets.ImageFolder(osp.join(root, "val"), tf)
    net = nn.Sequential(unit(3, 16, 0.1), unit(16, 32, 0.2), unit(32, 48, 0.3), nn.Flatten(), nn.Linear(48 * 16, 10))
    Trainer(
        net,
        torch.optim.Adam(net.parameters(), lr=2e-3),
        DataLoader(train, 15, shuffle=True),
        DataLoader(val, 50),
        max_iter=300,
        interval_validate=30,
    ).train()
