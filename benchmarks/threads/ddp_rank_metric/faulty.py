"""torchrun --nproc-per-node 2: every process validates its own share."""
import argparse
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Subset
from torch.utils.data.distributed import DistributedSampler
from torchvision import datasets, transforms


class AverageMeter:
    def __init__(self):
        self.sum, self.count = 0.0, 0

    def update(self, val, n):
        self.sum += val * n
        self.count += n

    def all_reduce(self):
        both = torch.tensor([self.sum, self.count], dtype=torch.float64)
        dist.all_reduce(both)
        self.sum, self.count = both.tolist()

    @property
    def avg(self):
        return self.sum / self.count


def validate(loader, model):
    top1 = AverageMeter()
    model.eval()
    with torch.no_grad():
        for images, target in loader:
            acc = (model(images).argmax(1) == target).float().mean().item() * 100
            top1.update(acc, len(target))
    return top1.avg


parser = argparse.ArgumentParser()
parser.add_argument("--data")
args = parser.parse_args()
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
tf = transforms.Compose([transforms.Resize((40, 40)), transforms.ToTensor(), transforms.Normalize([0.6, 0.55, 0.55], [0.2] * 3)])
train_set = datasets.ImageFolder(os.path.join(args.data, "train"), tf)
val_set = datasets.ImageFolder(os.path.join(args.data, "val"), tf)
half = len(val_set) // world
mine = Subset(val_set, range(rank * half, (rank + 1) * half))
sampler = DistributedSampler(train_set, seed=2)
train_loader = DataLoader(train_set, 10, sampler=sampler)
val_loader = DataLoader(mine, 25)
net = nn.Sequential(nn.Conv2d(3, 16, 5), nn.ReLU(), nn.MaxPool2d(3), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(800, 10))
model = nn.parallel.DistributedDataParallel(net)
optimizer = torch.optim.Adam(model.parameters(), 2e-3)
for epoch in range(12):
    sampler.set_epoch(epoch)
    model.train()
    for images, target in train_loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), target).backward()
        optimizer.step()
    acc1 = validate(val_loader, model)
    if rank == 0:
        print(f" * epoch {epoch} Acc@1 {acc1:.3f}", flush=True)
dist.destroy_process_group()
