"""What a training came to, and how it is kept."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from valgap.errors import RecordError
from valgap.models import Preprocessing
from valgap.training.checkpoint import save
from valgap.training.fit import EpochRow
from valgap.training.known import Known
from valgap.training.saved import write_whole
from valgap.training.scores import Scores

STATE, SUMMARY = "state", "summary.json"


@dataclass(frozen=True)
class TrainResult:
    """What came out, at its temperature. ``val`` is a little optimistic where it chose; ``test`` is not."""

    run: Path
    unfrozen: str  # head, last, last2 or all
    chosen: str  # which weights were kept
    val: Scores
    train: Scores  # re-scored as val is
    test: Scores | None
    probe: Scores | None  # of val, by the probe alone
    temperature: float
    uncalibrated: Scores  # of val, without the temperature
    val_chose: bool  # whether val chose among epochs, or set the temperature
    epochs: tuple[EpochRow, ...]
    probe_train_accuracy: float  # cross-validated on train; nan without a probe
    ended: str  # "", or why training ended early
    seconds: float


def keep_result(
    result: TrainResult, model: nn.Module, facts: dict[str, Any], preprocessing: Preprocessing, known: Known | None
) -> None:
    """Write what training images show and the checkpoint, then the summary, with which the training is over.

    Only then what a resumed run would need goes away.

    Raises:
        RecordError: the run directory cannot be written; the training can be resumed.
    """
    numbers = without_nan({k: v for k, v in asdict(result).items() if k != "run"})
    try:
        if known is not None:
            known.write(result.run)
        save(result.run, model, {**facts, "val": without_nan(asdict(result.val))}, preprocessing)
        write_whole(result.run / SUMMARY, json.dumps(numbers, indent=1))
        state = result.run / STATE
        for file in state.glob("*") if state.is_dir() else ():
            file.unlink()
        if state.is_dir():
            state.rmdir()
    except (OSError, SafetensorError) as error:
        raise RecordError(
            f"{result.run} cannot be written ({error}): make room, then valgap train --resume {result.run}"
        ) from error


def without_nan(value: Any) -> Any:
    """The same with null in place of NaN, which JSON does not have."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)
