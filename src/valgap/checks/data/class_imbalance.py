"""Classes are unevenly filled, and the model answers with the large ones.

What it looks for
    Training images per class, and whether recall on validation falls from the large classes to the small ones by more
    than chance allows. Without a run, the held-out answers of a probe on the training images take the place of the
    model's.

Why it hurts validation
    The loss counts images, so a rare class is given up first; where validation is filled evenly, its images are lost.

What else looks like this
    A network that has hardly been trained answers with the largest class first, whatever the classes: it must answer its
    training images better than that. Few images are spread unevenly by chance. Small classes that are recognised as well
    as large ones are no fault: uneven counts alone are not reported. A class that is rare in train but common in val is a
    shift of class shares (DAT106) as well.

Remedy
    Class-balanced sampling or logit adjustment; report balanced accuracy; collect images of the small classes.

Source
    Menon 2021 (logit adjustment); Kang 2020 (decoupling representation and classifier).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from valgap.checks.shared.images import needed
from valgap.checks.shared.progress import has_learnt
from valgap.stats import wilson_interval
from valgap.types import Case, Check, Clear, Evidence, Finding, FloatArray, IntArray, Intervention, NotApplicable

# Largest class over smallest. Below this ratio a linear probe on clothing_mini (ratio 2.9) shows no gradient of recall.
RATIO = 3.0
# One-sided level of the difference in recall between the larger and the smaller half of the classes, in standard errors.
Z = 3.0
BET_RATIO = 5.0
# Weights that fall with the counts (their logarithms correlate below minus this) are meant against the imbalance.
FALLS = 0.7
# Sorted, weights that are a power of the counts correlate with them so well; of fewer classes any do.
MADE_OF_COUNTS, SEVERAL = 0.995, 4
OWN = "validation"  # whose answers: the run's own
MIN_PER_HALF = 10
# Level at which the counts are not those of evenly filled classes, drawn at random.
P_VALUE = 0.001


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare recall on small and on large classes."""
    counts = training_counts(case)
    if counts is None or int((counts > 0).sum()) < 2:
        return NotApplicable("labels of training images in two classes")
    answers = answered(case)
    present = counts[counts > 0]
    ratio = float(present.max() / present.min())
    facts = [Evidence("images of the largest class for one of the smallest", ratio, 1.0, "", int(counts.sum()))]
    if ratio < RATIO:
        return Clear("classes are filled evenly enough", tuple(facts))
    if evenly_drawn(present) > P_VALUE:
        return Clear("so few images are spread over evenly filled classes like this by chance", tuple(facts))
    if answers is None:
        return NotApplicable(f"validation answers, or {needed(case.images, 'held_out')}")
    target, prediction, where = answers
    if where == OWN and not has_learnt(case.run):
        return NotApplicable("a model that answers its training images better than by their largest class")
    small = small_classes(counts)
    in_small, right = small[target], prediction == target
    if min(int(in_small.sum()), int((~in_small).sum())) < MIN_PER_HALF:
        return NotApplicable(f"{MIN_PER_HALF} judged images in the small and in the large classes")
    low, high = float(right[in_small].mean()), float(right[~in_small].mean())
    error = float(np.sqrt(_variance(right[in_small]) + _variance(right[~in_small])))
    drawn = float(small[prediction].mean() - in_small.mean())
    facts += [
        _recall(f"recall on the smaller classes ({where})", right[in_small], high),
        _recall(f"recall on the larger classes ({where})", right[~in_small], None),
        Evidence("answers that name a smaller class, less their true share", drawn, 0.0, "", len(target)),
    ]
    # Small classes that are merely hard are confused in both directions; imbalance pulls answers to the large ones.
    if (high - low) < Z * error or drawn >= 0:
        return Clear("the smaller classes are recognised as well as the larger ones", tuple(facts))
    balance = countered(case, counts)
    facts += [balance] if balance is not None else []
    return Finding(
        summary=f"classes are filled {ratio:.0f} to 1; recall is {high:.0%} on the larger and {low:.0%} on the smaller",
        severity_points=50 * (high - low) * float(in_small.mean()),
        confidence=0.75 if ratio >= BET_RATIO and balance is None else 0.4,
        evidence=tuple(facts),
        remedy="sample classes evenly in training (or adjust the logits by class shares), and judge by balanced accuracy",
        subjects=tuple(_names(case, np.flatnonzero(small & (counts > 0)))),
    )


