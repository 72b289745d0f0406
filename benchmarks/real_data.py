"""Small sets in the layouts and under the names where other people's scripts look, so that nothing is downloaded.

Each layout is made once into a folder, from images of DATA; `place` copies it into a run's own working folder, where a planted
fault may spoil it. Pretrained weights that a script asks for by name are seeded random ones of the right shape: a network's
own initialisation, with BatchNorm statistics that are not the initial ones.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CLASSES = ("dress", "hat", "pants", "shoes", "shorts", "t-shirt")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def images_of(
    data: Path, of: str, split: str, classes: tuple[str, ...] | None = None, most: int = 10_000
) -> list[tuple[Path, str]]:
    """(file, class) of a set's split, at most so many of each class, classes in turn."""
    folders = sorted(f for f in (data / of / split).iterdir() if f.is_dir() and (classes is None or f.name in classes))
    files = [sorted(f.iterdir())[:most] for f in folders]
    return [(f[i], d.name) for i in range(max(map(len, files))) for d, f in zip(folders, files, strict=True) if i < len(f)]


def reduced(file: Path, side: int) -> Image.Image:
    """The image with that shorter side."""
    with Image.open(file) as image:
        image = image.convert("RGB")
    scale = side / min(image.size)
    return image.resize(
        (max(side, round(image.width * scale)), max(side, round(image.height * scale))), Image.Resampling.BILINEAR
    )


def write_folders(pairs: list[tuple[Path, str]], out: Path, side: int) -> None:
    """One folder per class."""
    for file, name in pairs:
        (out / name).mkdir(parents=True, exist_ok=True)
        reduced(file, side).save(out / name / f"{file.stem}.jpg", quality=95)


def folders(data: Path, out: Path) -> None:
    """train/CLASS and val/CLASS: six kinds of clothing, 90 and 48 photographs of 96 px."""
    for split, most in (("train", 15), ("val", 8)):
        write_folders(images_of(data, "clothing_mini", split, CLASSES, most), out / split, 96)


def named_folders(data: Path, out: Path) -> None:
    """The same under set/."""
    folders(data, out / "set")


def validation_folders(data: Path, out: Path) -> None:
    """The same as train and validation, two kinds, as an archive in data/, as a tutorial's download."""
    made = out / "made" / "cats_and_dogs_filtered"
    for split, name, most in (("train", "train", 12), ("val", "validation", 10)):
        write_folders(images_of(data, "hymenoptera_256", split, None, most), made / name, 160)
    (out / "data").mkdir(parents=True)
    with zipfile.ZipFile(out / "data" / "cats_and_dogs_filtered.zip", "w") as archive:
        for file in sorted(made.rglob("*.jpg")):
            archive.write(file, file.relative_to(out / "made"))
    shutil.rmtree(out / "made")


def hymenoptera(data: Path, out: Path) -> None:
    """data/hymenoptera_data/train and val, 24 and 24 photographs of ants and bees."""
    for split, most in (("train", 12), ("val", 12)):
        write_folders(images_of(data, "hymenoptera_256", split, None, most), out / "data" / "hymenoptera_data" / split, 224)


def hymenoptera_datasets(data: Path, out: Path) -> None:
    """The same in datasets/."""
    hymenoptera(data, out)
    (out / "data").rename(out / "datasets")


def pets(data: Path, out: Path) -> None:
    """One folder of images whose names tell the class: CLASS_NUMBER.jpg."""
    (out / "images").mkdir(parents=True)
    for i, (file, name) in enumerate(images_of(data, "clothing_mini", "train", CLASSES, 5)):
        reduced(file, 96).save(out / "images" / f"{name.replace('-', '')}_{i}.jpg", quality=95)


def digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Drawn digits, each moved, turned and a little noisy, (N, 28, 28) uint8; and which they are, (N,) int64."""
    rng = np.random.default_rng(seed)
    font = ImageFont.load_default(22)
    labels = rng.permutation(np.arange(count) % 10)
    images = []
    for label in labels:
        image = Image.new("L", (28, 28))
        ImageDraw.Draw(image).text((7 + rng.integers(-2, 3), 1 + rng.integers(-2, 3)), str(label), fill=255, font=font)
        turned = np.asarray(image.rotate(float(rng.normal(0, 12)), Image.Resampling.BILINEAR), np.float32)
        images.append(np.clip(turned * rng.uniform(0.6, 1.0) + rng.normal(0, 12, (28, 28)), 0, 255).astype(np.uint8))
    return np.stack(images), labels


def idx(array: np.ndarray) -> bytes:
    """The array as an IDX file of bytes."""
    return (
        struct.pack(">BBBB", 0, 0, 8, array.ndim)
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(np.uint8).tobytes()
    )


def mnist(_: Path, out: Path) -> None:
    """data/MNIST/raw, 900 drawn digits and 200, and the same as Keras's mnist.npz."""
    raw = out / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    arrays = {}
    for name, count, seed in (("train", 900, 0), ("t10k", 200, 1)):
        x, y = arrays[name] = digits(count, seed)
        for kind, array in ((f"{name}-images-idx3-ubyte", x), (f"{name}-labels-idx1-ubyte", y)):
            (raw / kind).write_bytes(idx(array))
            with gzip.open(raw / f"{kind}.gz", "wb") as file:
                file.write(idx(array))
    (train_x, train_y), (test_x, test_y) = arrays["train"], arrays["t10k"]
    keras = out / "keras" / "datasets"
    keras.mkdir(parents=True)
    np.savez(keras / "mnist.npz", x_train=train_x, y_train=train_y, x_test=test_x, y_test=test_y)


def cifar_rows(data: Path, split: str, most: int) -> tuple[np.ndarray, list[int]]:
    """(N, 3072) uint8 in planes, and labels."""
    pairs = images_of(data, "cifar10n_mini", split, None, most)
    order = np.random.default_rng(2).permutation(len(pairs))
    rows = [np.asarray(reduced(pairs[i][0], 32)).transpose(2, 0, 1).reshape(-1) for i in order]
    return np.stack(rows), [CIFAR.index(pairs[i][1]) for i in order]


def cifar10(data: Path, out: Path) -> None:
    """data/cifar-10-batches-py: 200 and 100 images of CIFAR-10 itself."""
    folder = out / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    x, y = cifar_rows(data, "train", 20)
    for i in range(5):
        (folder / f"data_batch_{i + 1}").write_bytes(pickle.dumps({"data": x[i::5], "labels": y[i::5]}))
    x, y = cifar_rows(data, "val", 10)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": x, "labels": y}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR)}))


def cifar100(data: Path, out: Path) -> None:
    """data/cifar-100-python: the images of CIFAR-10, each class in ten by brightness."""
    folder = out / "data" / "cifar-100-python"
    folder.mkdir(parents=True)
    for split, name, most in (("train", "train", 20), ("val", "test", 10)):
        x, y = cifar_rows(data, split, most)
        coarse, bright = np.array(y), x.mean(1)
        fine = np.zeros(len(y), np.int64)
        for c in range(10):
            of = np.flatnonzero(coarse == c)
            fine[of[np.argsort(bright[of])]] = 10 * c + np.arange(len(of)) * 10 // len(of)
        (folder / name).write_bytes(pickle.dumps({"data": x, "fine_labels": fine.tolist(), "coarse_labels": y}))
    names = [f"{c}_{i}" for c in CIFAR for i in range(10)]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names, "coarse_label_names": list(CIFAR)}))


