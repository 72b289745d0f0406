"""What `valgap check` costs in time and memory, beside cleanvision, cleanlab and a duplicate finder doing the same.

    python benchmarks/check_cost.py DATA [--images 1000,4000,10000] [--only-ours]    DATA holds clothing_mini and hymenoptera_256

Folders of so many files are made out of real photographs, each cropped and encoded anew, so that no two files are equal.
Every program runs in a process of its own, with an empty cache; its peak memory is that of all its processes' largest.
The peers: cleanvision's whole set of issues (damage, brightness, blur, exact and near duplicates), and cleanlab's Datalab
on out-of-fold probabilities of a logistic probe on the same bundled backbone, run by plain torch.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

RESULTS = Path(__file__).parent / "results" / "check_cost.md"
SIDE = 256
PEERS = """
import sys
from pathlib import Path
import numpy as np, torch
from cleanvision import Imagelab
from torch.utils.data import DataLoader
from torchvision import datasets
folder = sys.argv[1]
lab = Imagelab(data_path=folder)
lab.find_issues(verbose=False)
from cleanlab import Datalab
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from valgap.models.backbones import create_model
from valgap.models.lite0 import BUNDLED
loaded = create_model(BUNDLED, 2)
loaded.model.classifier = torch.nn.Identity()
loaded.model.eval()
data = datasets.ImageFolder(folder + "/train", loaded.preprocessing.eval_transform())
rows = []
with torch.inference_mode():
    for images, _ in DataLoader(data, 64):
        rows.append(loaded.model(images).numpy())
features, labels = np.concatenate(rows), np.array(data.targets)
probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
probabilities = cross_val_predict(probe, features, labels, cv=5, method="predict_proba")
found = Datalab({"label": labels}, label_name="label", verbosity=0)
found.find_issues(pred_probs=probabilities, features=features)
print(len(found.get_issues("label")))
"""
OURS = """
import sys
from valgap.diagnosis import check
print(len(check(sys.argv[1]).judged))
"""
# The largest resident set among the process and those that it waited for, in KB.
PEAK = """
import resource
print("peak", max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def make_folder(folder: Path, sources: list[Path], count: int) -> None:
    """``count`` photographs in train/CLASS and val/CLASS (one in five), about 256 pixels, all different."""
    draw = random.Random(0)
    for number in range(count):
        source = sources[number % len(sources)]
        target = folder / ("val" if number % 5 == 0 else "train") / source.parent.name
        target.mkdir(parents=True, exist_ok=True)
        with Image.open(source) as image:
            share = draw.uniform(0.6, 0.95)
            width, height = int(image.width * share), int(image.height * share)
            left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
            part = image.convert("RGB").crop((left, top, left + width, top + height)).resize((SIDE, SIDE))
            part.save(target / f"{number}.jpg", quality=draw.randint(80, 95))


def measured(code: str, folder: Path) -> tuple[float, float]:
    """(seconds, peak MB) of a program on the folder."""
    with tempfile.TemporaryDirectory() as cache:
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code + PEAK, str(folder)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "VALGAP_CACHE": cache},
        )
        seconds = time.perf_counter() - begun
    if done.returncode != 0:
        raise SystemExit(done.stderr[-2000:])
    return seconds, int(done.stdout.split()[-1]) / 1024


def main() -> None:
    """Print the table and write it to results/check_cost.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", default="1000,4000,10000", help="sizes, separated by commas")
    parser.add_argument("--only-ours", action="store_true", help="how cost grows, without the peers")
    args = parser.parse_args()
    sources = [p for name in ("clothing_mini", "hymenoptera_256") for p in sorted((args.data / name).glob("*/*/*.jpg"))]
    head = "| who | images | seconds | images/s | peak MB |\n|---|---|---|---|---|"
    print(head)
    rows = []
    for count in (int(n) for n in args.images.split(",")):
        with tempfile.TemporaryDirectory() as place:
            make_folder(Path(place), sources, count)
            programs = {"valgap check": OURS} | ({} if args.only_ours else {"cleanvision + cleanlab": PEERS})
            for who, code in programs.items():
                seconds, peak = measured(code, Path(place))
                rows.append(f"| {who} | {count} | {seconds:.0f} | {count / seconds:.0f} | {peak:.0f} |")
                print(rows[-1], flush=True)
    text = f"{__doc__.splitlines()[0]}\n\n{head}\n" + "\n".join(rows)
    command = "Made by `make bench-check-cost DATA=FOLDER`, one after the other on the same machine, caches empty."
    RESULTS.write_text(f"# Cost of a check\n\n{text}\n\n{command}\n")


if __name__ == "__main__":
    main()
