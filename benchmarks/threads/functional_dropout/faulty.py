import argparse
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim import AdamW
from torchvision import transforms, datasets


class HandNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 3)
        self.conv2 = nn.Conv2d(24, 48, 3)
        self.conv3 = nn.Conv2d(48, 64, 3)
        self.fc1 = nn.Linear(64 * 16, 96)
        self.fc2 = nn.Linear(96, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = F.relu(F.max_pool2d(self.conv3(x), 2))
        x = torch.flatten(x, 1)
        x = F.dropout(x, 0.4)
        x = F.relu(self.fc1(x))
        x = F.dropout(x, 0.4)
        return F.log_softmax(self.fc2(x), dim=1)


def train(model, loader, opt):
    model.train()
    for data, target in loader:
        opt.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        opt.step()
    return loss.item()


def test(model, loader):
    model.eval()
    test_loss, correct = 0, 0
    with torch.no_grad():
        for data, target in loader:
            output = model(data)
            test_loss += F.nll_loss(output, target, reduction="sum").item()
            pred = output.argmax(dim=1, keepdim=True)
            correct += pred.eq(target.view_as(pred)).sum().item()
    n = len(loader.dataset)
    print(f"\nTest set: Average loss: {test_loss / n:.4f}, Accuracy: {correct}/{n} ({100.0 * correct / n:.1f}%)\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    a = parser.parse_args()
    torch.manual_seed(1)
    t = transforms.Compose([transforms.Resize((48, 48)), transforms.ToTensor(), transforms.Normalize((0.6, 0.55, 0.55), (0.2, 0.2, 0.2))])
    shifty = transforms.Compose([transforms.RandomAffine(8, translate=(0.06, 0.06)), t])
    tr = torch.utils.data.DataLoader(datasets.ImageFolder(a.data + "/train", shifty), batch_size=20, shuffle=True)
    va = torch.utils.data.DataLoader(datasets.ImageFolder(a.data + "/val", t), batch_size=100)
    model = HandNet()
    opt = AdamW(model.parameters(), lr=1.5e-3)
    for epoch in range(11):
        print("epoch", epoch, "last loss", round(train(model, tr, opt), 4))
        test(model, va)


main()
