"""Scripts with two faults taken to a fixed run by one command, against the same script without them.

python benchmarks/fixed_script.py DATA [--faults A,B ...]          DATA holds clothing_mini

Each program is benchmarks/planted.py at 64 px for 3 epochs with two faults planted; `valgap fix RUN --out DIR --budget 8m` proves
the causes and trains the fixed program. The sound twin is the script without the faults, written by hand. Regained is the share
of the points between the faulty script and its twin that the fixed run has back; one seed each, as users run it.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from valgap.fix import FixResult, fix
from valgap.report.fix_view import show_fix

PLANTED = Path(__file__).resolve().parent / "planted.py"
RESULTS = Path(__file__).parent / "results" / "fixed_script.md"
PAIRS = ("drift,unnormalized", "shifted,softmax", "no_zero_grad,train_mode")
BUDGET = "8m"
HEAD = "| faults | before, % | fixed, % | sound twin, % | regained | verdicts | script, fix: s |\n|---|---|---|---|---|---|---|"


def recorded(data: Path, faults: str, out: Path) -> tuple[float, float]:
    """(last validation accuracy in percent, seconds) of the script, recorded in ``out``."""
    command = [sys.executable, "-m", "valgap", "run", "--out", str(out), str(PLANTED), str(data), "--faults", faults]
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-3000:])
    return 100 * float(re.findall(r"val acc ([\d.]+)", done.stdout)[-1]), time.perf_counter() - started


def row(faults: str, before: float, twin: float, result: FixResult, script_s: float, fix_s: float) -> str:
    """A row of Markdown; the first score is that on the same validation images."""
    after = 100 * result.scores[0].after.value
    tried = [f"{j.check.name} {j.verdict}" for j in result.diagnosis.findings]
    cells = (
        f"{before:.1f}",
        f"{after:.1f}",
        f"{twin:.1f}",
        f"{(after - before) / (twin - before):.0%}",
        ", ".join(tried),
        f"{script_s:.0f}, {fix_s:.0f}",
    )
    return f"| {faults.replace(',', ' + ')} | " + " | ".join(cells) + " |"


def printed(result: FixResult) -> str:
    """What the command prints of it, with paths from the repository on."""
    text = io.StringIO()
    show_fix(result, Console(file=text, width=130))
    return text.getvalue().replace(f"{PLANTED.parents[1]}/", "")


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--faults", nargs="*", default=PAIRS)
    args = parser.parse_args()
    data = (args.data / "clothing_mini").resolve()
    lines, told = [HEAD], []
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        twin = recorded(data, "", Path("twin"))[0]
        for number, faults in enumerate(args.faults):
            before, script_s = recorded(data, faults, Path(f"run-{number}"))
            started = time.perf_counter()
            result = fix(Path(f"run-{number}"), Path(f"fixed-{number}"), budget=BUDGET)
            lines.append(row(faults, before, twin, result, script_s, time.perf_counter() - started))
            told.append(printed(result))
            print(lines[-1], told[-1], sep="\n", flush=True)
    about = "\n".join((__doc__ or "").splitlines()[4:])
    command = "`make bench-fixed-script DATA=FOLDER`"
    RESULTS.write_text(
        f"# Two faults, fixed by one command\n\n{command}\n\n{about}\n\n"
        + "\n".join(lines)
        + "\n\n"
        + "What `valgap fix` prints of each:\n\n"
        + "\n".join(f"```\n{text}```\n" for text in told)
    )


if __name__ == "__main__":
    main()
