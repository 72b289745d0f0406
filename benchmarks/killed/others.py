"""Other bad ends and places: a full disk, a home that cannot be written, no memory, a clock that jumps, two at once, SIGTERM."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import forks

from killed.ground import LIMIT_S, Ended, Ground, Process, interruptible, stray
from killed.subjects import JSON, RUN, TRAIN, VALGAP, told, whole_lines
from valgap.errors import RecordError
from valgap.record.reader import read_record

Came = tuple[str, list[str]]
NOWHERE = "/dev/null/nowhere"  # nothing can be made there, not by root either
CHECK = (*VALGAP, "check", "photos", "--json")
SIZES_KB = (24, 40, 80, 160, 400)
SPARE_MB = (40, 120, 400)
DAY_S = 86_400.0
BARE_S = 90.0  # for a program that may wait for ever without such a folder


def started(ground: Ground, command: Sequence[str], first: Callable[[], None]) -> Process:
    """A command for which something is set before it begins."""
    texts = [ground.folder / f"{kind}-{time.monotonic_ns()}" for kind in ("out", "err")]

    def both() -> None:
        interruptible()
        first()

    return Process(forks.start(command, ground.work, ground.variables(), texts[0], texts[1], first=both), texts[0], texts[1])


def sound(ended: Ended, *allowed: int) -> list[str]:
    """What is wrong with how a command ended: neither one of these statuses, nor refused in one line."""
    if "Traceback" in ended.err and ended.status != 0:
        return [f"a traceback: {ended.words}"]
    return [] if ended.status in allowed or ended.refused else [ended.words]


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """A file system of that size at a folder; whether this machine lets us have one."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={kilobytes}k"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk_run(ground: Ground) -> Came:
    """The record's disk is full: the program goes on, and its record is readable to where it stops."""
    came, wrong = [], []
    for size in SIZES_KB:
        with small_disk(ground.folder / "disk", size) as there:
            if not there:
                return "no small disk can be had here", []
            ended = ground.run((*VALGAP, "run", "--out", "../disk/r", "program.py"))
            record = ground.folder / "disk" / "r"
            lines = ended.out.count("val acc")
            said = "stops early" in ended.err or "cannot write" in ended.err
            came.append(f"{size} kB: status {ended.status}, {lines} lines printed{', said' if said else ''}")
            if (record / "events.jsonl").exists() and (record / "events.jsonl").stat().st_size:
                wrong += whole_lines(record)
            if ended.status == 0 and lines != 3:
                wrong.append(f"{size} kB: the program printed {lines} lines")
            if ended.status not in (0, 2) or "Traceback" in ended.err:
                wrong.append(f"{size} kB: {ended.words}")
    return "; ".join(came), wrong


def full_disk_cache(ground: Ground) -> Came:
    """The cache's disk is full: the same findings."""
    expected = ground.run(CHECK)
    wrong = []
    for size in (8, 64, 512):
        with small_disk(ground.folder / "disk", size) as there:
            if not there:
                return "no small disk can be had here", []
            ground.more = {"VALGAP_CACHE": str(ground.folder / "disk" / "cache")}
            ended = ground.run(CHECK)
            if ended.status or told(ended) != told(expected):
                wrong.append(f"{size} kB: {ended.words}")
    return "the same findings", wrong


def full_disk_train(ground: Ground) -> Came:
    """The training's disk is full: it says so in one line, or goes on without what cannot be kept."""
    came, wrong = [], []
    for size in (40, 400, 8_000, 20_000):
        with small_disk(ground.folder / "disk", size) as there:
            if not there:
                return "no small disk can be had here", []
            ended = ground.run((*TRAIN, "--out", "../disk/m"))
            came.append(f"{size} kB: {ended.words[:100]}")
            wrong += sound(ended, 0)
    return "; ".join(came), wrong


def no_home(ground: Ground) -> Came:
    """Neither home nor cache can be written."""
    ground.more = {"HOME": NOWHERE, "VALGAP_CACHE": f"{NOWHERE}/cache"}
    wrong = []
    for command in ((*VALGAP, "run", "--out", "r2", "program.py"), JSON, CHECK, (*TRAIN, "--out", "m")):
        wrong += [f"{command[2]}: {w}" for w in sound(ground.run(command), 0)]
    return "run, diagnose, check and train go on", wrong


