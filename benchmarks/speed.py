"""Speed of `valgap train` and of its engine, on photographs of 500 px with a ResNet-50.

python benchmarks/speed.py DATA [--parts limits whole extract steps reading growth agreement] [--reference-epochs 20]

DATA holds hymenoptera_256, whose images are enlarged to 500 px, and, for `agreement`, clothing_mini as well. The weights of
ResNet-50 are random (seeded) and the same for all: speed does not depend on them, accuracy does (benchmarks/accuracy.py). With
fewer --reference-epochs than 20, the usual script's time is that of its first epoch (with start-up) plus 19 times that of its
last, and the table says so.
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
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from valgap.data import load_folder, read_rgb
from valgap.engine import FeatureStore, SplitNetwork, cut_before_last, extract
from valgap.engine.decoded import reduced
from valgap.engine.extract import FORWARDS
from valgap.engine.forward import Forward, OpenVinoForward, TorchForward, candidates
from valgap.engine.reading import read_pixels
from valgap.engine.split import Normalised, body_of
from valgap.models import create_model
from valgap.recipe import RECIPE
from valgap.training.allocator import freed_memory_kept
from valgap.training.convolutions import quicken_convolutions
from valgap.training.fit import learning_precision
from valgap.training.probe import fit_probe
from valgap.training.stages import Tail, freeze_all_but, hold_batchnorm, make_optimizer

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "examples" / "reference_resnet50.py"
RESULTS = ROOT / "benchmarks" / "results" / "speed.md"
ROWS = RESULTS.with_suffix(".jsonl")
PARTS = ("limits", "whole", "extract", "steps", "reading", "growth", "agreement")
EPOCHS, SIDE = 20, 500
NETWORKS = (("resnet50", "none"), ("efficientnet_lite0", "default"))


def main() -> None:
    """Run the parts and write the table of all that was ever measured here, newest of each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--parts", nargs="*", default=PARTS)
    parser.add_argument("--reference-epochs", type=int, default=EPOCHS)
    parser.add_argument("--growth", type=int, nargs="*", default=[500, 2000, 5000, 20000])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data, weights = photographs(args.data / "hymenoptera_256", Path(scratch) / "photos"), Path(scratch) / "resnet50.pt"
        torch.manual_seed(0)
        torch.save(create_model("resnet50", 1000, "none").model.state_dict(), weights)
        parts = {
            "limits": limits,
            "whole": lambda: whole(data, weights, args.reference_epochs, Path(scratch)),
            "extract": lambda: extraction(data, Path(scratch)),
            "steps": lambda: steps(data, Path(scratch)),
            "reading": lambda: reading(data, Path(scratch)),
            "growth": lambda: growth(data, args.growth, Path(scratch)),
            "agreement": lambda: agreement(args.data, Path(scratch)),
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


def limits() -> list[dict[str, object]]:
    """What the arithmetic units can do, and how many images per second of 224 px that leaves: no program is faster in float32."""
    side = 4096
    left, right = torch.randn(side, side), torch.randn(side, side)
    peak = 2 * side**3 / min(seconds_of(lambda: left @ right) for _ in range(5)) / 1e9
    rows: list[dict[str, object]] = [{"what": "float32 product of large matrices", "gflop_per_s": peak}]
    for backbone, _ in NETWORKS:
        model, images = create_model(backbone, 1000, "none").model.eval(), torch.randn(1, 3, 224, 224)
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            model(images)
        seen = counted.get_total_flops() / 1e9
        # Gradients of activations and of weights take as much as the forward pass each.
        most = {"images_per_s_seen": peak / seen, "images_per_s_learned": peak / (3 * seen)}
        rows.append({"what": f"{backbone}: at most", "gflop_per_image": seen, **most})
    return rows


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
    """Extraction with reading and caching, against the network on pixels in memory."""
    paths = sorted(data.rglob("*.jpg"))
    return [extraction_by(backbone, weights, paths, scratch) for backbone, weights in NETWORKS]


def extraction_by(backbone: str, weights: str, paths: list[Path], scratch: Path) -> dict[str, object]:
    """The first time, when the way is chosen, and later."""
    loaded = create_model(backbone, 2, weights)
    pixels = np.stack([read_pixels(p, loaded.preprocessing) for p in paths[:64]])
    network = Normalised(body_of(loaded.model, loaded.head), loaded.preprocessing.mean, loaded.preprocessing.std).eval()
    ways: dict[str, Forward] = {
        "fp32": TorchForward(network, torch.device("cpu"), None, "fp32"),
        "openvino": OpenVinoForward(network, pixels),
    }
    if "openvino bf16" in candidates(torch.device("cpu")):
        ways["openvino bf16"] = OpenVinoForward(network, pixels, precision="bf16")
    bare = {}
    for name, forward in ways.items():
        forward(pixels[:8])
        bare[name] = len(pixels) / seconds_of(partial(forward, pixels))
    store, speeds = FeatureStore(scratch / f"extract-{backbone}"), {}
    for when in ("first", "then"):
        work = partial(extract, loaded.model, loaded.head, loaded.preprocessing, paths, store=store)
        speeds[when] = len(paths) / seconds_of(work)
        store.spaces_folder.rename(scratch / f"{when}-{backbone}")
    row = {"what": f"{backbone}: extraction", "images_per_s": speeds["then"], "with_choosing_the_way": speeds["first"]}
    (chosen,) = json.loads((store.folder / FORWARDS).read_text(encoding="utf-8")).values()
    row |= {"way": chosen["name"], "cosine to fp32": chosen["cosine"], "bare": bare}
    return {**row, "share_of_bare": {name: speeds["then"] / speed for name, speed in bare.items()}}


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def steps(data: Path, scratch: Path) -> list[dict[str, object]]:
    """Optimizer steps on the last stage and on all layers, as usually written and as `valgap train` takes them.

    All usual ones come first: what an allocator has kept once serves later loops too.
    """
    paths = sorted(data.rglob("*.jpg"))[:32]
    asked = [(backbone, weights, what) for backbone, weights in NETWORKS for what in ("last stage", "all layers")]
    usual = [usual_steps(backbone, weights, paths, what) for backbone, weights, what in asked]
    rows: list[dict[str, object]] = []
    for speed, (backbone, weights, what) in zip(usual, asked, strict=True):
        with freed_memory_kept():
            ours = valgap_steps(backbone, weights, paths, what, FeatureStore(scratch / backbone))
        rows.append({"what": f"{backbone}: {what}, usual loop", "images_per_s": speed})
        rows.append({"what": f"{backbone}: {what}, valgap", "images_per_s": ours, "times_faster": ours / speed})
    return rows


def usual_steps(backbone: str, weights: str, paths: list[Path], what: str) -> float:
    """Images per second of steps as usually written: each image decoded anew, what is frozen runs along, BatchNorm moves."""
    loaded = create_model(backbone, 2, weights)
    show = loaded.preprocessing.train_transform("reference", 1.0, True)
    model = loaded.model.train()
    if what == "last stage":
        cut = cut_before_last(1, loaded.model, loaded.head)
        assert cut is not None
        freeze_all_but(model, cut.tail)
    optimizer = make_optimizer(model, loaded.head, RECIPE)
    return len(paths) / step_s(optimizer, lambda: model(torch.stack([show(read_rgb(p)) for p in paths])), len(paths))


def valgap_steps(backbone: str, weights: str, paths: list[Path], what: str, store: FeatureStore) -> float:
    """Images per second of steps as `valgap train` takes them, but for the processes that read ahead."""
    loaded = create_model(backbone, 2, weights)
    show = loaded.preprocessing.train_transform("light", RECIPE.crop_share, True)
    if what == "last stage":
        cut = cut_before_last(1, loaded.model, loaded.head)
        assert cut is not None
        activations = SplitNetwork(loaded.model, loaded.head, cut, loaded.preprocessing).extract(paths, store=store)[1]
        module: nn.Module = Tail(cut.tail, activations.array.shape[1:])
        freeze_all_but(loaded.model, module)
    else:
        module = loaded.model.to(memory_format=torch.channels_last)
        pictures = reduced(paths, loaded.preprocessing, RECIPE.crop_share, store)
    hold_batchnorm(module.train())
    quicken_convolutions(module)

    def forward() -> torch.Tensor:
        if what == "last stage":
            batch = torch.from_numpy(np.array(activations.all(), np.float32)).flatten(1)
        else:
            batch = torch.stack([show(Image.fromarray(p)) for p in pictures])
        with learning_precision(torch.device("cpu"), RECIPE.precision):
            return module(batch)

    return len(paths) / step_s(make_optimizer(module, loaded.head, RECIPE), forward, len(paths))


def step_s(optimizer: torch.optim.Optimizer, forward: Callable[[], torch.Tensor], count: int) -> float:
    """Seconds of a step: the shortest of several, the first aside."""
    return min([seconds_of(partial(one_step, optimizer, forward, count)) for _ in range(6)][1:])


def one_step(optimizer: torch.optim.Optimizer, forward: Callable[[], torch.Tensor], count: int) -> None:
    """Forward, backward, step."""
    optimizer.zero_grad()
    nn.functional.cross_entropy(forward().float(), torch.arange(count) % 2).backward()
    optimizer.step()


def reading(data: Path, scratch: Path) -> list[dict[str, object]]:
    """Augmented training images from photographs of twelve megapixels: decoded in each epoch, and decoded once."""
    preprocessing = create_model("resnet50", 2, "none").preprocessing
    change = preprocessing.train_transform("light", RECIPE.crop_share, True)
    paths = []
    for number, source in enumerate(sorted(data.rglob("*.jpg"))[:24]):
        paths.append(scratch / f"large-{number}.jpg")
        Image.open(source).resize((4000, 3000)).save(paths[-1], quality=92)
    pictures = reduced(paths, preprocessing, RECIPE.crop_share, FeatureStore(scratch / "large"))
    usual = len(paths) / seconds_of(lambda: [change(read_rgb(p)) for p in paths])
    first, later = (len(paths) / seconds_of(lambda: [change(Image.fromarray(p)) for p in pictures]) for _ in range(2))
    return [
        {"what": "12 MP photographs, decoded in each epoch", "images_per_s": usual},
        {"what": "12 MP photographs, valgap, first epoch", "images_per_s": first, "times_faster": first / usual},
        {"what": "12 MP photographs, valgap, later epochs", "images_per_s": later, "times_faster": later / usual},
    ]


def agreement(root: Path, scratch: Path) -> list[dict[str, object]]:
    """The probe on features as extracted, against the reference: whole files decoded, torchvision's transform, float32."""
    rows: list[dict[str, object]] = []
    for name, size in (("clothing_mini", 224), ("clothing_mini", 96), ("hymenoptera_256", 96)):
        table = load_folder(root / name, 0)
        loaded = create_model("efficientnet_lite0", len(table.classes))
        preprocessing = loaded.preprocessing.at(size)
        show, body = preprocessing.eval_transform(), body_of(loaded.model, loaded.head)
        answers, features, strengths = {}, {}, {}
        for way in ("reference", "valgap"):
            parts = []
            for val in (False, True):
                paths, labels = table.part(val)
                if way == "valgap":
                    found = extract(loaded.model, loaded.head, preprocessing, paths, store=FeatureStore(scratch / "agreement"))
                else:
                    with torch.inference_mode():
                        found = np.concatenate([body(show(read_rgb(p))[None]).numpy() for p in paths])
                parts.append((np.asarray(found), labels))
            probe = fit_probe(*parts[0], len(table.classes), RECIPE, 0)
            answers[way], features[way] = probe.logits(parts[1][0]).argmax(1), parts[1][0]
            strengths[way] = probe.inverse_l2
        labels = table.part(True)[1]
        a, b = features["reference"], features["valgap"]
        cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        right = {way: 100 * float((found == labels).mean()) for way, found in answers.items()}
        rows.append(
            {
                "what": f"{name}, {size} px: features as extracted against the reference",
                "val_accuracy_reference": right["reference"],
                "val_accuracy": right["valgap"],
                "answers_that_differ": int((answers["reference"] != answers["valgap"]).sum()),
                "val_images": len(labels),
                "least_cosine": float(cosine.min()),
                "inverse_l2": strengths,
            }
        )
    return rows


def growth(data: Path, counts: list[int], scratch: Path) -> list[dict[str, object]]:
    """Seconds and peak memory of extraction against the number of (different) images, EfficientNet-Lite0 at 64 px."""
    sources = sorted(data.rglob("*.jpg"))
    rows: list[dict[str, object]] = []
    for count in counts:
        folder = scratch / f"many-{count}"
        folder.mkdir()
        for i in range(count):  # a JPEG with another comment behind it has another content
            (folder / f"{i}.jpg").write_bytes(sources[i % len(sources)].read_bytes() + i.to_bytes(4, "big"))
        # In a process of its own: the peak of this one was made by other parts.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            seconds, peak = pool.submit(extract_all, folder, scratch / f"cache-{count}").result()
        rows.append({"what": f"{count} images", "seconds": seconds, "images_per_s": count / seconds, "peak_mb": peak})
    return rows


def extract_all(folder: Path, cache: Path) -> tuple[float, float]:
    """(seconds, peak memory in MB) of the features of a folder."""
    loaded = create_model("efficientnet_lite0", 2)
    preprocessing, paths = loaded.preprocessing.at(64), sorted(folder.iterdir())
    work = partial(extract, loaded.model, loaded.head, preprocessing, paths, store=FeatureStore(cache))
    return seconds_of(work), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown, the newest of each line."""
    newest = {(r["part"], r["what"]): r for r in rows}
    lines = [
        "# Speed",
        "",
        "`make bench-speed DATA=FOLDER`. Photographs of 500 px; ResNet-50 at 224 px with random weights unless said. `load` is",
        "the load average at the end of the row: above the number of cores, other programs were running, and only ratios count.",
        "Measured on two cores with bfloat16 (AVX-512). `limits` is what their arithmetic units leave possible in float32:",
        "images that the network sees, and images that all of its layers learn from. Whole: 397 images pass the network once,",
        "where the usual script sends them through 20 times. Steps: the usual loop moves BatchNorm, decodes each image in each",
        "step and computes in float32; valgap's holds it and computes in bfloat16.",
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
