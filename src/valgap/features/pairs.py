"""Which images show the same picture: equal bytes, equal pixels, and near duplicates confirmed on aligned thumbnails."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from valgap.features.alignment import Aligner
from valgap.features.looking import Look
from valgap.types import FloatArray, ImagePair, ImageRows, IntArray

Values = npt.NDArray[np.float32]
NEIGHBOURS = 6
# Dimensions that neighbours are looked up in; distances are then taken in all of them.
SEARCH_DIMENSIONS = 96
BLOCK = 1024
# Rows times all rows that are compared at once, at most.
BLOCK_CELLS = 1024 * 20_000
# A pair is worth aligning above this similarity of features (cosine around the mean) ...
FEATURE_FLOOR = 0.3
# ... and on the grid of views.
COARSE_FLOOR = 0.6
ALIGN_BLOCK = 256
# What makes a pair one picture. Planted copies of clothing_mini (benchmarks/leaks.py): the weakest are crops and turns with
# (features, detail) such as (.73, .75), (.87, .62), (.46, .93). Different photographs of alike clothes on one background, the
# hardest null at hand, come up to (.66, .76), (.72, .63), (.89, .41); on hymenoptera_256 detail stays below .34.
PICTURE, DETAIL = 0.9, 0.55
TOGETHER, SURE_DETAIL, SURE_FEATURE = 1.45, 0.8, 0.85
SOME_FEATURE = 0.4
# Images of one thing in one pose (solar cells, hands on a table) share fine detail without being copies. The null is the data
# set itself: where one in a hundred random pairs is this much alike, only exact copies can be told. Measured: .13
# hymenoptera_256, .26 clothing_mini, .64 sign_digits_mini, .90 solar cells (elpv-dataset).
ALIKE_DETAIL, ALIKE_QUANTILE, ALIKE_PAIRS = 0.45, 0.99, 400
# A set of few photographs in many copies has so many alike pairs as well. It is told from one whose images are alike by nature by
# three things: pairs of different classes are not alike; most images have a copy; and no photograph's copies are much of a class.
LEAST_APART, MOST_HAVE, OF_A_CLASS = 100, 0.5, 0.2
ALIKE = "images at random already look like near copies of each other here: only exact copies are told"


def drawn_pairs(among: IntArray) -> tuple[IntArray, IntArray]:
    """Pairs of different places, drawn at random and always the same."""
    draw = np.random.default_rng(0)
    first, second = (draw.choice(among, ALIKE_PAIRS) for _ in range(2))
    other = first != second
    return first[other], second[other]


def classes_differ(thumbs: npt.NDArray[np.uint8], labels: IntArray, among: IntArray) -> bool:
    """Whether pairs of different classes, drawn at random, do not look alike; so many are needed."""
    first, second = drawn_pairs(among)
    apart = (labels[first] != labels[second]) & (labels[first] >= 0) & (labels[second] >= 0)
    return bool(apart.sum() >= LEAST_APART) and not all_alike(thumbs, first[apart], second[apart])


def full_of_copies(near: Sequence[ImagePair], labels: IntArray, among: IntArray) -> bool:
    """Whether these pairs of one class, of which random ones look alike, are copies of few photographs all the same."""
    picture = pictures_of(near, len(labels))[among]
    copies = np.bincount(picture)[picture]
    known = labels[among] - labels[among].min()  # -1: of no class
    of_class = np.bincount(known)[known]
    return bool((copies > 1).mean() >= MOST_HAVE and (copies <= np.maximum(2, OF_A_CLASS * of_class)).all())


def pictures_of(pairs: Iterable[ImagePair], n: int) -> IntArray:
    """(n,) a number for each image, the same for images that show one picture."""
    ends = np.array([(p.first, p.second) for p in pairs], np.int64).reshape(-1, 2)
    edges = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (n, n))
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)


def all_alike(thumbs: npt.NDArray[np.uint8], first: IntArray, second: IntArray) -> bool:
    """Whether pairs drawn at random already look like near copies."""
    aligner = Aligner(thumbs)
    _, maps, flip = aligner.coarse(first, second)
    _, detail = aligner.refined(first, second, maps, flip)
    return bool(np.quantile(detail, ALIKE_QUANTILE) >= ALIKE_DETAIL)


def same_pictures(
    rows: ImageRows,
    looks: Sequence[Look],
    thumbs: npt.NDArray[np.uint8],
    embeddings: FloatArray | None,
    tell: Callable[[str], None] = lambda why: None,
) -> tuple[ImagePair, ...]:
    """Every pair found, exact ones first; ``tell`` is told why near copies were not looked for, where they were not."""
    exact = _equal(rows, [look.digest for look in looks], "same_bytes")
    known = {(p.first, p.second) for p in exact}
    pixels = [look.pixels or (look.digest, i) for i, look in enumerate(looks)]
    exact += [p for p in _equal(rows, pixels, "same_pixels") if (p.first, p.second) not in known]
    if embeddings is None:
        return tuple(exact)
    known |= {(p.first, p.second) for p in exact}
    # Of equal images only the first is compared with others; the copies would only repeat its pairs.
    copies = {p.second for p in exact if rows.is_val[p.first] == rows.is_val[p.second]}
    alone = np.array([i for i in np.flatnonzero(np.isfinite(embeddings[:, 0])) if i not in copies], np.int64)
    alike = len(alone) >= 3 and all_alike(thumbs, *drawn_pairs(alone))
    near: list[ImagePair] | None = None
    if not alike or classes_differ(thumbs, rows.labels, alone):
        near = near_pairs(thumbs, embeddings, alone)
    if near is None or (alike and not full_of_copies(near, rows.labels, alone)):
        tell(ALIKE)
        return tuple(exact)
    return (*exact, *(p for p in near if (p.first, p.second) not in known))


def near_pairs(thumbs: npt.NDArray[np.uint8], embeddings: FloatArray, among: IntArray) -> list[ImagePair]:
    """Near duplicates among these places."""
    found = []
    for first, second, feature, picture, detail in candidates(thumbs, embeddings, among):
        for place in np.flatnonzero(same(feature, picture, detail)):
            a, b = sorted((int(first[place]), int(second[place])))
            found.append(ImagePair(a, b, "near", float(picture[place])))
    return sorted(found, key=lambda p: (-p.similarity, p.first, p.second))


def same(feature: Values, picture: Values, detail: Values) -> npt.NDArray[np.bool_]:
    """Whether pairs show one picture, by their similarities of features, of aligned pictures and of fine detail, (n,) each."""
    clear = (feature + detail >= TOGETHER) | (detail >= SURE_DETAIL) | (feature >= SURE_FEATURE)
    return np.asarray((picture >= PICTURE) & (detail >= DETAIL) & (feature >= SOME_FEATURE) & clear)


def candidates(
    thumbs: npt.NDArray[np.uint8], embeddings: FloatArray, among: IntArray
) -> Iterator[tuple[IntArray, IntArray, Values, Values, Values]]:
    """(first, second, similarity of features, of aligned pictures, of their detail) of pairs worth a look, in blocks."""
    if len(among) < 2:
        return
    first, second, feature = neighbours(embeddings[among])
    aligner = Aligner(thumbs)
    for start in range(0, len(first), ALIGN_BLOCK):
        a, b = among[first[start : start + ALIGN_BLOCK]], among[second[start : start + ALIGN_BLOCK]]
        rough, maps, flip = aligner.coarse(a, b)
        keep = rough >= COARSE_FLOOR
        a, b, maps, flip = a[keep], b[keep], maps[keep], flip[keep]
        if len(a):
            yield a, b, feature[start : start + ALIGN_BLOCK][keep], *aligner.refined(a, b, maps, flip)


def neighbours(features: FloatArray) -> tuple[IntArray, IntArray, npt.NDArray[np.float32]]:
    """(first, second, cosine around the mean) of each place's nearest others above FEATURE_FLOOR, each pair once."""
    centred = unit_rows(np.asarray(features - features.mean(0), np.float32))
    small = _projected(centred)
    k = min(NEIGHBOURS, len(features) - 1)
    near = nearest_exact(small, k)
    own = np.repeat(np.arange(len(small)), k)
    distinct = np.unique(np.stack([np.minimum(own, near.ravel()), np.maximum(own, near.ravel())], axis=1), axis=0)
    cosine = np.concatenate(
        [(centred[p[:, 0]] * centred[p[:, 1]]).sum(1) for p in np.array_split(distinct, max(1, len(distinct) // 4096))]
    )
    keep = cosine >= FEATURE_FLOOR
    return distinct[keep, 0], distinct[keep, 1], np.asarray(cosine[keep], np.float32)


def nearest_exact(small: Values, k: int, progress: Callable[[int, int], None] = lambda done, total: None) -> IntArray:
    """(n, k) places of each row's nearest others, of rows of length 1: every row is compared with every other."""
    near = np.empty((len(small), k), np.int64)
    block = max(1, min(BLOCK, BLOCK_CELLS // len(small)))
    for start in range(0, len(small), block):
        part = small[start : start + block] @ small.T
        part[np.arange(len(part)), start + np.arange(len(part))] = -np.inf
        near[start : start + len(part)] = np.argpartition(-part, k - 1, axis=1)[:, :k]
        progress(start + len(part), len(small))
    return near


def unit_rows(rows: npt.NDArray[np.float32]) -> Values:
    """Rows of length 1."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), np.float32)


def _projected(centred: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, d) rows of length 1 in the principal directions of at most 4,000 rows."""
    sample = centred[:: max(1, len(centred) // 4000)]
    return unit_rows(centred @ principal_directions(sample, min(SEARCH_DIMENSIONS, *centred.shape)))


def principal_directions(sample: npt.NDArray[np.float32], d: int) -> npt.NDArray[np.float32]:
    """(D, d) the directions in which the rows (n, D) spread most."""
    rows, columns = sample.shape
    if rows < columns:  # the smaller of the two matrices that have these directions
        _, own = eigh(sample @ sample.T, subset_by_index=[rows - d, rows - 1])
        directions = sample.T @ own
        return np.asarray(directions / np.maximum(np.linalg.norm(directions, axis=0), 1e-12), np.float32)
    _, directions = eigh(sample.T @ sample, subset_by_index=[columns - d, columns - 1])
    return np.asarray(directions, np.float32)


def _equal(rows: ImageRows, keys: Sequence[Hashable], kind: str) -> list[ImagePair]:
    """Pairs of equal keys of all images."""
    return equal_places(rows, range(len(keys)), keys, kind)


def equal_places(rows: ImageRows, places: Sequence[int], keys: Sequence[Hashable], kind: str) -> list[ImagePair]:
    """Pairs of equal keys (n) at places (n); of many equal ones, each is paired with the first of its split and of train."""
    groups: dict[Hashable, list[int]] = {}
    for place, key in zip(places, keys, strict=True):
        groups.setdefault(key, []).append(place)
    out = []
    for members in groups.values():
        firsts: dict[bool, int] = {}
        for place in members:
            own = bool(rows.is_val[place])
            partners = {firsts[s] for s in (False, own) if s in firsts}
            out += [ImagePair(p, place, kind, 1.0) for p in sorted(partners)]  # type: ignore[arg-type]
            firsts.setdefault(own, place)
    return out
