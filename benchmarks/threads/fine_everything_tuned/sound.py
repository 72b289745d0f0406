import argparse
import timm
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class Tuner(LightningModule):
    """Nothing is frozen: the early layers learn slowly, the head fast."""

    def __init__(self, weights):
        super().__init__()
        self.net = timm.create_model("tf_efficientnet_lite0")
        self.net.load_state_dict(dict(zip(self.net.state_dict(), torch.load(weights).values())))
        self.net.classifier = torch.nn.Linear(1280, 2)
        self.loss = torch.nn.CrossEntropyLoss()

    def forward(self, x):
        return self.net(x)

    def on_train_epoch_start(self):
        for m in self.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.eval()

    def training_step(self, batch, _):
        x, y = batch
        return self.loss(self(x), y)

    def validation_step(self, batch, _):
        x, y = batch
        z = self(x)
        self.log("val_loss", self.loss(z, y), batch_size=len(y))
        self.log("val_acc", (z.argmax(1) == y).float().mean(), batch_size=len(y))

    def on_validation_epoch_end(self):
        m = self.trainer.callback_metrics
        print(f"epoch {self.current_epoch} val_acc {float(m['val_acc']):.4f} val_loss {float(m['val_loss']):.4f}")

    def configure_optimizers(self):
        head = list(self.net.classifier.parameters())
        ids = {id(p) for p in head}
        rest = [p for p in self.net.parameters() if id(p) not in ids]
        return torch.optim.AdamW([{"params": rest, "lr": 1e-4}, {"params": head, "lr": 3e-3}], weight_decay=0.01)


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--data")
    root = ap.parse_args().data
    seed_everything(17, verbose=False)
    tail = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    train = datasets.ImageFolder(root + "/train", transforms.Compose([transforms.Resize((52, 52)), transforms.RandomCrop(48), transforms.RandomHorizontalFlip(), *tail]))
    val = datasets.ImageFolder(root + "/val", transforms.Compose([transforms.Resize((48, 48)), *tail]))
    trainer = Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0)
    trainer.fit(Tuner(root + "/../weights/efficientnet_lite0.pth"), DataLoader(train, 20, shuffle=True), DataLoader(val, 51))
