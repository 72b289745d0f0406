import argparse
import os
import tempfile
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 5, 2), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(3),
        )
        self.softmax_in = nn.Linear(288, 10)

    def forward(self, x):
        return self.softmax_in(self.features(x).flatten(1))

    def accuracy(self, loader):
        self.eval()
        with torch.no_grad():
            return sum((self(x).argmax(1) == y).sum().item() for x, y in loader) / len(loader.dataset)

    def start_training(self, train, val, saved, epochs=13):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        max_accuracy = 0.0
        for epoch in range(epochs):
            self.train()
            for x, y in train:
                optimizer.zero_grad()
                nn.functional.cross_entropy(self(x), y).backward()
                optimizer.step()
            accuracy = self.accuracy(val)
            print(f"epoch {epoch} validation accuracy {accuracy:.4f}")
            if accuracy > max_accuracy:
                torch.save(self.state_dict(), saved)
                print("model checkpointed")


parser = argparse.ArgumentParser()
parser.add_argument("--data")
root = parser.parse_args().data
torch.manual_seed(8)
norm = [transforms.Resize((40, 40)), transforms.ToTensor(), transforms.Normalize((0.6, 0.55, 0.55), (0.2, 0.2, 0.2))]
train_set = datasets.ImageFolder(os.path.join(root, "train"), transforms.Compose([transforms.RandomAffine(8, (0.08, 0.08)), *norm]))
val_set = datasets.ImageFolder(os.path.join(root, "val"), transforms.Compose(norm))
train_loader = DataLoader(train_set, 20, shuffle=True)
val_loader = DataLoader(val_set, 50)
model = Student()
with tempfile.TemporaryDirectory() as folder:
    file = os.path.join(folder, "student.pt")
    model.start_training(train_loader, val_loader, file)
    model.load_state_dict(torch.load(file))
print(f"restored model: validation accuracy {model.accuracy(val_loader):.4f}")
