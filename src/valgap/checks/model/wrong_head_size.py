"""The network has another number of outputs than there are classes.

What it looks for
    Columns of the output against the number of classes of the training data.

Why it hurts validation
    Fewer outputs than classes cannot name them all. More (a head of 1,000 left in place) waste probability on answers
    that do not exist and keep the pretrained head's preferences.

What else looks like this
    One output with a binary loss is right for two classes.

Remedy
    Replace the last layer by one with as many outputs as classes.

Source
    PyTorch transfer-learning tutorial; keras issue 13006.
"""

from __future__ import annotations

import math

from valgap.checks.shared.seen_part import labels_of, part_seen
from valgap.types import Case, Check, Clear, Evidence, Finding, NotApplicable

# Outputs that never occur are soon suppressed by training; the cost is small.
UNMEASURED_POINTS = 1.0
# Where no class map is declared, the chance that the last classes were merely not drawn must be below this.
CHANCE = 1e-4


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare outputs with classes."""
    train, classes = case.run.last_train, case.num_classes
    model = case.run.trained_model
    if train is None or model is None or classes is None:
        return NotApplicable("a training pass with labels")
    outputs = train.loss.num_outputs if train.loss is not None and train.loss.num_outputs > 0 else model.num_outputs
    if outputs <= 0:
        return NotApplicable("an output of the model with one column per class")
    facts = (Evidence("outputs of the network", outputs, classes, "outputs"),)
    if outputs == classes or (outputs == 1 and classes == 2):
        return Clear("there are as many outputs as classes", facts)
    few = outputs < classes
    if not few and not declared(case):
        labels = labels_of(case.run, train)
        n = len(labels[0]) if labels is not None else 0
        classes = max(classes, int(labels[0].max()) + 1) if labels is not None and n else classes
        if classes >= outputs:
            return Clear("there are as many outputs as classes", facts)
        if n * math.log(classes / outputs) > math.log(CHANCE):
            return NotApplicable(f"a class map, or more labels: {part_seen(case.run, train)} need not show all {outputs} classes")
    return Finding(
        summary=f"the network has {outputs} outputs for {classes} classes",
        severity_points=100 * (1 - outputs / classes) if few else UNMEASURED_POINTS,
        confidence=0.95 if few else 0.8,
        evidence=facts,
        remedy=f"give the last layer {classes} outputs",
    )


def declared(case: Case) -> bool:
    """Whether the training data set says itself how many classes it has."""
    last = case.run.last_train
    info = case.run.datasets.get(last.dataset) if last is not None else None
    return info is not None and bool(info.class_to_idx)


CHECK = Check(code="MOD307", name="wrong_head_size", stage="forward", detect=detect, doc=__doc__ or "")
