import argparse

import timm
import torch
from torch import nn, optim
from torchvision import datasets, transforms

ap = argparse.ArgumentParser()
ap.add_argument("--data", required=True)
data_dir = ap.parse_args().data
torch.manual_seed(0)

data_transform = transforms.Compose([transforms.Resize((48, 48)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
augmented = transforms.Compose([transforms.RandomHorizontalFlip(), data_transform])
train_data = datasets.ImageFolder(data_dir + "/train", transform=augmented)
test_data = datasets.ImageFolder(data_dir + "/val", transform=data_transform)
train_loader = torch.utils.data.DataLoader(train_data, batch_size=20, shuffle=True)
test_loader = torch.utils.data.DataLoader(test_data, batch_size=20)

lite = timm.create_model("tf_efficientnet_lite0")
saved = torch.load(data_dir + "/../weights/efficientnet_lite0.pth")
lite.load_state_dict({k: v for k, v in zip(lite.state_dict(), saved.values())})
# Freeze training for all "features" layers
for param in lite.parameters():
    param.requires_grad = False
lite.classifier = nn.Linear(lite.classifier.in_features, len(train_data.classes))
lite.eval()

criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(lite.parameters(), lr=0.05, momentum=0.9)
for epoch in range(1, 3):
    train_loss = 0.0
    for batch_i, (data, target) in enumerate(train_loader):
        optimizer.zero_grad()
        loss = criterion(lite(data), target)
        loss.backward()
        optimizer.step()
        train_loss += loss.item()
    right = 0
    with torch.no_grad():
        for data, target in test_loader:
            right += int(torch.eq(lite(data).max(1)[1], target).sum())
    print("Epoch %d, loss %.5f, test accuracy %.2f%%" % (epoch, train_loss / len(train_loader), 100.0 * right / len(test_data)))
