"""Images as a network was given them, laid beside the same files: features of both, and what the first do to the second."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from valgap.data.images import read_middle, read_whole
from valgap.errors import DataError
from valgap.features import Measurements
from valgap.features.source import class_names
from valgap.types import FloatArray, IntArray, KeptInputs, RunRecord

if TYPE_CHECKING:
    from valgap.features.backbone import Backbone

Pixels = npt.NDArray[np.uint8]
# The side at which the sound network looks, and the share of an image's shorter side that usual validation crops show.
SIDE = 112
SHOWN = 0.9
# Least share of a side that a crop of usual augmentation shows, and how far the light goes down and up.
CROPPED, LIT = 0.55, (0.7, 1.3)
# Difference of the same image's values in two passes, over their spread, above which they change at random.
SAME = 0.05
COMMON = 8  # images that two passes must have in common to compare them
# So many images are turned to see whether they fit better so.
TURNED = 32
READERS = 2
# Shares of the middle square that validation usually shows; 0 for all of the image, squeezed into a square.
FRAMES = (0.0, 1.0, 0.95, 0.9, 0.875, 0.8)
FRAMED = 24  # images that are laid beside their files in each
QUANTILES = np.linspace(0.01, 0.99, 99)
FITS = 0.9  # correlation of their pixels from which a frame is the program's own
GREY = np.array([0.299, 0.587, 0.114], np.float32)
# Correlation, over images, of how red against blue each is: below this a model is given blue, green, red.
REVERSED = -0.5
# Of values of 0..1: the spreads and means (about the middle) by which anybody normalises; of bytes, how far off they may lie.
LEAST_STD, MOST_STD, MOST_OFF, BYTES_OFF = 0.12, 1.3, 0.65, 30.0
# (places among the kept, (sample, file), labels)
Known = tuple[list[int], list[tuple[str, str]], IntArray]


@dataclass(frozen=True)
class Colours:
    """What makes pixels of 0..255 of red, green and blue the values that a model is given, channel by channel."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]
    reverse: bool = False  # the model is given blue, green, red

    @classmethod
    def normalised(cls, mean: Sequence[float], std: Sequence[float]) -> Colours:
        """Those of a mean and spread of values of 0..1."""
        pairs = list(zip(mean, std, strict=True))
        return cls(tuple(1 / (255 * s) for _, s in pairs), tuple(-m / s for m, s in pairs))

    @property
    def plausible(self) -> bool:
        """Whether they are those of a usual normalisation of values of 0..1, or of values of 0..255 as they are."""
        scale, shift = np.array(self.scale), np.array(self.shift)
        std, mean = 1 / (255 * np.maximum(scale, 1e-9)), -shift / (255 * np.maximum(scale, 1e-9))
        unit = bool((std > LEAST_STD).all() and (std < MOST_STD).all() and (np.abs(mean - 0.5) < MOST_OFF).all())
        return unit or bool((np.abs(scale - 1) < 0.2).all() and (np.abs(shift) < BYTES_OFF).all())

    def steps_to(self, other: Colours) -> float:
        """How far the values of middle grey and of white lie apart under the two, in spreads of photographs."""
        ends = [np.array([[0.45], [1.0]]) * 255 * np.array(c.scale) + np.array(c.shift) for c in (self, other)]
        return float(np.abs(ends[0] - ends[1]).mean() / (0.25 * 255 * np.mean(other.scale)))

    @classmethod
    def standard(cls) -> Colours:
        """About what photographs have: mean 0 and spread 1."""
        return cls.normalised((0.45,) * 3, (0.25,) * 3)


