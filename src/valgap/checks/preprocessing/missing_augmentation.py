"""Training images are never varied, and the network has learnt them by heart.

What it looks for
    A training set whose images reach the model exactly the same in every epoch, together with a real gap: training images
    re-scored like validation lie far above validation.

Why it hurts validation
    A network that is trained as a whole can memorise a few hundred fixed images, and then learns nothing more from them.

What else looks like this
    A frozen network with a new head profits little from augmentation, so there it stays a hint. A gap with augmentation in
    place has other causes: shift (DAT106), too few images (DAT107), wrong labels (DAT104).

Remedy
    RandomResizedCrop with scale 0.2 to 1 and RandomHorizontalFlip where a mirrored image keeps its label (not for digits or
    letters).

Source
    mxnet issue 2282; Shorten and Khoshgoftaar 2019 (survey).
"""

from __future__ import annotations

import numpy as np

from valgap.checks.data.repeated_train_images import repeated as repeats
from valgap.checks.shared.freezing import newness, share
from valgap.checks.shared.progress import Gap, backbone_trained, overfit_gap, overfits
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, ModelInfo, NotApplicable, RunRecord

# Sound fine-tuning of a few hundred images leaves gaps of up to 20 points; see benchmarks/results/faults.md.
GAP = 0.2
# A network that began at random has nothing but these images to learn from.
GAP_FROM_SCRATCH = 0.15
NEW_SHARE = 0.9  # of a network without BatchNorm, of which nothing else tells that it began at random
TRAINED_SHARE = 0.2
ON_DISK = 0.3  # share of training files that are varied copies of others
VERSIONS = 1.5  # images in memory, for each file
GAIN_SHARE, MOST_POINTS = 0.25, 8.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the training images of two epochs, and the re-scored train accuracy with validation."""
    run = case.run
    repeated = same_images(run)
    if repeated is None:
        return NotApplicable("two training passes over known samples")
    gap = overfit_gap(run)
    if gap is None:
        return NotApplicable("training images re-scored like validation (closing measurements)")
    facts = (
        Evidence("training images that reached the model unchanged in two epochs", repeated, 0.0, ""),
        *gap.evidence(),
        Evidence("share of the network's numbers that is trained", backbone_trained(run)),
    )
    if repeated < 0.99:
        return Clear("training images are varied from epoch to epoch", facts)
    if varied_in_memory(run):
        return Clear("training holds several versions of each file: they were augmented once, in memory", facts)
    if varied_on_disk(case):
        return Clear("the training files are varied copies of each other: they were augmented on disk", facts)
    if not overfits(run, gap, least_gap(run)):
        return Clear("training images are not varied, but there is no large gap to validation", facts)
    # A head on features that were made once could see varied images only at the price of making them anew in every epoch.
    whole = backbone_trained(run) >= TRAINED_SHARE and not run.made_once
    return Finding(
        summary=f"training images are the same in every epoch, and the gap to validation is {100 * gap.value:.0f} points",
        severity_points=cost(gap),
        confidence=0.6 if whole else 0.35,
        evidence=(*facts, Evidence("cost (no re-run): assumed", cost(gap), 0.0, "points")),
        remedy="add a random crop and, where a mirrored image keeps its label, a horizontal flip to the training transform",
    )


def varied_on_disk(case: Case) -> bool:
    """Whether much of the training files repeats others, yet not exactly: turned, mirrored, in other light."""
    images = case.images
    if images is None or images.pairs is None:
        return False
    near = tuple(p for p in images.pairs if p.kind == "near")
    train = images.rows.part(False)
    return len(train) > 0 and len(repeats(near, images.rows.is_val)) >= ON_DISK * len(train)


def varied_in_memory(run: RunRecord) -> bool:
    """Whether the program holds several versions of the files that its training images are of."""
    last = run.last_train
    if last is None or last.loader >= 0 or not run.unlisted:
        return False
    return len(np.unique(last.samples.sample)) >= VERSIONS * len(run.unlisted)


def least_gap(run: RunRecord) -> float:
    """The gap from which memorised images are held to be its cause, 0..1."""
    model = run.trained_model
    return GAP_FROM_SCRATCH if model is not None and (model.pretrained is False or all_new(model)) else GAP


def all_new(model: ModelInfo) -> bool:
    """Whether no weights were given to it: nearly all numbers of its layers are as an initialiser makes them."""
    if model.pretrained is not None:
        return not model.pretrained
    return share(model, model.is_parameter & (newness(model) == 1), model.is_parameter) >= NEW_SHARE


def same_images(run: RunRecord) -> float | None:
    """Share of the samples seen in the last two training passes whose input was exactly the same; None if none is known."""
    trained = run.of_phase("train")
    for first, last in zip(trained[-2::-1], trained[:0:-1], strict=False):
        marks = dict(zip(first.samples.sample.tolist(), first.samples.fingerprint.tolist(), strict=True))
        now = [(s, m) for s, m in zip(last.samples.sample.tolist(), last.samples.fingerprint.tolist(), strict=True) if s >= 0]
        pairs = [(marks[sample], mark) for sample, mark in now if sample in marks]
        if pairs:
            both = np.array(pairs)
            same = np.isclose(both[:, 0], both[:, 1], rtol=1e-4, atol=1e-4)
            # Without a data set samples are known by what they hold: varied ones are others, not the same with another input.
            return float(same.sum() / len(now) if last.dataset < 0 else same.mean())
    return None


def cost(gap: Gap) -> float:
    """Points that augmentation may give back: a part of the gap."""
    return min(MOST_POINTS, 100 * GAIN_SHARE * gap.value)


def treat(case: Case, finding: Finding) -> Intervention:
    """Crops and flips of the training batches."""
    return Intervention("augment", {"phase": "train", "scale": 0.5, "flip": True})


CHECK = Check(
    code="PRE206",
    name="missing_augmentation",
    stage="read_train",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="how far training and validation part in the end",
)
