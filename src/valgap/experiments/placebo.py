"""The placebo of a treatment that changes training samples: as many samples, drawn at random.

Fewer images, or other ones, change a training by themselves. Only what the chosen samples do beyond as many random ones is
the effect of what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from valgap.types import DatasetInfo, Intervention, RunRecord

KINDS = ("drop_samples", "relabel")


def has_placebo(treatment: Intervention) -> bool:
    """Whether the treatment drops or relabels training samples."""
    return treatment.name in KINDS and treatment.settings.get("phase", "train") == "train"


def placebo(treatment: Intervention, run: RunRecord, seed: int) -> Intervention:
    """As many training samples left out at random, of the same given classes where these are known; another draw per seed."""
    last = run.last_train
    dataset = run.datasets.get(last.dataset) if last is not None else None
    size = dataset.size if dataset is not None else 0
    chosen = _positions(treatment, run, dataset)
    targets = dataset.targets if dataset is not None and dataset.targets is not None else np.zeros(size, np.int32)
    draw = np.random.default_rng([seed, 77])
    free = np.setdiff1d(np.arange(size), chosen)
    picked: list[int] = []
    for label in np.unique(targets[chosen]).tolist():
        wanted = int((targets[chosen] == label).sum())
        same = free[targets[free] == label]
        picked += draw.permutation(same)[:wanted].tolist()
    rest = np.setdiff1d(free, picked)
    picked += draw.permutation(rest)[: len(chosen) - len(picked)].tolist()
    return Intervention("drop_samples", {"phase": "train", "positions": sorted(int(i) for i in picked)})


def _positions(treatment: Intervention, run: RunRecord, dataset: DatasetInfo | None) -> list[int]:
    """The positions in the training data set that the treatment changes."""
    positions = treatment.settings.get("positions")
    if isinstance(positions, list):
        return [int(i) for i in positions]
    names = treatment.settings.get("names") or treatment.settings.get("labels") or ()
    wanted = set(names) if isinstance(names, (list, dict)) else set()
    if dataset is None or dataset.sample is None:
        return []
    return [i for i, s in enumerate(dataset.sample.tolist()) if _name(run.sample_names, s) in wanted]


def _name(names: Sequence[str], sample: int) -> str:
    return names[sample] if 0 <= sample < len(names) else ""
