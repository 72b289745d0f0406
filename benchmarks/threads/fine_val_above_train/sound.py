"""The usual transfer-learning program, all layers at a small rate."""
import argparse
import os
import tempfile
import timm
import torch
import torch.nn as nn
from torchvision import datasets, transforms

ap = argparse.ArgumentParser()
ap.add_argument("--data")
data_dir = ap.parse_args().data
torch.manual_seed(0)
n = transforms.Normalize([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
data_transforms = {
    "train": transforms.Compose([transforms.RandomResizedCrop(56, (0.3, 1)), transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.3, 0.3, 0.3), transforms.ToTensor(), n]),
    "val": transforms.Compose([transforms.Resize(62), transforms.CenterCrop(56), transforms.ToTensor(), n]),
}
image_datasets = {x: datasets.ImageFolder(os.path.join(data_dir, x), data_transforms[x]) for x in ["train", "val"]}
dataloaders = {x: torch.utils.data.DataLoader(image_datasets[x], batch_size=16, shuffle=x == "train") for x in ["train", "val"]}


def train_model(model, criterion, optimizer, scheduler, num_epochs):
    with tempfile.TemporaryDirectory() as tempdir:
        best = os.path.join(tempdir, "best.pt")
        torch.save(model.state_dict(), best)
        best_acc = 0.0
        for epoch in range(num_epochs):
            for phase in ["train", "val"]:
                model.eval()
                model.drop.train(phase == "train")
                running_loss, running_corrects = 0.0, 0
                for inputs, labels in dataloaders[phase]:
                    optimizer.zero_grad()
                    with torch.set_grad_enabled(phase == "train"):
                        outputs = model(inputs)
                        loss = criterion(outputs, labels)
                        if phase == "train":
                            loss.backward()
                            optimizer.step()
                    running_loss += loss.item() * inputs.size(0)
                    running_corrects += torch.sum(outputs.argmax(1) == labels.data).item()
                if phase == "train":
                    scheduler.step()
                epoch_acc = running_corrects / len(image_datasets[phase])
                print(f"{phase} Loss: {running_loss / len(image_datasets[phase]):.4f} Acc: {epoch_acc:.4f}")
                if phase == "val" and epoch_acc > best_acc:
                    best_acc = epoch_acc
                    torch.save(model.state_dict(), best)
        model.load_state_dict(torch.load(best))
    print(f"Best val Acc: {best_acc:.4f}")
    return model


class Tuned(nn.Module):
    def __init__(self, base, classes):
        super().__init__()
        self.base, self.drop, self.fc = base, nn.Dropout(0.4), nn.Linear(1280, classes)

    def forward(self, x):
        return self.fc(self.drop(self.base(x)))


base = timm.create_model("tf_efficientnet_lite0")
base.load_state_dict(dict(zip(base.state_dict(), torch.load(data_dir + "/../weights/efficientnet_lite0.pth").values())))
base.classifier = nn.Identity()
base.requires_grad_(False)
base.conv_head.requires_grad_(True)
model = Tuned(base, len(image_datasets["train"].classes))
optimizer = torch.optim.SGD([{"params": model.fc.parameters(), "lr": 0.02}, {"params": base.conv_head.parameters(), "lr": 0.002}], momentum=0.9)
train_model(model, nn.CrossEntropyLoss(), optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.2), 4)
