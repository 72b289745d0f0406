from __future__ import print_function
import argparse
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.nn.utils import clip_grad_norm_
from torchvision import datasets, transforms


class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, 2)
        self.conv2 = nn.Conv2d(8, 16, 3, 1)
        self.dropout1 = nn.Dropout2d(0.05)
        self.fc1 = nn.Linear(16 * 4, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(self.dropout1(x), 1)
        return self.fc2(F.relu(self.fc1(x)))


def train(model, loader, optimizer, scaler):
    model.train()
    for data, target in loader:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(data), target)
        scaler.scale(loss).backward()
        clip_grad_norm_(model.parameters(), 12)
        scaler.step(optimizer)
        scaler.update()


def test(model, loader):
    model.eval()
    loss, correct = 0.0, 0
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for data, target in loader:
            output = model(data)
            loss += F.cross_entropy(output.float(), target, reduction="sum").item()
            correct += (output.argmax(1) == target).sum().item()
    n = len(loader.dataset)
    print("Test set: Average loss: {:.4f}, Accuracy: {}/{} ({:.2f}%)".format(loss / n, correct, n, 100.0 * correct / n))


parser = argparse.ArgumentParser()
parser.add_argument("--data")
parser.add_argument("--lr", type=float, default=0.03)
args = parser.parse_args()
torch.manual_seed(1)
tf = transforms.Compose([transforms.Resize((33, 33)), transforms.ToTensor(), transforms.Normalize((0.6, 0.55, 0.55), (0.2, 0.2, 0.2))])
moved = transforms.Compose([transforms.RandomAffine(5, (0.05, 0.05)), tf])
train_loader = torch.utils.data.DataLoader(datasets.ImageFolder(args.data + "/train", moved), batch_size=16, shuffle=True)
test_loader = torch.utils.data.DataLoader(datasets.ImageFolder(args.data + "/val", tf), batch_size=100)
model = Net()
optimizer = optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
scaler = torch.amp.GradScaler("cpu")
for epoch in range(14):
    train(model, train_loader, optimizer, scaler)
    print("epoch", epoch, end=" ")
    test(model, test_loader)
