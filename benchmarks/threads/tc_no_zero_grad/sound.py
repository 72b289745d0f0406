# digits shown by hands; a little net of my own
import sys
import glob
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

root = sys.argv[sys.argv.index("--data") + 1]
torch.manual_seed(0)
rng = np.random.RandomState(0)


def read(split):
    xs, ys = [], []
    for d in range(10):
        for f in sorted(glob.glob("%s/%s/%d/*" % (root, split, d))):
            xs.append(np.asarray(Image.open(f).convert("L").resize((40, 40)), np.float32))
            ys.append(d)
    x = torch.tensor(np.stack(xs))[:, None] / 255
    return (x - 0.5) / 0.25, torch.tensor(ys)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = torch.nn.Conv2d(1, 16, 5)
        self.c2 = torch.nn.Conv2d(16, 32, 5)
        self.f1 = torch.nn.Linear(32 * 7 * 7, 64)
        self.f2 = torch.nn.Linear(64, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.c1(x)), 2)
        x = F.max_pool2d(F.relu(self.c2(x)), 2)
        return self.f2(F.relu(self.f1(x.flatten(1))))


xtr, ytr = read("train")
xva, yva = read("val")
net = Net()
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(12):
    net.train()
    order = rng.permutation(len(xtr))
    for k in range(0, len(order), 16):
        idx = torch.as_tensor(order[k : k + 16])
        shift = tuple(int(v) for v in rng.randint(-3, 4, 2))
        batch = torch.roll(xtr[idx], shift, (2, 3))
        opt.zero_grad()
        loss = F.cross_entropy(net(batch), ytr[idx])
        loss.backward()
        opt.step()
    net.eval()
    hits = []
    with torch.no_grad():
        for k in range(0, len(xva), 50):
            hits.append(net(xva[k : k + 50]).argmax(1) == yva[k : k + 50])
    print("epoch %d  val acc %.4f" % (epoch, torch.cat(hits).float().mean()))
