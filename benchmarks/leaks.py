"""Planted twins of real photographs: which comparison finds them, and how often it pairs different photographs.

    python benchmarks/leaks.py DATA [--count 40] [--fastdup PYTHON]      DATA holds clothing_mini and hymenoptera_256

Each kind of alteration makes COUNT validation images out of training images. A false pair is a pair of different
photographs among the unaltered images. valgap runs whole (features, alignment); imagehash is given its usual threshold
(distance at most 10 of 64 bits); cleanvision, vision-data-doctor and fastdup their defaults, fastdup with ten neighbours an
image, since an original may have several twins here. fastdup needs an older numpy, and so an environment of its own.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from valgap.features import Measurements, rows_of_path

RESULTS = Path(__file__).parent / "results" / "leaks.md"
HASH_DISTANCE = 10
Change = Callable[[Image.Image, random.Random], Image.Image]


def cropped(image: Image.Image, draw: random.Random) -> Image.Image:
    """80 % of each side, anywhere."""
    width, height = int(image.width * 0.8), int(image.height * 0.8)
    left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


KINDS: dict[str, tuple[Change, int]] = {
    "exact": (lambda i, d: i, 0),
    "resized to half": (lambda i, d: i.resize((i.width // 2, i.height // 2)), 88),
    "re-encoded at 60": (lambda i, d: i, 60),
    "cropped to 80 %": (cropped, 88),
    "mirrored": (lambda i, d: ImageOps.mirror(i), 88),
    "brightness +30 %": (lambda i, d: ImageEnhance.Brightness(i).enhance(1.3), 88),
    "brightness -30 %": (lambda i, d: ImageEnhance.Brightness(i).enhance(0.7), 88),
    "turned by 5 degrees": (lambda i, d: i.rotate(5, resample=Image.Resampling.BICUBIC), 88),
    "bordered": (lambda i, d: ImageOps.expand(i, max(i.size) // 12, "white"), 88),
}


def plant(folder: Path, sources: list[Path], count: int) -> dict[str, list[tuple[str, str]]]:
    """Unaltered images in train/, COUNT altered ones of each kind in val/; kind -> (original, copy) names."""
    draw = random.Random(0)
    (folder / "train" / "x").mkdir(parents=True)
    (folder / "val" / "x").mkdir(parents=True)
    for number, path in enumerate(sources):
        (folder / "train" / "x" / f"{number}.jpg").write_bytes(path.read_bytes())
    twins: dict[str, list[tuple[str, str]]] = {}
    for kind, (change, quality) in KINDS.items():
        for number in draw.sample(range(len(sources)), count):
            name = f"val/x/{kind.replace(' ', '_').replace('%', 'p')}-{number}.jpg"
            if quality == 0:
                (folder / name).write_bytes(sources[number].read_bytes())
            else:
                with Image.open(sources[number]) as image:
                    change(image.convert("RGB"), draw).save(folder / name, quality=quality)
            twins.setdefault(kind, []).append((f"train/x/{number}.jpg", name))
    return twins


def by_valgap(folder: Path) -> set[tuple[str, str]]:
    images = Measurements(rows_of_path(folder))
    return {tuple(sorted((images.rows.names[p.first], images.rows.names[p.second]))) for p in images.pairs or ()}  # type: ignore[misc]


def by_imagehash(folder: Path, hashed: Callable[[Image.Image], object]) -> set[tuple[str, str]]:
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.jpg"))
    bits = np.array([np.asarray(hashed(Image.open(folder / n)).hash).ravel() for n in names])  # type: ignore[attr-defined]
    return _within(names, bits)


def _within(names: list[str], bits: np.ndarray) -> set[tuple[str, str]]:
    found = set()
    for i in range(len(names)):
        for j in np.flatnonzero((bits[i + 1 :] != bits[i]).sum(1) <= HASH_DISTANCE) + i + 1:
            found.add((names[i], names[int(j)]))
    return found


def by_cleanvision(folder: Path) -> set[tuple[str, str]]:
    from cleanvision import Imagelab

    lab = Imagelab(data_path=str(folder))
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=1, verbose=False)
    found = set()
    for kind in ("exact_duplicates", "near_duplicates"):
        for group in lab.info[kind]["sets"]:
            names = sorted(str(Path(p).relative_to(folder)) for p in group)
            found |= {(a, b) for i, a in enumerate(names) for b in names[i + 1 :]}
    return found


def by_data_doctor(folder: Path) -> set[tuple[str, str]]:
    """Of the whole folder, for pairs within train, and of train against val."""
    from data_doctor.leakage import check_leakage
    from data_doctor.scan import scan_directory

    scan = scan_directory(folder)
    found = {(p["a"], p["b"]) for p in scan.near_duplicate_pairs}
    for group in scan.exact_duplicate_groups:
        found |= set(itertools.combinations(group, 2))
    leakage = check_leakage(folder / "train", folder / "val")
    found |= {(f"train/{leak['train']}", f"val/{leak['val']}") for leak in (*leakage.exact_leaks, *leakage.near_leaks)}
    return {(min(p), max(p)) for p in found}


FASTDUP = """
import sys, fastdup
folder, work = sys.argv[1:]
lab = fastdup.create(work_dir=work, input_dir=folder)
lab.run(nearest_neighbors_k=10, overwrite=True)
pairs = lab.similarity()
for a, b in pairs[["filename_from", "filename_to"]].itertuples(index=False):
    print("PAIR", a, b, sep="\\t")
