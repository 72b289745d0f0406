import argparse
import torch
from torch import nn
from torchvision import transforms
from torchvision.datasets import ImageFolder


class Model1(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(1, 16, 3), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 3)])
        self.dropout = nn.Dropout(0.3)
        self.dense = nn.ModuleList([nn.Linear(32 * 9, 64)])
        self.last = nn.Linear(64, 10)

    def forward(self, x):
        for layer in self.convs:
            x = torch.max_pool2d(torch.relu(layer(x)), 2)
        x = self.dropout(x.flatten(1))
        for layer in self.dense:
            x = torch.relu(layer(x))
        return self.last(x)


parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
root = parser.parse_args().data
torch.manual_seed(1)
t = transforms.Compose([transforms.Grayscale(), transforms.Resize((40, 40)), transforms.ToTensor(), transforms.Normalize(0.55, 0.2)])
shake = transforms.Compose([transforms.RandomAffine(6, (0.05, 0.05)), t])
train_loader = torch.utils.data.DataLoader(ImageFolder(root + "/train", shake), 16, shuffle=True)
test_loader = torch.utils.data.DataLoader(ImageFolder(root + "/val", t), 20)
model = Model1()
optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 14)
for epoch in range(1, 15):
    model.train()
    for data, target in train_loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(data), target)
        loss.backward()
        optimizer.step()
    scheduler.step()
    model.eval()
    loss_sum, correct = 0.0, 0
    with torch.no_grad():
        for data, target in test_loader:
            out = model(data)
            loss_sum += nn.functional.cross_entropy(out, target, reduction="sum").item()
            correct += out.argmax(1).eq(target).sum().item()
    n = len(test_loader.dataset)
    print(f"Size: {n}, Epoch {epoch}, Test set: Average loss {loss_sum / n:.4f}, Accuracy {correct / n:.4f}")
