"""Hugging Face datasets: a table of image files with a class feature, decoded on the fly."""

import sys
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from torch.utils.data import DataLoader
from torchvision import transforms

from tests.inputs.common import fit

root = Path(sys.argv[1])
classes = sorted(p.name for p in (root / "train").iterdir())
features = Features({"image": Image(), "label": ClassLabel(names=classes)})
tf = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])


def split(name):
    files = sorted((root / name).rglob("*.png"))
    rows = {"image": [str(f) for f in files], "label": [f.parent.name for f in files]}
    data = Dataset.from_dict(rows, features=features)
    return data.with_transform(lambda rows: {"image": [tf(i.convert("RGB")) for i in rows["image"]], "label": rows["label"]})


data = DatasetDict({n: split(n) for n in ("train", "val")})
fit(DataLoader(data["train"], 8, shuffle=True), DataLoader(data["val"], 8), 2, lambda b: b["image"], lambda b: b["label"])
