"""Unreadable, truncated, blurred, tiny or oddly stored images.

What it looks for
    Files that cannot be decoded; images far blurrier, darker or smaller than the rest of the set; odd storage (palette, alpha,
    CMYK, 16 bits, EXIF rotation, an ending that lies). Odd storage counts only where a probe is wrong on it more often than
    on the rest.

Why it hurts validation
    A file that cannot be read ends the program or is silently replaced; a reader that ignores EXIF, alpha or CMYK shows the
    network another picture than the one labelled; blur and tiny size remove what tells classes apart.

What else looks like this
    When most of validation is blurred or dark, that is a shift (DAT106). Sharp against blurred by class is DAT110.

Remedy
    Drop or repair the listed files; convert all to RGB, upright, once.

Source
    torchvision issues on truncated files; Hendrycks 2019 (common corruptions).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from valgap.checks.shared.images import drop_from_train, drop_from_validation, needed, score_ranking
from valgap.types import (
    Case,
    CaseImages,
    Check,
    Clear,
    Evidence,
    Finding,
    FloatArray,
    Intervention,
    NotApplicable,
    Untreatable,
)

# Robust standard deviations from the set's median from which an image is degraded. On clothing_mini, hymenoptera_256 and
# sign_digits_mini fewer than 1 % lie beyond it.
OUTLIER = 5.0
# Pixels of the shorter side below which little is left, where the set is mostly larger by this factor.
TINY, TINY_RATIO = 32, 4.0
# Share of a split that makes degraded images more than stray ones.
SHARE = 0.02
# Level of the excess of probe errors on odd images.
Z = 3.0
MIN_ODD = 5


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Count unreadable and degraded images, and weigh them by what a probe gets wrong on them."""
    images = case.images
    if images is None:
        return NotApplicable(needed(None, ""))
    n = len(images.rows.names)
    broken = sorted(images.unreadable)
    scores = degradation(images)
    bad = np.flatnonzero(scores >= OUTLIER)
    odd, excess = harmful_oddities(images)
    facts = [
        Evidence("files that cannot be decoded", len(broken), 0, "files", n),
        Evidence("images far blurrier, darker or smaller than the rest", len(bad), 0, "images", n),
    ]
    facts += [Evidence(f"{kind} images", len(places), 0, "images", n) for kind, places in images.oddities.items()]
    if excess:
        facts.append(Evidence("probe errors on odd images above those on the rest", max(excess.values()), 0.0))
    ranking = score_ranking(images, np.where(np.isin(np.arange(n), broken), 100.0, scores), np.arange(n))
    many = len(bad) >= max(MIN_ODD, SHARE * n)
    if not broken and not many and not odd:
        return Clear("all files can be read, and hardly any is degraded", tuple(facts), ranking)
    words = [f"{len(broken)} {'file' if len(broken) == 1 else 'files'} cannot be decoded"] if broken else []
    words += [f"{len(bad)} images are far blurrier, darker or smaller than the rest"] if many else []
    words += [f"{kind} images are recognised worse than others" for kind in odd]
    chosen = sorted({*broken, *(bad.tolist() if many else []), *(i for k in odd for i in images.oddities[k].tolist())})
    return Finding(
        summary="; ".join(words),
        severity_points=points(images, np.array(chosen)),
        confidence=0.95 if broken else 0.6 if odd else 0.45,
        evidence=tuple(facts),
        remedy="drop or repair these files; convert every image to upright 8-bit RGB once, before training",
        subjects=tuple(images.rows.names[i] for i in chosen),
        ranking=ranking,
    )


def degradation(images: CaseImages) -> FloatArray:
    """(N,) the largest of an image's robust deviations towards blurred, dark, flat or tiny; nan for unreadable files."""
    numbers = images.attributes.numbers
    worst = np.full(len(images.rows.names), np.nan)
    for name in ("sharpness", "contrast"):
        worst = np.fmax(worst, low_outlier(numbers[name]))
    shorter = np.minimum(numbers["width"], numbers["height"])
    typical = float(np.nanmedian(shorter)) if np.isfinite(shorter).any() else math.nan
    tiny = (shorter < TINY) & (shorter * TINY_RATIO < typical)
    return np.where(tiny, np.fmax(worst, 2 * OUTLIER), worst)


def low_outlier(values: FloatArray) -> FloatArray:
    """(N,) robust standard deviations by which each value lies below the median; nan stays."""
    known = values[np.isfinite(values)]
    if not len(known):
        return np.full(len(values), np.nan)
    middle = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - middle)))
    return np.asarray((middle - values) / max(spread, 0.02 * abs(middle), 1e-6))


def harmful_oddities(images: CaseImages) -> tuple[list[str], Mapping[str, float]]:
    """(kinds on which a probe is wrong significantly more often, the excess of each kind that could be judged)."""
    held = images.held_out
    if held is None:
        return [], {}
    judged = (held.answers >= 0) & (images.rows.labels >= 0)
    found: dict[str, float] = {}
    harmful = []
    for kind, places in images.oddities.items():
        inside = np.isin(np.arange(len(judged)), places) & judged
        outside = ~inside & judged
        if inside.sum() < MIN_ODD or outside.sum() < MIN_ODD:
            continue
        a, b = ~held.correct[inside], ~held.correct[outside]
        found[kind] = float(a.mean() - b.mean())
        share = (a.sum() + b.sum() + 1) / (len(a) + len(b) + 2)
        if found[kind] > Z * math.sqrt(share * (1 - share) * (1 / len(a) + 1 / len(b))):
            harmful.append(kind)
    return harmful, found


def points(images: CaseImages, chosen: npt.NDArray[np.integer]) -> float:
    """Validation points that the chosen images cost: their share of val, times the excess of probe errors on them."""
    held = images.held_out
    val = images.rows.part(True)
    if held is None or not len(val):
        return 100.0 * len(chosen) / max(1, len(images.rows.names)) * 0.5
    inside = val[np.isin(val, chosen) & (held.answers[val] >= 0)]
    rest = np.setdiff1d(val, chosen)
    lost = np.isin(list(images.unreadable), val).sum() if images.unreadable else 0
    excess = float(held.correct[rest].mean() - held.correct[inside].mean()) if len(inside) and len(rest) else 0.0
    return 100.0 * (max(0.0, excess) * len(inside) + 0.5 * float(lost)) / len(val)


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """Where any of them is in train, they are not drawn; otherwise they do not count in val."""
    dropped = drop_from_train(case, finding.subjects)
    return dropped if isinstance(dropped, Intervention) else drop_from_validation(finding.subjects)


CHECK = Check(code="DAT108", name="degraded_images", stage="files", detect=detect, doc=__doc__ or "", treat=treat)
