"""Whether validation images differ from training images of the same class, and in what.

A ridge classifier is asked, held out, which side an image comes from (classifier two-sample test, Lopez-Paz and Oquab
2017). Its null is exact: the sides are permuted within each class, and the whole cross-validation is repeated on them;
ridge scores are linear in the targets, so that all permutations cost one solve.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from valgap.features.probes import folds_of, scores_at
from valgap.types import Attributes, FloatArray, ImageRows, IntArray, Shift

Array = npt.NDArray[np.float64]
PERMUTATIONS = 199
DIMENSIONS = 64
PENALTY = 0.3
DRAWS = 1999
MIN_SIDE = 20
# More images than this on one side add nothing to the test; a fixed random choice is taken.
MAX_SIDE = 4000
ATTRIBUTES = (
    "width", "height", "aspect", "bytes", "bits_per_pixel", "brightness", "contrast", "sharpness", "colourfulness",
    "jpeg_quality", "border", "grey",
)  # fmt: skip


def shift(
    embeddings: FloatArray, attributes: Attributes, rows: ImageRows, pictures: IntArray | None = None, seed: int = 0
) -> Shift | str:
    """The comparison of the two sides, or why there is none.

    Args:
        pictures: (N,) equal for images that show one picture: of each, one is taken on either side, since the permutations
            take images for independent draws; None: each shows its own.
    """
    rng = np.random.default_rng(seed)
    readable = np.flatnonzero(np.isfinite(embeddings[:, 0]))
    shown = readable if pictures is None else 2 * pictures[readable] + rows.is_val[readable]
    _, firsts, own = np.unique(shown, return_index=True, return_inverse=True)
    taken = readable[np.sort(firsts)]
    train, val = taken[~rows.is_val[taken]], taken[rows.is_val[taken]]
    if min(len(train), len(val)) < MIN_SIDE:
        return f"{MIN_SIDE} readable images on each side"
    labelled = bool((rows.labels[np.concatenate([train, val])] >= 0).all())
    part = np.sort(rng.permutation(train)[:MAX_SIDE])
    places = np.concatenate([part, val[:MAX_SIDE] if len(val) <= MAX_SIDE else np.sort(rng.permutation(val)[:MAX_SIDE])])
    side = rows.is_val[places].astype(np.float64)
    groups = rows.labels[places] if labelled else np.zeros(len(places), np.int64)
    sides = permuted_sides(side, groups, rng)
    features = reduced(within(embeddings[places].astype(np.float64), groups))
    scores = domain_scores(features, sides, seed)
    areas = areas_under_curve(scores, sides)
    foreign = np.full(len(rows.names), np.nan)
    foreign[places] = scores[:, 0]
    foreign[readable] = foreign[readable[firsts[own]]]
    table = {n: attributes.numbers[n][places] for n in ATTRIBUTES}
    areas_of, p_of = attribute_tests(table, sides, groups)
    share_p, shares = (
        class_shares(rows.labels[train], rows.labels[val], len(rows.classes), rng)
        if labelled
        else (
            float("nan"),
            np.full((2, len(rows.classes)), np.nan),
        )
    )
    return Shift(float(areas[0]), upper_p(areas), foreign[rows.is_val], areas_of, p_of, share_p, shares, labelled)


def permuted_sides(side: Array, groups: IntArray, rng: np.random.Generator) -> Array:
    """(n, 1 + R) the sides as they are, and R times permuted within each group."""
    out = np.tile(side[:, None], (1, 1 + PERMUTATIONS))
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        for column in range(1, 1 + PERMUTATIONS):
            out[places, column] = side[rng.permutation(places)]
    return out


def within(features: Array, groups: IntArray) -> Array:
    """Features (n, D) with each group's mean taken out, over both sides together."""
    out = features.copy()
    for group in np.unique(groups):
        out[groups == group] -= features[groups == group].mean(0)
    return out


def reduced(features: Array) -> Array:
    """(n, d) principal components, scaled to mean square 1 over all."""
    centred = features - features.mean(0)
    d = min(DIMENSIONS, *centred.shape)
    if len(centred) < centred.shape[1]:
        values, vectors = np.linalg.eigh(centred @ centred.T)
        out = vectors[:, -d:] * np.sqrt(np.maximum(values[-d:], 0))
    else:
        _, directions = np.linalg.eigh(centred.T @ centred)
        out = centred @ directions[:, -d:]
    # Weaker components count less, but not in proportion: a shift seldom lies in the strongest ones.
    spread = out.std(0) + 1e-9
    out = out / np.sqrt(spread)
    return np.asarray(out / max(1e-9, float(np.sqrt((out**2).mean()))))


