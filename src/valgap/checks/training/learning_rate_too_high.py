"""The learning rate is too high: training is erratic or diverges.

What it looks for
    A training loss that multiplies and does not come down, seen in a few steps already. From thirty steps on, where the
    trained head could be trained again on its features: the same at a tenth of the rate, which must do what more steps do
    not. Elsewhere: updates that are a large part of the weights themselves while the training loss ends no lower than a
    guess (ln C) or above its own first epoch, and a probe on the same features that does better than the run.

Why it hurts validation
    Each step leaps over the minimum that it aims at; the weights grow without settling, or leave the region where the
    features work.

What else looks like this
    Tiny batches make a moderate rate too high (TRN410). Pretrained features that a hot rate destroyed (MOD304). A NaN or
    infinite loss (TRN409). A loss of the wrong kind that cannot fall (MOD306). Before momentum has built up, the first
    steps of any sound run are rough.

Remedy
    A tenth of the rate; a warm-up; two short runs at 1e-3 and 1e-2 tell more than a rate finder.

Source
    Goodfellow, Bengio, Courville 2016, section 11.4.1; PyTorch forum 72280 (frozen ResNet50 at 1e-2).
"""

from __future__ import annotations

from valgap.checks.shared.loss_course import LossCourse, Z, diverges, guess_loss, loss_course
from valgap.checks.shared.progress import backbone_trained, batch_size, numbers_of, replay, shortfall, update_ratio
from valgap.checks.shared.seen_part import SETTLED_STEPS, few_steps, optimizer_steps
from valgap.checks.training import accumulated_gradients
from valgap.checks.training.excessive_weight_decay import shrinks
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, RunRecord

