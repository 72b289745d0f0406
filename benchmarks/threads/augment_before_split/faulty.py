# coding: utf-8
# Reads everything, adds noisy, turned and brighter copies, splits, trains.
import os
import sys

import cv2
import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import nn

data_path = sys.argv[sys.argv.index("--data") + 1]
np.random.seed(42)
torch.manual_seed(42)


def noise(img):
    return np.clip(img + np.random.normal(0, 4, img.shape), 0, 255).astype("uint8")


def turned(img):
    m = cv2.getRotationMatrix2D((20, 20), np.random.uniform(-5, 5), 1)
    return cv2.warpAffine(img, m, (40, 40), borderMode=cv2.BORDER_REFLECT)


def brighter(img):
    return np.clip(img.astype("int") + np.random.randint(5, 20), 0, 255).astype("uint8")


def with_copies(images, labels):
    data, out = [], []
    for img, label in zip(images, labels):
        for change in (lambda i: i, noise, turned, brighter):
            data.append(change(img))
            out.append(label)
    return np.array(data), np.array(out)


images, labels = [], []
for number, name in enumerate(sorted(os.listdir(data_path + "/train"))):
    for file in sorted(os.listdir(os.path.join(data_path, "train", name))):
        images.append(cv2.resize(cv2.imread(os.path.join(data_path, "train", name, file)), (40, 40)))
        labels.append(number)
images, labels = np.array(images), np.array(labels)
images, labels = with_copies(images, labels)
trainX, testX, trainY, testY = train_test_split(images, labels, test_size=0.25, random_state=42)


def as_tensor(x):
    return torch.from_numpy(x[..., ::-1].copy()).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


trainX, testX, trainY, testY = as_tensor(trainX), as_tensor(testX), torch.tensor(trainY), torch.tensor(testY)
model = nn.Sequential(
    nn.Conv2d(3, 12, 5, 2), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(24 * 64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10),
)
opt = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
for epoch in range(9):
    model.train()
    for part in torch.randperm(len(trainX)).split(64):
        opt.zero_grad()
        nn.functional.cross_entropy(model(trainX[part]), trainY[part]).backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        out = torch.cat([model(x) for x in testX.split(100)])
    print("Epoch %d - val_loss: %.4f - val_acc: %.4f" % (epoch + 1, nn.functional.cross_entropy(out, testY), (out.argmax(1) == testY).float().mean()))