"""


def by_fastdup(folder: Path, python: str) -> set[tuple[str, str]]:
    """In a process of the environment that has it."""
    with tempfile.TemporaryDirectory() as work:
        done = subprocess.run([python, "-c", FASTDUP, str(folder), work], capture_output=True, text=True, check=True)
    lines = [line.split("\t")[1:] for line in done.stdout.splitlines() if line.startswith("PAIR")]
    names = [[str(Path(n).relative_to(folder)) for n in pair] for pair in lines]
    return {(min(p), max(p)) for p in names}


def original(name: str) -> str:
    return Path(name).stem.rsplit("-", 1)[-1]


def main() -> None:
    """Print the table and write it."""
    import imagehash

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=40, help="originals of each kind")
    parser.add_argument("--fastdup", help="the Python of an environment that has fastdup")
    args = parser.parse_args()
    data, count = args.data, args.count
    sources = sorted((data / "clothing_mini").glob("*/*/*.jpg"))[::2] + sorted((data / "hymenoptera_256").glob("*/*/*.jpg"))
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        twins = plant(folder, sources, count)
        people = {
            "valgap": lambda: by_valgap(folder),
            **{
                f"imagehash {n}": lambda n=n: by_imagehash(folder, getattr(imagehash, n))
                for n in ("phash", "dhash", "average_hash", "whash")
            },
            "cleanvision": lambda: by_cleanvision(folder),
            "vision-data-doctor": lambda: by_data_doctor(folder),
        }
        if args.fastdup:
            people["fastdup"] = lambda: by_fastdup(folder, args.fastdup)
        lines.append("| who | " + " | ".join(KINDS) + " | false pairs per 1,000 images | processor seconds |")
        lines.append("|---" * (len(KINDS) + 3) + "|")
        for who, find in people.items():
            begun = sum(os.times()[:4])
            pairs = find()
            seconds = sum(os.times()[:4]) - begun
            shares = [np.mean([tuple(sorted(p)) in pairs for p in twins[kind]]) for kind in KINDS]
            false = sum(a.startswith("train") and b.startswith("train") and original(a) != original(b) for a, b in pairs)
            cells = [f"{s:.1%}" for s in shares] + [f"{1000 * false / len(sources):.1f}", f"{seconds:.0f}"]
            lines.append(f"| {who} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    text = f"{len(sources)} photographs of two sets, {count} twins of each kind. `make bench-leaks DATA=FOLDER`"
    RESULTS.write_text(f"# Leaks\n\n{text}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
