"""Which file a kept image is, told by its looks: small grey pictures of both, compared."""

from __future__ import annotations

import numpy as np

from valgap.data.images import read_middle
from valgap.errors import DataError
from valgap.types import FloatArray, IntArray, KeptInputs

# Side of the grey pictures by which images and files are compared, and the share of a file's shorter side that they show.
SIDE, SHOWN = 24, 1.0
# The best file's likeness (correlation) must be so high, and what it lacks a share of what the second best lacks (Lowe 2004).
LIKE, RATIO = 0.6, 0.7
GREY = np.array([0.299, 0.587, 0.114], np.float32)
# Of images whose looks tell their file, such a share must be the files that they are taken for.
AGREE = 0.95
FEW_CLEAR = 10  # from so many on, they must


def pictures_of(files: list[str]) -> FloatArray:
    """(M, SIDE * SIDE) of the files, flat, each of mean 0 and length 1."""
    return flat(np.stack([_picture(f) for f in files]))


def likest(kept: KeptInputs, pictures: FloatArray) -> IntArray:
    """(n,) which of the files each kept image is, by their flat pictures; -1 where its looks do not tell."""
    grey = kept.values.mean(1)
    ways = [flat(np.stack([small(g) for g in one])) @ pictures.T for one in (grey, grey[:, :, ::-1])]
    likeness = np.maximum(*ways)
    best = np.sort(likeness, axis=1)
    second = best[:, -2] if best.shape[1] > 1 else np.zeros(len(best))
    clear = (best[:, -1] >= LIKE) & (1 - best[:, -1] <= RATIO * (1 - second))
    return np.where(clear, likeness.argmax(1), -1)


def small(image: FloatArray) -> FloatArray:
    """(SIDE, SIDE) means of the parts of a (h, w) picture."""
    rows, columns = (np.linspace(0, n, SIDE + 1).astype(int)[:-1] for n in image.shape)
    summed = np.add.reduceat(np.add.reduceat(image, rows, axis=0), columns, axis=1)
    sizes = np.outer(np.diff([*rows, image.shape[0]]), np.diff([*columns, image.shape[1]]))
    return np.asarray(summed / np.maximum(sizes, 1), np.float32)


def _picture(path: str) -> FloatArray:
    """(SIDE, SIDE) grey of a file; zeros where it cannot be read."""
    try:
        return np.asarray(read_middle(path, (SIDE, SIDE), SHOWN) @ GREY, np.float32)
    except DataError:
        return np.zeros((SIDE, SIDE), np.float32)


def flat(pictures: FloatArray) -> FloatArray:
    """(n, SIDE * SIDE), each of mean 0 and length 1."""
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))
