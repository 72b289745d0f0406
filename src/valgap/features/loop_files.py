"""Files of images that a loop takes from arrays by itself: no data set says where they come from.

Validation mostly walks through its images in order: where a folder that the program was given lists as many files, and their
class folders in that order are the labels one by one, the n-th image is the n-th file. The training files then lie in a folder
with the same class folders, as many images in each as training showed, or a whole number of times fewer (copies); or the
program opened all of it, and trained on a part. Which of them an image of training is, is told by its looks, where that is
clear; whether it has the target of its folder is seen by that.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from valgap.data.folder import VALIDATION_NAMES
from valgap.features.listed import MIN_CLASSES, image_folders, images_in_order, listed_files, opened_files, opened_in_a_row
from valgap.features.looks import AGREE, FEW_CLEAR, FRAMES, flat, likest, likest_shifted, pictures_of, small
from valgap.types import IntArray, KeptInputs, Pass, RunRecord

MOST_FILES = 4_000
# Of so many training images that are told by their looks, nearly all must have the target of their folder.
LEAST_TOLD = 20
MOST_COPIES = 8  # of an image, in the arrays of a program
OTHERS = -2.0  # no correlation is as low
# Where fewer of the images are told so, they may be shifted.
MOSTLY = 0.5


@dataclass(frozen=True)
class LoopFiles:
    """The files of both sides: paths and class indices, validation's in the order of its last pass."""

    train: tuple[tuple[str, int], ...]
    val: tuple[tuple[str, int], ...]
    whole: bool  # whether the program shows all of each file, as far as validation tells


def with_loop_files(run: RunRecord) -> RunRecord:
    """The record, its validation images named by their files, and kept training images as well, where a folder tells them."""
    train, val = run.last_train, run.last_validation
    if train is None or val is None or val.loader >= 0 or (val.samples.sample < 0).any():
        return run
    if train.loader >= 0 or (train.dataset >= 0 and listed_files(run, train.dataset) is not None):
        return _with_files_of_val(run, val)
    found = loop_files(run, train, val)
    if found is None:
        return run
    names = list(run.sample_names)
    for sample, (path, _) in zip(val.samples.sample.tolist(), found.val, strict=True):
        names[sample] = path
    first = len(names)
    names += [path for path, _ in found.train]
    tables = [p.samples for p in run.of_phase("train")]
    target = {s: t for table in tables for s, t in zip(table.sample.tolist(), table.target.tolist(), strict=True)}
    kept: list[KeptInputs] = []
    told: dict[int, int] = {}  # training file -> the target that the loss saw
    pictures = pictures_of([path for path, _ in found.train], found.whole)
    labels = np.array([label for _, label in found.train])
    for one in run.kept:
        if run.passes[one.pass_index].phase != "train":
            kept.append(one)
            continue
        files = likest(one, pictures)
        known = files >= 0
        told.update(zip(files[known].tolist(), [target.get(int(s), -1) for s in one.sample[known]], strict=True))
        if known.mean() < MOSTLY:
            # Whether a shifted image has the target of its file cannot be asked of these: that it has is what makes them sure.
            shifted = likest_shifted(one, pictures)
            sure = (shifted >= 0) & (labels[shifted] == np.array([target.get(int(s), -1) for s in one.sample]))
            files = np.where(known, files, np.where(sure, shifted, -1))
            known = files >= 0
        kept.append(replace(one, sample=np.where(known, first + files, one.sample).astype(np.int32)))
    unlisted = found.train
    if len(told) >= LEAST_TOLD and np.mean([found.train[i][1] == t for i, t in told.items()]) < AGREE:
        # The folders are not what training learns: its targets are known of these images alone.
        unlisted = tuple((found.train[i][0], t) for i, t in sorted(told.items()) if t >= 0)
    return replace(run, sample_names=tuple(names), kept=tuple(kept), unlisted=unlisted, unlisted_told=len(told))


def _with_files_of_val(run: RunRecord, val: Pass) -> RunRecord:
    """The record of a training that a loader feeds, its validation images from memory named by their files."""
    likely = _of_val(run, val, _folders(run, len(val.samples))[0])
    if not likely:
        return run
    names = list(run.sample_names)
    for sample, path in zip(val.samples.sample.tolist(), likely[0].files, strict=True):
        names[sample] = path
    return replace(run, sample_names=tuple(names))


@dataclass(frozen=True)
class _Likely:
    """A list of files that validation may be: the classes of its folders are the targets, one for one."""

    likeness: float
    whole: bool
    folder: Path
    files: list[str]
    classes: dict[str, int]


def _folders(run: RunRecord, *counts: int) -> tuple[dict[Path, list[str]], set[Path]]:
    """(lists of image files by folder, those of them that are so many files opened in a row)."""
    folders = {folder: images_in_order(folder) for folder in image_folders(run)}
    opened: set[Path] = set()
    for count in dict.fromkeys(counts):
        rows = [r for r in opened_in_a_row(run, count) if r not in folders.values()]
        more = {Path(os.path.commonpath(r)) / f"#{count}-{i}": r for i, r in enumerate(rows)}
        folders, opened = folders | more, opened | set(more)
    return folders, opened


