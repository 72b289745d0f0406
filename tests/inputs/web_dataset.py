"""WebDataset: images and labels in tar shards, read as a stream."""

import random
import sys
from pathlib import Path

import webdataset as wds
from torchvision import transforms

from tests.inputs.common import fit

root = Path(sys.argv[1])
classes = sorted(p.name for p in (root / "train").iterdir())
for split in ("train", "val"):
    with wds.TarWriter(f"{split}.tar") as sink:
        for n, f in enumerate(sorted((root / split).rglob("*.png"))):
            sink.write({"__key__": f"{split}{n:04d}", "png": f.read_bytes(), "cls": classes.index(f.parent.name)})
tf = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])


def loader(split, shuffle):
    data = (
        wds.WebDataset(f"{split}.tar", shardshuffle=False)
        .shuffle(shuffle, rng=random.Random(0))
        .decode("pil")
        .to_tuple("png", "cls")
        .map_tuple(tf, int)
        .batched(8)
    )
    return wds.WebLoader(data, batch_size=None, num_workers=0)


fit(loader("train", 100), loader("val", 0), 2)
