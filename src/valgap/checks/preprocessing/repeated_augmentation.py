"""The processes that read images all draw the same random numbers for their augmentation.

What it looks for
    One training image, read again and again by two of the loader's worker processes, started as the script starts them: do
    both make the same variants of it, one after the other? And does a worker make the same ones again in the next epoch?

Why it hurts validation
    With several workers the images of a batch are varied alike, and where each epoch begins with the same numbers, no image
    is ever seen in another variant: most of the augmentation is lost, and training overfits as if there were none.

What else looks like this
    Images that are not varied at all: there is nothing to repeat. torch seeds its own, Python's and numpy's global generators
    in each worker; a generator of one's own (`np.random.default_rng(0)` kept by the data set, OpenCV's) and a
    `worker_init_fn` that seeds all workers alike undo that.

Remedy
    Draw from torch's generator, or make a generator in each worker from `torch.initial_seed()`; let `worker_init_fn` use
    `torch.initial_seed() % 2**32`, and no constant.

Source
    pytorch issue 5059; PyTorch documentation, "Randomness in multi-process data loading".
"""

from __future__ import annotations

from valgap.types import Case, Check, Clear, Evidence, Finding, NotApplicable

# So many of twelve draws alike are no chance, even where an image is only mirrored or not.
SAME = 0.99
UNMEASURED_POINTS = 2.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Look at what two workers made of one image."""
    closing = case.run.closing
    numbers = closing.numbers if closing is not None else {}
    if "worker_same" not in numbers:
        reason = closing.skipped.get("workers") if closing is not None else None
        return NotApplicable(f"one image read by two workers (closing measurements{f': {reason}' if reason else ''})")
    draws = int(numbers["worker_draws"])
    same, again = numbers["worker_same"], numbers["worker_same_next_epoch"]
    facts = (
        Evidence("variants of one image that a worker made", numbers["worker_variants"], draws, "", draws),
        Evidence("draws in which two workers made the same variant", same, 0.0, "", draws),
        Evidence("draws that were the same again in the next epoch", again, 0.0, "", draws),
    )
    if numbers["worker_variants"] < 2:
        return Clear("images are not varied, so that nothing is repeated", facts)
    if same < SAME and again < SAME:
        return Clear("each worker draws random numbers of its own", facts)
    where = " and in every epoch" if again >= SAME else ""
    who = "all workers make the same variants" if same >= SAME else "each worker makes the same variants"
    return Finding(
        summary=f"{who} of an image, in the same order{where}",
        severity_points=UNMEASURED_POINTS,
        confidence=0.85,
        evidence=(*facts, Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points")),
        remedy="seed each worker from torch.initial_seed() in worker_init_fn, or draw from torch's own generator",
    )


CHECK = Check(code="PRE209", name="repeated_augmentation", stage="read_train", detect=detect, doc=__doc__ or "")
