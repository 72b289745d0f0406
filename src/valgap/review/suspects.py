"""The images to be looked at: everything that findings name or rank, each image once, the most suspect first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from valgap.data import images_of_training
from valgap.exhibits.galleries import pair_of
from valgap.exhibits.per_class import class_names
from valgap.types import Clear, Diagnosis, Finding, Judged, Outcome, Ranked, RunRecord

LIKELY = 0.5
# Where no finding is about labels, so many of the least certain ones are worth a look, down to this score.
LABEL_CHECKS = ("DAT104", "DAT105")
UNCERTAIN, LEAST_SCORE = 20, 0.1


@dataclass(frozen=True)
class Suspect:
    """One image to decide about."""

    path: str  # as recorded
    file: Path
    cause: str  # code of the finding
    name: str  # of the cause
    split: str  # "train", "val" or ""
    given: str
    likely: str
    seen: str  # what the pretrained network calls it, where that is no class
    score: float
    beside: Path | None = None  # its copy, where it is one
    # Places in the images of the diagnosis of the nearest sure ones, the nearest first (``neighbours.py``).
    near_given: tuple[int, ...] = ()
    near_likely: tuple[int, ...] = ()


def suspects_of(diagnosis: Diagnosis, codes: Sequence[str] = ()) -> list[Suspect]:
    """What the likely findings (of these codes, if any are given) name or rank, each image once; then uncertain labels."""
    run = diagnosis.run
    known = _Known(run)
    found: dict[str, Suspect] = {}
    chosen = [j for j in diagnosis.judged if not codes or any(j.check.code.startswith(c.upper()) for c in codes)]
    likely = [j for j in chosen if is_likely(j)]
    uncertain = [j for j in chosen if j.check.code in LABEL_CHECKS and j not in likely]
    for judged in likely + sorted(uncertain, key=lambda j: j.check.code):
        for ranked, beside in _named(judged.outcome, known.names) if judged in likely else _least_certain(judged.outcome):
            file = known.file(ranked.path)
            if ranked.path in found or file is None:
                continue
            found[ranked.path] = Suspect(
                path=ranked.path,
                file=file,
                cause=judged.check.code,
                name=judged.check.name,
                split=known.split.get(ranked.path, ""),
                given=ranked.given or known.label.get(ranked.path, ""),
                likely=ranked.likely or "",
                seen=ranked.seen or "",
                score=ranked.score,
                beside=known.file(beside) if beside else None,
            )
    return list(found.values())


def is_likely(judged: Judged) -> bool:
    """Whether it is a finding that we would bet on."""
    return isinstance(judged.outcome, Finding) and judged.outcome.confidence >= LIKELY


def _named(outcome: Outcome, names: frozenset[str]) -> Iterator[tuple[Ranked, str]]:
    """(image, its copy) of all that a finding is about, the most suspect first."""
    assert isinstance(outcome, Finding)
    above = set(outcome.subjects)
    ranked = [r for r in outcome.ranking if r.path in above] or list(outcome.ranking)
    for one in ranked:
        yield one, ""
    for subject in () if ranked else outcome.subjects:
        pair = pair_of(subject, names)
        yield Ranked(pair[0], 0.0), pair[1] if len(pair) > 1 else ""


def _least_certain(outcome: Outcome) -> Iterator[tuple[Ranked, str]]:
    """The head of a ranking that no finding was made of."""
    if isinstance(outcome, (Finding, Clear)):
        yield from ((r, "") for r in outcome.ranking[:UNCERTAIN] if r.score >= LEAST_SCORE)


class _Known:
    """What the record says of a path."""

    def __init__(self, run: RunRecord) -> None:
        self.folder = Path(str(run.header.get("cwd", ".")))
        self.names = frozenset(run.sample_names)
        self.split: dict[str, str] = {}
        self.label: dict[str, str] = {}
        own = images_of_training(run)
        self.split |= {name: "val" if is_val else "train" for name, _, _, is_val in own}
        self.label |= {name: label for name, _, label, _ in own}
        for split, one in (("val", run.last_validation), ("train", run.last_train)):
            if one is None:
                continue
            classes = class_names(run, int(one.samples.target.max(initial=0)) + 1)
            for sample, target in zip(one.samples.sample.tolist(), one.samples.target.tolist(), strict=True):
                if 0 <= sample < len(run.sample_names):
                    name = run.sample_names[sample]
                    self.split[name] = split
                    self.label[name] = classes[target] if target >= 0 else ""

    def file(self, path: str) -> Path | None:
        """The file of this name; None where it cannot be opened."""
        try:
            file = self.folder / path
            return file if file.is_file() and os.access(file, os.R_OK) else None
        except (OSError, ValueError, RuntimeError):
            return None


def labels_of(run: RunRecord) -> list[str]:
    """All class names that an image can be given, in the order of their index."""
    last = run.last_train or run.last_validation
    data = run.datasets.get(last.dataset) if last is not None else None
    if data is not None and data.class_to_idx:
        return [name for name, _ in sorted(data.class_to_idx.items(), key=lambda pair: pair[1])]
    top = max((int(p.samples.target.max(initial=-1)) for p in run.passes), default=-1)
    return class_names(run, top + 1)
