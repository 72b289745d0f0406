"""BatchNorm in training mode on batches of a few images.

What it looks for
    Training passes with active BatchNorm whose batches hold only a few images.

Why it hurts validation
    The statistics of two images are noise: training sees another network at each step, and the running averages used at
    validation describe none of them.

What else looks like this
    Gradient accumulation makes the optimizer's batch larger, not BatchNorm's. A small last batch alone costs little.

Remedy
    Hold BatchNorm in eval mode (its pretrained statistics are better), use larger batches, or GroupNorm.

Source
    Wu and He 2018, "Group Normalization", figure 1: error rises from batch 32 to 2 by 10 points.
"""

from __future__ import annotations

import numpy as np

from valgap.checks.shared.seen_part import SETTLED_STEPS, few_steps, unfinished
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable

# Wu and He 2018, figure 1: below 8 images the error of BatchNorm rises clearly, at 4 by 2 to 3 points, at 2 by 10.
FEW = 4
# Three or four images are what a trial takes: where a run ends before its own plan or after a few steps, a hint.
HINT = 0.45
POINTS = {1: 10.0, 2: 10.0, 3: 5.0, 4: 2.5}


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Look at the batch sizes while BatchNorm used batch statistics."""
    train = case.run.last_train
    if train is None or len(train.batch_sizes) == 0:
        return NotApplicable("a training pass")
    size = int(np.median(train.batch_sizes))
    facts = (
        Evidence("median images per batch", size, FEW + 1, "images", len(train.batch_sizes)),
        Evidence(
            "BatchNorm layers using batch statistics",
            train.modes.batchnorm_training,
            None,
            "",
            train.modes.batchnorm_layers,
        ),
    )
    if train.modes.batchnorm_layers == 0 or train.modes.batchnorm_training == 0:
        return Clear("no BatchNorm layer used batch statistics", facts)
    if size > FEW:
        return Clear("batches are large enough for BatchNorm", facts)
    trial = unfinished(case.run) is not None or few_steps(case.run, SETTLED_STEPS) is not None
    return Finding(
        summary=f"BatchNorm takes its statistics from batches of {size} images",
        severity_points=POINTS[max(1, size)],
        confidence=0.85 if size <= 2 else HINT if trial else 0.7,
        evidence=(*facts, Evidence("cost (Wu and He 2018, no re-run): assumed", POINTS[max(1, size)], 0.0, "points")),
        remedy="hold BatchNorm in eval mode, or use batches of 16 images and more",
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """All BatchNorm layers held in eval mode while the model trains."""
    return Intervention("hold_batchnorm", {"phase": "train", "only_frozen": False})


CHECK = Check(code="MOD308", name="tiny_batch_batchnorm", stage="forward", detect=detect, doc=__doc__ or "", treat=treat)
