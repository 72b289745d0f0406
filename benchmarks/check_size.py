"""What `valgap check` costs in time and memory as sets of images grow, up to a million.

    python benchmarks/check_size.py DATA [--minutes 9] [--work FOLDER] [--sizes 1000,10000] [--rows 1000000] [--profile]

DATA holds clothing_mini and hymenoptera_256. Sets of up to 10,000 images are real photographs of these, each cropped and
encoded anew, so that no two files are equal (`check_cost.py`); each is checked whole, with an empty cache, twice: held in
memory, and from tables on disk as larger ones are. The largest set is synthetic behind the network: its files are links to
those photographs, its rows (features, thumbnails, attributes) are mixtures of two photographs of a class with noise, one in a
hundred a near copy of another row and one in a hundred under another class's label. All that follows the network is run on
them: files listed, rows found again, probes, labels, shift, pairs, curve, checks, report.

It works in parts: what runs as the minutes are over is killed (SIGKILL) and goes on at the next call. Seconds are those of all
parts together, on a machine that others share too; memory is the largest resident set of the process at any moment (VmHWM).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from check_cost import make_folder

RESULTS = Path(__file__).parent / "results"
CHECK = """
import sys, time
import valgap.features.large.measurements as large
large.LARGE = int(sys.argv[2])
from valgap.diagnosis import check
told = [time.monotonic()]
def say(text):
    print(f"{time.monotonic() - told[0]:7.0f} s  {text}", flush=True)
found = check(sys.argv[1], say=say)
for judged in found.judged:
    told = judged.outcome
    print(judged.check.code, type(told).__name__, getattr(told, "summary", getattr(told, "missing", "")))
print("done")
"""
PROFILE = """
import sys, time
from pathlib import Path
import valgap.features.large.measurements as large
large.LARGE = int(sys.argv[2])
from valgap.features import images_of_path
def memory(word):
    return next(int(l.split()[1]) / 1024 for l in open("/proc/self/status") if l.startswith(word))
print(f"{'imports':<15} {memory('VmRSS'):6.0f} MB")
images = images_of_path(sys.argv[1], say=lambda text: print(" ", text, flush=True))
print(f"{'rows':<15} {memory('VmRSS'):6.0f} MB held, {memory('VmHWM'):6.0f} MB at most, {len(images.rows.names):,} images")
for part in ("unreadable", "attributes", "oddities", "embeddings", "held_out", "learning_curve", "label_errors", "other_kinds",
             "shift", "pairs"):
    open("/proc/self/clear_refs", "w").write("5")
    begun = time.monotonic()
    getattr(images, part)
    seconds = time.monotonic() - begun
    print(f"{part:<15} {memory('VmRSS'):6.0f} MB held, {memory('VmHWM'):6.0f} MB at most, {seconds:6.1f} s", flush=True)
