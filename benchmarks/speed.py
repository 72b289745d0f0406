"""Speed of `valgap train` and of its engine, on photographs of 500 px with a ResNet-50.

python benchmarks/speed.py DATA [--parts whole extract steps growth] [--reference-epochs 20]

DATA is a folder with train/ and val/ such as hymenoptera_256; its images are enlarged to 500 px. The weights are random (seeded)
and the same for all: speed does not depend on them, accuracy does (benchmarks/accuracy.py). With fewer --reference-epochs than
20, the usual script's time is that of its first epoch (with start-up) plus 19 times that of its last, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch import nn

from valgap.engine import FeatureStore, cut_before_last_stage, extract, extract_split
from valgap.engine.forward import OpenVinoForward, TorchForward
from valgap.engine.reading import read_pixels
from valgap.engine.split import Normalised, body_of
from valgap.models import create_model
from valgap.recipe import RECIPE
from valgap.training.stages import Tail, freeze_all_but, hold_batchnorm, make_optimizer

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "examples" / "reference_resnet50.py"
RESULTS = ROOT / "benchmarks" / "results" / "speed.md"
ROWS = RESULTS.with_suffix(".jsonl")
EPOCHS, SIDE = 20, 500


def main() -> None:
    """Run the parts and write the table of all that was ever measured here, newest of each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--parts", nargs="*", default=["whole", "extract", "steps", "growth"])
    parser.add_argument("--reference-epochs", type=int, default=EPOCHS)
    parser.add_argument("--growth", type=int, nargs="*", default=[500, 2000, 5000, 20000])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data, weights = photographs(args.data, Path(scratch) / "photos"), Path(scratch) / "resnet50.pt"
        torch.manual_seed(0)
        torch.save(create_model("resnet50", 1000, "none").model.state_dict(), weights)
        parts = {
            "whole": lambda: whole(data, weights, args.reference_epochs, Path(scratch)),
            "extract": lambda: extraction(data, Path(scratch)),
            "steps": lambda: steps(data, Path(scratch)),
            "growth": lambda: growth(data, args.growth, Path(scratch)),
        }
        for name in args.parts:
            for row in parts[name]():
                row = {"part": name, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), **row}
                print(row, flush=True)
                with ROWS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    RESULTS.write_text(table([json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]), encoding="utf-8")


def photographs(source: Path, target: Path) -> Path:
    """The images enlarged to 500 px on their longer side."""
    for file in sorted(p for s in ("train", "val") for p in (source / s).rglob("*") if p.is_file()):
        place = target / file.relative_to(source).with_suffix(".jpg")
        place.parent.mkdir(parents=True, exist_ok=True)
        image = Image.open(file).convert("RGB")
        share = SIDE / max(image.size)
        image.resize((round(image.width * share), round(image.height * share))).save(place, quality=90)
    return target


def whole(data: Path, weights: Path, epochs: int, scratch: Path) -> list[dict[str, object]]:
    """Whole processes: the usual script for 20 epochs, `valgap train` with an empty and with a filled cache."""
    text = REFERENCE.read_text(encoding="utf-8")
    loading = f'models.resnet50(weights=None)\n        model.load_state_dict(torch.load("{weights}", weights_only=True))'
    script = scratch / "reference.py"
    script.write_text(text.replace("models.resnet50(weights=models.ResNet50_Weights.DEFAULT)", loading), encoding="utf-8")
    stamps = timed_lines([sys.executable, "-u", str(script), str(data), "--epochs", str(epochs)])
    usual, usual_cpu = (s[-1] if epochs == EPOCHS else s[0] + (EPOCHS - 1) * (s[-1] - s[-2]) for s in zip(*stamps, strict=True))
    environment = {**os.environ, "VALGAP_CACHE": str(scratch / "cache")}
    first: dict[str, object] = {
        "what": "usual script, 20 epochs",
        "seconds": usual,
        "cpu_seconds": usual_cpu,
        "measured_epochs": epochs,
    }
    rows = [first]
    for what, options in (
        ("valgap train --unfreeze head, nothing cached", ["--unfreeze", "head"]),
        ("valgap train --unfreeze head, again", ["--unfreeze", "head"]),
    ):
        out = scratch / f"run-{time.time_ns()}"
        command = [sys.executable, "-m", "valgap.cli", "train", str(data), "--weights", str(weights), "--out", str(out), *options]
        started, worked = time.perf_counter(), children_cpu()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds, cpu = time.perf_counter() - started, children_cpu() - worked
        ratios = {"times_faster": usual / seconds, "times_less_cpu": usual_cpu / cpu}
        rows.append({"what": what, "seconds": seconds, "cpu_seconds": cpu, **ratios})
    return rows