def countered(case: Case, counts: IntArray) -> Evidence | None:
    """What the program already does against it: weights of the loss that fall with the counts, or classes drawn evenly."""
    last = case.run.last_train
    if last is None:
        return None
    weights = np.asarray(last.loss.weights if last.loss is not None else (), float)
    fits = fall_of_weights(weights, counts)
    if fits is not None and (fits[0] < -FALLS or (fits[1] < -MADE_OF_COUNTS and fits[0] < MADE_OF_COUNTS)):
        # Made of the counts, and given to other classes: that is the loss's fault, and told there.
        return Evidence("weights of the loss against class counts: correlation of logarithms", fits[0], None)
    present = counts > 0
    drawn = np.bincount(last.samples.target[last.samples.labelled], minlength=len(counts))[: len(counts)][present]
    even = float(drawn.max() / max(1, drawn.min()))
    return Evidence("training draws of the largest class for one of the smallest", even, None) if even < RATIO else None


def fall_of_weights(weights: FloatArray, counts: IntArray) -> tuple[float, float] | None:
    """(correlation of the logarithms of class weights (C,) and counts (C,), what it is once both are sorted); None unknown.

    Weights that are a power of the counts have -1 when sorted, in whatever order they were.
    """
    present = counts > 0
    if len(weights) != len(counts) or present.sum() < 2 or (weights[present] <= 0).any():
        return None
    logs = np.log(counts[present]), np.log(weights[present])
    if min(float(np.ptp(v)) for v in logs) <= 0:
        return None
    own, best = (float(np.corrcoef(a, b)[0, 1]) for a, b in (logs, (np.sort(logs[0]), -np.sort(-logs[1]))))
    return own, best if len(logs[0]) >= SEVERAL else own


def evenly_drawn(counts: IntArray) -> float:
    """p-value that images of equally large classes are drawn as unevenly as this (chi-squared)."""
    mean = counts.mean()
    return float(chdtrc(len(counts) - 1, ((counts - mean) ** 2 / mean).sum()))


def training_counts(case: Case) -> IntArray | None:
    """(C,) training images of each class, from the data set, the samples seen, or the image files; None unknown."""
    last = case.run.last_train
    if last is not None:
        dataset = case.run.datasets.get(last.dataset)
        declared = dataset.targets if dataset is not None else None
        labels = declared if declared is not None else last.samples.target[np.unique(last.samples.sample, return_index=True)[1]]
    elif case.images is not None:
        labels = case.images.rows.labels[case.images.rows.part(False)]
    else:
        return None
    labels = labels[labels >= 0]
    return np.bincount(labels) if len(labels) else None


def answered(case: Case) -> tuple[IntArray, IntArray, str] | None:
    """(targets, predictions, whose) on images that the answering model was not trained on; None without."""
    val = case.run.last_validation
    counts = training_counts(case)
    if counts is None:
        return None
    if val is not None and val.samples.labelled.any():
        keep = val.samples.labelled & (val.samples.target < len(counts)) & (val.samples.prediction < len(counts))
        return val.samples.target[keep], val.samples.prediction[keep], OWN
    held = case.images.held_out if case.images is not None else None
    if held is None or case.images is None:
        return None
    places = np.flatnonzero(held.folds >= 0)
    return case.images.rows.labels[places], held.answers[places], "held-out train"


def small_classes(counts: IntArray) -> npt.NDArray[np.bool_]:
    """(C,) the classes that hold fewer images than the mean class."""
    present = counts[counts > 0]
    return np.asarray(counts < present.mean())


def _variance(right: npt.NDArray[np.bool_]) -> float:
    n = len(right)
    share = (float(right.sum()) + 1) / (n + 2)
    return share * (1 - share) / n


def _recall(name: str, right: npt.NDArray[np.bool_], reference: float | None) -> Evidence:
    low, high = wilson_interval(int(right.sum()), len(right))
    return Evidence(name, float(right.mean()), reference, "", len(right), low, high)


def _names(case: Case, classes: IntArray) -> list[str]:
    last = case.run.last_train
    dataset = case.run.datasets.get(last.dataset) if last is not None else None
    known = {i: n for n, i in dataset.class_to_idx.items()} if dataset is not None and dataset.class_to_idx else {}
    if not known and case.images is not None:
        known = dict(enumerate(case.images.rows.classes))
    return [f"class {known.get(int(c), int(c))}" for c in classes]


def treat(case: Case, finding: Finding) -> Intervention:
    """Every class drawn equally often in training."""
    return Intervention("balanced_sampling", {"phase": "train"})


CHECK = Check(
    code="DAT103",
    name="class_imbalance",
    stage="files",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="which classes the finished model recognises",
)
