"""BatchNorm takes its statistics from each process's few images, though all together are enough.

What it looks for
    In a training by several processes: active BatchNorm layers that are not synchronised, each process's batch being of a
    few images while the batch of all of them is not.

Why it hurts validation
    DistributedDataParallel averages gradients, not BatchNorm's statistics: each process normalises by its own images. The
    statistics of two images are noise, however many processes there are.

What else looks like this
    One process with tiny batches: another cause. Held BatchNorm, GroupNorm and SyncBatchNorm do not depend on the share.

Remedy
    `torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)` before wrapping it, or BatchNorm held in eval mode, or more images
    in each process.

Source
    Peng and others 2018, "MegDet", section 3.3; PyTorch documentation, SyncBatchNorm.
"""

from __future__ import annotations

import numpy as np

from valgap.checks.model.tiny_batch_batchnorm import FEW, POINTS
from valgap.checks.shared.processes import NO_GROUP, trained_together
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Look at the batch of each process, and of all, while BatchNorm used batch statistics."""
    ranks = trained_together(case.run)
    train = case.run.last_train
    if not ranks or train is None:
        return NotApplicable(NO_GROUP)
    own = int(np.median(np.concatenate([p.batch_sizes for r in ranks for p in r.training()])))
    synchronised = max((w.sync_batchnorm for r in ranks for w in r.wrappings), default=0)
    facts = (
        Evidence("median images in one process's batch", own, FEW + 1, "images", len(ranks)),
        Evidence("images that all processes take in one step", own * len(ranks), FEW + 1, "images", len(ranks)),
        Evidence("BatchNorm layers synchronised between processes", synchronised, train.modes.batchnorm_layers, "layers"),
    )
    if train.modes.batchnorm_layers == 0 or train.modes.batchnorm_training == 0:
        return Clear("no BatchNorm layer used batch statistics", facts)
    if synchronised >= train.modes.batchnorm_layers:
        return Clear("BatchNorm is synchronised between the processes", facts)
    if own > FEW:
        return Clear("each process's batches are large enough for BatchNorm", facts)
    if own * len(ranks) <= FEW:
        return Clear("the batch of all processes together is as small", facts)
    points = POINTS[max(1, own)]
    return Finding(
        summary=f"BatchNorm takes its statistics from {own} images of one process, not from the {own * len(ranks)} of a step",
        severity_points=points,
        confidence=0.85 if own <= 2 else 0.7,
        evidence=(*facts, Evidence("cost (Wu and He 2018, no re-run): assumed", points, 0.0, "points")),
        remedy="convert the network with SyncBatchNorm.convert_sync_batchnorm, or hold BatchNorm in eval mode",
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """All BatchNorm layers held in eval mode while the model trains."""
    return Intervention("hold_batchnorm", {"phase": "train", "only_frozen": False})


CHECK = Check(code="MOD312", name="per_process_batchnorm", stage="forward", detect=detect, doc=__doc__ or "", treat=treat)
