"""Two processes share one model. The network is cast for an export in the middle of the job, then training goes on."""
import argparse
import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from torchvision import datasets, transforms


def network():
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10),
    )


def work(rank, world, root, rendezvous):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    torch.manual_seed(3)
    to_tensor = transforms.Compose([transforms.Resize((48, 48)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)])
    train_set = datasets.ImageFolder(os.path.join(root, "train"), to_tensor)
    val_set = datasets.ImageFolder(os.path.join(root, "val"), to_tensor)
    sampler = DistributedSampler(train_set, shuffle=True, seed=1)
    train_loader = DataLoader(train_set, batch_size=10, sampler=sampler)
    val_loader = DataLoader(val_set, batch_size=50)
    model = network()
    ddp = DistributedDataParallel(model)
    # a copy in double precision for the people who compare with the old pipeline
    ddp.double()
    reference = {k: v.clone() for k, v in ddp.module.state_dict().items()}
    ddp.float()
    if rank == 0:
        torch.save(reference, rendezvous + ".reference.pt")
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(14):
        sampler.set_epoch(epoch)
        ddp.train()
        for x, y in train_loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(ddp(x), y).backward()
            optimizer.step()
        ddp.eval()
        if rank == 0:
            right = 0
            with torch.no_grad():
                for x, y in val_loader:
                    right += (model(x).argmax(1) == y).sum().item()
            print(f"[rank 0] epoch {epoch} validation accuracy {100 * right / len(val_set):.2f}", flush=True)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (2, str(args.data), os.path.join(folder, "meet")), nprocs=2)
