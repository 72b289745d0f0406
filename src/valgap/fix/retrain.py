"""The fixed program trained again: the user's script in a sandbox with its edits, or `valgap train` on the cleaned images."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from valgap.errors import ValgapError
from valgap.experiments.runner import Runner
from valgap.experiments.suspects import NotRepeatableError, base_spec
from valgap.fix.manifest import Row
from valgap.review.suspects import labels_of
from valgap.types import Intervention, RunRecord

# Closing measurements keep the new model's weights and make its own page; at most this share of its time.
CLOSING = 0.2


def rerun_script(
    run: RunRecord, out: Path, edited: Mapping[Path, Path], interventions: Sequence[Intervention], limit_s: float
) -> Path:
    """Run the recorded program with edited files and interventions, once, whole; returns the new run directory ``out/run``.

    Nothing that it writes reaches the user's files. Raises ValgapError where it cannot be run or does not end in time.
    """
    try:
        spec = base_spec(run, interventions)
    except NotRepeatableError as why:
        raise ValgapError(f"the program cannot be trained again: {str(why).removeprefix('cannot be tried: ')}") from why
    spec = replace(
        spec,
        interventions=list(interventions),
        closing=CLOSING,
        edited={str(a): str(b.resolve()) for a, b in edited.items()},
    )
    runner = Runner(out / "arms", 1, time.monotonic() + limit_s, like=run)
    try:
        result = runner.run([spec])[0]
    finally:
        runner.close()
    if result.error is not None:
        raise ValgapError(f"the fixed program could not be trained: {result.error}; see {runner.place(spec) / 'output.txt'}")
    unused = [i.name for i, n in zip(interventions, result.acted, strict=False) if not n]
    if unused:
        raise ValgapError(f"the remedy {', '.join(unused)} found nothing to act on in this program")
    shutil.move(runner.place(spec) / "record", out / "run")
    shutil.move(runner.place(spec) / "output.txt", out / "output.txt")
    shutil.rmtree(out / "arms")
    return out / "run"


def train_again(run: RunRecord, out: Path, data: Path) -> Path:
    """`valgap train` on ``data`` with the options of the recorded call; returns the new run directory ``out/run``."""
    argv = run.header.get("argv")
    if not isinstance(argv, list):
        raise ValgapError("the record does not say how valgap train was called")
    options = _options([str(a) for a in argv])
    command = [sys.executable, "-m", "valgap.cli", "train", str(data.resolve()), "--out", str((out / "run").resolve()), *options]
    with (out / "output.txt").open("xb") as output:
        status = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=str(run.header.get("cwd", ".")), check=False
        )
    if status.returncode:
        raise ValgapError(f"valgap train ended with status {status.returncode}; see {out / 'output.txt'}")
    return out / "run"


def _options(argv: Sequence[str]) -> list[str]:
    """The options of `valgap train` without DATA, --out and --resume."""
    rest = list(argv[argv.index("train") + 1 :]) if "train" in argv else list(argv[1:])
    kept: list[str] = []
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            continue  # DATA
        value = [] if "=" in word or not rest or rest[0].startswith("--") else [rest.pop(0)]
        if word.split("=")[0] not in ("--out", "--resume"):
            kept += [word, *value]
    return kept


def data_interventions(run: RunRecord, rows: Sequence[Row]) -> list[Intervention]:
    """What leaves out and relabels training images of a program while it runs."""
    last = run.last_train
    data = run.datasets.get(last.dataset) if last is not None else None
    changed = {r.path: r for r in rows if r.split == "train" and (not r.kept or r.label != r.given)}
    if not changed:
        return []
    if data is None or data.sample is None:
        raise ValgapError("the training images' places are not known: they can be left out by hand only")
    places = {run.sample_names[s]: i for i, s in enumerate(data.sample.tolist()) if s >= 0}
    labels = {name: i for i, name in enumerate(labels_of(run))}
    dropped = [places[p] for p, r in changed.items() if not r.kept and p in places]
    moved = [(places[p], labels[r.label]) for p, r in changed.items() if r.kept and p in places and r.label in labels]
    found = []
    if moved:
        settings = {"positions": [i for i, _ in moved], "targets": [t for _, t in moved], "phase": "train"}
        found.append(Intervention("relabel_samples", settings))
    if dropped:
        found.append(Intervention("drop_samples", {"positions": dropped, "phase": "train"}))
    return found
