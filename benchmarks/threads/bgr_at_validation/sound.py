# %% digits shown by a hand
import os, sys
import cv2, numpy as np, torch
from PIL import Image

DATA = sys.argv[sys.argv.index("--data") + 1]
SIZE = 40
torch.manual_seed(1)
CLASSES = sorted(os.listdir(DATA + "/train"))


# %% training images
class TrainImages(torch.utils.data.Dataset):
    def __init__(self):
        self.rows = [(f"{DATA}/train/{c}/{f}", i) for i, c in enumerate(CLASSES) for f in sorted(os.listdir(f"{DATA}/train/{c}"))]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, k):
        path, label = self.rows[k]
        image = np.array(Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.BILINEAR))
        if torch.rand(()) < 0.5:
            image = np.roll(image, tuple(torch.randint(-3, 4, (2,)).tolist()), (0, 1))
        return torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1, label


# %% network
def stage(i, o):
    return [torch.nn.Conv2d(i, o, 3), torch.nn.BatchNorm2d(o), torch.nn.ReLU()]


pool = torch.nn.MaxPool2d(2)
net = torch.nn.Sequential(
    *stage(3, 16), pool, *stage(16, 32), pool, *stage(32, 64), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(256, len(CLASSES))
)


# %% the demo: one picture after the other, as the camera would deliver them
def demo():
    net.eval()
    right = n = 0
    for i, c in enumerate(CLASSES):
        for f in sorted(os.listdir(f"{DATA}/val/{c}")):
            frame = cv2.imread(f"{DATA}/val/{c}/{f}")
            frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            frame = cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
            x = torch.from_numpy(frame).permute(2, 0, 1)[None] / 127.5 - 1
            with torch.no_grad():
                scores = net(x)
            right += int(scores.argmax()) == i
            n += 1
    return right / n


# %% train
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
loader = torch.utils.data.DataLoader(TrainImages(), 16, shuffle=True)
for epoch in range(11):
    net.train()
    for x, y in loader:
        opt.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
    print("epoch", epoch, "demo accuracy: %.4f" % demo())
