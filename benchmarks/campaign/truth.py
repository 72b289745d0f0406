"""What a program's validation really was: imported by the copy of it that runs without valgap, and called by it.

The last pass's accuracy and mean cross-entropy go to the file that CAMPAIGN_TRUTH names. Where CAMPAIGN_COURSE names a file,
every pass leaves a line there: of each image whether it is right, and its loss.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

right, loss, count = 0, 0.0, 0
passes = 0
MOST_NATS = 20.0  # that one image counts, as in valgap.types.MAX_LOSS


def begin() -> None:
    """A pass over validation begins."""
    global right, loss, count, passes
    right, loss, count = 0, 0.0, 0
    passes += 1


def add(logits: Any, targets: Any) -> None:
    """A batch of it: logits [N, C] and targets [N]."""
    global right, loss, count
    from torch.nn.functional import cross_entropy

    right += int((logits.argmax(1) == targets).sum())
    loss += float(cross_entropy(logits.detach().double(), targets, reduction="sum"))
    count += len(targets)
    mean = loss / count
    told = {"accuracy": right / count, "nll": mean if math.isfinite(mean) else None, "n": count}
    Path(os.environ["CAMPAIGN_TRUTH"]).write_text(json.dumps(told))
    if "CAMPAIGN_COURSE" in os.environ:
        each = cross_entropy(logits.detach().double(), targets, reduction="none").nan_to_num(MOST_NATS).clamp(max=MOST_NATS)
        row = {"pass": passes, "right": (logits.argmax(1) == targets).int().tolist(), "loss": each.tolist()}
        with Path(os.environ["CAMPAIGN_COURSE"]).open("a") as file:
            file.write(json.dumps(row) + "\n")