"""
IN_MEMORY, ON_DISK = 10**9, 0
BLOCK = 4096
CLASSES_OF_VAL = 5  # one in so many rows lies in validation


class Part:
    """A measurement that goes on from call to call: its seconds and its peak memory so far lie in a file."""

    def __init__(self, work: Path, name: str) -> None:
        self.file = work / f"{name}.json"
        self.log = work / f"{name}.log"
        self.state = (
            json.loads(self.file.read_text())
            if self.file.exists()
            else {"seconds": 0.0, "processor": 0.0, "peak": 0.0, "parts": 0, "done": False}
        )

    @property
    def done(self) -> bool:
        return bool(self.state["done"])

    def run(self, code: str, arguments: list[object], cache: Path, until: float) -> bool:
        """Whether the program came to its end by then."""
        if self.done:
            return True
        begun, worked = time.monotonic(), processor()
        with self.log.open("a") as log:
            child = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "VALGAP_CACHE": str(cache)},
            )
            while child.poll() is None:
                self.state["peak"] = max(self.state["peak"], resident(child.pid))
                if time.monotonic() > until:
                    child.kill()
                time.sleep(0.2)
        if child.returncode not in (0, -9):
            raise SystemExit(f"{self.log}: {self.log.read_text()[-2000:]}")
        self.state["seconds"] += time.monotonic() - begun
        self.state["processor"] += processor() - worked
        self.state["parts"] += 1
        self.state["done"] = child.returncode == 0
        self.file.write_text(json.dumps(self.state))
        return self.done


def processor() -> float:
    """Seconds of the processor that programs run from here have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident(pid: int) -> float:
    """The most MB that a process held resident so far; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def link(folder: Path, sources: list[Path], count: int) -> None:
    """``count`` links to the photographs in train/CLASS and val/CLASS; goes on where it was."""
    done = folder / "linked"
    if done.exists():
        return
    for number in range(count):
        source = sources[number % len(sources)]
        target = folder / ("val" if (number // len(sources)) % CLASSES_OF_VAL == 0 else "train") / source.parent.name
        if number < 2 * len(sources):
            target.mkdir(parents=True, exist_ok=True)
        file = target / f"{number}.jpg"
        if not file.exists():
            os.link(source, file)
    done.write_text("")


def fill(folder: Path, real: Path, cache: Path, until: float) -> bool:
    """Whether the table of a folder of links has all of its rows by then: each a mixture of two of the real ones of a class."""
    os.environ["VALGAP_CACHE"] = str(cache)
    from valgap.features import rows_of_path
    from valgap.features.backbone import backbone_key
    from valgap.features.large.measurements import LargeMeasurements
    from valgap.features.large.table import LookTable

    rows, known = rows_of_path(folder), rows_of_path(real)
    LargeMeasurements(known).unreadable  # noqa: B018 (its table is filled)
    table, source = LookTable(rows.paths, backbone_key()), LookTable(known.paths, backbone_key())
    features, thumbs, numbers = (source.column(n) for n in ("features", "thumb", "numbers"))
    spread = np.std(features.astype(np.float32), axis=0)
    mates = {c: np.flatnonzero(known.labels == known.classes.index(name)) for c, name in enumerate(rows.classes)}
    missing = table.missing
    draw = np.random.default_rng(1)
    feature_noise = 0.1 * draw.standard_normal((BLOCK, features.shape[1]), np.float32) * spread
    picture_noise = 6 * draw.standard_normal((BLOCK, *thumbs.shape[1:]), np.float32)
    for start in range(0, len(missing), BLOCK):
        if time.monotonic() > until:
            return False
        places = missing[start : start + BLOCK]
        draw = np.random.default_rng(int(places[0]))
        # Where the label is wrong, what is shown is of another class.
        shown = np.where(draw.random(len(places)) < 0.01, draw.integers(0, len(rows.classes), len(places)), rows.labels[places])
        a, b = (np.array([mates[int(c)][draw.integers(len(mates[int(c)]))] for c in shown]) for _ in range(2))
        share = draw.uniform(0.25, 0.75, len(places)).astype(np.float32)
        turn = int(draw.integers(BLOCK))  # the same noise for every block would pair rows of different blocks
        grain, speckle = (np.roll(noise, turn, axis=0)[: len(places)] for noise in (feature_noise, picture_noise))
        mixed = features[a] * share[:, None] + features[b] * (1 - share[:, None])
        mixed += grain
        tiles = share[:, None, None, None]
        picture = thumbs[a] * tiles
        picture += thumbs[b][:, :, ::-1] * (1 - tiles)
        picture += speckle
        # One in a hundred is the row before it once more, with noise.
        again = np.flatnonzero(draw.random(len(places)) < 0.01)
        again = again[again > 0]
        mixed[again], picture[again] = mixed[again - 1], picture[again - 1] + speckle[again] / 3
        names = draw.integers(0, 256, (2, len(places), 16), np.uint8)
        text = {n: source.take(n, a) for n in ("error", "odd", "format", "mode", "camera")}
        columns = {
            "digest": names[0],
            "pixels": names[1],
            "numbers": numbers[a] * draw.normal(1, 0.02, numbers[a].shape),
            "thumb": np.clip(picture, 0, 255, out=picture).astype(np.uint8),
            "features": mixed.astype(np.float16),
            **text,
        }
        table.append(places, columns)
    return True


def main() -> None:
    """Run what is open until the minutes are over; print the table of what is done, and write it when all is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--work", type=Path, default=Path(".bench-check-size"), help="sets, caches and what is measured so far")
    parser.add_argument("--sizes", default="1000,10000", help="real photographs, separated by commas")
    parser.add_argument("--rows", type=int, default=1_000_000, help="synthetic ones; 0: none")
    parser.add_argument("--only-rows", action="store_true", help="the synthetic ones alone")
    parser.add_argument("--profile", action="store_true", help="where memory goes, part by part, in place of the table")
    args = parser.parse_args()
    until = time.monotonic() + 60 * args.minutes
    work: Path = args.work.absolute()
    work.mkdir(exist_ok=True)
    sources = [p for name in ("clothing_mini", "hymenoptera_256") for p in sorted((args.data / name).glob("*/*/*.jpg"))]
    code = PROFILE if args.profile else CHECK
    lines, open_ = [], False
    ways = (("in memory", IN_MEMORY), ("tables on disk", ON_DISK))
    for count in (int(n) for n in args.sizes.split(",")):
        folder = work / f"real-{count}"
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            make_folder(folder, sources, count)
            (folder / "made").write_text("")
        for way, large in ways:
            part = Part(work, f"{'profile' if args.profile else 'check'}-{count}-{'memory' if large else 'disk'}")
            cache = work / f"cache-{count}-{way.split()[-1]}"
            if not open_ and not args.only_rows and not part.run(code, [folder, large], cache, until):
                open_ = True
            lines.append(line_of(f"{count:,}", f"photographs, {way}", part))
    if args.rows and not open_:
        largest = work / f"real-{max(int(n) for n in args.sizes.split(','))}"
        folder, cache = work / f"rows-{args.rows}", work / "cache-rows"
        link(folder, sorted(largest.rglob("*.jpg")), args.rows)
        part = Part(work, f"check-{args.rows}-rows")
        if not part.done and (
            not fill(folder, largest, cache, until) or not part.run(PROFILE + CHECK, [folder, ON_DISK], cache, until)
        ):
            open_ = True
        lines.append(line_of(f"{args.rows:,}", "synthetic rows, all behind the network", part))
    head = "| images | which | seconds | of the processor | peak MB | parts |\n|---|---|---|---|---|---|"
    table = head + "\n" + "\n".join(lines)
    print(table)
    if open_:
        print("not all is done: call it again")
    if not args.profile:
        text = __doc__.partition("DATA holds")[2].strip()
        command = "Made by `make bench-check-size DATA=FOLDER`, called until no line says so far; caches empty at first."
        file = RESULTS / "check_size.md"
        file.write_text(f"# Cost of a check as sets grow\n\nDATA holds {text}\n\n{table}\n\n{command}\n")


def line_of(count: str, which: str, part: Part) -> str:
    s = part.state
    open_ = "" if part.done else " so far"
    return f"| {count} | {which} | {s['seconds']:.0f}{open_} | {s['processor']:.0f} | {s['peak']:.0f} | {s['parts']} |"


if __name__ == "__main__":
    main()
