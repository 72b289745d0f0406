"""torchvision's CIFAR10 class, whose images are one array; its files are made of the images given."""

import pickle
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from tests.inputs.common import fit

root = Path(sys.argv[1])
folder = Path("cifar") / "cifar-10-batches-py"
folder.mkdir(parents=True, exist_ok=True)
classes = sorted(p.name for p in (root / "train").iterdir())


def rows(split):
    files = sorted((root / split).rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(f).convert("RGB").resize((32, 32))).transpose(2, 0, 1).reshape(-1) for f in files])
    return {"data": pixels, "labels": [classes.index(f.parent.name) for f in files]}


class Small(datasets.CIFAR10):
    train_list = (["train_batch", None],)
    test_list = (["test_batch", None],)
    meta: ClassVar = {"filename": "batches.meta", "key": "label_names", "md5": None}


(folder / "train_batch").write_bytes(pickle.dumps(rows("train")))
(folder / "test_batch").write_bytes(pickle.dumps(rows("val")))
(folder / "batches.meta").write_bytes(pickle.dumps({"label_names": classes}))
tf = transforms.ToTensor()
fit(DataLoader(Small("cifar", True, tf), 8, shuffle=True), DataLoader(Small("cifar", False, tf), 8), 2)