def no_tmp(ground: Ground) -> Came:
    """There is no folder for temporary files."""

    def nowhere() -> None:
        def none() -> str:
            raise FileNotFoundError(2, "No usable temporary directory found")

        tempfile._get_default_tempdir = none  # type: ignore[attr-defined]

    ground.more = {"TMPDIR": NOWHERE}
    came, wrong = [], []
    bare = started(ground, ("program.py",), nowhere).wait(BARE_S)
    ours = started(ground, (*VALGAP, "run", "--out", "r2", "program.py"), nowhere).wait(BARE_S)
    came.append(f"the program: {bare.status}, recorded {ours.status}")  # its workers need such a folder themselves
    if ours.status != bare.status:
        wrong.append(f"run: {ours.words}, bare: {bare.words}")
    wrong += whole_lines(ground.work / "r2")
    for command in (JSON, CHECK, (*TRAIN, "--out", "m"), (*JSON, "--budget", "8s")):
        ended = started(ground, command, nowhere).wait(LIMIT_S)
        name = "prove" if "--budget" in command else command[2]
        came.append(f"{name}: {'refused' if ended.refused else ended.status}")
        wrong += [f"{name}: {w}" for w in sound(ended, 0)]
    return "; ".join(came), wrong


def no_memory(ground: Ground) -> Came:
    """Address space runs out: the program ends as it does, and the record of it is readable."""
    came, wrong = [], []
    for spare in SPARE_MB:

        def bounded(spare: int = spare) -> None:
            now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + (spare << 20), resource.RLIM_INFINITY))

        bare = started(ground, ("program.py",), bounded).wait(LIMIT_S)
        ours = started(ground, (*VALGAP, "run", "--out", f"r-{spare}", "program.py"), bounded).wait(LIMIT_S)
        came.append(f"{spare} MB: bare {bare.status}, recorded {ours.status}")
        record = ground.work / f"r-{spare}"
        with contextlib.suppress(RecordError):
            read_record(record)
        wrong += whole_lines(record)
        if ours.status < 0 or (bare.status == 0 and ours.status not in (0, 2) and "MemoryError" not in ours.err):
            wrong.append(f"{spare} MB: {ours.words}, bare {bare.words}")
        ended = ground.run((*JSON[:3], f"r-{spare}", "--json", "--no-rebuild"))
        wrong += [f"diagnose of {spare} MB: {w}" for w in sound(ended, 0)]
        checked = started(ground, CHECK, bounded).wait(LIMIT_S)
        came.append(f"check {checked.status}")
        if checked.status < 0:
            wrong.append(f"check with {spare} MB: {checked.words}")
    return "; ".join(came), wrong


