"""Human label noise taken from end to end: train, diagnose, review by a program, fix; accuracy before and after.

python benchmarks/fixed_labels.py DATA          DATA holds cifar10n_mini

The folder holds 2,000 photographs under the `worse` human labels (37.8 % wrong) and 500 soundly labelled ones to validate on.
The review is that of `valgap review`, over its own address, once by somebody who takes every likely label as it stands, and
once by somebody who knows the right one. Trained on the right labels from the start is what could be reached.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from valgap.fix import FixResult, fix

RESULTS = Path(__file__).parent / "results" / "fixed_labels.md"
OPTIONS = ("--backbone", "efficientnet_lite0", "--size", "96")
LEVEL = "worse"
# suspect -> its label
Reviewer = Callable[[Mapping[str, Any]], str]


def folder_of_links(data: Path, column: str, target: Path) -> dict[str, str]:
    """train/ under the labels of that column, val/ as it is; returns the right label by the name of each training file."""
    right = {}
    with (data / "human_labels.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            file = data / row["file"]
            place = target / "train" / row[column] / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file.absolute())
            right[file.name] = row["clean"]
    for file in sorted((data / "val").glob("*/*")):
        place = target / "val" / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(file.absolute())
    return right


def valgap(*arguments: object) -> str:
    """Standard output of a command."""
    command = [sys.executable, "-m", "valgap", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout[-3000:])
    return done.stdout


def reviewed(run: Path, reviewer: Reviewer) -> tuple[int, int]:
    """Go through all suspects over the address that `valgap review` prints; (suspects, relabelled)."""
    command = [sys.executable, "-m", "valgap", "review", str(run), "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        address = next(m[0] for line in server.stdout if (m := re.search(r"http://\S+", line))).rstrip("/")
        with urllib.request.urlopen(f"{address}/suspects") as answer:
            suspects = json.load(answer)["suspects"]
        moved = 0
        for number, suspect in enumerate(suspects):
            label = reviewer(suspect)
            kind = "relabel" if label and label != suspect["given"] else "keep"
            body = json.dumps({"number": number, "kind": kind, "label": label if kind == "relabel" else ""})
            headers = {"Content-Type": "application/json", "Origin": re.sub(r"(http://[^/]+).*", r"\1", address)}
            urllib.request.urlopen(urllib.request.Request(f"{address}/decide", body.encode(), headers)).close()
            moved += kind == "relabel"
        server.terminate()
    return len(suspects), moved


def line(who: str, result: FixResult, suspects: int, moved: int) -> str:
    """A row of Markdown."""
    (score,) = result.scores
    before, after = (f"{100 * a.value:.1f} ({100 * a.low:.1f} .. {100 * a.high:.1f})" for a in (score.before, score.after))
    gain = f"{score.gain.value:+.1f} ({score.gain.low:+.1f} .. {score.gain.high:+.1f})"
    return f"| {who} | {moved} of {suspects} suspects relabelled | {before} | {after} | {gain} |"


def main() -> None:
    """Print the table and write it."""
    data = (Path(sys.argv[1]) / "cifar10n_mini").resolve()
    lines = [
        "| review | images | val accuracy before, % | after, % | gain, points |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        os.chdir(place)
        right = folder_of_links(data, LEVEL, place / LEVEL)
        valgap("train", LEVEL, "--out", "run", *OPTIONS)
        print(valgap("diagnose", "run"), flush=True)
        reviewers: dict[str, Reviewer] = {
            "takes every likely label": lambda s: str(s["likely"]),
            "knows the right label": lambda s: right.get(Path(s["path"]).name, ""),
        }
        for number, (who, reviewer) in enumerate(reviewers.items()):
            run = Path(shutil.copytree("run", f"run-{number}"))
            counts = reviewed(run, reviewer)
            lines.append(line(who, fix(run, Path(f"fixed-{number}"), budget="0"), *counts))
            print(lines[-1], flush=True)
        folder_of_links(data, "clean", place / "clean")
        valgap("train", "clean", "--out", "run-clean", *OPTIONS)
        reached = json.loads(Path("run-clean/summary.json").read_text())["val"]
        interval = f"{100 * reached['low']:.1f} .. {100 * reached['high']:.1f}"
        lines.append(f"| (right labels from the start) | | | {100 * reached['accuracy']:.1f} ({interval}) | |")
    head = "# Wrong labels, fixed\n\n`make bench-fixed-labels DATA=FOLDER`\n\n" + "\n".join((__doc__ or "").splitlines()[4:])
    RESULTS.write_text(head + "\n\n" + "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
