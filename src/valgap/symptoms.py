"""What curves alone can say: symptoms, with the causes that could lie behind each. A curve never names one.

Six runs with different faults can have one and the same curve. So nothing here is a finding; each symptom lists the causes
that `valgap run` would tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from valgap.record.foreign import Curve, Log

NEXT = "valgap run YOUR_SCRIPT.py [ARGS]    (records the same program, unmodified, and names the cause)"
# Below these, a difference of two curves is not worth a word. Validation sets of 100 to 200 images have intervals of +-7 points.
GAP, FALL, STILL = 0.1, 0.03, 0.01
LOSS_RISE = 0.1  # of its lowest value
FLAT = 0.05  # of the first loss


@dataclass(frozen=True)
class Symptom:
    """Something that a curve shows."""

    name: str
    text: str
    could_be: tuple[str, ...]  # codes of causes that make it; the curve does not tell them apart


def symptoms(log: Log) -> list[Symptom]:
    """What the curves show, the gravest first."""
    curves = {k: _as_fraction(v) if k.endswith("accuracy") else v for k, v in log.curves.items()}
    found = [_not_finite(curves), _not_learning(curves), _gap(curves), _course_of_validation(curves), _still_rising(curves)]
    return [s for s in (*found, _rate(curves)) if s is not None]


def as_json(log: Log) -> dict[str, Any]:
    """One plain object: no findings, whatever the curves look like."""
    last = {k: v.values[-1] if math.isfinite(v.values[-1]) else None for k, v in log.curves.items()}
    return {
        "schema": 1,
        "log": log.path,
        "kind": log.kind,
        "curves": {k: len(v.values) for k, v in log.curves.items()},
        "last": last,
        "ignored": list(log.ignored),
        "symptoms": [asdict(s) for s in symptoms(log)],
        "findings": [],
        "next": NEXT,
    }


def as_lines(log: Log) -> list[str]:
    """The same in plain words, line by line."""
    found = symptoms(log)
    lines = [f"{log.kind}: {', '.join(f'{k} ({len(v.values)})' for k, v in log.curves.items())}"]
    for symptom in found:
        lines += [
            f"- {symptom.text}",
            f"  could be any of {', '.join(symptom.could_be)}; the curve cannot tell (valgap explain CODE)",
        ]
    if not found:
        lines.append("The curves show nothing unusual; they cannot tell whether anything is broken.")
    return [*lines, "A curve shows symptoms, never a cause. Next:", f"  {NEXT}"]


def _as_fraction(curve: Curve) -> Curve:
    """Percent as fractions."""
    top = max((v for v in curve.values if math.isfinite(v)), default=0.0)
    return Curve(curve.at, tuple(v / 100 for v in curve.values)) if top > 1.5 else curve


def _not_finite(curves: Mapping[str, Curve]) -> Symptom | None:
    for name, curve in curves.items():
        bad = [at for at, v in zip(curve.at, curve.values, strict=True) if not math.isfinite(v)]
        if bad:
            return Symptom(
                "nonfinite_values", f"{name} is NaN or infinite from position {bad[0]:g} on", ("TRN409", "TRN401", "PRE202")
            )
    return None


def _not_learning(curves: Mapping[str, Curve]) -> Symptom | None:
    loss = curves.get("train_loss")
    if loss is None or len(loss.values) < 2:
        return None
    first, last = loss.values[0], loss.values[-1]
    if not first - last < FLAT * abs(first):
        return None
    could = ("TRN402", "TRN401", "MOD303", "TRN413", "MOD306", "DAT113", "TRN414", "PRE208")
    return Symptom("training_does_not_progress", f"train loss went from {first:.4g} to {last:.4g}", could)


def _gap(curves: Mapping[str, Curve]) -> Symptom | None:
    train, val = curves.get("train_accuracy"), curves.get("val_accuracy")
    if train is None or val is None:
        return None
    gap = train.values[-1] - val.values[-1]
    text = f"train accuracy ends at {train.values[-1]:.1%}, validation at {val.values[-1]:.1%}"
    if gap > GAP:
        could = ("DAT102", "PRE201", "EVA501", "MOD302", "DAT106", "DAT104", "DAT107", "PRE206", "TRN404")
        return Symptom("validation_far_below_training", text, could)
    if gap < -GAP:
        return Symptom("validation_above_training", text, ("DAT101", "EVA508", "EVA504", "PRE207", "MOD309"))
    return None


def _course_of_validation(curves: Mapping[str, Curve]) -> Symptom | None:
    loss, accuracy = curves.get("val_loss"), curves.get("val_accuracy")
    rises = loss is not None and _rise(loss) > LOSS_RISE
    fall = max(accuracy.values) - accuracy.values[-1] if accuracy is not None else 0.0
    if accuracy is not None and len(accuracy.values) > 2 and fall > FALL:
        best = accuracy.at[int(np.argmax(accuracy.values))]
        text = f"validation accuracy was {max(accuracy.values):.1%} at {best:g} and ends at {accuracy.values[-1]:.1%}"
        return Symptom("validation_falls", text, ("TRN404", "DAT104", "TRN401", "EVA506", "EVA507"))
    if rises and loss is not None:
        text = f"validation loss rose from {min(loss.values):.4g} to {loss.values[-1]:.4g}"
        if accuracy is not None:
            return Symptom(
                "only_validation_loss_rises", f"{text} while its accuracy did not fall: often nothing is broken", ("EVA505",)
            )
        return Symptom(
            "validation_loss_rises", f"{text}; without its accuracy that can be harmless", ("EVA505", "TRN404", "DAT104")
        )
    return None


def _rise(curve: Curve) -> float:
    """Rise of the last value over the lowest, relative to it."""
    values = [v for v in curve.values if math.isfinite(v)]
    return (values[-1] - min(values)) / max(1e-9, abs(min(values))) if values else 0.0


def _still_rising(curves: Mapping[str, Curve]) -> Symptom | None:
    accuracy = curves.get("val_accuracy")
    if accuracy is None or len(accuracy.values) < 2:
        return None
    gain = accuracy.values[-1] - max(accuracy.values[:-1])
    if gain <= STILL:
        return None
    return Symptom("still_improving_at_the_end", f"the last epoch gained {100 * gain:.1f} points", ("TRN403", "TRN402", "TRN411"))


def _rate(curves: Mapping[str, Curve]) -> Symptom | None:
    rate = curves.get("learning_rate")
    if rate is None or len(rate.values) < 4:
        return None
    values = np.array(rate.values)
    peak = int(values.argmax())
    if values[peak] <= 0 or (values[peak:] < 0.01 * values[peak]).mean() * (len(values) - peak) < len(values) / 2:
        return None
    return Symptom(
        "rate_vanishes_early", "the learning rate is below a hundredth of its highest for half of the log", ("TRN414",)
    )