@dataclass(frozen=True)
class Side:
    """The kept images of one side, n of them: labels, and features as the network saw them and as read here."""

    names: tuple[tuple[str, str], ...]  # (sample, file)
    labels: IntArray
    seen: FloatArray  # (n, D)
    sound: FloatArray  # (n, D)
    varied: FloatArray  # (n, D) as read here, then, where the seen ones change at random, cropped, mirrored and lit at random
    turned: Callable[[], FloatArray]  # (3, m, D) the first m as read here, by one, two and three quarter turns to the left
    under: Callable[[Callable[[Pixels], Pixels]], FloatArray]  # (n, D) as the network saw them, under a change of their pixels
    files_under: Callable[[Callable[[Pixels], Pixels]], FloatArray]  # (n, D) as read here, under a change of their pixels
    native: Callable[[], FloatArray]  # (n, D) as the network saw them, at the size that it did
    spread: float  # of the seen values beyond the colour map, of that of the files'
    changed: float  # spread of the same images in the last pass over that in the first; nan where not known
    random: bool  # whether they change from pass to pass; so where it is not known
    bent: float  # how far the seen values are from any scale and offset of the files', in spreads, see `_bent`
    colours: Colours  # that make the files' values those that the model was given
    frame: float | None  # of FRAMES, in which they are their files; None where they fit in none


def cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    """(n,) likeness of rows, both centred on the sound ones."""
    centre = b.mean(0)
    a, b = a - centre, b - centre
    return np.asarray((a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-9))


def kept_of(run: RunRecord, dataset: int, phase: str) -> list[KeptInputs]:
    """What was kept of a data set in one phase, the first pass first."""
    own = [k for k in run.kept if run.passes[k.pass_index].dataset == dataset and run.passes[k.pass_index].phase == phase]
    return sorted(own, key=lambda k: k.pass_index)


def with_files(run: RunRecord, kept: KeptInputs, images: Measurements) -> Known:
    """The kept images whose file and label are known."""
    place = {name: i for i, name in enumerate(images.rows.names)}
    found: list[tuple[int, tuple[str, str], int]] = []
    for i, sample in enumerate(kept.sample.tolist()):
        row = place.get(run.sample_names[sample], -1)
        if row >= 0 and images.rows.labels[row] >= 0:
            name = run.sample_names[sample]
            found.append((i, (name, images.rows.paths[row]), int(images.rows.labels[row])))
    return [f[0] for f in found], [f[1] for f in found], np.array([f[2] for f in found], np.int64)


def with_files_of_their_class(run: RunRecord, kept: KeptInputs, images: Measurements, is_val: bool) -> Known:
    """The kept images, each with a file of the class that is its target: for all of them together that is as good as its own."""
    table = run.passes[kept.pass_index].samples
    target = dict(zip(table.sample.tolist(), table.target.tolist(), strict=True))
    train = run.last_train
    indices = list(class_names(run, train)) if train is not None else []
    rows = images.rows.part(is_val)
    files = {k: rows[images.rows.labels[rows] == k].tolist() for k in range(len(indices))}
    taken = dict.fromkeys(files, 0)
    found: list[tuple[int, tuple[str, str], int]] = []
    for i, sample in enumerate(kept.sample.tolist()):
        label = indices.index(target[sample]) if target.get(sample, -1) in indices else -1
        own = files.get(label, [])
        if own:
            row = own[taken[label] % len(own)]
            taken[label] += 1
            found.append((i, (run.sample_names[sample], images.rows.paths[row]), label))
    return [f[0] for f in found], [f[1] for f in found], np.array([f[2] for f in found], np.int64)


