"""Every epoch draws the images in the same order.

What it looks for
    Training passes that draw their images one after the other exactly as the pass before did, in an order that is shuffled.
    In a training by several processes each one is looked at: without `sampler.set_epoch(epoch)` a DistributedSampler
    shuffles alike in every epoch, so that each process sees the same share of the images for ever.

Why it hurts validation
    The same images meet in the same batches each time. With BatchNorm, and with few images, the network learns the batches;
    and where drop_last leaves a remainder out, it is never seen.

What else looks like this
    A list that is read in its own order is no shuffled order at all: another cause. A loader with a generator of a
    fixed seed that is made anew in each epoch shuffles alike without several processes.

Remedy
    Call `sampler.set_epoch(epoch)` before each epoch (Lightning and Accelerate do); make loader and generator once.

Source
    PyTorch documentation, DistributedSampler: the warning on `set_epoch`; Deep Learning Tuning Playbook on shuffling.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from valgap.types import Case, Check, Clear, Evidence, Finding, IntArray, NotApplicable

# By chance n images come in the same order once in n! times: five are enough, and more are asked for.
FEWEST = 16
# Shares of neighbours in a drawn order that go up by one in the list: a list read in its own order has nearly all.
IN_LIST_ORDER = 0.5
UNMEASURED_POINTS = 1.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Hold each process's order of an epoch against that of the next."""
    run = case.run
    orders = [[p.samples.sample for p in r.training() if p.complete] for r in run.group]
    if not orders:
        orders = [[p.samples.sample for p in run.of_phase("train") if p.complete]]
    orders = [[o for o in of_one if len(o) >= FEWEST and (o >= 0).all()] for of_one in orders]
    pairs = [(a, b) for of_one in orders for a, b in itertools.pairwise(of_one)]
    if not pairs:
        return NotApplicable(f"two whole training passes over at least {FEWEST} known samples")
    same = sum(np.array_equal(a, b) for a, b in pairs)
    drawn = [len(np.unique(np.concatenate(of_one))) for of_one in orders if of_one]
    facts = [
        Evidence("epochs that draw exactly as the one before", same, 0, "epochs", len(pairs)),
        Evidence("neighbours that are neighbours in the list as well", _list_order([a for a, _ in pairs]), IN_LIST_ORDER, ""),
    ]
    if same < len(pairs):
        return Clear("the order changes from epoch to epoch", tuple(facts))
    if _list_order([a for a, _ in pairs]) >= IN_LIST_ORDER:
        return Clear("the list is read in its own order, which is no shuffled one", tuple(facts))
    train = run.last_train
    dataset = run.datasets.get(train.dataset) if train is not None else None
    size = dataset.size if dataset is not None and dataset.size > 0 else max(drawn)
    facts.append(Evidence("images that one process ever draws", max(drawn), size, "images", len(drawn)))
    several = f" in each of {len(drawn)} processes" if len(drawn) > 1 else ""
    return Finding(
        summary=f"every epoch draws the images in the same shuffled order{several}",
        severity_points=UNMEASURED_POINTS,
        confidence=0.9,
        evidence=(*facts, Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points")),
        remedy="call sampler.set_epoch(epoch) before each epoch, or make the loader's generator once",
    )


def _list_order(orders: Sequence[IntArray]) -> float:
    """Share of neighbours whose sample ids go up by a step that is common, 0..1: ids are given in the order of the list."""
    steps = [np.diff(o) for o in orders]
    return float(np.mean([np.mean(s == np.bincount(np.abs(s)).argmax()) for s in steps if len(s)]))


CHECK = Check(code="TRN416", name="repeated_order", stage="draw", detect=detect, doc=__doc__ or "")
