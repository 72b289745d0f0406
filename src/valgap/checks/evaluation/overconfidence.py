"""The validation loss is high because the answers are too sure, not because they are wrong.

What it looks for
    The temperature that the validation logits want: divided by it, the same answers get the lowest loss. It is fitted on
    four fifths of the images and scored on the last fifth. And the course: validation loss rising while accuracy stays or
    rises.

Why it hurts validation
    The accuracy does not suffer at all; only the loss does, and whoever stops or selects by it. A few confident errors
    make most of a cross-entropy.

What else looks like this
    Sound training of a few hundred images ends too sure of itself as a rule. So it is a suspicion only where the loss rises
    while the accuracy does not fall, for then it explains what somebody sees; else a hint.
    The random answers of a head that has hardly been trained are too sure as well, on training images no less. BatchNorm
    statistics of a few batches spoil eval mode. Both are not judged. Overtraining (TRN404): there the accuracy falls too.
    Logits of the wrong scale, such as a softmax before the loss (MOD306), make a classifier too *unsure*; the temperature
    is then below 1. Shifted class indices (DAT102) make sure and right answers count as wrong: where a renaming of the
    labels makes many of them right, this is a hint only.

Remedy
    Divide the logits by the temperature given here before the softmax (temperature scaling); choose epochs by accuracy,
    or by the loss after scaling.

Source
    Guo et al. 2017, "On calibration of modern neural networks"; keras issue 7866.
"""

from __future__ import annotations

from valgap.checks.shared.loss_course import Z as NOISE
from valgap.checks.shared.loss_course import guess_loss, loss_course
from valgap.checks.shared.progress import course, drop_after_best, loss_rise, numbers_of, settled_batchnorm
from valgap.stats import best_label_permutation
from valgap.types import Case, Check, Clear, Evidence, Finding, NotApplicable, RunRecord

# Set by hand on sound runs (frozen and unfrozen), well above the temperatures and gains seen there; the healthy controls of
# benchmarks/faults.py stay below.
TEMPERATURE = 2.5
GAIN_SHARE = 0.3
HINT_TEMPERATURE = 1.5
Z = 2.5
# A renaming is fitted to the predictions, so it gains a few points by chance (under 5 with 100 images in 10 classes).
RENAMING_GAIN = 0.15
# The tempered answers must say something: a loss below this share of a guess's.
INFORMED = 0.97


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Read the temperature off the closing measurements, and the course of loss and accuracy."""
    numbers = numbers_of(case.run)
    if "val_temperature" not in numbers:
        return NotApplicable("the validation logits of the finished model (closing measurements)")
    at, plain, tempered = (numbers[k] for k in ("val_temperature", "val_nll", "val_nll_tempered"))
    gain, error = plain - tempered, numbers["val_nll_gain_se"]
    n = int(numbers["calibration_n"])
    benign, fact = rises_alone(case.run)
    facts = (
        Evidence("temperature that the validation logits want", at, 1.0, "", n),
        Evidence("val loss as it is, and with the temperature", plain, tempered, "nats", n),
        Evidence("calibration error as it is, and with the temperature", numbers["val_ece"], numbers["val_ece_tempered"], "", n),
        *fact,
    )
    sure = gain > Z * error and gain > 0
    if not sure or at < HINT_TEMPERATURE:
        return Clear("the answers are about as sure as they are right", facts)
    if not settled_batchnorm(case.run):
        return NotApplicable("BatchNorm statistics of more batches: those of so few make eval mode's answers their own")
    if tempered > INFORMED * guess_loss(case.run) or not fits_train(case.run, plain):
        return NotApplicable("a model that fits its training images better than validation, and knows more than a guess")
    strong = benign and at >= TEMPERATURE and gain >= GAIN_SHARE * plain
    renamed = renaming_gain(case.run)
    if renamed > RENAMING_GAIN:
        strong = False
        facts = (*facts, Evidence("accuracy gained by the best renaming of the val labels", renamed, 0.0, "", n))
    words = "val loss rises while accuracy does not fall" if benign else "val loss is high"
    return Finding(
        summary=f"{words}: the answers are too sure, a temperature of {at:.2g} takes the loss from {plain:.3g} to {tempered:.3g}",
        severity_points=0.0,
        confidence=0.85 if strong else 0.4,
        evidence=facts,
        remedy=f"divide the logits by {at:.2g} before the softmax; do not stop or select by the unscaled loss",
    )


def fits_train(run: RunRecord, loss: float) -> bool:
    """Whether training images cost less than ``loss`` (nats) at the end, as training ran or re-scored; so if it is not known."""
    seen = loss_course(run)
    table = run.closing.rescores.get("train_eval") if run.closing is not None else None
    known = [seen.late] if seen is not None else []
    known += [(table.mean_loss, 0.0)] if table is not None and table.labelled.any() else []
    return not known or any(mean + NOISE * error < loss for mean, error in known)


def renaming_gain(run: RunRecord) -> float:
    """How much more often the last validation is right, 0..1, when its labels are renamed to agree best."""
    val = run.last_validation
    if val is None or not val.samples.labelled.any():
        return 0.0
    target, answer = val.samples.target, val.samples.prediction
    _, accuracy = best_label_permutation(target, answer, int(max(target.max(), answer.max())) + 1)
    return accuracy - val.samples.accuracy


def rises_alone(run: RunRecord) -> tuple[bool, tuple[Evidence, ...]]:
    """Whether the loss rose after its lowest epoch while the accuracy did not fall, with the evidence."""
    seen = course(run)
    if seen is None:
        return False, ()
    rise, error = loss_rise(seen)
    drop = drop_after_best(seen)
    fact = Evidence("val loss, last epoch minus its lowest", rise, 0.0, "nats", drop.n, rise - 1.96 * error, rise + 1.96 * error)
    return rise > Z * error and rise > 0 and drop.low <= 0, (fact, drop.evidence())


CHECK = Check(
    code="EVA505",
    name="overconfidence",
    stage="loss",
    detect=detect,
    doc=__doc__ or "",
    loss_alone=True,
    needs_whole_run="how sure the finished model is",
)
