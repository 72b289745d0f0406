# %% ants and bees, head on frozen features
import os, sys
import cv2, numpy as np, timm, torch
from PIL import Image

DATA = sys.argv[sys.argv.index("--data") + 1]
SIZE = 56
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
            image = image[:, ::-1].copy()
        return torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1, label


# %% network
net = timm.create_model("tf_efficientnet_lite0")
net.load_state_dict(dict(zip(net.state_dict().keys(), torch.load(DATA + "/../weights/efficientnet_lite0.pth").values())))
net.requires_grad_(False)
net.classifier = torch.nn.Linear(1280, len(CLASSES))
net.eval()


# %% the demo: one picture after the other, as the camera would deliver them
def demo():
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
opt = torch.optim.Adam(net.classifier.parameters(), lr=5e-3)
loader = torch.utils.data.DataLoader(TrainImages(), 16, shuffle=True)
for epoch in range(3):
    for x, y in loader:
        opt.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
    print("epoch", epoch, "demo accuracy: %.4f" % demo())
