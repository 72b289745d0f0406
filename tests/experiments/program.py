"""A small program with one fault of choice, run again by the tests of interventions."""

import copy
import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

fault = sys.argv[1] if len(sys.argv) > 1 else ""
torch.manual_seed(0)
made = torch.Generator().manual_seed(7)


class Images(Dataset):
    def __init__(self, n, transform=None):
        base = torch.randn(3, 3, 4, 4, generator=made)
        self.targets = (torch.arange(n) % 3).tolist()
        if fault == "unshuffled":
            self.targets = sorted(self.targets)
        noise = torch.randn(n, 3, 16, 16, generator=made)
        self.images = F.interpolate(base, 16, mode="bilinear")[self.targets] + 0.7 * noise
        self.transform = transform

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        image = self.images[i]
        return (self.transform(image) if self.transform else image), self.targets[i]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def ahead(loader):
    """Each batch of a loader when the next one is there."""
    last = None
    for batch in loader:
        if last is not None:
            yield last
        last = batch
    yield last


val_transform = transforms.RandomHorizontalFlip() if fault == "random_val" else None
train_set, val_set = Images(48), Images(30, val_transform)


def loss_of(logits, labels):
    """The loss by a formula of the program's own; of what no hook of a loss function tells, where it is bent."""
    if fault == "softmax":
        return F.cross_entropy(logits.softmax(1), labels)
    if fault in ("summed", "scaled", "parts"):
        return F.cross_entropy(logits, labels, reduction="sum")
    if fault == "bent":
        return (logits.softmax(1) * torch.tensor([3.0, 1.0, -2.0])).sum(1).sub(labels).pow(2).mean()
    return F.cross_entropy(logits, labels)


few = torch.utils.data.WeightedRandomSampler([1.0] * 10, 48) if fault == "few_drawn" else None
train_loader = DataLoader(train_set, 8, shuffle=fault not in ("unshuffled", "few_drawn"), sampler=few)
val_loader = DataLoader(val_set, 8)
model = Net()
if fault == "frozen":
    model.body.requires_grad_(False)
held = model.head.parameters() if fault in ("missing", "frozen") else model.parameters()
optimizer = torch.optim.SGD(held, lr=5.0 if fault == "hot" else 0.05, weight_decay=1e-4)
schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
averaged = copy.deepcopy(model)
scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
for epoch in range(2):
    model.eval() if fault == "eval_training" else model.train()
    for images, labels in ahead(train_loader) if fault == "ahead" else train_loader:
        if fault != "no_zero_grad":
            optimizer.zero_grad()
        logits = model.head(model.body(images).mean((2, 3))) if fault == "parts" else model(images)
        if fault == "scaled":
            scaler.scale(loss_of(logits, labels)).backward()
            scaler.step(optimizer)
            scaler.update()
            continue
        loss_of(logits, labels).backward()
        if fault == "clipped":
            nn.utils.clip_grad_norm_(model.parameters(), 1e-4)
        if fault != "no_step":
            optimizer.step()
        if fault == "shrunk":
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(0.5)
        if fault == "schedule":
            schedule.step()
    if fault != "train_validation":
        model.eval()
    if fault == "averaged":
        averaged.eval()
    right = 0
    for images, labels in val_loader:
        with torch.set_grad_enabled(fault == "steps_on_val"):
            logits = averaged(images) if fault == "averaged" else model(images)
        if fault == "steps_on_val":
            optimizer.zero_grad()
            F.cross_entropy(logits, labels).backward()
            optimizer.step()
        right += (logits.argmax(1) == labels).sum().item()
    print(f"epoch {epoch} val acc {right / len(val_set):.4f}")
