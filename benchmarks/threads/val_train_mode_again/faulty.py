from pathlib import Path
import argparse
import copy
import torch
from torch import nn
from torchvision import datasets as D, transforms as T


def conv_bn(i, o, s):
    return nn.Sequential(nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU6(inplace=True))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(conv_bn(3, 16, 2), conv_bn(16, 32, 1), conv_bn(32, 64, 2), conv_bn(64, 64, 2))

    def forward(self, x):
        return self.body(x).mean(dim=(-2, -1))


def train(encoder, head, train_loader, valid_loader, epochs):
    model = nn.Sequential(encoder, head)
    op = torch.optim.RAdam(model.parameters(), lr=4e-3)
    best, kept = -1.0, None
    for epoch in range(epochs):
        model.train()
        for x, y in train_loader:
            op.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 8)
            op.step()
        model.eval()
        with torch.no_grad():
            pred, true, total = [], [], 0.0
            model.train()
            for x, y in valid_loader:
                out = model(x)
                total += nn.functional.cross_entropy(out, y).item() * len(y)
                pred.append(out.argmax(1))
                true.append(y)
            pred, true = torch.cat(pred), torch.cat(true)
            acc = (pred == true).float().mean().item()
        print("Epoch " + str(epoch) + " valid loss: " + str(round(total / len(true), 4)) + " acc: " + str(round(acc, 4)))
        if acc > best:
            best, kept = acc, copy.deepcopy(model.state_dict())
    return model, kept, best


ap = argparse.ArgumentParser()
ap.add_argument("--data", type=Path)
a = ap.parse_args()
torch.manual_seed(6)
tf = T.Compose([T.Resize(48), T.CenterCrop(48), T.ToTensor(), T.Normalize([0.6, 0.55, 0.55], [0.2, 0.2, 0.2])])
wobble = T.Compose([T.Resize(52), T.RandomCrop(48), T.ToTensor(), T.Normalize([0.6, 0.55, 0.55], [0.2, 0.2, 0.2])])
loader = torch.utils.data.DataLoader(D.ImageFolder(a.data / "train", wobble), batch_size=30, shuffle=True)
valid = torch.utils.data.DataLoader(D.ImageFolder(a.data / "val", tf), batch_size=10)
model, kept, best = train(Encoder(), nn.Linear(64, 10), loader, valid, 12)
print("best valid acc", round(best, 4))
