"""A checkpoint that is loaded into a new object and validated: by its weights it is the trained model of some epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from valgap.types import Pass, RunRecord, StateSnapshot, WeightsLoaded

EQUAL = 1e-9  # of sums and norms of tensors that hold the same numbers


def with_reloaded(run: RunRecord) -> RunRecord:
    """The record, its last passes over validation by another object with weights that the trained model had told as validation.

    Each is told together with the load that brought it there, as where the trained object itself loads.
    """
    trained, train, val = run.trained_model, run.last_train, run.last_validation
    if trained is None or train is None or val is None:
        return run
    own = [(i, s) for i, s in enumerate(run.states) if s.model == trained.id and s.moment == "pass"]
    passes, loads = list(run.passes), list(run.weights_loaded)
    for one in run.passes[train.index + 1 :]:
        other = run.models.get(one.model)
        if one.phase != "other" or other is None or other.id == trained.id or other.tensor_names != trained.tensor_names:
            continue
        if not _same_samples(one, val) or not 0 <= one.state < len(run.states):
            continue
        state = run.states[one.state]
        equal = [i for i, s in own if _equal(s, state)]
        if equal:
            source = next((p.index for p in reversed(run.passes) if p.state == equal[-1]), -1)
            loads.append(_load(one, trained.kind, source, not _equal(own[-1][1], state)))
            # Its data set may have been made anew as well: the samples are the same.
            passes[one.index] = replace(one, phase="validation", model=trained.id, dataset=val.dataset)
    return replace(run, passes=tuple(passes), weights_loaded=tuple(loads))


def _load(one: Pass, kind: str, source: int, changed: bool) -> WeightsLoaded:
    return WeightsLoaded(
        model_kind=kind,
        before_training=False,
        strict=True,
        given=0,
        matched=0,
        missing=0,
        unexpected=0,
        examples=(),
        after_pass=one.index,
        changed=changed,
        state_of_pass=source,
    )


def _same_samples(one: Pass, val: Pass) -> bool:
    ids = [np.unique(p.samples.sample[p.samples.labelled]) for p in (one, val)]
    return len(ids[0]) > 0 and int(ids[0][0]) >= 0 and np.array_equal(ids[0], ids[1])


def _equal(a: StateSnapshot, b: StateSnapshot) -> bool:
    if a.sums.shape != b.sums.shape:
        return False
    return all(np.allclose(x, y, rtol=EQUAL, atol=EQUAL) for x, y in ((a.sums, b.sums), (a.norms, b.norms)))
