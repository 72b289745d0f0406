"""Which phase each pass was: inferred from what happened, never from names.

- **train**: the pass called ``backward`` or stepped an optimizer.
- **validation**: no backward, and its data are not (mostly) those that the training passes used. When every
  such pass used the training data, they are the validation all the same (a fault that EVA508 names), but only
  if no other evaluation data were seen.
- **other**: the rest: the training set re-scored, a warm-up or dry run of one batch before a whole walk over
  the same data, a trial call on images that nobody labelled, a teacher's or another model's pass, a pass that
  only makes features of the images (as wide as no pass of the training), which are what is scored; the same
  where the program's optimizer trains tensors that no module holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from valgap.types import IntArray, Phase

# A pass "uses the training data" when this share of its known samples is in the nearest training pass.
# Ordinary leaks (copies under other paths) do not count: only identical samples.
TRAINING_DATA_SHARE = 0.9


@dataclass(frozen=True)
class PassFacts:
    """What phase inference looks at."""

    backwards: int
    steps: int
    dataset: int
    model: int
    num_batches: int
    complete: bool
    sample: IntArray  # (N,) sample ids, -1 unknown
    stream: bool = False  # its samples are known by their content at most, which augmentation changes
    all_of: IntArray | None = None  # ids of its whole data set, of which it drew a part because it was cut short on purpose
    labelled: bool = True  # whether the right answer of any sample is known
    outputs: int = 0  # columns of its scores; 0 unknown
    classes: int = 0  # one more than the highest right answer; 0 unknown


def infer_phases(facts: Sequence[PassFacts], unseen_steps: bool = False) -> list[Phase]:
    """The phase of each pass, in order; ``unseen_steps``: an optimizer stepped, and may have done so on what no pass calls."""
    trained_models = {f.model for f in facts if f.backwards or f.steps}
    phases: list[Phase] = []
    on_training_data: list[int] = []
    from_somewhere = any(not (f.backwards or f.steps) and not _is_trial(f) for f in facts)
    for i, fact in enumerate(facts):
        if fact.backwards or fact.steps:
            phases.append("train")
            continue
        phases.append("validation" if _full_walk(fact, facts) and not (from_somewhere and _is_trial(fact)) else "other")
        if phases[i] == "validation" and _uses_training_data(fact, i, facts):
            on_training_data.append(i)
    phases = _drop_features(phases, facts)
    if unseen_steps and not trained_models:  # wider than there are classes: what the program trains scores these
        phases = ["other" if f.outputs > f.classes > 0 else p for p, f in zip(phases, facts, strict=True)]
    validations = [i for i, phase in enumerate(phases) if phase == "validation"]
    if len(on_training_data) < len(validations):
        for i in on_training_data:
            phases[i] = "other"
    return _drop_foreign_models(phases, facts, trained_models)


def _is_trial(fact: PassFacts) -> bool:
    """Whether a model was called on images of no data set and without labels: to warm up, to learn the shape of its output."""
    return fact.dataset < 0 and not fact.labelled


def _full_walk(fact: PassFacts, facts: Sequence[PassFacts]) -> bool:
    """Whether the pass is no mere glance: a glance is much shorter than another walk over the same data."""
    longest = max((f.num_batches for f in facts if f.dataset == fact.dataset and _share_data(fact, f)), default=0)
    return fact.complete or fact.num_batches * 2 > longest


def _share_data(fact: PassFacts, other: PassFacts) -> bool:
    """Whether two passes over one data set have a sample in common, or may have: train and val can be parts of one tensor."""
    known, others = (f.sample[f.sample >= 0] for f in (fact, other))
    return fact is other or fact.stream or not len(known) or not len(others) or bool(np.isin(known, others).any())


def _uses_training_data(fact: PassFacts, position: int, facts: Sequence[PassFacts]) -> bool:
    """Whether the samples are those of the training pass next to it (the one before, else the one after).

    Only the nearest one counts: with k folds and one model, a fold's validation was trained on in an earlier fold.
    """
    trained = [(i, f) for i, f in enumerate(facts) if (f.backwards or f.steps) and f.model == fact.model]
    if not trained:
        return False
    before = [f for i, f in trained if i < position]
    nearest = before[-1] if before else trained[0][1]
    known = fact.sample[fact.sample >= 0]
    if (len(known) == 0 or fact.stream) and fact.dataset >= 0 and fact.dataset == nearest.dataset:
        return True
    if len(known) == 0:
        return False
    trained_on = nearest.sample if nearest.all_of is None else nearest.all_of
    return bool(np.isin(known, trained_on).mean() >= TRAINING_DATA_SHARE)


def _drop_features(phases: list[Phase], facts: Sequence[PassFacts]) -> list[Phase]:
    """Passes that give other numbers than training learns to are 'other', where any evaluation gives the same."""
    learnt = {f.outputs for f in facts if f.backwards or f.steps} - {0}
    if not learnt or not any(p == "validation" and f.outputs in learnt for p, f in zip(phases, facts, strict=True)):
        return phases
    return ["other" if p == "validation" and f.outputs not in {0, *learnt} else p for p, f in zip(phases, facts, strict=True)]


def _drop_foreign_models(phases: list[Phase], facts: Sequence[PassFacts], trained: set[int]) -> list[Phase]:
    """Passes of an untrained model are 'other', unless only such a model is ever evaluated (an EMA copy)."""
    own = any(p == "validation" and f.model in trained for p, f in zip(phases, facts, strict=True))
    if not own or not trained:
        return phases
    return ["other" if p == "validation" and f.model not in trained else p for p, f in zip(phases, facts, strict=True)]
