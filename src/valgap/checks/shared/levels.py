"""Grey levels and normalisation of the images that a network was given. No check; those of normalisation and light use it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from valgap.types import Case, DatasetInfo, InputStats, Pass

# Both ends of one phase's range lie this share of the smaller span further the same way. Dark or pale pictures move one end;
# light that is drawn anew, noise and other constants for the spread move both, but not the same way.
MOVED = 0.25
Norm = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def level_ratio(train: InputStats, val: InputStats) -> float | None:
    """Distance of grey levels in val over that in train, averaged over channels; None where there is no lattice."""
    ratio = val.quantum / np.where(train.quantum > 0, train.quantum, np.nan)
    # An image without some levels has a multiple of the true distance in one channel: the middle one decides.
    good = ratio[np.isfinite(ratio) & (ratio > 0)]
    return float(np.median(good)) if len(good) else None


def declared(case: Case, one: Pass) -> Norm | None:
    """(mean, std), each (C,), of all Normalize steps of the pass's data set together; None without a transform."""
    dataset: DatasetInfo | None = case.run.datasets.get(one.dataset)
    if dataset is None or dataset.transform is None or one.inputs is None:
        return None
    channels = len(one.inputs.mean)
    mean, std = np.zeros(channels), np.ones(channels)
    for step in dataset.transform:
        if step.mean is None or step.std is None or len(step.mean) not in (1, channels):
            continue
        mean = mean + np.array(step.mean) * std
        std = std * np.array(step.std)
    return mean, std


def moved(train: InputStats, val: InputStats) -> bool:
    """Whether the values of all channels lie further up in one phase than in the other, by black and by white."""
    spans = (train.maximum - train.minimum, val.maximum - val.minimum)
    if len(train.minimum) != len(val.minimum) or not all((s > 0).all() for s in spans):
        return False
    ends = np.stack([val.minimum - train.minimum, val.maximum - train.maximum]) / np.minimum(*spans)
    return bool((ends > MOVED).all() or (ends < -MOVED).all())
