"""Validation runs over the wrong data.

What it looks for
    Validation passes whose samples are those of training (by path or index), when no other validation data are seen.

Why it hurts validation
    The number then measures memory, and agrees with the training curve by construction.

What else looks like this
    Re-scoring the training set beside a real validation set is good practice. A few shared images are leakage (DAT101).

Remedy
    Give the validation loader the validation data set.

Source
    luxonis-train pull request 213.
"""

from __future__ import annotations

import numpy as np

from valgap.types import Case, Check, Clear, Evidence, Finding, NotApplicable

SAME_DATA_SHARE = 0.9


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the identities of validation samples with those of training."""
    train, val = case.run.last_train, case.run.last_validation
    if train is None or val is None:
        return NotApplicable("a training pass and a validation pass")
    ids = val.samples.sample[val.samples.sample >= 0]
    trained = train.samples.sample[train.samples.sample >= 0]
    if len(ids) == 0 or len(trained) == 0:
        return NotApplicable("the identity of the samples (paths or indices)")
    share = float(np.isin(ids, trained).mean())
    facts = (Evidence("validation samples that are training samples", share, 0.0, "", len(ids)),)
    if share < SAME_DATA_SHARE:
        return Clear("validation runs over other samples than training", facts)
    return Finding(
        summary="validation runs over the training data",
        severity_points=0.0,
        confidence=0.95,
        evidence=facts,
        remedy="build the validation loader on the validation data set; the accuracy on new images is unknown until then",
    )


CHECK = Check(code="EVA508", name="evaluated_other_data", stage="measure", detect=detect, doc=__doc__ or "", voids_accuracy=True)
