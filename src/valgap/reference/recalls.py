"""What classes that a training slights cost: they are recognised less often than the others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from valgap.types import Measured, RunRecord

# So many images of validation must be of slighted classes, and of others. Points of the gap in recall that even treatment wins
# back: the others profit a little, and would not be recognised quite as well.
LEAST_ASKED, WON_BACK = 10, 0.9


def lack_of_recall(run: RunRecord, slighted: npt.NDArray[np.bool_]) -> Measured | None:
    """Points of validation that classes (C,) lack against the others' recall; None where there are too few images of either."""
    val = run.last_validation
    if val is None or not val.samples.answered or not slighted.any():
        return None
    table = val.samples
    asked = table.labelled & (table.target < len(slighted))
    rare, right = slighted[table.target[asked]], (table.prediction == table.target)[asked]
    if min(int(rare.sum()), int((~rare).sum())) < LEAST_ASKED:
        return None
    parts = [(float(r.mean()), (r.sum() + 1) / (len(r) + 2), len(r)) for r in (right[~rare], right[rare])]
    error = float(np.sqrt(sum(q * (1 - q) / n for _, q, n in parts)))
    gap, share = parts[0][0] - parts[1][0], 100 * float(rare.mean())
    return Measured(WON_BACK * share * gap, WON_BACK * share * (gap - 1.96 * error), share * (gap + 1.96 * error))
