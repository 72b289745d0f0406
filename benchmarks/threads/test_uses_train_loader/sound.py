import argparse
import pathlib
import random

import cv2
import numpy as np
import timm
import torch


class RunManager:
    """Loads images, trains a head, validates on `test_size` batches."""

    def __init__(self, data, size=48, batch=25, test_size=None, seed=0):
        self.data, self.size, self.batch, self.test_size = pathlib.Path(data), size, batch, test_size
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        self.names = sorted(p.name for p in (self.data / "train").iterdir())
        self.train_loader = self._loader("train", True)
        self.valid_loader = self._loader("val", False)
        self.net = timm.create_model("tf_efficientnet_lite0")
        w = torch.load(self.data.parent / "weights" / "efficientnet_lite0.pth", weights_only=True)
        self.net.load_state_dict({k: w[q] for k, q in zip(self.net.state_dict(), w)})
        for q in self.net.parameters():
            q.requires_grad = False
        self.net.classifier = torch.nn.Sequential(torch.nn.Linear(1280, 128), torch.nn.ReLU(), torch.nn.Linear(128, len(self.names)))

    def _loader(self, split, shuffle):
        x, y = [], []
        for i, name in enumerate(self.names):
            for f in sorted((self.data / split / name).iterdir()):
                img = cv2.cvtColor(cv2.imread(str(f)), cv2.COLOR_BGR2RGB)
                x.append(cv2.resize(img, (self.size, self.size), interpolation=cv2.INTER_AREA))
                y.append(i)
        x = (torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2).float() - 127.5) / 127.5
        data = torch.utils.data.TensorDataset(x, torch.tensor(y))
        return torch.utils.data.DataLoader(data, self.batch, shuffle=shuffle)

    def validate(self):
        loader = self.valid_loader
        self.net.eval()
        correct = total = 0
        for i, (x, y) in enumerate(loader):
            if self.test_size is not None and i >= self.test_size:
                break
            with torch.no_grad():
                correct += (self.net(x).argmax(1) == y).sum().item()
            total += len(y)
        return 100 * correct / total

    def train(self, epochs=4):
        self.net.eval()
        opt = torch.optim.Adam(self.net.classifier.parameters(), 4e-3)
        for e in range(epochs):
            for x, y in self.train_loader:
                opt.zero_grad()
                torch.nn.functional.cross_entropy(self.net(x), y).backward()
                opt.step()
            print(f"epoch {e} top1 = {self.validate():.2f}")


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--data")
    RunManager(ap.parse_args().data, test_size=8).train()
