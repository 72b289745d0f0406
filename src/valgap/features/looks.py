"""Which file a kept image is, told by its looks: small grey pictures of both, compared."""

from __future__ import annotations

import numpy as np

from valgap.data.images import read_middle, read_whole
from valgap.errors import DataError
from valgap.types import FloatArray, IntArray, KeptInputs

# Side of the grey pictures by which images and files are compared, and what they show of a file: the middle square, or all of it.
SIDE = 24
FRAMES = (False, True)  # whether all of it
# Training shifts its images: by so many pixels of these pictures at most.
SHIFT = 4
# The best file's likeness (correlation) must be so high, and what it lacks a share of what the second best lacks (Lowe 2004).
LIKE, RATIO = 0.6, 0.7
GREY = np.array([0.299, 0.587, 0.114], np.float32)
# Of images whose looks tell their file, such a share must be the files that they are taken for.
AGREE = 0.95
FEW_CLEAR = 10  # from so many on, they must


def pictures_of(files: list[str], whole: bool = False) -> FloatArray:
    """(M, SIDE * SIDE) of the files' middle squares, or of all of each, flat, each of mean 0 and length 1."""
    return flat(np.stack([_picture(f, whole) for f in files]))


def likest(kept: KeptInputs, pictures: FloatArray) -> IntArray:
    """(n,) which of the files each kept image is, mirrored or not, by their flat pictures; -1 where its looks do not tell."""
    return _told(np.maximum(*(way @ pictures.T for way in _both_ways(kept))))


def likest_shifted(kept: KeptInputs, pictures: FloatArray) -> IntArray:
    """The same of images that may be shifted as well. Of stripes and other textures it may tell one file for another."""
    return _told(np.maximum(*(_shifted(way, pictures) for way in _both_ways(kept))))


def _both_ways(kept: KeptInputs) -> list[FloatArray]:
    """The flat pictures (n, SIDE * SIDE) of kept images, as they are and mirrored."""
    grey = kept.values.mean(1)
    return [flat(np.stack([small(g) for g in one])) for one in (grey, grey[:, :, ::-1])]


def _told(likeness: FloatArray) -> IntArray:
    """(n,) the column that is far likelier than any other of a row (n, M); -1 where none is."""
    best = np.sort(likeness, axis=1)
    second = best[:, -2] if best.shape[1] > 1 else np.zeros(len(best))
    clear = (best[:, -1] >= LIKE) & (1 - best[:, -1] <= RATIO * (1 - second))
    return np.where(clear, likeness.argmax(1), -1)


def _shifted(images: FloatArray, pictures: FloatArray) -> FloatArray:
    """(n, M) the greatest likeness of flat pictures when one is shifted around by up to SHIFT pixels either way."""
    ours, theirs = (np.fft.rfft2(v.reshape(-1, SIDE, SIDE)) for v in (images, pictures))
    near = np.r_[0 : SHIFT + 1, -SHIFT:0]
    return np.stack([np.fft.irfft2(one * theirs.conj(), (SIDE, SIDE))[:, near][:, :, near].max((1, 2)) for one in ours])


def small(image: FloatArray) -> FloatArray:
    """(SIDE, SIDE) means of the parts of a (h, w) picture."""
    rows, columns = (np.linspace(0, n, SIDE + 1).astype(int)[:-1] for n in image.shape)
    summed = np.add.reduceat(np.add.reduceat(image, rows, axis=0), columns, axis=1)
    sizes = np.outer(np.diff([*rows, image.shape[0]]), np.diff([*columns, image.shape[1]]))
    return np.asarray(summed / np.maximum(sizes, 1), np.float32)


def _picture(path: str, whole: bool) -> FloatArray:
    """(SIDE, SIDE) grey of a file; zeros where it cannot be read."""
    try:
        return np.asarray((read_whole if whole else read_middle)(path, (SIDE, SIDE)) @ GREY, np.float32)
    except DataError:
        return np.zeros((SIDE, SIDE), np.float32)


def flat(pictures: FloatArray) -> FloatArray:
    """(n, SIDE * SIDE), each of mean 0 and length 1."""
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))
