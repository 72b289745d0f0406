"""A model goes on from an earlier fold (or repetition) instead of starting anew.

What it looks for
    Validation images that the same model was trained on in an earlier fold: the model object is used again, or a "new" one
    begins in the state in which the last one ended.

Why it hurts validation
    From the second fold on, validation images were training images before. Each fold looks better than the one before, and
    the average over folds is far too good.

What else looks like this
    Going on with training on the same data (a second stage, a resumed run) validates on images that were never trained on.
    Validation on the very data that the nearest training used is named by EVA508, copies under other names by DAT101.

Remedy
    Build the model (and the optimizer) inside the loop over folds, or load a deep copy of the first state at its start.

Source
    scikit-learn documentation, "Cross-validation" (clone); PyTorch forum, "reset model weights between folds".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from valgap.types import (
    Case,
    Check,
    Clear,
    Evidence,
    Finding,
    IntArray,
    Intervention,
    NotApplicable,
    Pass,
    RunRecord,
    StateSnapshot,
)

FIRST_STATE = -2  # of WeightsLoaded.state_of_pass
# Folds share nothing by design; a few images in common come from copies in the data.
SHARE = 0.5


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """For each validation pass, look whether the model's own history holds its images."""
    run = case.run
    trained = run.of_phase("train")
    if not trained or not run.of_phase("validation"):
        return NotApplicable("a training pass and a validation pass")
    if len({p.dataset for p in trained}) < 2:
        return Clear("one training data set: there are no folds")
    if all((p.samples.sample < 0).all() for p in trained):
        return NotApplicable("the identity of the samples (paths or indices)")
    clean: list[tuple[Pass, float]] = []
    spoilt: list[tuple[Pass, float]] = []
    for one, earlier in histories(run):
        known = one.samples.sample[one.samples.sample >= 0]
        share = float(np.isin(known, earlier).mean()) if len(known) and len(earlier) else 0.0
        (spoilt if share > SHARE else clean).append((one, share))
    facts = [
        Evidence(
            "validation passes over images of an earlier fold of the same model", len(spoilt), 0, "", len(clean) + len(spoilt)
        )
    ]
    if not spoilt:
        return Clear("no fold validates on what its model was trained on before", tuple(facts))
    honest = [p.samples.accuracy for p, _ in clean if p.samples.labelled.any()]
    last, share = spoilt[-1]
    facts.append(Evidence("share of the last validation images trained on in an earlier fold", share, 0.0, "", len(last.samples)))
    points = 0.0
    if honest:
        facts.append(
            Evidence("val accuracy of the last clean fold, against the last spoilt one", honest[-1], last.samples.accuracy)
        )
        points = min(0.0, 100 * (honest[-1] - last.samples.accuracy))
    return Finding(
        summary=f"{share:.0%} of the last fold's validation images were trained on by the same model in an earlier fold",
        severity_points=points,
        confidence=0.97,
        evidence=tuple(facts),
        remedy="create the model and the optimizer anew for every fold; trust only the first fold's accuracy until then",
    )


def histories(run: RunRecord) -> Iterator[tuple[Pass, IntArray]]:
    """Each validation pass with the sample ids of its model's earlier training data sets (not those of its own fold)."""
    seen: dict[int, dict[int, IntArray]] = {}  # model -> training data set -> sample ids
    current: dict[int, int] = {}  # model -> the data set that it trains on now
    ends: dict[int, StateSnapshot] = {}
    for one in run.passes:
        if any(w.state_of_pass == FIRST_STATE and w.after_pass == one.index - 1 for w in run.weights_loaded):
            seen[one.model] = {}  # its first weights were loaded again
        if one.model not in seen:
            seen[one.model] = dict(seen.get(inherited(run, one.model, ends), {}))
        if one.phase == "train":
            seen[one.model][one.dataset] = one.samples.sample[one.samples.sample >= 0]
            current[one.model] = one.dataset
        elif one.phase == "validation" and one.model in current:
            past = [ids for number, ids in seen[one.model].items() if number != current[one.model]]
            yield one, np.concatenate(past) if past else np.zeros(0, np.int64)
        if 0 <= one.state < len(run.states):
            ends[one.model] = run.states[one.state]


def inherited(run: RunRecord, model: int, ends: dict[int, StateSnapshot]) -> int:
    """The model in whose last state this one begins; -1 if it begins in none."""
    start = next((s for s in run.states if s.model == model and s.moment == "start"), None)
    if start is None:
        return -1
    for other, end in ends.items():
        if other != model and len(end.norms) == len(start.norms) and not start.moved(end).any():
            return other
    return -1


def treat(case: Case, finding: Finding) -> Intervention:
    """The model put back to its first state whenever it begins with other training data."""
    return Intervention("restore_start", {"phase": "both"})


CHECK = Check(
    code="MOD310",
    name="shared_initial_state",
    stage="update",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="later folds",
)
