"""Augmentation destroys what the label says.

What it looks for
    A linear probe fitted on one half of the plain training images, scored on the other half, plain and as the training
    transform makes them. Sound augmentation keeps most of what a probe can read; crops of a few per cent of the image, or
    flips of digits, leave little above chance.

Why it hurts validation
    The network is trained on images in which the thing is no longer to be seen; labels become noise.

What else looks like this
    Train accuracy below validation through moderate augmentation is as it should be (EVA504). Wrong labels (DAT104) hurt
    plain images as well.

Remedy
    Lighten it: crop scale from 0.2 or 0.35 up, no flips where direction matters, small rotations.

Source
    Touvron et al. 2019 (apparent object size); Balestriero et al. 2022 (class-dependent harm of augmentation).
"""

from __future__ import annotations

import math

from valgap.checks.shared.progress import interval_of, numbers_of, paired_error
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable

# Share of the probe's accuracy above chance that is left under augmentation. Sound transforms keep 0.5 and more, crops of 1 to
# 4 % of the image 0.0 to 0.3 (benchmarks/results/faults.md).
LEFT, SOUND = 0.35, 0.5
Z, Z_LEFT = 2.5, 1.645
GAIN_SHARE = 0.4


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare what a probe reads from plain and from augmented training images."""
    run = case.run
    numbers = numbers_of(run)
    last = run.last_train
    if last is None:
        return NotApplicable("a training pass")
    info = run.datasets.get(last.dataset)
    if info is not None and info.transform is not None and not any(s.random for s in info.transform):
        return Clear("the training transform draws no random numbers")
    if "probe_plain" not in numbers:
        return NotApplicable("a probe on plain and on augmented training images (closing measurements)")
    plain, augmented, n = numbers["probe_plain"], numbers["probe_augmented"], int(numbers["probe_augmented_n"])
    error = paired_error(numbers, "probe_augmented_se", n)
    chance = 1 / max(2, case.num_classes or 2)
    left = (augmented - chance) / max(plain - chance, 1e-6)
    facts = (
        Evidence(
            "accuracy of a probe on augmented training images, against plain ones",
            augmented,
            plain,
            "",
            n,
            *interval_of(augmented, n),
        ),
        Evidence("share of it above chance that is left", left, "0.5 or more"),
    )
    if plain - chance < Z * error:
        return NotApplicable("features from which a probe can read anything at all")
    # What is left is a ratio of two shares: of few images it must also be below what sound transforms keep, beyond chance.
    excess = augmented - chance - SOUND * (plain - chance)
    noise = math.sqrt((augmented * (1 - augmented) + SOUND**2 * plain * (1 - plain)) / max(1, n))
    if left >= LEFT or excess > -Z_LEFT * noise or plain - augmented < Z * error:
        return Clear("augmented training images still show what their labels say", facts)
    points = GAIN_SHARE * 100 * (plain - augmented)
    return Finding(
        summary=f"a probe reads {plain:.1%} of plain training images and {augmented:.1%} of augmented ones",
        severity_points=points,
        confidence=0.75,
        evidence=(*facts, Evidence("cost (no re-run): assumed", points, 0.0, "points")),
        remedy="lighten the training transform: larger crops (scale from 0.35 up), no flips where direction matters",
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """The training transform without its random steps."""
    return Intervention("fixed_transform", {"phase": "train"})


CHECK = Check(
    code="PRE207",
    name="excessive_augmentation",
    stage="read_train",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    by_features=True,
    shows_late="what augmentation is good for in the end",
)
