"""What happens to each image: kept, relabelled or left out, and why. Written as CSV; the images stay where they are."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from valgap.data import images_of_training
from valgap.errors import ValgapError
from valgap.exhibits.galleries import pair_of
from valgap.review.decisions import Decision
from valgap.review.suspects import labels_of
from valgap.types import TRAINED, Diagnosis, Finding, RunRecord

COLUMNS = ("path", "label", "split", "reason")
LEFT_OUT = "left out"
# Causes whose subjects are validation images that tell nothing about new images.
LEAKS = "DAT101"


@dataclass(frozen=True)
class Row:
    """One image of the program's data."""

    path: str  # as recorded
    given: str
    label: str  # what it is to be
    split: str  # "train" or "val", as it was
    kept: bool
    reason: str


def plan_images(diagnosis: Diagnosis, decisions: Mapping[str, Decision], confirmed: Sequence[str]) -> list[Row]:
    """Every training and validation image with what becomes of it.

    Somebody's decision counts first. Without one, validation images that a confirmed finding (by code) calls copies of
    training images are left out; everything else is kept.
    """
    leaks = _leaks(diagnosis) if LEAKS in confirmed else {}
    base = str(diagnosis.run.header.get("cwd", "."))
    made = {os.path.join(base, path): decision for path, decision in decisions.items()}  # noqa: PTH118 - any name
    rows = []
    for split, path, given in images_of(diagnosis.run):
        decision = made.get(os.path.join(base, path))  # noqa: PTH118
        label, kept, reason = given, True, ""
        if decision is not None and decision.kind == "drop":
            kept, reason = False, f"dropped by review{_because(decision)}"
        elif decision is not None and decision.kind == "relabel" and decision.label != given:
            label, reason = decision.label, f"relabelled by review from {given}{_because(decision)}"
        elif decision is None and split == "val" and path in leaks:
            kept, reason = False, f"copy of the training image {leaks[path]} ({LEAKS})"
        rows.append(Row(path, given, label, split, kept, reason))
    return rows


def _because(decision: Decision) -> str:
    return f" ({decision.cause})" if decision.cause else ""


def _leaks(diagnosis: Diagnosis) -> dict[str, str]:
    names = frozenset(diagnosis.run.sample_names)
    found = {}
    for judged in diagnosis.findings:
        if judged.check.code == LEAKS and isinstance(judged.outcome, Finding):
            for subject in judged.outcome.subjects:
                pair = pair_of(subject, names)
                found[pair[0]] = pair[-1]
    return found


def images_of(run: RunRecord) -> list[tuple[str, str, str]]:
    """(split, path, label) of every image of the last training and the last validation data set, each once.

    `valgap train` may learn from stored features, and then its record names no training image: its folder does.
    """
    if run.header.get("script") == TRAINED:
        own = images_of_training(run)
        if not own:
            raise ValgapError("the folder that valgap train was given is no longer there")
        return [("val" if is_val else "train", name, label) for name, _, label, is_val in own]
    found: dict[tuple[str, str], str] = {}
    for split, one in (("train", run.last_train), ("val", run.last_validation)):
        if one is None:
            continue
        labels = labels_of(run)
        data = run.datasets.get(one.dataset)
        if data is not None and data.class_to_idx:  # validation may number its classes in its own way
            by_index = {index: name for name, index in data.class_to_idx.items()}
            labels = [by_index.get(i, "") for i in range(max(by_index) + 1)]
        ids, targets = one.samples.sample, one.samples.target
        if data is not None and data.sample is not None and data.targets is not None and len(data.sample) == len(data.targets):
            ids = np.concatenate([data.sample, ids])
            targets = np.concatenate([data.targets, targets])
        for sample, target in zip(ids.tolist(), targets.tolist(), strict=True):
            if 0 <= sample < len(run.sample_names):
                label = labels[target] if 0 <= target < len(labels) else ""
                found.setdefault((split, run.sample_names[sample]), label)
    return [(split, path, label) for (split, path), label in found.items()]


def write_manifest(rows: Sequence[Row], file: Path) -> None:
    """The rows as CSV with the columns path, label, split, reason."""
    with file.open("x", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows((r.path, r.label, r.split if r.kept else LEFT_OUT, r.reason) for r in rows)


def link_images(rows: Sequence[Row], folder: Path, base: Path) -> dict[str, str]:
    """A folder of links, ``train/CLASS/NAME`` and ``val/CLASS/NAME``, to the images that are kept.

    Returns the path as recorded by the link's path below ``folder``. ``base`` is what recorded paths are relative to.

    Raises:
        ValgapError: an image is not a file that is still there, or links cannot be made here.
    """
    made: dict[str, str] = {}
    for row in rows:
        target = base / row.path
        if not row.kept:
            continue
        if not target.is_file():
            raise ValgapError(f"{row.path} is no image file that is still there: a folder of links cannot be made")
        place = Path(row.split) / _safe(row.label)
        name = _safe(target.name)
        number = 2
        while str(place / name) in made:
            name = f"{_safe(target.stem)}-{number}{target.suffix}"
            number += 1
        link = folder / place / name
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(os.path.abspath(target))  # noqa: PTH100 - links in the user's path stay as they are
        except OSError as error:
            raise ValgapError(f"cannot make the link {link}: {error.strerror}") from error
        made[str(place / name)] = row.path
    return made


def _safe(name: str) -> str:
    """A name that every file system takes; the class folders must keep theirs, so only what is impossible is changed."""
    cleaned = re.sub(r"[/\\\0]", "_", name)
    return cleaned[-200:] if cleaned.strip(".") else f"_{cleaned}"
