import argparse, os
import torch, timm
from torch import nn
from torchvision import datasets, transforms as T


class ImageClassificationTrainer:
    def __init__(self, model, train_set, val_set, batch_size=32, optimizer=torch.optim.Adam, **optimizer_kwargs):
        self.model = model
        self._criterion = nn.CrossEntropyLoss()
        self._train = torch.utils.data.DataLoader(train_set, batch_size=batch_size, shuffle=True)
        self._val = torch.utils.data.DataLoader(val_set, batch_size=batch_size)
        self._optimizer = optimizer((p for p in model.parameters() if p.requires_grad), **optimizer_kwargs)

    def training_step(self, batch):
        x, y = batch
        return self._criterion(self.model(x), y)

    def validation_step(self, batch):
        x, y = batch
        z = self.model(x)
        return (z.argmax(1) == y).float().sum().item(), len(y)

    def fit(self, epochs):
        for epoch in range(epochs):
            self.model.head.train()
            for batch in self._train:
                self._optimizer.zero_grad()
                loss = self.training_step(batch)
                loss.backward()
                self._optimizer.step()
            self.model.head.eval()
            with torch.no_grad():
                got = [self.validation_step(b) for b in self._val]
            print("epoch", epoch, "accuracy", round(sum(g for g, _ in got) / sum(n for _, n in got), 4))


class HeadOnFeatures(nn.Module):
    def __init__(self, trunk, classes):
        super().__init__()
        self.trunk = trunk
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(1280, classes))

    def forward(self, x):
        return self.head(self.trunk(x))


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--data")
    root = ap.parse_args().data
    torch.manual_seed(21)
    trunk = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    sd = torch.load(os.path.join(root, "..", "weights", "efficientnet_lite0.pth"))
    trunk.load_state_dict({k: v for k, v in zip(trunk.state_dict(), sd.values())})
    trunk.reset_classifier(0)
    trunk.eval().requires_grad_(False)
    tf = T.Compose([T.Resize(48), T.CenterCrop(48), T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])
    aug = T.Compose([T.Resize(48), T.RandomCrop(48, padding=4), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])
    tr, va = datasets.ImageFolder(root + "/train", aug), datasets.ImageFolder(root + "/val", tf)
    ImageClassificationTrainer(HeadOnFeatures(trunk, len(tr.classes)), tr, va, lr=6e-3).fit(3)
