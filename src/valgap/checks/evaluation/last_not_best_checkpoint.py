"""The model that is reported or saved is not the best one that the run had.

What it looks for
    Weights loaded after training that are the model's own living tensors: `best = model.state_dict()` keeps references,
    so the kept "best" is always the last. Weights loaded after training that answer worse, at a higher loss, than those
    of another epoch: a wrong file, or a wrong measure of what is best. And, where nothing is loaded, a last epoch that is
    worse than an earlier one beyond noise (the earlier one chosen by one half of the images and scored on the other).

Why it hurts validation
    The run had better weights and threw them away.

What else looks like this
    Overtraining (TRN404): there every epoch after the best is worse, because training went on too long. Where the best
    epoch is the last, loading it changes nothing and nothing is lost.

Remedy
    `copy.deepcopy(model.state_dict())` when validation improves (or save it to a file), and load that at the end.

Source
    PyTorch tutorials pull request 188; PyTorch documentation, "Saving and loading models".
"""

from __future__ import annotations

from valgap.checks.preprocessing import missing_augmentation
from valgap.checks.shared.progress import Course, course, drop_after_best
from valgap.checks.training import missing_regularization
from valgap.checks.training.overtraining import lasts, went_on
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, RunRecord, WeightsLoaded

# The last of several jumping epochs is below the best one by chance; a fall must be this large and this unlikely.
NOTABLE_POINTS = 4.0
P_VALUE = 0.01
HINT = 0.45
# How much a curve jumps from epoch to epoch cannot be seen in fewer.
MIN_EPOCHS = 5


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Look at what was loaded after training, and at the best against the last epoch."""
    run = case.run
    seen = course(run)
    if seen is None or len(seen.passes) < 2:
        return NotApplicable("at least two labelled validation passes over the same images")
    drop = drop_after_best(seen)
    best = seen.passes[seen.best]
    loads = loads_after_training(run)
    facts = (
        drop.evidence(),
        Evidence("epoch of the best validation accuracy", best.epoch, seen.passes[-1].epoch, "", len(seen.passes)),
        Evidence("loads after training that gave the model its own living tensors", useless(loads), 0, "", len(loads)),
    )
    lost = seen.accuracy[seen.best] > seen.accuracy[-1]
    if lost and useless(loads) and not any(w.changed for w in loads):
        summary = "the weights kept as the best are references to the living ones: loading them changed nothing"
        return _finding(summary, max(0.0, 100 * drop.value), 0.95, facts)
    restored = any(w.changed for w in loads)
    if another_epoch_loaded(run, seen) and 100 * drop.value >= NOTABLE_POINTS and drop.p_value < P_VALUE:
        summary = f"the weights that are loaded at the end are worse than those of epoch {best.epoch}"
        return _finding(summary, 100 * drop.value, 0.9, facts)
    jumps = not (went_on(seen) and lasts(seen, drop.value))
    below = not restored and jumps and 100 * drop.value >= NOTABLE_POINTS and drop.p_value < P_VALUE
    if below and len(seen.passes) < MIN_EPOCHS:
        return NotApplicable(f"more validations: only {len(seen.passes)} were seen; {MIN_EPOCHS} show how much the curve jumps")
    if below:
        summary = f"the last epoch is reported; epoch {best.epoch} was better"
        return _finding(summary, 100 * drop.value, HINT if overfits_for_a_reason(case) else 0.55, facts)
    return Clear("the reported weights are not worse than the best epoch's beyond noise", facts)


def another_epoch_loaded(run: RunRecord, seen: Course) -> bool:
    """Whether the last validation is of weights loaded after training that answer worse, and at a higher loss, than another's."""
    last = run.last_train
    loaded = any(w.changed and w.state_of_pass >= 0 for w in loads_after_training(run))
    if last is None or not loaded or seen.passes[-1].index < last.index or sum(p.index > last.index for p in seen.passes) < 2:
        return False
    return bool(seen.accuracy[seen.best] > seen.accuracy[-1] and seen.mean_loss[seen.best] < seen.mean_loss[-1])


def overfits_for_a_reason(case: Case) -> bool:
    """Whether what makes validation fall is named: another epoch would only hide it."""
    outcomes = (missing_augmentation.detect(case), missing_regularization.detect(case))
    return any(isinstance(o, Finding) and o.confidence > HINT for o in outcomes)


def loads_after_training(run: RunRecord) -> list[WeightsLoaded]:
    """Loads into the trained model after the last training pass had begun."""
    last = run.last_train
    if last is None:
        return []
    return [w for w in run.weights_loaded if w.changed is not None and w.after_pass >= last.index]


def useless(loads: list[WeightsLoaded]) -> int:
    """How many of the loads gave the model its own tensors."""
    return sum(w.own_tensors for w in loads)


def _finding(summary: str, points: float, confidence: float, facts: tuple[Evidence, ...]) -> Finding:
    return Finding(
        summary=summary,
        severity_points=points,
        confidence=confidence,
        evidence=facts,
        remedy="keep copy.deepcopy(model.state_dict()) of the best epoch, or save it to a file, and load that at the end",
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """The best epoch's answers scored, chosen by the other half of the images; nothing is trained."""
    return Intervention("score_best_epoch")


CHECK = Check(
    code="EVA506",
    name="last_not_best_checkpoint",
    stage="choose",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="which weights are kept",
)
