"""Reading an image: the file decoded as colours, upright, whole, and nothing of it changed but its size.

The images that the network was given are laid beside the same files, read so. Both pass a sound network, and probes on its
features say how much of the classes is left: fitted on training images as seen or as read here, asked about validation
images as seen or as read here. Colours need not agree: one scale and offset per channel, found on the training images, is
taken out of both sides, since every normalisation is one.

Source: delta debugging by substitution (Zeller 1999) with one stage as the unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valgap.features import Measurements
from valgap.reference.positions import files_by_position
from valgap.reference.probing import MIN_IMAGES, Answers, above_chance, answers, gained, likely_above
from valgap.reference.seen_images import Colours, Side, cosines, kept_of, sides_of, with_files
from valgap.types import Compared, Evidence, ImageRows, Intervention, RunRecord, Untreatable

# Points that another crop, and light changes of training images, make between probes where reading is sound: on 120 images of
# the demo they came to 6. Beyond them reading is suspected.
LEAST_POINTS = 8.0
# Where training images change at random from pass to pass, they are held against files that are cropped, mirrored and lit at
# random as well, as usual augmentation does, and more is asked for.
RANDOM_POINTS = 15.0
TURNS = {1: "turned by a quarter to the left", 2: "upside down", 3: "turned by a quarter to the right"}
# By this factor the spread of the same images' values may go up or down from the first pass to the last, by augmentation alone.
CHANGES = 3.0
# Spreads below this share of the files' leave hardly a picture.
BLANK = 0.2
# Of the images, so many must fit their file best under one turn.
TURNED_SHARE = 0.6
SHOWN_PICTURES = 8
# Confidence in a difference that has no doubt left: the probe's network is not the program's.
SURE = 0.9


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
    of_train, of_val = (kept_of(run, p.dataset, p.phase) for p in (train, val))
    if not of_train or not of_val:
        return "images as the network was given them, with the files that they come from"
    kept = of_train[-1], of_val[-1]
    known = [with_files(run, k, images) for k in kept]
    if min(len(k[1]) for k in known) < MIN_IMAGES:
        return f"{MIN_IMAGES} images of either side whose files and labels are known"
    labels = [k[2] for k in known]
    if len(np.unique(labels[0])) < 2:
        return "training images of two classes"
    ours, theirs, colours = sides_of(kept, known, of_train[0])
    classes = len(images.rows.classes)
    told: dict[tuple[str, str], Answers] = {}
    for fitted in ("seen", "sound", "varied"):
        asked = {name: (getattr(theirs, name), labels[1]) for name in ("seen", "sound")}
        for name, said in answers(getattr(ours, fitted), labels[0], asked, classes).items():
            told[fitted, name] = said
    if not above_chance(told["sound", "sound"], labels[1]):
        return "classes that a pretrained network tells apart at this size"
    own = (_treatment(run, images.rows, colours, phase) for phase in ("validation", "both"))
    return Sides(ours, theirs, told, *own)


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
        return Compared(
            "sound",
            "validation images are read as well as their files allow",
            points,
            nats,
            confidence,
            facts,
            treatment=sides.treat_val,
        )
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
        pictures=_few(sides.val.names),
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
    )
    confidence = SURE * likely_above(points, RANDOM_POINTS if excused else LEAST_POINTS)
    if confidence < 0.5:
        return Compared(
            "sound", "training images show what their files show", points, nats, confidence, facts, treatment=sides.treat_train
        )
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
        pictures=_few(sides.train.names),
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


def _few(names: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Some of them, evenly spread."""
    return names[:: max(1, len(names) // SHOWN_PICTURES)][:SHOWN_PICTURES]


def _about(side: str, one: Side) -> tuple[Evidence, ...]:
    likeness = float(cosines(one.seen, one.sound).mean())
    others = float(cosines(one.seen, np.roll(one.sound, 1, axis=0)).mean())
    words = f"likeness of {side} images as seen to their own files, against other files"
    facts = [
        Evidence(words, likeness, others, "", len(one.names)),
        Evidence(f"spread of {side} images' values as seen over that of their files", one.spread, 1.0),
    ]
    if np.isfinite(one.changed):
        facts.append(Evidence(f"spread of the same {side} images in the last pass over that in the first", one.changed, 1.0))
    return tuple(facts)


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
    fits = np.stack([cosines(few, one.sound[: len(few)]), *(cosines(few, t) for t in turned)])
    best = fits.argmax(0)
    turn = int(np.bincount(best, minlength=4).argmax())
    share = float((best == turn).mean())
    return (turn, share) if turn and share >= TURNED_SHARE else (0, 0.0)