def _of_val(run: RunRecord, val: Pass, folders: dict[Path, list[str]]) -> list[_Likely]:
    """Lists that may be validation's, the likeliest first."""
    order, likely = val.samples.target, []
    if not len(order) or (order < 0).any():
        return []
    for folder, files in folders.items():
        classes = _classes([Path(f).parent.name for f in files], order) if len(files) == len(order) else None
        if classes is not None and len(classes) >= MIN_CLASSES:
            likeness, shown = max((_likeness(run, val, files, shown), shown) for shown in FRAMES)
            likely += [_Likely(likeness, shown, folder, files, classes)] if likeness > OTHERS else []
    # A negative looks like its file as well.
    return sorted(likely, key=lambda x: (-round(abs(x.likeness), 1), x.folder.name not in VALIDATION_NAMES))


def loop_files(run: RunRecord, train: Pass, val: Pass) -> LoopFiles | None:
    """The files of both sides, None where no folder lists them so; of several, that which looks most like validation."""
    order = val.samples.target
    counts = Counter(t for t in train.samples.target.tolist() if t >= 0)
    if not len(order) or (order < 0).any() or not counts:
        return None
    whole = len(train.samples) == sum(counts.values())  # every target of training is known
    folders, opened = _folders(run, len(order), len(train.samples))
    epochs = epochs_of_a_pass(run, train)
    distinct, known_opened = contents_drawn(run, train), set(opened_files(run))
    likely = _of_val(run, val, folders)
    for one, by_looks in ((one, looks) for looks in (False, True) for one in likely):  # counts that fit are sure
        for other, theirs in folders.items():
            labels = [one.classes.get(Path(f).parent.name, -1) for f in theirs]
            as_many = len(theirs) == len(train.samples) and min(labels) >= 0
            fits = _times(Counter(labels), counts, epochs) > 0 if whole else as_many
            if other == one.folder or not 0 < len(theirs) <= MOST_FILES:
                continue
            # Wrong targets, and copies of some images, have other counts than the folders: then looks must tell that these files
            # are the images.
            copied = min(labels) >= 0 and len(theirs) < len(train.samples) <= MOST_COPIES * epochs * len(theirs)
            part = set(labels) == set(counts) and distinct < len(theirs) and known_opened.issuperset(theirs)
            part = part and not set(theirs) & set(one.files)
            likes = by_looks and ((as_many and other in opened) or copied or part)
            if fits or (likes and _looks_like(run, theirs, one.whole)):
                val_files = tuple(zip(one.files, order.tolist(), strict=True))
                return LoopFiles(tuple(zip(theirs, labels, strict=True)), val_files, one.whole)
    return None


def epochs_of_a_pass(run: RunRecord, train: Pass) -> int:
    """How many epochs one pass of a loop may last: where no image comes twice, nothing tells where one ends."""
    passes = [p for p in run.of_phase("train") if p.dataset == train.dataset]
    turns = max((all_ for _, all_ in train.loops), default=1)
    return max(1, -(-turns // max(1, len(passes))))


def contents_drawn(run: RunRecord, train: Pass) -> int:
    """How many different images all passes of a loop's training showed."""
    ids = [p.samples.sample for p in run.of_phase("train") if p.dataset == train.dataset]
    return len(np.unique(np.concatenate(ids)))


def _likeness(run: RunRecord, val: Pass, files: list[str], whole: bool) -> float:
    """Mean likeness of kept validation images to the files that they are by their order; 0 where none was kept.

    ``OTHERS`` where their looks tell other files: the program lists its classes in another order.
    """
    place = {s: i for i, s in enumerate(val.samples.sample.tolist())}
    kept = next((k for k in reversed(run.kept) if run.passes[k.pass_index].phase == "validation"), None)
    rows = [(i, place[s]) for i, s in enumerate(kept.sample.tolist()) if s in place] if kept is not None else []
    if kept is None or not rows:
        return 0.0
    pictures = pictures_of(files, whole)
    own = np.array([n for _, n in rows])
    told = likest(kept, pictures)[[i for i, _ in rows]]
    clear = told >= 0
    if clear.sum() >= FEW_CLEAR and (told == own)[clear].mean() < AGREE:
        return OTHERS
    values = kept.values
    ours = flat(np.stack([small(values[i].mean(0)) for i, _ in rows]))
    return float((ours * pictures[own]).sum(1).mean())


def _times(files: Counter[int], shown: Counter[int], epochs: int) -> int:
    """How often training shows each file, by the counts of the classes (arrays may hold mirrored copies); 0 for none."""
    times, rest = divmod(sum(shown.values()), max(1, sum(files.values())))
    whole = not rest and not times % epochs and 1 <= times // epochs <= MOST_COPIES
    return times if whole and shown == Counter({k: times * n for k, n in files.items()}) else 0


def _looks_like(run: RunRecord, files: list[str], whole: bool) -> bool:
    """Whether most of the kept training images are told to be one of these files by their looks."""
    kept = next((k for k in reversed(run.kept) if run.passes[k.pass_index].phase == "train"), None)
    return kept is not None and len(kept.sample) > 0 and float((likest(kept, pictures_of(files, whole)) >= 0).mean()) >= MOSTLY


def _classes(folders: list[str], order: IntArray) -> dict[str, int] | None:
    """Class folder -> label, where each stands for one."""
    pairs = set(zip(folders, order.tolist(), strict=True))
    found = dict(pairs)
    return found if len(pairs) == len(found) == len(set(found.values())) else None
