"""Real sensor images for the demo, out of a package: electroluminescence photographs of solar cells.

Source: Buerhop-Lutz et al. 2018, "A Benchmark for Visual Identification of Defective Solar Cells"; the package
elpv-dataset, images under CC BY-NC-SA 4.0 (no commercial use).
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from valgap.errors import DataError

CLASSES = {"functional": 0.0, "defective": 1.0}  # by the experts' probability of a defect; the doubtful are left out
MARKER = "ABOUT.txt"
TERMS = (
    "Electroluminescence images of solar cells from the package elpv-dataset (Buerhop-Lutz et al. 2018),\n"
    "licence CC BY-NC-SA 4.0: https://creativecommons.org/licenses/by-nc-sa/4.0/\n"
)


def make_demo_data(folder: Path, *, train_per_class: int = 100, val_per_class: int = 60, seed: int = 0) -> Path:
    """``folder``, holding train/ and val/ with the classes functional and defective.

    A folder that an earlier call made in the same way is used as it is.

    Raises:
        DataError: the package is not installed, or ``folder`` holds something else.
    """
    about = TERMS + f"{train_per_class} train and {val_per_class} val images per class, seed {seed}\n"
    marker = folder / MARKER
    if marker.is_file() and marker.read_text() == about:
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty and was not made by this demo: move it away, nothing is overwritten")
    for label, files in _images().items():
        chosen = random.Random(seed).sample(files, train_per_class + val_per_class)
        for split, part in (("train", chosen[:train_per_class]), ("val", chosen[train_per_class:])):
            target = folder / split / label
            target.mkdir(parents=True)
            for file in part:
                shutil.copy(file, target / file.name)
    marker.write_text(about)  # last, so that a folder that was cut off is not taken for whole
    return folder


def _images() -> dict[str, list[Path]]:
    """The package's image files of each class, sorted."""
    try:
        import elpv_dataset
    except ImportError as error:
        raise DataError("the demo's images come from a package: pip install 'valgap[demo]'") from error
    data = Path(str(elpv_dataset.__file__)).parent / "data"
    found: dict[str, list[Path]] = {name: [] for name in CLASSES}
    for line in (data / "labels.csv").read_text().splitlines():
        name, probability, _ = line.split()
        for label, wanted in CLASSES.items():
            if abs(float(probability) - wanted) < 1e-6:
                found[label].append(data / name)
    return {label: sorted(files) for label, files in found.items()}