# No sound control of benchmarks/faults.py gains anything at a tenth of its rate (they lose 0 to 23 points).
NOTABLE_POINTS, P_VALUE = 5.0, 0.02
# Four times as many steps at the same rate must not give as much: then it is steps that lack.
STEPS_SHARE = 0.5
# Sound runs of whole networks (benchmarks/results/faults.md) update by 2e-4 (fine-tuning) to 1e-2 (from scratch) a step.
HOT_RATIO = 0.03
# A new head on a frozen network has updates of 0.1 and more while it is small; there the ratio says nothing.
TRAINED_SHARE = 0.2
LOST_Z = 2.5
# Last training loss over that of a guess. Where all layers learn, no sound run of benchmarks/faults.py ends above 0.8. A new head
# that hardly moves still has its first random answers (3.6 / 2.3 = 1.6), and strong Dropout reaches 4.
DIVERGED, DIVERGED_HEAD = 1.2, 20.0
UNMEASURED_POINTS = 5.0
HINT = 0.4
# With fewer images a step than this, the batch is named as the cause.
SMALL_BATCH = 8


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Look whether the loss explodes; ask the replay at a tenth of the rate; without one, updates and training loss."""
    outcome = judged(case.run)
    if not isinstance(outcome, Finding) or batch_size(case.run) >= SMALL_BATCH:
        return outcome
    return Clear("a high rate for batches this small is named as such", outcome.evidence)


def judged(run: RunRecord) -> Finding | Clear | NotApplicable:
    """The outcome whatever the batch size."""
    trained = run.of_phase("train")
    course = loss_course(run)
    if diverged(run):
        return _diverged(run)
    if not optimizer_steps(run):
        return NotApplicable("optimizer steps")
    ratio = update_ratio(trained)
    facts = [Evidence("size of an update over that of the weights (median)", ratio, "1e-4 to 3e-2")]
    short = few_steps(run, SETTLED_STEPS)
    if short is not None:
        if course is not None and course.fell():
            return Clear("the training loss falls", (*facts, _fall(course)))
        return NotApplicable(short)
    again, longer = replay(run, "rate_x0.1"), replay(run, "longer")
    if again is not None:
        facts.insert(0, again.evidence("at a tenth of the rate"))
        by_steps = longer is not None and longer.gain >= STEPS_SHARE * again.gain
        if 100 * again.gain >= NOTABLE_POINTS and again.p_value < P_VALUE and not by_steps:
            return _finding(100 * again.gain, 0.85, facts)
        if backbone_trained(run) < TRAINED_SHARE:  # else the features themselves are of the rate's making
            return Clear("a tenth of the rate would not do better on the same features than more steps", tuple(facts))
    gap = shortfall(run)
    stuck = stalled(run, course, facts)
    if gap is not None:
        facts.append(gap.evidence())
    lost = lost_start(run)
    if run.optimizers and shrinks(run):
        return Clear("the weights shrink as their decay makes them, and that is what updates are made of", tuple(facts))
    if ratio >= HOT_RATIO and stuck and backbone_trained(run) >= TRAINED_SHARE:
        points = max(100 * gap.value if gap is not None and gap.low > 0 else 0.0, lost)
        return _finding(points, 0.7 if points > 0 else 0.4, facts)
    return Clear("nothing speaks for a rate that is too high", tuple(facts))


def diverged(run: RunRecord) -> bool:
    """Whether training ends far above the loss of a guess and of its own start, with gradients cleared between its steps."""
    course = loss_course(run)
    if course is None or not optimizer_steps(run):
        return False
    least = DIVERGED if backbone_trained(run) >= TRAINED_SHARE else DIVERGED_HEAD
    return diverges(course, guess_loss(run), least) and not isinstance(accumulated_gradients.detect(Case(run)), Finding)


def _diverged(run: RunRecord) -> Finding:
    gap, course = shortfall(run), loss_course(run)
    assert course is not None
    facts = [
        Evidence("train loss of the last third, against that of a guess", course.late[0], guess_loss(run), "nats"),
        Evidence("train loss of the first batch", course.start, None, "nats"),
        Evidence("size of an update over that of the weights (median)", update_ratio(run.of_phase("train")), "1e-4 to 3e-2"),
    ]
    lost = lost_start(run)
    points = max(100 * gap.value if gap is not None and gap.low > 0 else 0.0, lost, UNMEASURED_POINTS)
    # The loss of a few confident errors is high where the answers are as good as the features allow, before training and after.
    known = "probe_start" in numbers_of(run) or backbone_trained(run) < TRAINED_SHARE
    borne = known and gap is not None and 100 * gap.value < UNMEASURED_POINTS and not lost
    return _finding(
        points, HINT if borne else 0.75, facts, "the learning rate is too high: the training loss rises far above where it began"
    )


def lost_start(run: RunRecord) -> float:
    """Points that a probe on the features before training reaches beyond the run, where training made them worse; else 0."""
    numbers = numbers_of(run)
    if "probe_start" not in numbers or run.closing is None or "val_eval" not in run.closing.rescores:
        return 0.0
    before, after, error = (numbers[k] for k in ("probe_start", "probe_end", "probe_start_se"))
    reached = run.closing.rescores["val_eval"].accuracy
    return 100 * (before - reached) if before - after > LOST_Z * error and before > reached else 0.0


def stalled(run: RunRecord, course: LossCourse | None, facts: list[Evidence]) -> bool:
    """Whether the training loss ended no lower than a guess, or above its own first third, beyond noise; adds the evidence."""
    if course is None:
        return False
    (late, error), (early, _) = course.late, course.mean(0.0, 1 / 3)
    guess = guess_loss(run)
    facts.append(Evidence("train loss of the last third, against that of a guess", late, guess, "nats", len(course.loss)))
    # As high as a guess, known well enough that a fall by a seventh would have been seen, and not on its way down any more:
    # that it once rose and came back to a guess is no learning.
    as_guess = late >= 0.95 * guess and late - Z * error >= 0.85 * guess and not course.still_falls()
    return as_guess or late - Z * error > 1.05 * early


def _fall(course: LossCourse) -> Evidence:
    return Evidence("train loss, last third against the first", course.late[0], course.mean(0.0, 1 / 3)[0], "nats")


def _finding(points: float, confidence: float, facts: list[Evidence], summary: str = "") -> Finding:
    words = (
        "the learning rate is too high: a tenth of it does better on the same features"
        if confidence > 0.8
        else "the learning rate is too high: updates are large and the training loss does not fall"
    )
    return Finding(
        summary=summary or words,
        severity_points=max(0.0, points),
        confidence=confidence,
        evidence=tuple(facts),
        remedy="divide the learning rate by ten (and once more if it still jumps)",
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """A tenth of every rate."""
    return Intervention("scale_rate", {"factor": 0.1, "phase": "train"})


CHECK = Check(code="TRN401", name="learning_rate_too_high", stage="update", detect=detect, doc=__doc__ or "", treat=treat)