def sides_of(kept: Sequence[KeptInputs], known: Sequence[Known], first: KeptInputs) -> tuple[Side, Side]:
    """Training and validation laid beside their files; ``first``: the first pass of training."""
    from valgap.features.backbone import Backbone

    both = list(zip(kept, known, strict=True))
    sound = [_read_all([path for _, path in n[1]], k.images.shape[2:]) for k, n in both]
    seen = [_three(k.values[n[0]]) for k, n in both]
    fits = _colours(seen[0], sound[0])
    network = Backbone(4 * sum(len(s) for s in sound))
    out = []
    for side, (values, files, (one, places)) in enumerate(zip(seen, sound, both, strict=True)):
        shown = _as_pixels(values, fits)
        features = network.plain(_sized(shown))
        own = network.plain(_sized(files))
        earlier, later = (first, one) if first is not one else _halves(one)
        changed, random = _change(earlier, later) if side == 0 else (float("nan"), True)
        varied = network.plain(_sized(_varied(files))) if side == 0 and random else own
        turned = functools.partial(_turned, network, files[:TURNED])
        under = functools.partial(_under, network, shown)
        of_files = functools.partial(_under, network, files)
        native = functools.partial(network.plain, shown)
        scale = float(np.std(shown.astype(np.float32), axis=(0, 1, 2)).mean())
        spread = scale / max(1e-6, float(np.std(files.astype(np.float32), axis=(0, 1, 2)).mean()))
        colours = _colours_given(values, files)
        frame = _frame([path for _, path in places[1]], values)
        names, labels = tuple(places[1]), places[2]
        looks = features, own, varied, turned, under, of_files, native
        out.append(Side(names, labels, *looks, spread, changed, random, _bent(values, files), colours, frame))
    return out[0], out[1]


def _halves(one: KeptInputs) -> tuple[KeptInputs, KeptInputs]:
    """What was kept in the first and in the second half of a pass, which may last several epochs."""
    half = len(one.sample) // 2
    parts = (slice(half), slice(half, None))
    first, last = (replace(one, sample=one.sample[p], images=one.images[p]) for p in parts)
    return first, last