def domain_scores(features: Array, sides: Array, seed: int) -> Array:
    """(n, 1 + R) held-out scores of every column of sides."""
    fold = folds_of(np.zeros(len(features), np.int64), seed=seed)
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    (_, scores), *_ = scores_at(design, sides, fold, [PENALTY])
    return scores


def areas_under_curve(scores: Array, sides: Array) -> Array:
    """(columns,) share of (val, train) pairs where val scores higher; ties count half."""
    ranks = np.mean(ranks_between(scores), axis=0)
    ones = sides.sum(0)
    return np.asarray(((ranks * sides).sum(0) - ones * (ones + 1) / 2) / (ones * (len(sides) - ones)))


def ranks_between(values: Array) -> tuple[Array, Array]:
    """(lowest, highest) rank from 1 of each value (n,) or (n, columns) in its column; two where it comes more than once."""
    if values.ndim == 2:
        columns = [ranks_between(column) for column in values.T]
        return np.stack([low for low, _ in columns], axis=1), np.stack([high for _, high in columns], axis=1)
    ordered = np.sort(values)
    low, high = (np.searchsorted(ordered, values, side).astype(np.float64) for side in ("left", "right"))
    return low + 1, high


def upper_p(values: Array) -> float:
    """Permutation p-value that the first is so large; the others are its null."""
    return float((1 + (values[1:] >= values[0] - 1e-12).sum()) / len(values))


def attribute_tests(table: dict[str, Array], sides: Array, groups: IntArray) -> tuple[dict[str, float], dict[str, float]]:
    """(area under the curve, two-sided permutation p) of each attribute that is known and varies; ranks within groups."""
    areas: dict[str, float] = {}
    p_values: dict[str, float] = {}
    for name, values in table.items():
        known = np.isfinite(values)
        if known.mean() < 0.9 or np.ptp(values[known]) == 0:
            continue
        kept, parts = values[known], groups[known]
        ranks = np.zeros(len(kept))
        for group in np.unique(parts):
            inside = parts == group
            ranks[inside] = np.mean(ranks_between(kept[inside]), axis=0) / (inside.sum() + 1)
        found = areas_under_curve(ranks[:, None], sides[known])
        areas[name] = float(found[0])
        p_values[name] = upper_p(np.abs(found - 0.5))
    return areas, p_values


def class_shares(train: IntArray, val: IntArray, classes: int, rng: np.random.Generator) -> tuple[float, Array]:
    """(p-value of equal class shares, shares (2, C)).

    Two statistics, since either is blind to what the other sees: chi-square for many small changes, the largest adjusted
    residual (Haberman 1973) for one class. Their null is drawn, since classes may be small; the smaller of their p-values
    is compared with the smaller of the null's, so that looking twice costs no false alarms.
    """
    counts = np.stack([np.bincount(v[v >= 0], minlength=classes) for v in (train, val)]).astype(np.float64)
    total = counts.sum(0).astype(np.int64)
    drawn = rng.multivariate_hypergeometric(total, int(counts[1].sum()), size=DRAWS, method="marginals")
    tables = np.stack([np.vstack([counts[:1], total - drawn]), np.vstack([counts[1:], drawn])], axis=1).astype(np.float64)
    statistics = share_statistics(tables)
    # (2, tables) share of the other tables, the real one among them, where the statistic is as large.
    p_values = np.stack([(len(v) + 1 - ranks_between(v)[0]) / len(v) for v in statistics]).min(0)
    return float((p_values <= p_values[0] + 1e-12).mean()), counts / counts.sum(1, keepdims=True)


def share_statistics(tables: Array) -> tuple[Array, Array]:
    """(chi-square, largest absolute adjusted residual) of tables (n, 2, C) of counts."""
    n = tables.sum((1, 2), keepdims=True)
    sides, classes = tables.sum(2, keepdims=True) / n, tables.sum(1, keepdims=True) / n
    expected = np.maximum(n * sides * classes, 1e-12)
    residuals = (tables - expected) / np.sqrt(expected)
    adjusted = residuals / np.sqrt(np.maximum((1 - sides) * (1 - classes), 1e-12))
    return (residuals**2).sum((1, 2)), np.abs(adjusted).max((1, 2))
