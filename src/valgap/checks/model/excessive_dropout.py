"""Dropout, or stochastic depth, is so strong that the network cannot fit its own training images.

What it looks for
    The same training images with only the layers active that leave out parts at random (Dropout, stochastic depth), and with
    everything in eval mode; and, where the head could be trained again on its features, what the same training without
    Dropout reaches on validation. Or training images answered no better than by chance, below such layers.

Why it hurts validation
    With nearly all features dropped, each step sees a different, crippled network; the classifier stays near its average
    answer.

What else looks like this
    A train accuracy below validation through moderate Dropout is as it should be (EVA504). A low rate or few epochs (TRN402,
    TRN403) underfit without Dropout too.

Remedy
    Lower it: 0.1 to 0.5 before the last layer is usual, 0 to 0.2 for stochastic depth; some take the share that is left out,
    others that which survives.

Source
    Srivastava et al. 2014, section A.4 (dropout rates); Huang et al. 2016 (stochastic depth).
"""

from __future__ import annotations

from valgap.checks.shared.progress import interval_of, numbers_of, replay, shortfall, train_rescored
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable

# The head trained again without Dropout must gain this, beyond chance.
NOTABLE_POINTS, P_VALUE = 4.0, 0.02
# Dropout of 0.5 takes 0 to 10 points from sound heads while it is active; 0.9 takes 25 and more.
ACTIVE_DROP = 0.25
STRONG = 0.7
# By how much a drop seen on a few hundred images may be smaller than it seems.
MARGIN = 0.05


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Read off what active Dropout takes from the training images, and what training without it gives."""
    run = case.run
    model, closing = run.trained_model, run.closing
    if model is None:
        return NotApplicable("a training pass")
    if not model.dropout:
        return Clear("the model has no Dropout layer")
    table = closing.rescores.get("train_dropout") if closing is not None else None
    if table is None:
        return NotApplicable("training images scored with Dropout active (closing measurements)")
    active, without, n = table.accuracy, train_rescored(run), int(table.labelled.sum())
    facts = [
        Evidence("train accuracy with Dropout active, against eval mode", active, without, "", n, *interval_of(active, n)),
        Evidence("strongest Dropout probability", max(model.dropout), "0.1 to 0.5"),
    ]
    again, gap = replay(run, "no_dropout"), shortfall(run)
    if again is not None:
        facts.insert(0, again.evidence("without Dropout"))
        if 100 * again.gain >= NOTABLE_POINTS and again.p_value < P_VALUE:
            return _finding(max(model.dropout), 100 * again.gain, 0.85, facts)
    # The drop itself, at the end of the interval that speaks against it: of four images, any drop is chance.
    strong = max(model.dropout) >= STRONG and without - interval_of(active, n)[1] >= ACTIVE_DROP - MARGIN
    if strong and gap is not None and gap.low > 0:
        facts.insert(0, gap.evidence())
        return _finding(max(model.dropout), 100 * gap.value, 0.75, facts)
    if strong:
        return _finding(max(model.dropout), 0.0, 0.3, facts)
    nothing = interval_of(without, n)[0] <= 1 / max(2, case.num_classes or 2)
    if nothing and max(model.dropout) >= STRONG and gap is not None:
        # So little comes through that the network has learnt nothing: then nothing is lost by what is left out.
        behind = max(gap.value, numbers_of(run).get("probe_start", 0.0) - gap.reached)
        return _finding(max(model.dropout), 100 * behind, 0.75, [gap.evidence(), *facts])
    return Clear("Dropout does not keep the network from fitting its training images", tuple(facts))


def _finding(p: float, points: float, confidence: float, facts: list[Evidence]) -> Finding:
    return Finding(
        summary=f"Dropout of {p:.2g} keeps the network from fitting its training images",
        severity_points=max(0.0, points),
        confidence=confidence,
        evidence=tuple(facts),
        remedy="lower it (0.1 to 0.5 before the last layer, 0 to 0.2 for stochastic depth), or leave it out: is p what survives?",
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """Dropout layers in eval mode while training."""
    return Intervention("no_dropout", {"phase": "train"})


CHECK = Check(
    code="MOD309",
    name="excessive_dropout",
    stage="forward",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="what Dropout leaves in the end",
)