def _frame(paths: Sequence[str], seen: FloatArray) -> float | None:
    """The frame in which the images (n, h, w, 3), as the model was given them, are their files."""
    few = slice(None, None, max(1, len(paths) // FRAMED))
    given = np.asarray(seen[few] @ GREY)
    fits = {f: _alike(given, _read_all(paths[few], seen.shape[1:3], f) @ GREY) for f in FRAMES}
    best = max(fits, key=lambda f: fits[f])
    return best if fits[best] >= FITS else None


def _alike(a: FloatArray, b: FloatArray) -> float:
    """The median correlation of the pixels of pairs of images (n, h, w)."""
    a, b = (v.reshape(len(v), -1) - v.mean((1, 2))[:, None] for v in (a, b))
    return float(np.median((a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-9)))


def _varied(files: Pixels) -> list[Pixels]:
    """The images, each cropped, mirrored and lit in a way of its own: what usual augmentation makes of them."""
    rng = np.random.default_rng(0)
    out = []
    for image in files:
        height, width = (max(1, round(n * rng.uniform(CROPPED, 1))) for n in image.shape[:2])
        top, left = rng.integers(0, image.shape[0] - height + 1), rng.integers(0, image.shape[1] - width + 1)
        part = image[top : top + height, left : left + width]
        part = part[:, ::-1] if rng.random() < 0.5 else part
        out.append(np.clip(part * rng.uniform(*LIT), 0, 255).astype(np.uint8))
    return out


def _turned(network: Backbone, files: Pixels) -> FloatArray:
    return np.stack([network.plain(_sized(np.rot90(files, k, axes=(1, 2)))) for k in (1, 2, 3)])


def _under(network: Backbone, shown: Pixels, change: Callable[[Pixels], Pixels]) -> FloatArray:
    return network.plain(_sized(change(shown)))


def _change(first: KeptInputs, last: KeptInputs) -> tuple[float, bool]:
    """(spread of the same images in the last pass over that in the first, whether they differ); (nan, True) for too few."""
    both = np.intersect1d(first.sample, last.sample)
    if len(both) < COMMON or first.images.shape[1:] != last.images.shape[1:]:
        return float("nan"), True
    values = []
    for kept in (first, last):
        place = {int(s): i for i, s in enumerate(kept.sample)}
        values.append(kept.values[[place[int(s)] for s in both]])
    spreads = [max(1e-9, float(v.std(axis=(2, 3)).mean())) for v in values]
    difference = float(np.abs(values[1] - values[0]).mean()) / max(spreads)
    return spreads[1] / spreads[0], difference > SAME


def _three(values: FloatArray) -> FloatArray:
    """(n, h, w, 3) of (n, 1 or 3, h, w)."""
    values = np.repeat(values, 3, axis=1) if values.shape[1] == 1 else values
    return np.nan_to_num(values.transpose(0, 2, 3, 1), posinf=0.0, neginf=0.0)


def _colours(seen: FloatArray, files: Pixels) -> FloatArray:
    """(2, 3): scale and offset per channel that lead from seen values to those of the files, by mean and spread."""
    pixels = files.astype(np.float32)
    scale = pixels.std((0, 1, 2)) / np.maximum(seen.std((0, 1, 2)), 1e-9)
    return np.stack([scale, pixels.mean((0, 1, 2)) - scale * seen.mean((0, 1, 2))])


def _colours_given(seen: FloatArray, files: Pixels) -> Colours:
    """The other way round: from the files' values to those that the model is given."""
    grey = bool((seen[..., 0] == seen[..., 2]).all())
    pixels = np.repeat((files @ GREY)[..., None], 3, axis=-1) if grey else files.astype(np.float32)
    reds = [np.asarray(v[..., 0] - v[..., 2]).mean((1, 2)) for v in (seen, pixels)]
    varied = min(float(r.std()) for r in reds) > 0
    reverse = varied and float(np.corrcoef(*reds)[0, 1]) < REVERSED
    pixels = pixels[..., ::-1] if reverse else pixels
    scale = seen.std((0, 1, 2)) / np.maximum(pixels.std((0, 1, 2)), 1e-9)
    shift = seen.mean((0, 1, 2)) - scale * pixels.mean((0, 1, 2))
    return Colours(tuple(scale.tolist()), tuple(shift.tolist()), reverse)


def _bent(seen: FloatArray, files: Pixels) -> float:
    """How far the seen values (n, h, w, 3) are distributed otherwise than the files' under one scale and offset a channel.

    The mean distance between their quantiles, both of mean 0 and spread 1: values that are cut off at a bound, wrapped around or
    rounded to a few levels have others.
    """
    told = [np.quantile(v.reshape(-1, 3).astype(np.float32), QUANTILES, axis=0) for v in (seen, files)]
    ours, theirs = ((q - q.mean(0)) / np.maximum(q.std(0), 1e-6) for q in told)
    return float(np.abs(ours - theirs).mean())


def _as_pixels(seen: FloatArray, fits: FloatArray) -> Pixels:
    return np.asarray(np.clip(np.round(seen * fits[0] + fits[1]), 0, 255), np.uint8)


def _read_all(paths: Sequence[str], size: Sequence[int], frame: float = SHOWN) -> Pixels:
    """(n, h, w, 3): the middle of each file, at the size of the kept images; black where a file cannot be read."""
    with ThreadPoolExecutor(READERS) as pool:
        return np.stack(list(pool.map(lambda p: _sound(p, (int(size[0]), int(size[1])), frame), paths)))


def _sound(path: str, size: tuple[int, int], frame: float) -> Pixels:
    """One image, upright, its middle square (``frame`` 0: all of it), at (h, w)."""
    try:
        if not frame:
            return read_whole(path, size, Image.Resampling.BOX)
        return read_middle(path, size, frame, Image.Resampling.BOX)
    except DataError:
        return np.zeros((*size, 3), np.uint8)


def _sized(pixels: Iterable[Pixels]) -> Pixels:
    """(n, SIDE, SIDE, 3): what the sound network looks at."""
    return np.stack(
        [np.asarray(Image.fromarray(np.ascontiguousarray(p)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for p in pixels]
    )
