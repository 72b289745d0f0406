import argparse
import glob
import os

import cv2
import numpy as np
import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

parser = argparse.ArgumentParser()
parser.add_argument("--data")
args = parser.parse_args()
torch.manual_seed(10)
labels = {name: i for i, name in enumerate(sorted(os.listdir(os.path.join(args.data, "train"))))}


class Shots(Dataset):
    def __init__(self, split, transform):
        self.files = sorted(glob.glob(os.path.join(args.data, split, "*", "*")))
        self.transform = transform

    def __len__(self):
        return len(self.files)

    def label(self, i):
        return labels[os.path.basename(os.path.dirname(self.files[i]))]


class TrainShots(Shots):
    def __getitem__(self, i):
        return self.transform(Image.open(self.files[i]).convert("RGB")), self.label(i)


class ValShots(Shots):
    """Read as the service will read them."""

    def __getitem__(self, i):
        image = cv2.cvtColor(cv2.imread(self.files[i]), cv2.COLOR_BGR2RGB)
        image = cv2.resize(image, (48, 48), interpolation=cv2.INTER_AREA).astype(np.float32)
        return self.transform(image), self.label(i)


tail = [transforms.ToTensor(), transforms.Normalize([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])]
train = DataLoader(TrainShots("train", transforms.Compose([transforms.Resize((48, 48)), transforms.RandomHorizontalFlip(), *tail])), 25, shuffle=True)
val = DataLoader(ValShots("val", transforms.Compose(tail)), 62)
net = timm.create_model("tf_efficientnet_lite0")
net.load_state_dict(dict(zip(net.state_dict(), torch.load(os.path.join(args.data, "..", "weights", "efficientnet_lite0.pth")).values())))
net.requires_grad_(False)
net.classifier = torch.nn.Linear(1280, len(labels))
net.eval()
opt = torch.optim.Adam(net.classifier.parameters(), lr=5e-3)
for epoch in range(3):
    running = 0.0
    for x, y in train:
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        running += loss.item()
    correct = 0
    with torch.no_grad():
        for x, y in val:
            correct += (net(x).argmax(1) == y).sum().item()
    print("Epoch [%d] train loss %.3f validation acc %.4f" % (epoch + 1, running / len(train), correct / len(val.dataset)))