def timed_lines(command: list[str]) -> list[tuple[float, float]]:
    """(seconds from the start, processor seconds of the process so far) at each printed line that begins with Epoch."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        running = psutil.Process(process.pid)
        return [
            (time.perf_counter() - started, sum(running.cpu_times()[:2])) for line in process.stdout if line.startswith("Epoch")
        ]


def children_cpu() -> float:
    """Processor seconds of all ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def extraction(data: Path, scratch: Path) -> list[dict[str, object]]:
    """Extraction with reading and caching, against the same network on pixels in memory."""
    paths = sorted(data.rglob("*.jpg"))[:160]
    rows: list[dict[str, object]] = []
    for backbone, weights in (("resnet50", "none"), ("efficientnet_lite0", "default")):
        loaded = create_model(backbone, 2, weights)
        pixels = np.stack([read_pixels(p, loaded.preprocessing) for p in paths[:64]])
        network = Normalised(body_of(loaded.model, loaded.head), loaded.preprocessing.mean, loaded.preprocessing.std).eval()
        bare = {}
        for name, forward in (
            ("fp32", TorchForward(network, torch.device("cpu"), None, "fp32")),
            ("openvino", OpenVinoForward(network, pixels)),
        ):
            forward(pixels[:8])
            started = time.perf_counter()
            forward(pixels)
            bare[name] = len(pixels) / (time.perf_counter() - started)
        store = FeatureStore(scratch / f"extract-{backbone}")
        extract(loaded.model, loaded.head, loaded.preprocessing, paths[:64], store=store)  # chooses and remembers the way
        store.spaces_folder.rename(scratch / f"old-{backbone}")
        started = time.perf_counter()
        extract(loaded.model, loaded.head, loaded.preprocessing, paths, store=store)
        speed = len(paths) / (time.perf_counter() - started)
        row = {
            "what": f"{backbone}: extraction",
            "images_per_s": speed,
            "bare": bare,
            "share_of_bare": speed / max(bare.values()),
        }
        rows.append(row)
    return rows


def steps(data: Path, scratch: Path) -> list[dict[str, object]]:
    """Optimizer steps on the last stage: stored activations against images through the whole network, as usually written."""
    from valgap.data import read_rgb

    paths = sorted(data.rglob("*.jpg"))[:32]
    loaded = create_model("resnet50", 2, "none")
    labels = torch.arange(len(paths)) % 2
    cut = cut_before_last_stage(loaded.model, loaded.head)
    assert cut is not None
    stored = extract_split(loaded.model, loaded.head, cut, loaded.preprocessing, paths, store=FeatureStore(scratch / "steps"))[1]
    tail = Tail(cut.tail, stored.array.shape[1:])
    hold_batchnorm(tail)
    freeze_all_but(loaded.model, tail)
    change = loaded.preprocessing.train_transform("reference", 1.0, True)

    def plain() -> torch.Tensor:
        return loaded.model(torch.stack([change(read_rgb(p)) for p in paths]))

    def fast() -> torch.Tensor:
        return tail(torch.from_numpy(np.array(stored.all(), np.float32)).flatten(1))

    rows: list[dict[str, object]] = []
    speeds = {}
    for what, forward in (("images through the whole network", plain), ("stored activations", fast)):
        optimizer = make_optimizer(tail, loaded.head, RECIPE)
        for repeat in range(3):
            started = time.perf_counter()
            optimizer.zero_grad()
            nn.functional.cross_entropy(forward(), labels).backward()
            optimizer.step()
            if repeat:
                speeds[what] = max(speeds.get(what, 0.0), len(paths) / (time.perf_counter() - started))
        rows.append({"what": f"last stage of ResNet-50, {what}", "images_per_s": speeds[what]})
    rows[1]["times_faster"] = speeds["stored activations"] / speeds["images through the whole network"]
    return rows


def growth(data: Path, counts: list[int], scratch: Path) -> list[dict[str, object]]:
    """Seconds and peak memory of extraction against the number of (different) images, EfficientNet-Lite0 at 64 px."""
    sources = sorted(data.rglob("*.jpg"))
    loaded = create_model("efficientnet_lite0", 2)
    rows: list[dict[str, object]] = []
    for count in counts:
        folder = scratch / f"many-{count}"
        folder.mkdir()
        for i in range(count):  # a JPEG with another comment behind it has another content
            (folder / f"{i}.jpg").write_bytes(sources[i % len(sources)].read_bytes() + i.to_bytes(4, "big"))
        started = time.perf_counter()
        extract(
            loaded.model,
            loaded.head,
            loaded.preprocessing.at(64),
            sorted(folder.iterdir()),
            store=FeatureStore(scratch / f"cache-{count}"),
        )
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append({"what": f"{count} images", "seconds": seconds, "images_per_s": count / seconds, "peak_mb": peak})
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown, the newest of each line."""
    newest = {(r["part"], r["what"]): r for r in rows}
    lines = [
        "# Speed",
        "",
        "`make bench-speed DATA=FOLDER`. Photographs of 500 px; ResNet-50 at 224 px with random weights unless said. `load` is",
        "the load average at the end of the row: above the number of cores, other programs were running, and only ratios count.",
        "",
        "| part | what | figures | cores, load |",
        "|---|---|---|---|",
    ]
    for row in newest.values():
        figures = []
        for key, value in row.items():
            if key not in ("part", "what", "cores", "load"):
                figures.append(f"{key.replace('_', ' ')} {json.dumps(rounded(value))}")
        lines.append(f"| {row['part']} | {row['what']} | {', '.join(figures)} | {row['cores']}, {row['load']} |")
    return "\n".join(lines) + "\n"


def rounded(value: object) -> object:
    """Three significant digits."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
