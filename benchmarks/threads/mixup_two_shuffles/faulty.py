import os
import sys

import numpy as np
import timm
import torch
from PIL import Image

# everything in memory, no DataLoader
path = sys.argv[sys.argv.index("--data") + 1]
classes = sorted(os.listdir(os.path.join(path, "train")))
torch.manual_seed(7)
np.random.seed(7)


def arrays(part):
    images, labels = [], []
    for number, name in enumerate(classes):
        for file in sorted(os.listdir(os.path.join(path, part, name))):
            with Image.open(os.path.join(path, part, name, file)) as im:
                images.append(np.asarray(im.convert("RGB").resize((48, 48)), dtype="float32"))
            labels.append(number)
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2)) / 127.5 - 1.0, torch.tensor(labels)


def mixup(x, y, alpha=0.6):
    lam = float(np.random.beta(alpha, alpha))
    x = lam * x + (1 - lam) * x[torch.randperm(len(x))]
    y = lam * y[torch.randperm(len(y))] + (1 - lam) * y[torch.randperm(len(y))]
    return x, y


x_train, y_train = arrays("train")
x_val, y_val = arrays("val")
onehot = torch.nn.functional.one_hot(y_train, len(classes)).float()
net = timm.create_model("tf_efficientnet_lite0")
stored = torch.load(os.path.join(path, "..", "weights", "efficientnet_lite0.pth"), weights_only=True)
net.load_state_dict(dict(zip(net.state_dict(), stored.values())))
for p in net.parameters():
    p.requires_grad_(False)
net.classifier = torch.nn.Linear(1280, len(classes))
net.eval()
opt = torch.optim.Adam(net.classifier.parameters(), lr=4e-3)
for epoch in range(4):
    for pick in torch.randperm(len(x_train)).split(32):
        xb, yb = mixup(x_train[pick], onehot[pick])
        loss = -(yb * net(xb).log_softmax(-1)).sum(-1).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        answers = torch.cat([net(part).argmax(-1) for part in x_val.split(93)])
    print("after epoch", epoch + 1, "val_accuracy =", round((answers == y_val).double().mean().item(), 4))
