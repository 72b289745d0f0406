"""The loss is divided by the number of processes, whose gradients are averaged already.

What it looks for
    In a training by several processes: the value that is back-propagated against the mean loss of the batch. Where it is
    smaller by just the number of processes (or larger), the rate no longer fits the batch of all processes.

Why it hurts validation
    DistributedDataParallel averages gradients. Divided once more, each step is as many times too small, and the rate that was
    scaled up with the batch is scaled down again; multiplied, it is as many times too large.

What else looks like this
    Gradient accumulation divides the loss by the number of backward passes before a step; that is right, and not told. Adam
    and its kin hardly feel the size of a gradient: there it is a note.

Remedy
    Back-propagate the mean loss of each process's batch, and scale the rate with the number of images that all processes
    take in one step.

Source
    PyTorch documentation, DistributedDataParallel ("averages gradients"); Goyal and others 2017, "Accurate, large minibatch
    SGD", section 3 (remark 3: normalise per-worker loss by the total batch once).
"""

from __future__ import annotations

import numpy as np

from valgap.checks.shared.processes import NO_GROUP, trained_together
from valgap.types import Case, Check, Clear, Evidence, Finding, NotApplicable, RankPass

# Loss values are stored in float32 and averaged over at most so many steps.
TOLERANCE = 0.02
FEWEST = 3
ADAPTIVE = ("Adam", "RMSprop", "Adagrad", "Adadelta", "Lion", "LAMB", "Lamb", "Rprop")
UNMEASURED_POINTS = 4.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """The ratio of back-propagated to mean loss, batch by batch, where each step has one backward pass."""
    ranks = trained_together(case.run)
    if not ranks:
        return NotApplicable(NO_GROUP)
    if not any(w.wrapped for r in ranks for w in r.wrappings):
        return NotApplicable("a DistributedDataParallel wrapper: how gradients are put together by hand is not seen")
    processes = max(r.world_size for r in ranks)
    ratios = np.concatenate([r for p in ranks[0].training() if (r := _ratios(p)) is not None] or [np.zeros(0)])
    if len(ratios) < FEWEST:
        return NotApplicable("the back-propagated loss of at least three steps of one batch each")
    ratio = float(np.median(ratios))
    spread = float(np.median(np.abs(ratios - ratio)))
    facts = (
        Evidence("back-propagated loss over the mean loss of the batch", ratio, 1.0, "", len(ratios)),
        Evidence("processes", processes, None, "", len(ranks)),
        Evidence("images that all processes take in one step", _images(ranks[0].training()) * processes, None, "images"),
    )
    kind = next((f"{ratio:.3g} times" for wrong in (1 / processes, float(processes)) if abs(ratio / wrong - 1) < TOLERANCE), None)
    if kind is None or spread > TOLERANCE * ratio:
        return Clear("the loss is not scaled by the number of processes", facts)
    kinds = [o.kind for o in case.run.optimizers.values()]
    felt = not any(k.startswith(ADAPTIVE) or "Adam" in k for k in kinds)
    return Finding(
        summary=f"the back-propagated loss is {kind} the mean loss of its batch, with {processes} processes whose gradients "
        "are averaged already",
        severity_points=UNMEASURED_POINTS if felt else 0.0,
        confidence=0.85 if felt else 0.3,
        evidence=(*facts, Evidence("cost (no re-run): assumed", UNMEASURED_POINTS if felt else 0.0, 0.0, "points")),
        remedy="back-propagate the mean loss of each process's batch; DistributedDataParallel averages over processes",
    )


def _ratios(one: RankPass) -> np.ndarray | None:
    """(S,) of the steps of a pass with one backward pass each; None where steps are not batches."""
    steps, samples = one.steps, one.samples
    if len(steps) != len(one.batch_sizes) or not (steps.backwards == 1).all() or not samples.labelled.any():
        return None
    means = np.array([samples.loss[samples.batch == b].mean() for b in range(len(steps))])
    good = np.isfinite(means) & np.isfinite(steps.loss) & (means > 1e-3)
    return np.asarray(steps.loss[good] / means[good], np.float64)


def _images(passes: tuple[RankPass, ...]) -> int:
    return int(np.median(np.concatenate([p.batch_sizes for p in passes])))


CHECK = Check(code="TRN417", name="loss_divided_by_processes", stage="loss", detect=detect, doc=__doc__ or "")
