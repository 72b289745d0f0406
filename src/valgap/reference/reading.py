"""Reading an image: the file decoded as colours, upright, whole, and nothing of it changed but its size.

The images that the network was given are laid beside the same files, read so. Both pass a sound network, and probes on its
features say how much of the classes is left: fitted on training images as seen or as read here, asked about validation
images as seen or as read here. Colours need not agree: one scale and offset per channel, found on the training images, is
taken out of both sides, since every normalisation is one.

Source: delta debugging by substitution (Zeller 1999) with one stage as the unit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from valgap.data.images import read_middle
from valgap.errors import DataError
from valgap.features import Measurements
from valgap.reference.positions import files_by_position
from valgap.reference.probing import MIN_IMAGES, Answers, above_chance, answers, gained, likely_above
from valgap.types import (
    Compared,
    Evidence,
    FloatArray,
    ImageRows,
    IntArray,
    Intervention,
    KeptInputs,
    RunRecord,
    Untreatable,
)

if TYPE_CHECKING:
    from valgap.features.backbone import Backbone

Pixels = npt.NDArray[np.uint8]
# The side at which the sound network looks, and the share of an image's shorter side that usual validation crops show.
SIDE = 112
SHOWN = 0.9
# Points that light changes of training images cost the probe of a sound training; beyond them reading is suspected.
AUGMENTATION_POINTS = 8.0
# Where training images change at random from pass to pass, they are held against files that are cropped, mirrored and lit at
# random as well, as usual augmentation does, and more is asked for.
RANDOM_POINTS = 15.0
# Least share of a side that such a crop shows, and how far the light goes down and up.
CROPPED, LIT = 0.55, (0.7, 1.3)
# Difference of the same image's values in two passes, over their spread, above which they change at random.
SAME = 0.05
COMMON = 8  # images that two passes must have in common to compare them
# Points below which a difference is of no interest.
LEAST_POINTS = 4.0
TURNS = {1: "turned by a quarter to the left", 2: "upside down", 3: "turned by a quarter to the right"}
# So many images are turned to see whether they fit better so.
TURNED = 64
# By this factor the spread of the same images' values may go up or down from the first pass to the last, by augmentation alone.
CHANGES = 3.0
# Spreads below this share of the files' leave hardly a picture.
BLANK = 0.2
# Of the images, so many must fit their file best under one turn.
TURNED_SHARE = 0.6
READERS = 2
GREY = np.array([0.299, 0.587, 0.114], np.float32)
SHOWN_PICTURES = 8
# Confidence in a difference that has no doubt left: the probe's network is not the program's.
SURE = 0.9


# Correlation, over images, of how red against blue each is: below this a model is given blue, green, red.
REVERSED = -0.5
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
    varied: FloatArray  # (n, D) as read here, then cropped, mirrored and lit at random
    turned: Callable[[], FloatArray]  # (3, m, D) the first m as read here, by one, two and three quarter turns to the left
    spread: float  # of the seen values beyond the colour map, of that of the files'
    changed: float  # spread of the same images in the last pass over that in the first; nan where not known
    random: bool  # whether they change from pass to pass; so where it is not known


@dataclass(frozen=True)
class Sides:
    """Both sides with what the four probes said of the validation images: (fitted on, asked about)."""

    train: Side
    val: Side
    told: dict[tuple[str, str], Answers]
    treat_val: Intervention | Untreatable
    treat_train: Intervention | Untreatable


def read(run: RunRecord, images: Measurements | None) -> Sides | str:
    """Both sides of a record, or what is missing."""
    if images is None:
        return "the image files of this run"
    train, val = run.last_train, run.last_validation
    if train is None or val is None:
        return "a training and a validation pass"
    kept = [_last(run, p.dataset, p.phase) for p in (train, val)]
    if kept[0] is None or kept[1] is None:
        return "images as the network was given them, with the files that they come from"
    known = [_with_files(run, k, images) for k in kept if k is not None]
    if min(len(k[1]) for k in known) < MIN_IMAGES:
        return f"{MIN_IMAGES} images of either side whose files and labels are known"
    labels = [k[2] for k in known]
    if len(np.unique(labels[0])) < 2:
        return "training images of two classes"
    first = _first(run, train.dataset, train.phase)
    sides, colours = _features(kept, known, first)
    classes = len(images.rows.classes)
    told: dict[tuple[str, str], Answers] = {}
    for fitted in ("seen", "sound", "varied"):
        asked = {name: (getattr(sides[1], name), labels[1]) for name in ("seen", "sound")}
        for name, said in answers(getattr(sides[0], fitted), labels[0], asked, classes).items():
            told[fitted, name] = said
    if not above_chance(told["sound", "sound"], labels[1]):
        return "classes that a pretrained network tells apart at this size"
    own = (_treatment(run, images.rows, colours, phase) for phase in ("validation", "both"))
    return Sides(sides[0], sides[1], told, *own)


def compare_val(sides: Sides | str) -> Compared:
    """Validation images as seen against the same files, both asked of a probe that learned from training images as seen."""
    if isinstance(sides, str):
        return Compared("unknown", "", missing=sides)
    told = sides.told
    points, nats = gained(told["seen", "seen"], told["seen", "sound"])
    facts = (
        _evidence("a probe taught by the training images as seen, asked about val read from its files", told["seen", "sound"]),
        _evidence("the same probe, asked about val as the network saw it", told["seen", "seen"]),
        *_about("val", sides.val),
    )
    confidence = SURE * likely_above(points, LEAST_POINTS)
    if confidence < 0.5:
        return Compared("sound", "validation images are read as well as their files allow", points, nats, confidence, facts)
    turn = _turn(sides.val)
    facts = (*facts, *_turn_evidence("val", sides.val, *turn))
    kind, what = _kind(sides.val, turn[0])
    return Compared(
        "at fault",
        f"validation images{what} lose {points.value:.0f} points against the same files, read as the training images are",
        points,
        nats,
        confidence,
        facts,
        "read validation images exactly as training images, without the random part; look at some of them as the network does",
        pictures=sides.val.names[:: max(1, len(sides.val.names) // SHOWN_PICTURES)][:SHOWN_PICTURES],
        kind=kind,
        treatment=sides.treat_val,
    )


def compare_train(sides: Sides | str) -> Compared:
    """Training images as seen against the same files, by what probes that learned from either know of val."""
    if isinstance(sides, str):
        return Compared("unknown", "", missing=sides)
    told = sides.told
    own = max(("seen", "seen"), ("seen", "sound"), key=lambda k: told[k].accuracy)
    where = "as seen" if own[1] == "seen" else "from its files"
    excused = sides.train.random and not _shrinks(sides.train)
    sound = told["varied" if excused else "sound", "sound"]
    points, nats = gained(told[own], sound)
    how = ", cropped, mirrored and lit at random" if excused else ""
    facts = (
        _evidence(f"a probe taught by the files of the training images{how}, asked about those of val", sound),
        _evidence(f"a probe taught by them as seen, asked about val {where}", told[own]),
        *_about("train", sides.train),
    )  # fmt: skip
    confidence = SURE * likely_above(points, RANDOM_POINTS if excused else AUGMENTATION_POINTS)
    if confidence < 0.5:
        return Compared("sound", "training images show what their files show", points, nats, confidence, facts)
    turn = _turn(sides.train)
    facts = (*facts, *_turn_evidence("train", sides.train, *turn))
    kind, what = _kind(sides.train, turn[0])
    return Compared(
        "at fault",
        f"training images{what} as the network sees them teach {points.value:.0f} points less than the same files",
        points,
        nats,
        confidence,
        facts,
        "look at some training images as the network is given them, beside their files, and at each step of their transform",
        pictures=sides.train.names[:: max(1, len(sides.train.names) // SHOWN_PICTURES)][:SHOWN_PICTURES],
        kind=kind,
        treatment=sides.treat_train,
    )


def _treatment(run: RunRecord, rows: ImageRows, colours: Colours, phase: str) -> Intervention | Untreatable:
    """The files in the place of the images: those of validation prepared as training images are, or both as the weights want.

    Where training is read wrongly, its colours are no guide: pretrained weights know theirs, and fresh ones take any.
    """
    files: dict[str, list[str]] = {}
    for one, is_val in ((run.last_train, False), (run.last_validation, True)):
        own = files_by_position(run, rows, one.dataset, is_val) if one is not None else None
        if one is None or own is None or (phase == "validation" and not is_val):
            continue
        known = files.get(str(one.dataset), own)  # one data set may serve both
        files[str(one.dataset)] = [a or b for a, b in zip(known, own, strict=True)]
    if not files:
        return Untreatable("the position of each file in its data set is not known")
    if phase == "both":
        colours = _expected(run) or Colours.standard()
    settings: dict[str, object] = {"phase": phase, "files": files, "reverse": colours.reverse}
    return Intervention("read_soundly", {**settings, "scale": list(colours.scale), "shift": list(colours.shift)})


def _expected(run: RunRecord) -> Colours | None:
    """What the published weights want; None where they say nothing, or a module around them prepares the images."""
    model = run.trained_model
    if model is None or not model.expected_whole or model.pretrained is False:
        return None
    mean, std = model.expected_mean, model.expected_std
    return Colours.normalised(mean, std) if mean is not None and std is not None and len(mean) == len(std) == 3 else None


def _evidence(name: str, said: Answers) -> Evidence:
    error = 1.96 * np.sqrt(said.accuracy * (1 - said.accuracy) / len(said.right))
    return Evidence(name, said.accuracy, None, "", len(said.right), said.accuracy - error, said.accuracy + error)


def _about(side: str, one: Side) -> tuple[Evidence, ...]:
    likeness = float(_cosines(one.seen, one.sound).mean())
    others = float(_cosines(one.seen, np.roll(one.sound, 1, axis=0)).mean())
    facts = [
        Evidence(
            f"likeness of {side} images as seen to their own files, against other files", likeness, others, "", len(one.names)
        )
    ]
    facts.append(Evidence(f"spread of {side} images' values as seen over that of their files", one.spread, 1.0))
    if np.isfinite(one.changed):
        facts.append(Evidence(f"spread of the same {side} images in the last pass over that in the first", one.changed, 1.0))
    return tuple(facts)  # fmt: skip


def _turn_evidence(side: str, one: Side, turn: int, share: float) -> tuple[Evidence, ...]:
    return (Evidence(f"{side} images that fit their file best {TURNS[turn]}", share, 0.0, "", len(one.names)),) if turn else ()


def _kind(one: Side, turn: int) -> tuple[str, str]:
    """(what is plainly wrong with the images, in words that stand after "images")."""
    if turn:
        return "turned", f", {TURNS[turn]},"
    if _shrinks(one):
        return "changed", ", which are changed from pass to pass,"
    if one.spread < BLANK:
        return "blank", ", with hardly a picture left in them,"
    return "", ""


def _shrinks(one: Side) -> bool:
    """Whether all images of a side change in one direction from pass to pass."""
    return bool(np.isfinite(one.changed) and not 1 / CHANGES < one.changed < CHANGES)


def _turn(one: Side) -> tuple[int, float]:
    """(quarter turns to the left under which most images fit their file best, share of the images); 0 where they are upright."""
    turned = one.turned()
    few = one.seen[: turned.shape[1]]
    fits = np.stack([_cosines(few, one.sound[: len(few)]), *(_cosines(few, t) for t in turned)])
    best = fits.argmax(0)
    turn = int(np.bincount(best, minlength=4).argmax())
    share = float((best == turn).mean())
    return (turn, share) if turn and share >= TURNED_SHARE else (0, 0.0)


def _cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    """(n,) likeness of rows, both centred on the sound ones."""
    centre = b.mean(0)
    a, b = a - centre, b - centre
    return np.asarray((a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-9))


# -- what is laid beside each other ---------------------------------------------------------------


def _last(run: RunRecord, dataset: int, phase: str) -> KeptInputs | None:
    own = [k for k in run.kept if run.passes[k.pass_index].dataset == dataset and run.passes[k.pass_index].phase == phase]
    return max(own, key=lambda k: k.pass_index, default=None)


def _first(run: RunRecord, dataset: int, phase: str) -> KeptInputs | None:
    own = [k for k in run.kept if run.passes[k.pass_index].dataset == dataset and run.passes[k.pass_index].phase == phase]
    return min(own, key=lambda k: k.pass_index) if len(own) > 1 else None


def _with_files(run: RunRecord, kept: KeptInputs, images: Measurements) -> Known:
    """The kept images whose file and label are known."""
    place = {name: i for i, name in enumerate(images.rows.names)}
    found: list[tuple[int, tuple[str, str], int]] = []
    for i, sample in enumerate(kept.sample.tolist()):
        row = place.get(run.sample_names[sample], -1)
        if row >= 0 and images.rows.labels[row] >= 0:
            name = run.sample_names[sample]
            found.append((i, (name, images.rows.paths[row]), int(images.rows.labels[row])))
    return [f[0] for f in found], [f[1] for f in found], np.array([f[2] for f in found], np.int64)


def _features(kept: Sequence[KeptInputs | None], known: Sequence[Known], first: KeptInputs | None) -> tuple[list[Side], Colours]:
    from valgap.features.backbone import Backbone

    both = [(k, n) for k, n in zip(kept, known, strict=True) if k is not None]
    sound = [_read_all([path for _, path in n[1]], k.images.shape[2:]) for k, n in both]
    seen = [_three(k.values[n[0]]) for k, n in both]
    fits = _colours(seen[0], sound[0])
    network = Backbone(4 * sum(len(s) for s in sound))
    out = []
    for side, (values, files, (one, places)) in enumerate(zip(seen, sound, both, strict=True)):
        shown = _as_pixels(values, fits)
        features = network.plain(_sized(shown))
        own = network.plain(_sized(files))
        varied = network.plain(_sized(_varied(files))) if side == 0 else own
        turned = functools.partial(_turned, network, files[:TURNED])
        scale = float(np.std(shown.astype(np.float32), axis=(0, 1, 2)).mean())
        spread = scale / max(1e-6, float(np.std(files.astype(np.float32), axis=(0, 1, 2)).mean()))
        changed, random = _change(first, one) if side == 0 and first is not None else (float("nan"), True)
        out.append(Side(tuple(places[1]), places[2], features, own, varied, turned, spread, changed, random))
    return out, _colours_given(seen[0], sound[0])


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


def _as_pixels(seen: FloatArray, fits: FloatArray) -> Pixels:
    return np.asarray(np.clip(np.round(seen * fits[0] + fits[1]), 0, 255), np.uint8)


def _read_all(paths: Sequence[str], size: Sequence[int]) -> Pixels:
    """(n, h, w, 3): the middle of each file, at the size of the kept images; black where a file cannot be read."""
    with ThreadPoolExecutor(READERS) as pool:
        return np.stack(list(pool.map(lambda p: _sound(p, (int(size[0]), int(size[1]))), paths)))


def _sound(path: str, size: tuple[int, int]) -> Pixels:
    """One image, upright, its middle square, at (h, w)."""
    try:
        return read_middle(path, size, SHOWN, Image.Resampling.BOX)
    except DataError:
        return np.zeros((*size, 3), np.uint8)


def _sized(pixels: Iterable[Pixels]) -> Pixels:
    """(n, SIDE, SIDE, 3): what the sound network looks at."""
    return np.stack(
        [np.asarray(Image.fromarray(np.ascontiguousarray(p)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for p in pixels]
    )