def clock_moved(ground: Ground) -> Came:
    """The clock jumps by a day, back and forth, while a command runs."""
    came, wrong = [], []
    expected = told(ground.run(JSON))
    for name, command in (
        ("run", (*VALGAP, "run", "--out", "r-moved", "program.py")), ("check", CHECK), ("train", (*TRAIN, "--out", "m")),
        ("diagnose", JSON),
    ):  # fmt: skip

        def moved() -> None:
            real, begun, turn = time.time, time.monotonic(), [0]

            def jumping() -> float:
                turn[0] += 1
                return real() + (0, -DAY_S, DAY_S)[turn[0] // 50 % 3] * (time.monotonic() > begun)

            time.time = jumping

        ended = started(ground, command, moved).wait(LIMIT_S)
        came.append(f"{name} {ended.status}")
        wrong += [f"{name}: {w}" for w in sound(ended, 0)]
        if name == "diagnose" and ended.status == 0 and told(ended) != expected:
            wrong.append("diagnose tells something else")
    wrong += whole_lines(ground.work / "r-moved")
    ended = ground.run((*JSON[:3], "r-moved", "--json"))
    if ended.status or [f["code"] for f in told(ended)["findings"]] != [f["code"] for f in expected["findings"]]:
        wrong.append(f"the record tells something else: {ended.words}")
    return "; ".join(came), wrong


def two_at_once(ground: Ground) -> Came:
    """Two of each command into one folder, with one cache."""
    came, wrong = [], []
    for name, command, both in (
        ("run --out r2", (*VALGAP, "run", "--out", "r2", "program.py"), False), ("run", (*VALGAP, "run", "program.py"), True),
        ("train --out m", (*TRAIN, "--out", "m"), False), ("check", CHECK, True), ("diagnose", JSON, True),
        ("fix", (*VALGAP, "fix", "r", "--out", "fixed", "--budget", "5s", "--no-retrain"), False),
    ):  # fmt: skip
        pair = [ground.start(command) for _ in range(2)]
        ends = [p.wait(LIMIT_S) for p in pair]
        statuses = sorted(e.status for e in ends)
        came.append(f"{name} {statuses[0]} {statuses[1]}")
        if statuses[0] != 0 or (both and statuses != [0, 0]) or any(e.status and not e.refused for e in ends):
            wrong += [f"{name}: {e.words}" for e in ends]
        if name in ("check", "diagnose") and statuses == [0, 0] and told(ends[0]) != told(ends[1]):
            wrong.append(f"{name}: two answers")
    wrong += whole_lines(ground.work / "r2")
    for record in (ground.work / "runs").glob("2*"):
        wrong += whole_lines(record)
        read_record(record)
    return "; ".join(came), wrong


def terminated(ground: Ground) -> Came:
    """SIGTERM, as a scheduler sends it, at ten moments of each command."""
    came, wrong = [], []
    commands = {
        "run": ((*RUN[:-1], "r-{}", "program.py"), ("work/ended",)), "train": ((*TRAIN, "--out", "m-{}"), ()),
        "check": (CHECK, ()),
        "prove": ((*JSON, "--budget", "8s"), ("work/r",)),
    }  # fmt: skip
    for name, (command, outputs) in commands.items():
        begun = time.monotonic()
        first = [word.format("whole") for word in command]
        ended = ground.run(first)
        seconds = time.monotonic() - begun
        if ended.status:
            return "the trial failed", [f"{name}: {ended.words}"]
        ends = []
        for number in range(10 if name != "prove" else 4):
            before = ground.paths()
            words = [word.format(number) for word in command]
            process = ground.start(words)
            time.sleep(seconds * (number + 0.5) / 10)
            there = process.send(signal.SIGTERM)
            status = process.wait(LIMIT_S).status if there else process.status
            ends.append(status)
            wrong += [f"{name}: orphan {o}" for o in ground.orphans(process.pid)]
            own = [f"work/{w}" for w in words if w.endswith(f"-{number}")]
            wrong += [f"{name}: stray {p}" for p in stray(before, ground.paths(), (*outputs, *own))]
            if status not in (0, -signal.SIGTERM, 128 + signal.SIGTERM):
                wrong.append(f"{name}: status {status}")
            if name == "run":
                wrong += whole_lines(ground.work / f"r-{number}")
            if name == "train" and there and number % 3 == 0:
                wrong += _resumed(ground, f"m-{number}")
        came.append(f"{name} {ends}")
    return "; ".join(came), wrong


def _resumed(ground: Ground, folder: str) -> list[str]:
    """It goes on to the weights of the whole training, or has nothing to go on from."""
    ended = ground.run((*VALGAP, "train", "--resume", folder))
    if ended.refused:
        return []
    if ended.status:
        return [f"--resume: {ended.words}"]
    weights = [(ground.work / f / "checkpoint.safetensors").read_bytes() for f in ("m-whole", folder)]
    return [] if weights[0] == weights[1] else ["--resume: other weights"]


OTHERS: dict[str, Callable[[Ground], Came]] = {
    "disk full: record": full_disk_run,
    "disk full: cache": full_disk_cache,
    "disk full: training": full_disk_train,
    "home and cache cannot be written": no_home,
    "no folder for temporary files": no_tmp,
    "out of memory": no_memory,
    "clock moved by a day": clock_moved,
    "two at once": two_at_once,
    "SIGTERM": terminated,
}
