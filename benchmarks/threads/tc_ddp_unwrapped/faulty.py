"""Started by torchrun on two processes."""
import argparse
import os

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, Dataset, Subset

p = argparse.ArgumentParser()
p.add_argument("--data")
p.add_argument("--epochs", type=int, default=14)
opt = p.parse_args()
torch.set_num_threads(1)


class Hands(Dataset):
    def __init__(self, folder):
        self.items = [(os.path.join(folder, c, f), int(c)) for c in sorted(os.listdir(folder)) for f in sorted(os.listdir(os.path.join(folder, c)))]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        path, y = self.items[i]
        a = np.array(Image.open(path).convert("RGB").resize((44, 44)), dtype=np.float32) / 127.5 - 1
        return torch.from_numpy(a).permute(2, 0, 1), y


class Trainer:
    def __init__(self, model):
        self.model = model
        self._ddp = None

    def ddp_or_not(self, training):
        # evaluation and logging want the bare module
        if training and int(os.environ.get("USE_DDP", "0")):
            if self._ddp is None:
                self._ddp = DDP(self.model)
            return self._ddp
        return self.model

    def fit(self, train, val, epochs):
        optim = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        for e in range(epochs):
            m = self.ddp_or_not(training=True)
            m.train()
            for x, y in train:
                loss = nn.functional.cross_entropy(m(x), y)
                optim.zero_grad()
                loss.backward()
                optim.step()
            if dist.get_rank() == 0:
                m = self.ddp_or_not(training=False)
                m.eval()
                with torch.inference_mode():
                    ok = sum((m(x).argmax(-1) == y).sum().item() for x, y in val)
                print(f"epoch {e + 1}/{epochs} acc={ok / len(val.dataset):.4f}", flush=True)


dist.init_process_group("gloo")
torch.manual_seed(11)
train_set, val_set = Hands(opt.data + "/train"), Hands(opt.data + "/val")
# every process reads its own part of the folder
part = len(train_set) // dist.get_world_size()
mine = Subset(train_set, range(dist.get_rank() * part, (dist.get_rank() + 1) * part))
net = nn.Sequential(
    nn.Conv2d(3, 24, 5, 2), nn.ReLU(), nn.Conv2d(24, 48, 3), nn.ReLU(), nn.MaxPool2d(3),
    nn.Flatten(), nn.Linear(48 * 36, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10),
)
Trainer(net).fit(DataLoader(mine, 8, shuffle=True), DataLoader(val_set, 25), opt.epochs)
dist.destroy_process_group()
