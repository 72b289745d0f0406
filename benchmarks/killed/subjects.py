"""What is killed: a command on a small set of images, what has to hold of what it leaves, and what its next run has to give."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from killed.ground import Ended, Ground, Process
from valgap.errors import RecordError
from valgap.record.encoding import EVENTS_FILE
from valgap.record.events import read_events
from valgap.record.reader import read_record

VALGAP = ("-m", "valgap")
RUN = (*VALGAP, "run", "--out", "r")
TRAIN = (*VALGAP, "train", "photos", "--backbone", "efficientnet_lite0", "--unfreeze", "last", "--epochs", "2", "--size", "32")
JSON = (*VALGAP, "diagnose", "r", "--json")
# Of the JSON of a diagnosis, what does not depend on when and how fast it was made.
SAME = ("findings", "stages", "accuracy", "crashed", "verdicts")


@dataclass(frozen=True)
class Subject:
    """``after(ground, reference)``: what is wrong with what is left, in words; it may run further commands."""

    name: str
    about: str
    count: int  # moments
    command: Sequence[str]
    outputs: Sequence[str]  # where it may leave files
    after: Callable[[Ground, Any], list[str]]
    reference: Callable[[Ground, Ended], Any]  # of an uninterrupted run
    recorded: bool = False  # it begins with a record
    wait: Callable[[Process, Ground], None] | None = None  # what has to be there before the moments begin


def nothing(ground: Ground, ended: Ended) -> None:
    """No outcome to compare with."""


def told(ended: Ended) -> Any:
    """What a diagnosis says."""
    body = json.loads(ended.out)
    return {k: body.get(k) for k in SAME}


def findings(ground: Ground, ended: Ended) -> Any:
    """What the uninterrupted command says."""
    return told(ended)


def readable(ground: Ground, _: Any) -> list[str]:
    """The record is read to its last whole line, and told or refused in one line."""
    wrong = whole_lines(ground.work / "r")
    ended = ground.run((*JSON, "--no-rebuild"))
    return wrong if ended.status == 0 or ended.refused else [*wrong, f"diagnose: {ended.words}"]


def whole_lines(folder: Path) -> list[str]:
    """What is wrong with reading each file of a record to its last whole line."""
    file = folder / EVENTS_FILE
    if not file.exists():
        return []
    count = file.read_bytes().count(b"\n")
    if not count:
        try:
            read_record(folder)
        except RecordError:
            return []
        return ["a record without a line was read"]
    events, _ = read_events(folder, file)
    read_record(folder)
    return [] if len(events) == count else [f"{len(events)} of {count} whole lines were read"]


def again_the_same(command: Sequence[str]) -> Callable[[Ground, Any], list[str]]:
    """The command run once more says what an uninterrupted one says."""

    def after(ground: Ground, reference: Any) -> list[str]:
        ended = ground.run(command)
        if ended.status:
            return [f"the next run: {ended.words}"]
        return [] if told(ended) == reference else ["the next run tells something else"]

    return after


def proved_again(ground: Ground, reference: Any) -> list[str]:
    """The record is whole, and the same proof can be had."""
    ended = ground.run((*JSON, "--no-rebuild"))
    wrong = whole_lines(ground.work / "r") + ([f"diagnose: {ended.words}"] if ended.status else [])
    ended = ground.run((*JSON, "--budget", "8s"))
    return wrong + ([f"the next run: {ended.words}"] if ended.status else [])


def fixed_again(ground: Ground, reference: Any) -> list[str]:
    """The record and the program are as they were, and the fix can be had, there or elsewhere."""
    wrong = whole_lines(ground.work / "r")
    wrong += (
        ["the program was changed"] if (ground.work / "program.py").read_bytes() != (PROGRAMS / "program.py").read_bytes() else []
    )
    ended = ground.run(fix("fixed"))
    if ended.refused:
        ended = ground.run(fix("fixed-2"))
    return wrong + ([f"the next run: {ended.words}"] if ended.status else [])


def fix(out: str) -> tuple[str, ...]:
    """The command."""
    return (*VALGAP, "fix", "r", "--out", out, "--budget", "8s", "--no-retrain")


def weights(ground: Ground, ended: Ended) -> bytes:
    """Of the uninterrupted training."""
    return (ground.work / "m" / "checkpoint.safetensors").read_bytes()


def resumed(ground: Ground, reference: bytes) -> list[str]:
    """It is gone on with, or said to have nothing to go on from; then the weights are those of the uninterrupted training."""
    folder = "m"
    ended = ground.run((*VALGAP, "train", "--resume", "m"))
    if ended.refused:
        folder = "m2"
        ended = ground.run((*TRAIN, "--out", folder))
    if ended.status:
        return [f"the next run: {ended.words}"]
    same = (ground.work / folder / "checkpoint.safetensors").read_bytes() == reference
    return [] if same else [f"other weights after going on in {folder}"]


def decided(ground: Ground, _: Any) -> list[str]:
    """Every decision that was confirmed is there, and the next one can be made."""
    ended = ground.run(("decided.py",))
    return [f"decisions: {ended.words}"] if ended.status else []


def not_poisoned(ground: Ground, _: Any) -> list[str]:
    """What the caches give is what was written, or nothing."""
    ended = ground.run(("cache.py", "read"))
    return [f"caches: {ended.words}"] if ended.status else []


def ended_program(process: Process, ground: Ground) -> None:
    """Until the program's last line has run."""
    until = time.monotonic() + 120
    while not (ground.work / "ended").exists() and time.monotonic() < until and Path(f"/proc/{process.pid}").exists():
        time.sleep(0.01)


PROGRAMS = Path(__file__).resolve().parent / "programs"

SUBJECTS = (
    Subject("run", "`valgap run`, the program itself", 220, (*RUN, "program.py"), ("work/r", "work/ended"), readable, nothing),
    Subject(
        "closing", "`valgap run`, the closing measurements", 100, (*RUN, "--closing", "10", "program.py"),
        ("work/r", "work/ended"), readable, nothing, wait=ended_program,
    ),
    Subject("diagnose", "`valgap diagnose`", 100, JSON, ("work/r",), again_the_same(JSON), findings, recorded=True),
    Subject(
        "prove", "`valgap diagnose --budget 8s`", 30, (*JSON, "--budget", "8s"), ("work/r",), proved_again, nothing, recorded=True
    ),
    Subject("fix", "`valgap fix`", 20, fix("fixed"), ("work/r", "work/fixed"), fixed_again, nothing, recorded=True),
    Subject("train", "`valgap train`, then `--resume`", 120, (*TRAIN, "--out", "m"), ("work/m",), resumed, weights),
    Subject(
        "check", "`valgap check`", 120, (*VALGAP, "check", "photos", "--json"), (),
        again_the_same((*VALGAP, "check", "photos", "--json")), findings,
    ),
    Subject(
        "review", "decisions of `valgap review`", 140, ("decide.py",), ("work/r", "work/confirmed"), decided, nothing,
        recorded=True,
    ),
    Subject("cache", "writing the caches", 150, ("cache.py", "write"), (), not_poisoned, nothing),
)  # fmt: skip


def moment(subject: Subject, number: int, seconds: float) -> float:
    """When the trial of this number is killed."""
    return random.Random(f"{subject.name} {number}").random() * seconds
