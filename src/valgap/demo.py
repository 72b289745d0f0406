"""``valgap demo``: a usual tutorial script with a usual mistake, recorded, diagnosed and proved on real images, offline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from valgap.errors import DataError
from valgap.record.location import new_run_directory

# model.eval() is missing before validation: planted into a sound script, so that everybody can check the answer.
SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "faults" / "train_mode_at_validation.py"
DATA = Path("runs") / "demo-data"
CLOSING = "0.6"  # of the script's own time for the measurements after it; what does not fit is left out (--no-rebuild)
# The recorded weights, scored again, prove such a fault in seconds: no luck of a training is in it, and its interval is that of
# the validation images alone. So there are many of them, and few for training, in few epochs and small.
TRAIN_PER_CLASS, VAL_PER_CLASS = 100, 250
ARGUMENTS = ("--backbone", "efficientnet_lite0", "--epochs", "3", "--size", "96")
BUDGET = "2m"


def run_demo() -> int:
    """The exit status: 0 when the script ran and its report was written."""
    from valgap.demo_data import make_demo_data

    if not SCRIPT.is_file():
        raise DataError(f"the demo runs {SCRIPT.name} out of a source checkout (examples/): clone the repository")
    print("Images: electroluminescence photographs of solar cells from the package elpv-dataset (CC BY-NC-SA 4.0).")
    print("A usual training script, with one mistake that we planted; valgap is not told which.")
    data = make_demo_data(DATA, train_per_class=TRAIN_PER_CLASS, val_per_class=VAL_PER_CLASS)
    run = new_run_directory("demo")
    page = run / "report.html"
    for command in (
        ["run", "--closing", CLOSING, "--out", str(run), str(SCRIPT), str(data), *ARGUMENTS],
        ["diagnose", str(run), "--no-rebuild", "--budget", BUDGET, "--html", str(page)],
    ):
        print("$ valgap " + " ".join(command), flush=True)
        status = subprocess.run([sys.executable, "-m", "valgap.cli", *command], check=False).returncode
        if status != 0:
            return status
    print(f"report: {page.resolve()}")
    return 0
