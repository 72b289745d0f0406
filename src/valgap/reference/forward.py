"""The forward pass: the finished weights in eval mode, every image by itself.

The closing measurements asked the finished model about validation once more, in eval mode: what it says then is held against
what was recorded, image by image. Batch mates must not matter.
"""

from __future__ import annotations

import numpy as np

from valgap.checks.rescored import reloaded_since
from valgap.reference.probing import MIN_IMAGES, Answers, gained, likely_above
from valgap.types import MAX_LOSS, Compared, Evidence, Pass, RunRecord, SampleTable

LEAST_POINTS = 2.0
SURE = 0.97
# Mean change of a logit by other batch mates, over the spread of the logits; rounding stays far below.
MATES = 0.02


def compare(run: RunRecord) -> Compared:
    """Validation as it was recorded against eval mode."""
    last = run.last_validation
    again = run.closing.rescores.get("val_eval") if run.closing is not None else None
    if last is None or again is None:
        reason = run.closing.skipped.get("rescores", "") if run.closing is not None else ""
        return Compared("unknown", "", missing=reason or "closing measurements of the finished model")
    if reloaded_since(run, last):
        return Compared("unknown", "", missing="the same weights: others were loaded after the last validation")
    both = paired(last, again)
    if both is None:
        return Compared("unknown", "", missing=f"{MIN_IMAGES} validation images that were asked about twice")
    points, nats = gained(*both)
    facts = [Evidence("val accuracy in eval mode, image by image", both[1].accuracy, both[0].accuracy, "", len(both[0].right))]
    mates = run.closing.numbers.get("batch_mate_change") if run.closing is not None else None
    if mates is not None:
        facts.append(Evidence("change of an image's logits by its batch mates, of their spread", mates, 0.0))
    confidence = SURE * likely_above(points, LEAST_POINTS)
    if points.value < 0 and points.high < 0:
        return Compared("gain", "validation as the script scores it is better than in eval mode", points, nats, 0.0, tuple(facts))
    if confidence < 0.5:
        return Compared(
            "sound", "the model answers in validation as it does in eval mode", points, nats, confidence, tuple(facts)
        )
    told = f"the same weights in eval mode, image by image, are {points.value:.0f} points better than validation found them"
    remedy = "call model.eval() before validation and let nothing in forward depend on the other images of the batch"
    return Compared("at fault", told, points, nats, confidence, tuple(facts), remedy)


def paired(last: Pass, again: SampleTable) -> tuple[Answers, Answers] | None:
    """What was recorded and what was said again, of the same labelled samples."""
    first = _rows(last.samples)
    second = _rows(again)
    both = sorted(first.keys() & second.keys())
    if len(both) < MIN_IMAGES:
        return None
    a, b = (Answers(np.array([t[s][0] for s in both]), np.array([t[s][1] for s in both], np.float64)) for t in (first, second))
    return a, b


def _rows(table: SampleTable) -> dict[int, tuple[bool, float]]:
    columns = zip(table.sample.tolist(), table.prediction.tolist(), table.target.tolist(), table.loss.tolist(), strict=True)
    return {s: (p == t, min(loss, MAX_LOSS)) for s, p, t, loss in columns if s >= 0 and t >= 0 and p >= 0 and np.isfinite(loss)}
