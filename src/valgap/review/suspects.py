"""The images to be looked at: everything that findings name or rank, each image once, the most suspect first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from valgap.data import images_of_training
from valgap.exhibits.galleries import pair_of
from valgap.exhibits.per_class import class_names
from valgap.types import Diagnosis, Finding, RunRecord

LIKELY = 0.5


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
    score: float
    beside: Path | None = None  # its copy, where it is one


def suspects_of(diagnosis: Diagnosis, codes: Sequence[str] = ()) -> list[Suspect]:
    """What the likely findings (of these codes, if any are given) name or rank, each image once."""
    run = diagnosis.run
    known = _Known(run)
    found: dict[str, Suspect] = {}
    for judged in diagnosis.findings:
        finding = judged.outcome
        chosen = not codes or any(judged.check.code.startswith(c.upper()) for c in codes)
        if not isinstance(finding, Finding) or finding.confidence < LIKELY or not chosen:
            continue
        for path, beside, given, likely, score in _named(finding, known.names):
            file = known.file(path)
            if path in found or file is None:
                continue
            other = known.file(beside) if beside else None
            given = given or known.label.get(path, "")
            found[path] = Suspect(
                path, file, judged.check.code, judged.check.name, known.split.get(path, ""), given, likely, score, other
            )
    return list(found.values())


def _named(finding: Finding, names: frozenset[str]) -> Iterator[tuple[str, str, str, str, float]]:
    """(path, its copy, given, likely, score) of each image, the most suspect first."""
    above = set(finding.subjects)
    ranked = [r for r in finding.ranking if r.path in above] or list(finding.ranking)
    for one in ranked:
        yield one.path, "", one.given or "", one.likely or "", one.score
    for subject in () if ranked else finding.subjects:
        pair = pair_of(subject, names)
        yield pair[0], pair[1] if len(pair) > 1 else "", "", "", 0.0


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
