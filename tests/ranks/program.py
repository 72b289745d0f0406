"""A training of a tiny network on 24 tensors, validated on 37: alone, as a rank, or in processes that it starts itself.

program.py HOW [SECONDS_A_STEP]: ``env`` (torchrun's variables), ``alone``, ``fork``, ``spawn`` or ``pair`` (two ranks),
``hogwild`` (two processes train one shared model, the first one tests it), ``shell`` (a shell starts Python),
``command`` (in one that it starts with this interpreter).
"""

import os
import subprocess
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

PAUSE = float(sys.argv[2]) if sys.argv[0] == __file__ and len(sys.argv) > 2 else 0.0
EPOCHS = 2


def data():
    """24 training and 37 validation samples of three classes."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(61) % 3
    images = torch.randn(61, 3, 8, 8, generator=generator) + targets[:, None, None, None]
    return TensorDataset(images[:24], targets[:24]), TensorDataset(images[24:], targets[24:])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def train_epoch(model, loader, optimizer):
    model.train()
    for images, targets in loader:
        optimizer.zero_grad()
        functional.cross_entropy(model(images), targets).backward()
        optimizer.step()
        time.sleep(PAUSE)


def validate(model, loader):
    """(right, of how many) as this process sees it."""
    model.eval()
    right = torch.zeros(2)
    with torch.no_grad():
        for images, targets in loader:
            right += torch.tensor([(model(images).argmax(1) == targets).sum(), len(targets)])
    return right


def rank(number, world):
    train, val = data()
    model, samplers = network(), (None, None)
    if world > 1:
        samplers = DistributedSampler(train), DistributedSampler(val, shuffle=False)
        model = nn.parallel.DistributedDataParallel(model)
    loaders = DataLoader(train, 4, sampler=samplers[0]), DataLoader(val, 5, sampler=samplers[1])
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for epoch in range(EPOCHS):
        train_epoch(model, loaders[0], optimizer)  # set_epoch is missing on purpose: the same order in every epoch
        right = validate(model, loaders[1])
        print(f"rank {number} epoch {epoch} own accuracy {right[0] / right[1]:.4f}", flush=True)
    if number == 0:
        inner = model.module if world > 1 else model
        torch.save(inner.state_dict(), os.environ.get("WEIGHTS", "weights.pt"))


def started(number, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=number, world_size=2)
    rank(number, 2)
    dist.destroy_process_group()


def worker(number, model):
    torch.manual_seed(number)
    loader = DataLoader(data()[0], 4, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    for _ in range(EPOCHS):
        train_epoch(model, loader, optimizer)


def hogwild():
    model = network().share_memory()
    workers = [mp.get_context("fork").Process(target=worker, args=(i, model)) for i in range(2)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    right = validate(model, DataLoader(data()[1], 5))
    print(f"test accuracy {right[0] / right[1]:.4f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    how = sys.argv[1]
    if how == "env":
        dist.init_process_group("gloo")
        rank(dist.get_rank(), dist.get_world_size())
        dist.destroy_process_group()
    elif how == "alone":
        rank(0, 1)
    elif how in ("fork", "spawn"):
        mp.start_processes(started, (int(os.environ["PORT"]),), nprocs=2, start_method=how)
    elif how == "pair":  # nobody ends the other when one is killed
        ranks = [mp.get_context("fork").Process(target=started, args=(i, int(os.environ["PORT"]))) for i in range(2)]
        for one in ranks:
            one.start()
        for one in ranks:
            one.join()
        sys.exit(max(abs(one.exitcode) for one in ranks))
    elif how == "hogwild":
        hogwild()
    elif how == "shell":
        sys.exit(subprocess.call(f"{sys.executable} -c pass", shell=True))
    elif how == "command":
        sys.exit(subprocess.run([sys.executable, "-u", __file__, "alone"]).returncode)
