"""The validation accuracy of several processes counts images twice.

What it looks for
    A validation that is shared out among processes, in which some images were shown by more than one of them: a
    DistributedSampler pads its list with images from the front, so that all processes get equally many. The accuracy with
    the repeats is held against that of each image once, and against what the script printed.

Why it hurts validation
    The repeated images weigh double. With few images, or many processes, the number is not that of the validation set, and
    it changes with the number of processes.

What else looks like this
    Every process may validate on all images, on purpose: then all weigh alike, and the accuracy is right. One or two images
    among thousands move nothing that anybody reads; they are told as a note.

Remedy
    Validate in one process, or cut the gathered predictions to the size of the data set (Accelerate's
    `gather_for_metrics` does), or give each process `range(rank, len(dataset), world_size)` without padding.

Source
    pytorch/examples pull request 980; torchvision issue 4559; PyTorch documentation, DistributedSampler.
"""

from __future__ import annotations

from valgap.checks.shared.printed_accuracy import told
from valgap.checks.shared.processes import NO_GROUP, shares_of, with_repeats
from valgap.types import Case, Check, Clear, Evidence, Finding, NotApplicable

# A deviation below this many points is explained, not reported.
NOTABLE_POINTS = 0.5


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Count the images that several ranks showed, and what they do to the accuracy."""
    run = case.run
    if not run.group:
        return NotApplicable(NO_GROUP)
    shared = [(p, shares_of(run, p)) for p in run.of_phase("validation") if p.samples.answered]
    shared = [(p, shares) for p, shares in shared if shares]
    if not shared:
        return NotApplicable("a labelled validation pass that several processes share")
    last, shares = shared[-1]
    rows = with_repeats(shares)
    once, counted = last.samples.accuracy, rows.accuracy
    repeats = len(rows) - len(last.samples)
    facts: tuple[Evidence, ...] = (
        Evidence("validation images shown more than once", repeats, 0, "images", len(last.samples)),
        Evidence("accuracy with the repeats", counted, once, "", len(rows)),
    )
    if repeats == 0:
        return Clear("each validation image is shown by one process", facts)
    if len(last.samples) and repeats % len(last.samples) == 0:
        return Clear("every process validates on all images", facts)
    # Of all passes, the one where the repeats move the accuracy most: what they do is a matter of luck.
    moved = max((abs(with_repeats(s).accuracy - p.samples.accuracy) for p, s in shared), default=0.0)
    numbers = [t for members in told(run, "accuracy").values() for t in members]
    tables = {p.index: with_repeats(s).accuracy for p, s in shared}
    pairs = [(t, p) for t in numbers for p in t.passes if p.index in tables]
    stated = sum(t.equals(tables[p.index]) and not t.states(p.samples.accuracy) for t, p in pairs)
    right = sum(t.states(p.samples.accuracy) and not t.equals(tables[p.index]) for t, p in pairs)
    facts = (
        *facts,
        Evidence("printed accuracies that count the repeats, and not each image once", stated, right, "", len(pairs)),
        Evidence("largest change of a pass's accuracy by the repeats", 100 * moved, NOTABLE_POINTS, "points", len(shared)),
    )
    if right > stated or (pairs and not stated):
        return Clear("images are repeated, but the printed accuracy does not count them twice", facts)
    sure = stated > 0 and 100 * moved >= NOTABLE_POINTS
    return Finding(
        summary=f"{repeats} of {len(last.samples)} validation images are counted more than once: "
        f"{100 * counted:.1f} % instead of {100 * once:.1f} %",
        severity_points=100 * (once - counted),
        confidence=0.85 if sure else 0.3,
        evidence=facts,
        remedy="validate in one process, or leave the padding out before the metric (gather_for_metrics; cut to len(dataset))",
    )


CHECK = Check(code="EVA510", name="repeated_validation_samples", stage="measure", detect=detect, doc=__doc__ or "")