def imagenette(data: Path, out: Path) -> None:
    """The archive's folder of fastai's data, with its table of labels: ten classes, 20 and 10 images each of 160 px."""
    root = out / "fastai" / "data" / "imagenette2-320"
    rows = ["path,noisy_labels_0,noisy_labels_1,noisy_labels_5,noisy_labels_25,noisy_labels_50,is_valid"]
    for split, most in (("train", 20), ("val", 10)):
        pairs = images_of(data, "clothing_mini", split, None, most)
        write_folders(pairs, root / split, 96)
        rows += [f"{split}/{n}/{f.stem}.jpg,{n},{n},{n},{n},{n},{split == 'val'}" for f, n in pairs]
    (root / "noisy_imagenette.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


LAYOUTS: dict[str, Callable[[Path, Path], None]] = {
    "folders": folders,
    "named_folders": named_folders, "archive": validation_folders, "hymenoptera": hymenoptera,
    "hymenoptera_datasets": hymenoptera_datasets, "pets": pets, "mnist": mnist,
    "cifar10": cifar10, "cifar100": cifar100, "imagenette": imagenette,
}  # fmt: skip


def prepare(data: Path, work: Path) -> None:
    """All layouts and weights under WORK; what is there is kept."""
    for name, make in LAYOUTS.items():
        target = work / "layouts" / name
        if not target.is_dir():
            shutil.rmtree(target.with_suffix(".part"), ignore_errors=True)
            make(data, target.with_suffix(".part"))
            target.with_suffix(".part").rename(target)
    if not (work / "weights").is_dir():
        part = work / "weights.part"
        shutil.rmtree(part, ignore_errors=True)
        weights(part)
        part.rename(work / "weights")


def place(work: Path, name: str, cwd: Path) -> None:
    """A copy of the layout in the working folder."""
    if name:
        shutil.copytree(work / "layouts" / name, cwd, dirs_exist_ok=True)


def environment(work: Path, cwd: Path) -> dict[str, str]:
    """Where the libraries look for weights and data, and that there is no network."""
    home = work / "weights"
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"), "1")
    return {
        **offline, "TORCH_HOME": str(home / "torch"), "HF_HOME": str(home / "huggingface"), "HF_DATASETS_CACHE": str(cwd / ".hf"),
        "KERAS_HOME": str(cwd / "keras"), "FASTAI_HOME": str(cwd / "fastai"), "YOLO_CONFIG_DIR": str(cwd / ".yolo"),
        "YOLO_OFFLINE": "true", "WANDB_MODE": "disabled", "MPLBACKEND": "Agg", "MPLCONFIGDIR": str(work / "matplotlib"),
        "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "120", "CUDA_VISIBLE_DEVICES": "",
        "HOME": os.environ.get("HOME", str(cwd)),
    }  # fmt: skip


def settle(model: object) -> None:
    """Statistics as of a network that has seen images, in place of 0 and 1."""
    import torch

    model.train()  # type: ignore[attr-defined]
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(8, 3, 64, 64) * 0.7 + 0.1 * torch.randn(8, 3, 1, 1))  # type: ignore[operator]
    model.eval()  # type: ignore[attr-defined]


def weights(out: Path) -> None:
    """Files of weights under the names under which torchvision, timm and transformers keep what they downloaded."""
    import timm
    import torch
    import torchvision
    from safetensors.torch import save_file

    hub = out / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    torch.manual_seed(7)
    for name, file in {
        "resnet18": "resnet18-f37072fd.pth", "resnet34": "resnet34-b627a593.pth",
        "resnet50": "resnet50-11ad3fa6.pth", "squeezenet1_0": "squeezenet1_0-b66bff10.pth",
    }.items():  # fmt: skip
        model = torchvision.models.__dict__[name](weights=None)
        settle(model)
        torch.save(model.state_dict(), hub / file)
    for name in ("resnet50d",):
        model = timm.create_model(name, pretrained=False)
        settle(model)
        identity = timm.get_pretrained_cfg(name)
        cached(out, f"timm/{name}.{identity.tag}", {"model.safetensors": lambda f, m=model: save_file(m.state_dict(), f)})
    transformers_model(out / "tiny-vit")


def cached(out: Path, repository: str, files: dict[str, Callable[[Path], object]]) -> None:
    """The files as huggingface_hub keeps them after a download."""
    folder = out / "huggingface" / "hub" / f"models--{repository.replace('/', '--')}"
    revision = "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision, encoding="utf-8")
    (folder / "snapshots" / revision).mkdir(parents=True)
    for name, write in files.items():
        write(folder / "snapshots" / revision / name)


def transformers_model(out: Path) -> None:
    """A small vision transformer and its image processor, and the metric that the examples load by name."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(7)
    config = ViTConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128, image_size=64, patch_size=8
    )
    ViTForImageClassification(config).save_pretrained(out)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(out)
    metric = out.parent / "metrics" / "accuracy"
    metric.mkdir(parents=True)
    (metric / "accuracy.py").write_text(METRIC, encoding="utf-8")
    (metric / "dataset_infos.json").write_text(json.dumps({}), encoding="utf-8")


METRIC = '''"""Share of right predictions, for `evaluate.load("accuracy")` without a network."""

import datasets
import evaluate


class Accuracy(evaluate.Metric):
    """Share of right predictions."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("int32")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        right = sum(int(p) == int(r) for p, r in zip(predictions, references))
        return {"accuracy": right / len(references)}
'''
