"""A finished arm: what it answered on the validation samples that it saw last."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from valgap.experiments.arm import RESULT_FILE, ArmSpec
from valgap.experiments.kernel.guards import Guards
from valgap.record.reader import read_record
from valgap.types import Pass, RunRecord, SampleTable

# How the reason of an arm begins that had no time to end.
OUT_OF_TIME = "the time budget ended"


@dataclass(frozen=True)
class ArmResult:
    """A finished arm: the validation samples that it saw last."""

    spec: ArmSpec
    record: RunRecord | None
    samples: SampleTable | None  # of its last validation pass
    acted: tuple[int, ...]
    seconds: float
    error: str | None  # why it says nothing; None when it does
    reused: bool = False
    replayed: int = 0  # model calls whose frozen part was read and not computed
    names: tuple[str, ...] | None = None  # of its samples by id as the recorded run calls them, where it has learnt other names
    unguarded: tuple[str, ...] = ()  # what the kernel did not keep it from, in words
    loss_known: bool = True  # False where it is scored under labels whose loss no pass computed

    def placed(self) -> list[str]:
        """The name of each sample of the last validation pass, in its order; its position where names are not known.

        Names are taken below their data set's folder: a program may make a copy of its data in a new folder each time.
        """
        if self.samples is None or self.record is None:
            return []
        roots = {d.root for d in self.record.datasets.values() if d.root}
        names = self.names if self.names is not None else self.record.sample_names
        return [
            below(names[s], roots) if 0 <= s < len(names) else f"position {i}" for i, s in enumerate(self.samples.sample.tolist())
        ]

    def correct(self) -> dict[str, bool]:
        """By sample name, whether the last validation pass was right, for labelled samples."""
        if self.samples is None:
            return {}
        rows = zip(self.placed(), self.samples.target.tolist(), self.samples.prediction.tolist(), strict=True)
        return {name: prediction == target for name, target, prediction in rows if target >= 0}

    def losses(self) -> dict[str, float]:
        """By sample name, the bounded loss (``SampleTable.bounded_loss``) of the same samples; nan where it is not known."""
        if self.samples is None:
            return {}
        names = [n for n, labelled in zip(self.placed(), self.samples.labelled.tolist(), strict=True) if labelled]
        loss = self.samples.bounded_loss.tolist() if self.loss_known else [float("nan")] * len(names)
        return dict(zip(names, loss, strict=True))

    @property
    def accuracy(self) -> float:
        """Validation accuracy, 0..1; nan without result."""
        values = list(self.correct().values())
        return float(np.mean(values)) if values else float("nan")


def below(name: str, roots: Collection[str]) -> str:
    """The path below the deepest of ``roots`` that holds it, else the whole name."""
    holding = [r.rstrip(os.sep) + os.sep for r in roots if name.startswith(r.rstrip(os.sep) + os.sep)]
    return name[len(max(holding, key=len)) :] if holding else name


def read_arm(spec: ArmSpec, folder: Path, reused: bool) -> ArmResult:
    """The arm whose record lies below ``folder``."""
    told: dict[str, Any] = json.loads((folder / "record" / RESULT_FILE).read_text())
    if told["status"] != 0:
        return failed(spec, f"the program ended with status {told['status']}: {told['error'] or ''}".strip(), reused)
    record = read_record(os.fspath(folder / "record"))
    last = last_scored(record, spec.validation)
    if last is None:
        return failed(spec, "no validation pass with labels was seen", reused)
    return ArmResult(
        spec,
        record,
        last.samples,
        tuple(told["acted"]),
        told["seconds"],
        None,
        reused,
        told.get("replayed", 0),
        unguarded=Guards.from_json(told["guards"]).missing() if "guards" in told else (),
    )


def last_scored(record: RunRecord, validation: Collection[int], epochs: int = 0) -> Pass | None:
    """The last labelled pass over a validation data set, within the first ``epochs`` training passes (0: all)."""
    seen, last = 0, None
    for one in record.passes:
        loaded = one.loader >= 0
        if one.dataset in validation if loaded else -1 in validation and one.phase == "validation":
            last = one if one.samples.labelled.any() else last
        elif one.phase == "train":
            seen += 1
            if epochs and seen > epochs:
                break
    return last


def failed(spec: ArmSpec, error: str, reused: bool = False) -> ArmResult:
    """An arm that says nothing, and why."""
    return ArmResult(spec, None, None, (), 0.0, error, reused)
