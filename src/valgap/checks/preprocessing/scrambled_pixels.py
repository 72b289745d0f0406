"""Pixels are in the wrong places: reshaped instead of permuted, or shuffled.

What it looks for
    How alike pixels are that lie 1, 2, 3 and 4 places apart. In every real image likeness falls with distance. When an array
    of height x width x channels is reshaped (not permuted) to channels x height x width, neighbours become the
    three colours of a pixel, and pixels three places apart are more alike than neighbours. In shuffled pixels nothing is.

Why it hurts validation
    A convolutional network looks for shapes, and there are none left.

What else looks like this
    Images of pure noise (made-up data of a dry run): every batch is then as bright as the next one to within what independent
    pixels vary by, and nothing is said. Single-pixel textures. A transposed image is not scrambled.

Remedy
    Use `permute(2, 0, 1)` (torch) or `transpose(2, 0, 1)` (numpy), not `reshape` or `view`.

Source
    PyTorch forum, "reshape versus permute"; statistics of natural images: Simoncelli and Olshausen 2001.
"""

from __future__ import annotations

import numpy as np

from valgap.types import Case, Check, Clear, Evidence, Finding, InputStats, Intervention, NotApplicable

# Rise of the likeness from a shorter to a longer distance; 0 for any image whose likeness falls. Two hundredths allow
# for rounding and a fine periodic texture.
RISE = 0.02
# Likeness of neighbours in shuffled pixels is 0; real images at 32 to 300 pixels stay above a half.
SHUFFLED = 0.1
UNMEASURED_POINTS = 15.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Look at the likeness of pixels by distance in both phases."""
    found = {
        name: p.inputs
        for name, p in (("training", case.run.last_train), ("validation", case.run.last_validation))
        if p is not None and p.inputs is not None and np.isfinite(p.inputs.autocorrelation).all()
    }
    if not found:
        return NotApplicable("image batches of at least 8 x 8 pixels")
    if all(is_noise(i) for i in found.values()):
        return NotApplicable("images: what both phases saw is noise, pixel by pixel, as of made-up data")
    facts = tuple(
        Evidence(f"likeness of neighbouring pixels in {name}, less that of pixels farther apart", margin(i), "above 0")
        for name, i in found.items()
    )
    bad = [name for name, i in found.items() if scrambled(i)]
    if not bad:
        return Clear("pixels are more alike the nearer they are, as in real images", facts)
    one_phase = len(bad) == 1 and len(found) == 2
    return Finding(
        summary=f"the pixels of {' and '.join(bad)} images are scrambled",
        severity_points=UNMEASURED_POINTS,
        confidence=0.95 if one_phase else 0.8,
        evidence=(*facts, Evidence("cost (not re-scored): assumed", UNMEASURED_POINTS, 0.0, "points")),
        remedy="bring channels to the front with permute or transpose, never with reshape or view",
    )


def margin(inputs: InputStats) -> float:
    """Likeness at distance 1 minus the greatest at 2..4, the smaller of both directions."""
    table = inputs.autocorrelation
    return float((table[:, 0] - table[:, 1:].max(axis=1)).min())


def is_noise(inputs: InputStats) -> bool:
    """Whether pixels are independent of each other and of their image: shuffled photographs keep their brightness."""
    if float(np.abs(inputs.autocorrelation).max()) > SHUFFLED or len(inputs.batch_means) < 2:
        return False
    independent = inputs.std / np.sqrt(inputs.shape[-1] * inputs.shape[-2])  # of one image's mean; of a batch's, less
    return bool((inputs.batch_means.std(axis=0) < independent).all())


def scrambled(inputs: InputStats) -> bool:
    """Whether likeness rises with the distance, or neighbours are not alike at all."""
    return margin(inputs) < -RISE or float(inputs.autocorrelation[:, 0].max()) < SHUFFLED


def treat(case: Case, finding: Finding) -> Intervention:
    """The layout put right at the model's input, in both phases."""
    return Intervention("unscramble", {"phase": "both"})


CHECK = Check(code="PRE208", name="scrambled_pixels", stage="read_train", detect=detect, doc=__doc__ or "", treat=treat)
