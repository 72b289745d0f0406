"""Too few images: the learning curve still rises.

What it looks for
    Probes on pretrained features, fitted on growing shares of the training images and scored on validation (on held-out
    training images where there is none). A power law through these accuracies says what twice the images would give.
    Where the files are not known, the same on the features that a network with given weights began with.
    Fewer than forty images in all, a handful of each class, are too few for a curve, and told as they are.

Why it hurts validation
    With few images per class the model cannot tell what matters from what happens to go along.

What else looks like this
    Copies count once: many repeats of few originals (DAT109) look like many images. A flat curve far below 100 % is no lack
    of images but of information: labels (DAT104), features, or the task.

Remedy
    More images, of the classes with the fewest first; until then a pretrained backbone, held BatchNorm and augmentation.

Source
    Hestness 2017 (power laws of learning curves); Mahmood 2022 (how much more data).
"""

from __future__ import annotations

import numpy as np

from valgap.checks.shared.images import needed
from valgap.checks.shared.seen_part import labels_of, unseen
from valgap.types import Case, Check, Clear, Evidence, Finding, IntArray, LearningCurve, NotApplicable, RunRecord

# Points that twice the images must promise, and the images per class (median) below which we would bet on it.
GAIN_POINTS = 2.0
FEW_PER_CLASS = 15
BOOTSTRAPS = 200
# Through so few no curve can be drawn: images in all, and of the median class. With fewer errors than this they are enough.
HARDLY, HARDLY_PER_CLASS, LEAST_WRONG = 40, 8, 0.1
UNMEASURED_POINTS = 10.0
EXPONENTS = np.linspace(0.1, 1.0, 10)


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Extrapolate the learning curve to twice the images."""
    if case.stages is not None and case.stages.compared("draw").verdict == "at fault":
        return NotApplicable("a training that draws all of its images: how many there are is another question")
    handful = hardly_any(case.run)
    if handful is not None:
        return handful
    images, last = case.images, case.run.last_train
    curve = images.learning_curve if images is not None else None
    own = curve_of_run(case.run) if curve is None else None
    if last is not None and labels_of(case.run, last) is None:
        return NotApplicable(unseen(case.run, last))
    if images is not None and curve is not None:
        labels = images.rows.labels[images.rows.part(False)]
        copies = repeats(images.pairs or (), images.rows.is_val)
    elif own is not None:
        curve, labels = own
        copies = 0
    else:
        return NotApplicable(needed(images, "learning_curve"))
    gain, low, high = twice(curve)
    counts = np.bincount(labels[labels >= 0])
    per_class = float(np.median(counts[counts > 0]))
    facts = (
        Evidence("twice the images would add", 100 * gain, 0.0, "points", int(curve.sizes[-1]), 100 * low, 100 * high),
        Evidence("probe accuracy on half of the images", _at(curve, 0.5), None, ""),
        Evidence("probe accuracy on all of them", float(curve.accuracies[-1].mean()), None, ""),
        Evidence("training images of the median class", per_class, None, "images"),
        Evidence("of all training images, repeats of others", copies, 0, "images", int(counts.sum())),
    )
    if 100 * low < GAIN_POINTS / 2 or 100 * gain < GAIN_POINTS:
        return Clear("more images of the same kind would hardly help", facts)
    few = per_class < FEW_PER_CLASS
    return Finding(
        summary=f"twice the images: {100 * gain:+.1f} ({100 * low:.1f} .. {100 * high:.1f}) points ({per_class:.0f} a class now)",
        severity_points=100 * gain,
        confidence=0.7 if few else 0.4,
        evidence=facts,
        remedy="collect more images, of the smallest classes first; meanwhile train only the head, with augmentation",
    )


def curve_of_run(run: RunRecord) -> tuple[LearningCurve, IntArray] | None:
    """(the curve of probes on the features that the network began with, labels of the training images), of given weights.

    Where the files are not known; None where not all images were among them.
    """
    model, last = run.trained_model, run.last_train
    numbers = run.closing.numbers if run.closing is not None else {}
    labels = labels_of(run, last) if last is not None else None
    if model is None or model.pretrained is not True or labels is None or numbers.get("curve_n") != len(labels[0]):
        return None
    drawn: dict[int, list[float]] = {}
    for name, value in numbers.items():
        word, _, rest = name.partition("_")
        share, _, draw = rest.partition("_")
        if word == "curve" and share.isdigit() and draw.isdigit():
            drawn.setdefault(int(share), []).append(value)
    shares = sorted(drawn)
    most = max(map(len, drawn.values()), default=0)
    if len(shares) < 2 or any(f"curve_{s}_n" not in numbers for s in shares):
        return None
    sizes = np.array([numbers[f"curve_{s}_n"] for s in shares]).astype(np.int64)
    return LearningCurve(sizes, np.array([np.resize(drawn[s], most) for s in shares]), True), labels[0]


def hardly_any(run: RunRecord) -> Finding | None:
    """The finding of a training set too small to draw a curve through, of a run that answers many images wrongly."""
    train, val = run.last_train, run.last_validation
    labels = labels_of(run, train) if train is not None else None
    if train is None or val is None or labels is None or not len(labels[0]) or not val.samples.answered:
        return None
    per_class = float(np.median(np.bincount(labels[0])[np.unique(labels[0])]))
    wrong = 1 - val.samples.accuracy
    if per_class >= HARDLY_PER_CLASS or len(labels[0]) >= HARDLY or wrong < LEAST_WRONG:
        return None
    return Finding(
        summary=f"training has {len(labels[0])} images, {per_class:.0f} a class",
        severity_points=UNMEASURED_POINTS,
        confidence=0.65,
        evidence=(
            Evidence("training images", len(labels[0]), None, "images"),
            Evidence("training images of the median class", per_class, None, "images"),
            Evidence("validation images answered wrongly", wrong, None, "", len(val.samples)),
            Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points"),
        ),
        remedy="collect more images; meanwhile train only the head on a pretrained backbone, with augmentation",
    )


def twice(curve: LearningCurve) -> tuple[float, float, float]:
    """(gain, low, high) of accuracy from twice the images, by a power law; interval over the random subsets."""
    rng = np.random.default_rng(0)
    sizes = curve.sizes.astype(np.float64)
    point = extrapolated(sizes, curve.accuracies.mean(1))
    repeats = curve.accuracies.shape[1]
    draws = [
        extrapolated(
            sizes, curve.accuracies[np.arange(len(sizes))[:, None], rng.integers(0, repeats, (len(sizes), repeats))].mean(1)
        )
        for _ in range(BOOTSTRAPS)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return point, float(low), float(high)


def extrapolated(sizes: np.ndarray, accuracies: np.ndarray) -> float:
    """Accuracy at twice the largest size less that at the largest, on the best-fitting a - b n^-c with b >= 0."""
    best = (np.inf, 0.0)
    # Small subsets follow another law (Hestness: the small-data region), so larger ones count more.
    weights = np.sqrt(sizes / sizes[-1])
    for exponent in EXPONENTS:
        x = (sizes / sizes[-1]) ** -exponent
        design = np.stack([np.ones_like(x), -x], axis=1) * weights[:, None]
        (a, b), *_ = np.linalg.lstsq(design, accuracies * weights, rcond=None)
        b = max(0.0, float(b))
        error = float((((a - b * x) - accuracies) ** 2 * weights).sum())
        top = min(1.0, a - b * 2.0**-exponent) if b else a
        best = min(best, (error, max(0.0, float(top - (a - b)))))
    return best[1]


def _at(curve: LearningCurve, share: float) -> float:
    place = int(np.argmin(np.abs(curve.sizes - share * curve.sizes[-1])))
    return float(curve.accuracies[place].mean())


def repeats(pairs: tuple[object, ...], is_val: np.ndarray) -> int:
    """Training images that repeat an earlier one."""
    return len({p.second for p in pairs if not is_val[p.first] and not is_val[p.second]})  # type: ignore[attr-defined]


CHECK = Check(
    code="DAT107",
    name="too_few_images",
    stage="files",
    detect=detect,
    doc=__doc__ or "",
    needs_whole_run="the learning curve over all images",
)
