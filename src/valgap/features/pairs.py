"""Which images show the same picture: equal bytes, equal pixels, and near duplicates confirmed on aligned thumbnails."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from valgap.features.looking import Look
from valgap.types import FloatArray, ImagePair, ImageRows


def same_pictures(
    rows: ImageRows, looks: Sequence[Look], thumbs: npt.NDArray[np.uint8], embeddings: FloatArray | None
) -> tuple[ImagePair, ...]:
    """Every pair found, exact ones first."""
    exact = _equal(rows, [look.digest for look in looks], "same_bytes")
    known = {(p.first, p.second) for p in exact}
    pixels = [look.pixels or (look.digest, i) for i, look in enumerate(looks)]
    exact += [p for p in _equal(rows, pixels, "same_pixels") if (p.first, p.second) not in known]
    return tuple(exact)


def _equal(rows: ImageRows, keys: Sequence[Hashable], kind: str) -> list[ImagePair]:
    """Pairs of equal keys; of many equal ones, each is paired with the first of its split and the first of train."""
    groups: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    out = []
    for places in groups.values():
        firsts: dict[bool, int] = {}
        for place in places:
            own = bool(rows.is_val[place])
            partners = {firsts[s] for s in (False, own) if s in firsts}
            out += [ImagePair(p, place, kind, 1.0) for p in sorted(partners)]  # type: ignore[arg-type]
            firsts.setdefault(own, place)
    return out
