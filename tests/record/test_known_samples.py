"""Labels that became known after the training."""

from dataclasses import replace

import numpy as np

from tests.checks.cases import TRAIN, healthy
from valgap.record.known_samples import with_seen_labels
from valgap.types import RunRecord


def scored_again(part: slice) -> RunRecord:
    """A run whose training set declares nothing, and drew a few of its samples; ``part`` of it was scored again."""
    run = healthy().run
    assert run.closing is not None
    sets = {n: replace(d, targets=None) if n == 0 else d for n, d in run.datasets.items()}
    passes = []
    for one in run.passes:
        table = one.samples
        if one.phase == "train":
            table = replace(table, **{k: v[:10] for k, v in vars(table).items()})
        passes.append(replace(one, samples=table))
    table = run.closing.rescores["train_eval"]
    again = replace(table, **{k: v[part] for k, v in vars(table).items()})
    closing = replace(run.closing, rescores={**run.closing.rescores, "train_eval": again})
    return replace(run, datasets=sets, passes=tuple(passes), closing=closing)


def test_what_was_never_drawn_is_known_from_the_second_scoring() -> None:
    declared = healthy().run.datasets[0].targets
    assert declared is not None
    told = with_seen_labels(scored_again(slice(None))).datasets[0].targets
    assert told is not None and len(told) == TRAIN and np.array_equal(told, declared)
    told = with_seen_labels(scored_again(slice(0, 60))).datasets[0].targets
    assert told is not None and np.array_equal(told[:60], declared[:60]) and (told[60:] == -1).all()


def test_what_is_declared_stays() -> None:
    run = healthy().run
    assert with_seen_labels(run) is run
    assert with_seen_labels(replace(scored_again(slice(None)), closing=None)).datasets[0].targets is None
