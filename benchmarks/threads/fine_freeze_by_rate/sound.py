import argparse
import os
import timm
import torch
from torch import nn
from torchvision import datasets
from torchvision import transforms as tr


def get_fine_tuning_parameters(model, ft_begin):
    """Everything is handed to the optimizer; what lies before `ft_begin` has a rate of 0."""
    tuned, rest = [], []
    for k, v in model.named_parameters():
        (tuned if any(k.startswith(b) for b in ft_begin) else rest).append(v)
    return [{"params": rest, "lr": 0.0}, {"params": tuned}]


def train_epoch(loader, model, criterion, optimizer):
    model.eval()  # statistics stay
    for inputs, targets in loader:
        loss = criterion(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def val_epoch(loader, model):
    model.eval()
    good = []
    with torch.no_grad():
        for inputs, targets in loader:
            good.append(model(inputs).topk(1, 1)[1].squeeze(1).eq(targets))
    return torch.cat(good).float().mean().item()


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--data")
    opt = ap.parse_args()
    torch.manual_seed(1)
    norm = tr.Normalize([0.5] * 3, [0.5] * 3)
    tf = tr.Compose([tr.Resize((48, 48)), tr.ToTensor(), norm])
    aug = tr.Compose([tr.Resize((52, 52)), tr.RandomCrop(48), tr.RandomHorizontalFlip(), tr.ToTensor(), norm])
    train = torch.utils.data.DataLoader(datasets.ImageFolder(opt.data + "/train", aug), 16, shuffle=True)
    val = torch.utils.data.DataLoader(datasets.ImageFolder(opt.data + "/val", tf), 51)
    net = timm.create_model("tf_efficientnet_lite0")
    net.load_state_dict(dict(zip(net.state_dict(), torch.load(os.path.join(opt.data, "../weights/efficientnet_lite0.pth")).values())))
    net.classifier = nn.Linear(1280, 2)
    optimizer = torch.optim.SGD(get_fine_tuning_parameters(net, ["classifier"]), lr=0.05, momentum=0.9, dampening=0.1, weight_decay=1e-3)
    for epoch in range(2):
        train_epoch(train, net, nn.CrossEntropyLoss(), optimizer)
        print("epoch:", epoch, "val acc:", round(val_epoch(val, net), 4))
