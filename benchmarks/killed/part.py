"""Part `killed`: commands that get SIGKILL at random moments; what is left has to be readable, and the next run has to be sound.

A moment is drawn from the time that the uninterrupted command takes here. Only the command's own process is killed: what it has
started has to end by itself within ten seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks
from undisturbed.programs import small_sets

from killed.ground import Ground, stray
from killed.others import OTHERS
from killed.subjects import PROGRAMS, RUN, SUBJECTS, Subject, moment

ROWS = Path(__file__).resolve().parent.parent / "results" / "trust_killed.jsonl"
CLASSES, IMAGES = 3, {"train": 8, "val": 4}
Row = dict[str, Any]
HEAD = """Each command works on 36 photographs in a working folder, a home, a temporary folder and a cache of its own, and gets
SIGKILL at a moment drawn from the time that it takes undisturbed; what it has started does not. *Sound*: the record is read to
its last whole line; the command run again gives what an undisturbed one gives (a training: the same weights, bit by bit); no
process of it is there ten seconds later; no file lies outside its named outputs and the cache; what the caches give is what was
written, or nothing. The processes are forks of one that has imported torch. `python benchmarks/trust.py killed --data FOLDER
--again "train 7"` puts one again.
"""


def work(given: argparse.Namespace, until: float) -> bool:
    """Do the moments that have no row yet, kinds taking turns, until time is up; whether nothing is left."""
    keep = given.keep.resolve() / "killed"
    forks.import_once()
    templates = prepared(given.data.resolve(), given.keep.resolve(), keep)
    done = {(r["subject"], r["number"]) for r in rows()}
    chosen = [s for s in SUBJECTS if not given.kind or s.name in given.kind]
    known: dict[str, tuple[Any, float]] = {}
    turns = [(n / s.count, s, n) for s in chosen for n in range(min(s.count, given.most)) if (s.name, n) not in done]
    for _, subject, number in sorted(turns, key=lambda t: t[0]):
        if time.monotonic() > until:
            return False
        if subject.name not in known:
            known[subject.name] = undisturbed(subject, keep, templates)
        add(trial(subject, number, keep, templates, *known[subject.name]))
    for name, act in OTHERS.items():
        if (name, 0) in done or (given.kind and name not in given.kind):
            continue
        if time.monotonic() > until:
            return False
        add(condition(name, act, keep, templates))
    return True


def add(row: Row) -> None:
    """Keep it and tell it."""
    with ROWS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row["subject"], row["number"], row["after_s"], row["came"], "; ".join(row["wrong"]) or "sound", flush=True)


def prepared(data: Path, keep: Path, folder: Path) -> dict[bool, Path]:
    """Templates of a working folder: with photographs and programs, and (True) with a record as well."""
    sets = small_sets(data, keep / "sets")
    plain, recorded = folder / "plain", folder / "recorded"
    shutil.rmtree(plain, ignore_errors=True)
    plain.mkdir(parents=True)
    for file in PROGRAMS.glob("*.py"):
        shutil.copyfile(file, plain / file.name)
    for split, most in IMAGES.items():
        for group in (
            sorted((sets / "hymenoptera_256" / split).iterdir()) + sorted((sets / "clothing_mini" / split).iterdir())[:1]
        ):
            (plain / "photos" / split / group.name).mkdir(parents=True)
            for file in sorted(group.iterdir())[:most]:
                shutil.copyfile(file, plain / "photos" / split / group.name / file.name)
    shutil.rmtree(recorded, ignore_errors=True)
    ground = Ground(folder / "ground", plain)
    ended = ground.run((*RUN, "program.py"))
    assert ended.status == 0, ended.err
    shutil.copytree(ground.work, recorded, symlinks=True)
    return {False: plain, True: recorded}


def undisturbed(subject: Subject, keep: Path, templates: dict[bool, Path]) -> tuple[Any, float]:
    """(what the command gives, seconds that its moments are drawn from)."""
    ground = Ground(keep / "ground", templates[subject.recorded])
    process = ground.start(subject.command)
    begun = process.begun
    if subject.wait is not None:
        subject.wait(process, ground)
        begun = time.monotonic()
    ended = process.wait(300)
    assert ended.status == 0, ended.err
    seconds = time.monotonic() - begun
    print(f"{subject.name}: {seconds:.1f} s undisturbed", flush=True)
    return subject.reference(ground, ended), seconds


def trial(subject: Subject, number: int, keep: Path, templates: dict[bool, Path], reference: Any, seconds: float) -> Row:
    """One moment."""
    ground = Ground(keep / "ground", templates[subject.recorded])
    before = ground.paths()
    process = ground.start(subject.command)
    if subject.wait is not None:
        subject.wait(process, ground)
    after_s = moment(subject, number, seconds)
    time.sleep(after_s)
    killed = process.kill()
    wrong = [f"orphan {o}" for o in ground.orphans(process.pid)]
    wrong += [f"stray {p}" for p in stray(before, ground.paths(), subject.outputs)]
    try:
        wrong += subject.after(ground, reference)
    except Exception:
        wrong.append(traceback.format_exc().splitlines()[-1][:200])
    came = "killed" if killed else "it had ended"
    return {"subject": subject.name, "number": number, "after_s": round(after_s, 2), "came": came, "wrong": wrong}


def condition(name: str, act: Callable[[Ground], tuple[str, list[str]]], keep: Path, templates: dict[bool, Path]) -> Row:
    """Another way to end badly."""
    ground = Ground(keep / "ground", templates[True])
    try:
        came, wrong = act(ground)
    except Exception:
        came, wrong = "the trial failed", [traceback.format_exc()[-400:]]
    return {"subject": name, "number": 0, "after_s": 0.0, "came": came, "wrong": wrong}


def again(name: str, given: argparse.Namespace) -> None:
    """One moment, or another condition, once more; the folders stay."""
    keep = given.keep.resolve() / "killed"
    forks.import_once()
    templates = prepared(given.data.resolve(), given.keep.resolve(), keep)
    if name in OTHERS:
        row = condition(name, OTHERS[name], keep, templates)
    else:
        name, _, number = name.rpartition(" ")
        subject = next(s for s in SUBJECTS if s.name == name)
        row = trial(subject, int(number), keep, templates, *undisturbed(subject, keep, templates))
    print(json.dumps(row, indent=1), f"folders: {keep / 'ground'}", sep="\n")


def rows() -> list[Row]:
    """What was tried so far; of two rows of one trial the later counts."""
    return list({(row["subject"], row["number"]): row for row in every()}.values())


def every() -> list[Row]:
    """All rows, those of before a mend as well."""
    lines = ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []
    return [json.loads(line) for line in lines]


def section() -> list[str]:
    """Of the table."""
    found, unsound_once = rows(), {(r["subject"], r["number"]) for r in every() if r["wrong"]}
    lines = [
        "## Killed",
        "",
        HEAD,
        "| command | moments | killed | it had ended | unsound | unsound at first, mended |",
        "|---|---|---|---|---|---|",
    ]
    total = [0] * 5
    for subject in SUBJECTS:
        own = [r for r in found if r["subject"] == subject.name]
        bad = sum(bool(r["wrong"]) for r in own)
        mended = sum((r["subject"], r["number"]) in unsound_once and not r["wrong"] for r in own)
        killed = sum(r["came"] == "killed" for r in own)
        cells = [len(own), killed, len(own) - killed, bad, mended]
        total = [a + b for a, b in zip(total, cells, strict=True)]
        lines.append(f"| {subject.about} | " + " | ".join(map(str, cells)) + " |")
    lines += ["| **all** | " + " | ".join(map(str, total)) + " |", "", "| other end | what came | unsound |", "|---|---|---|"]
    for name in OTHERS:
        for row in (r for r in found if r["subject"] == name):
            lines.append(f"| {name} | {row['came']} | {'; '.join(row['wrong']) or 'no'} |")
    still = [f"- {r['subject']} {r['number']} ({r['after_s']} s): {'; '.join(r['wrong'])}" for r in found if r["wrong"]]
    return [*lines, "", *still]
