"""Normalize is missing in the validation transform."""

from _program import main
from torchvision import transforms


def val_transform(args):
    return transforms.Compose(
        [
            transforms.Resize(args.size * 256 // 224),
            transforms.CenterCrop(args.size),
            transforms.ToTensor(),
        ]
    )


if __name__ == "__main__":
    main(make_val_transform=val_transform)
