"""Pairs of runs for the bench of comparisons: what is changed in a program, its call or its data, and what is to be told of it.

All pairs and what is expected of them were written before any of them was compared. Those of the calibration half were looked
at while the comparison was made, those of the other half afterwards.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

PROGRAMS = Path(__file__).with_name("compare_programs")
CLASSES, IMAGES, SIDE = 4, 100, 32
ALIKE = ("equal", "rounding", "chance")


@dataclass(frozen=True)
class Pair:
    """A program and the same one with a change; any of ``quantities`` told first is right, with none they are alike."""

    name: str
    half: str
    style: str
    what: str  # in words
    edits: Sequence[tuple[str, str]] = ()
    arguments: Sequence[str] = ()
    data: str = "data"
    quantities: Sequence[str] = ()
    verdicts: Sequence[str] = ALIKE  # of pairs that are alike

    @property
    def alike(self) -> bool:
        """Whether nothing of substance differs."""
        return not self.quantities

    def second(self) -> str:
        """The text of the changed program. Raises ValueError where an edit does not fit."""
        text = self.first()
        for old, new in self.edits:
            if text.count(old) < 1:
                raise ValueError(f"{self.name}: {old!r} is not in the program")
            text = text.replace(old, new)
        return text

    def first(self) -> str:
        """The text of the program."""
        return (PROGRAMS / f"{self.style}.py").read_text()


RENAMED = (
    ("class Pictures", "class Images"),
    ("Pictures(", "Images("),
    ("network()", "make_net()"),
    ("images, labels in train", "x, y in train"),
    ("model(images), labels)\n", "model(x), y)\n"),
)
STEP = """            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
"""
STEP_FOLDER = """            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
"""

PAIRS = (
    Pair("same", "calibration", "plain", "nothing", verdicts=("equal",)),
    Pair("renamed", "calibration", "plain", "names of classes, functions and variables", RENAMED, verdicts=("equal",)),
    Pair("seed", "calibration", "plain", "another seed", arguments=("--seed", "7"), verdicts=("chance",)),
    Pair(
        "val_mean",
        "calibration",
        "plain",
        "validation images are normalised otherwise",
        (
            ("def __init__(self, folder):\n", "def __init__(self, folder, mean=MEAN):\n        self.mean = mean\n"),
            ("(image - MEAN)", "(image - self.mean)"),
            ('Pictures(f"{args.data}/val")', 'Pictures(f"{args.data}/val", 0.2)'),
        ),
        quantities=("val images",),
    ),
    Pair("rate", "calibration", "plain", "a higher learning rate", arguments=("--lr", "1.5"), quantities=("rate",)),
    Pair("no_eval", "calibration", "plain", "no eval mode", (("        model.eval()\n", ""),), quantities=("val mode",)),
    Pair("small_batches", "calibration", "folder", "batches of 8", arguments=("--batch", "8"), quantities=("drawn",)),
    Pair(
        "no_crop",
        "calibration",
        "folder",
        "no random crops",
        (("        steps += [transforms.RandomCrop(28, padding=3)]\n", "        pass\n"),),
        quantities=("images",),
    ),
    Pair("files_gone", "calibration", "folder", "a third of two classes is gone", data="gone", quantities=("data",)),
    Pair(
        "multiplied",
        "calibration",
        "plain",
        "divided by multiplying with the inverse",
        (("(image - MEAN) / STD", "(image - MEAN) * (1 / STD) * 0.7 / 0.7"),),
        verdicts=("rounding", "equal"),
    ),
    Pair("optimizer_kind", "calibration", "folder", "SGD for AdamW", (("AdamW", "SGD"),), quantities=("optimizer",)),
    Pair(
        "head_scaled",
        "calibration",
        "plain",
        "first weights of the head times ten",
        (("    model = network()\n", "    model = network()\n    model[-1].weight.data.mul_(10)\n"),),
        quantities=("weights",),
    ),
    Pair(
        "layout",
        "held out",
        "folder",
        "comments and layout",
        (('"""The same pictures', '"""Written anew: the same pictures'), ("def evaluate", "# scores\ndef evaluate")),
        verdicts=("equal",),
    ),
    Pair(
        "order",
        "held out",
        "folder",
        "another order of the batches",
        (("args.batch, shuffle=True)", "args.batch, shuffle=True, generator=torch.Generator().manual_seed(5))"),),
        verdicts=("chance",),
    ),
    Pair(
        "log_softmax",
        "held out",
        "plain",
        "the loss in two parts",
        (("F.cross_entropy(model(images), labels)", "F.nll_loss(F.log_softmax(model(images), 1), labels)"),),
        verdicts=("equal", "rounding"),
    ),
    Pair(
        "softmax_first",
        "held out",
        "plain",
        "softmax before cross-entropy",
        (("F.cross_entropy(model(images), labels)", "F.cross_entropy(model(images).softmax(1), labels)"),),
        quantities=("logits", "loss"),
    ),
    Pair(
        "some_targets",
        "held out",
        "folder",
        "every fifth target is the next class",
        (
            (
                "    train = DataLoader(data,",
                "    data.samples = [(f, (t + (i % 5 == 0)) % 4) for i, (f, t) in enumerate(data.samples)]\n"
                "    train = DataLoader(data,",
            ),
        ),
        quantities=("targets",),
    ),
    Pair(
        "decay",
        "held out",
        "plain",
        "a hundred times the weight decay",
        arguments=("--weight-decay", "0.05"),
        quantities=("optimizer",),
    ),
    Pair("gelu", "held out", "plain", "GELU for ReLU", (("nn.ReLU()", "nn.GELU()"),), quantities=("logits",)),
    Pair(
        "nearest",
        "held out",
        "folder",
        "images are resized to the nearest pixel",
        (("Resize(28)", "Resize(28, transforms.InterpolationMode.NEAREST)"),),
        quantities=("images",),
    ),
    Pair(
        "metric",
        "held out",
        "folder",
        "accuracy over a wrong count",
        (("total += len(labels)", "total += loader.batch_size"),),
        quantities=("metric",),
    ),
    Pair(
        "frozen",
        "held out",
        "folder",
        "the first layers do not learn",
        (("    model = Network()\n", "    model = Network()\n    model.body.requires_grad_(False)\n"),),
        quantities=("optimizer",),
    ),
    Pair(
        "not_cleared",
        "held out",
        "plain",
        "gradients are not cleared",
        (("            optimizer.zero_grad()\n", ""),),
        quantities=("gradients",),
    ),
    Pair("shorter", "held out", "folder", "fewer epochs", arguments=("--epochs", "2"), quantities=("length",)),
    Pair("in_order", "held out", "plain", "training images in order", (("32, shuffle=True", "32"),), quantities=("drawn",)),
    Pair(
        "seed_and_rate",
        "held out",
        "folder",
        "another seed, and a tenth of the learning rate",
        arguments=("--seed", "3", "--lr", "0.0003"),
        quantities=("rate",),
    ),
    Pair("seed_and_crop", "held out", "folder", "another seed", arguments=("--seed", "11"), verdicts=("chance",)),
    Pair("copied", "held out", "folder", "a copy of the data elsewhere", data="copy", verdicts=("equal",)),
)


def make_data(folder: Path) -> None:
    """Waves of four directions under noise, as folders of PNG files; ``gone``: with fewer files, ``copy``: the same elsewhere."""
    if (folder / "copy").is_dir():
        return
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for part in ("train", "val"):
        for kind in range(CLASSES):
            own = folder / "data" / part / f"kind{kind}"
            own.mkdir(parents=True, exist_ok=True)
            for number in range(IMAGES):
                angle = np.pi * kind / CLASSES + draw.normal(0, 0.12)
                wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.7 + draw.uniform(0, 6)) * draw.uniform(20, 60)
                noise = draw.normal(0, 45, (SIDE, SIDE, 3)) + draw.normal(0, 15, 3)
                pixels = np.clip(120 + wave[..., None] + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(own / f"{number:03d}.png")
    shutil.copytree(folder / "data", folder / "gone")
    for kind in (0, 1):
        for file in sorted((folder / "gone" / "train" / f"kind{kind}").iterdir())[::3]:
            file.unlink()
    shutil.copytree(folder / "data", folder / "copy")
