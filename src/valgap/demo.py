"""``valgap demo``: the usual tutorial script, recorded, diagnosed and proved on real sensor images, offline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from valgap.errors import DataError
from valgap.record.location import new_run_directory

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "reference_resnet50.py"
DATA = Path("runs") / "demo-data"
CLOSING = "0.6"  # nothing then has to be rebuilt for the measurements
# Small enough for two cores and some four minutes; the script's own defaults are 20 epochs at 224 pixels.
BUDGET = "2m"
ARGUMENTS = ("--backbone", "efficientnet_lite0", "--epochs", "6", "--size", "160")


def run_demo() -> int:
    """The exit status: 0 when the script ran and its report was written."""
    from valgap.demo_data import make_demo_data

    if not SCRIPT.is_file():
        raise DataError(f"the demo runs {SCRIPT.name} out of a source checkout (examples/): clone the repository")
    print("Images: electroluminescence photographs of solar cells from the package elpv-dataset (CC BY-NC-SA 4.0).")
    data = make_demo_data(DATA)
    run = new_run_directory("demo")
    page = run / "report.html"
    for command in (
        ["run", "--closing", CLOSING, "--out", str(run), str(SCRIPT), str(data), *ARGUMENTS],
        ["diagnose", str(run), "--budget", BUDGET, "--html", str(page)],
    ):
        print("$ valgap " + " ".join(command), flush=True)
        status = subprocess.run([sys.executable, "-m", "valgap.cli", *command], check=False).returncode
        if status != 0:
            return status
    print(f"report: {page.resolve()}")
    return 0
