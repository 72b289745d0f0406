"""Reading an image: the file decoded as colours, upright, whole, and nothing of it changed but its size.

The images that the network was given are laid beside the same files, read so. Both pass a sound network, and probes on its
features say how much of the classes is left: fitted on training images as seen or as read here, asked about validation
images as seen or as read here. Colours need not agree: one scale and offset per channel, found on the training images, is
taken out of both sides, since every normalisation is one.

Where the program can be run again, its own finished model has the word before any probe: it is asked about validation and
training images read from their files, in the colours and the frame of its training. What validation gains so is what its
reading costs; what training loses so, beyond what validation loses, tells that training images are read in a way of their own.

Source: delta debugging by substitution (Zeller 1999) with one stage as the unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from valgap.features import Measurements
from valgap.reference.finished_model import (
    LEAST_OWN,
    Apart,
    alike_by,
    answers_of,
    apart_by,
    knows_nothing,
    odd_side,
    used_to_another,
)
from valgap.reference.probing import MIN_IMAGES, Answers, above_chance, answers, gained, likely_above
from valgap.reference.seen_images import Side, cosines, kept_of, sides_of, with_files, with_files_of_their_class
from valgap.reference.soundly import treatment
from valgap.reference.undone import Undone, undone
from valgap.types import (
    AskAgain,
    AskedAgain,
    Compared,
    Evidence,
    Intervention,
    Measured,
    RunRecord,
    Untreatable,
)

# Points that another crop, and light changes of training images, make between probes where reading is sound: on 120 images of
# the demo they came to 6. Beyond them reading is suspected.
LEAST_POINTS = 8.0
# Where training images change at random from pass to pass, they are held against files that are cropped, mirrored and lit at
# random as well, as usual augmentation does, and more is asked for: 88 sound ones of the campaign came to 8 at most.
RANDOM_POINTS = 12.0
# Of what probes must otherwise show, where the finished model is used to another way of reading.
HALF = 0.5
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
    """Both sides with what the probes said of the validation images: (fitted on, asked about).

    ``told`` is empty where no probe tells the classes apart. ``again``: what the finished model says of the files.
    """

    train: Side
    val: Side
    told: dict[tuple[str, str], Answers]
    again: AskedAgain | None
    apart: Apart | None
    treat_val: Intervention | Untreatable
    treat_train: Intervention | Untreatable
    mixed: bool = False  # each training image is made of several files
    reached: float = 0.0  # share of validation that the program itself answers rightly


def read(run: RunRecord, images: Measurements | None, ask: AskAgain | None = None) -> Sides | str:
    """Both sides of a record, or what is missing; ``ask`` asks the finished model."""
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
    if len(known[0][1]) < MIN_IMAGES:  # what is read beyond recognition, by a loop of the program's own
        known[0] = with_files_of_their_class(run, kept[0], images, False)
    if min(len(k[1]) for k in known) < MIN_IMAGES:
        return f"{MIN_IMAGES} images of either side whose files and labels are known"
    labels = [k[2] for k in known]
    if len(np.unique(labels[0])) < 2:
        return "training images of two classes"
    ours, theirs = sides_of(kept, known, of_train[0])
    classes = len(images.rows.classes)
    told: dict[tuple[str, str], Answers] = {}
    for fitted in ("seen", "sound", "varied"):
        asked = {name: (getattr(theirs, name), labels[1]) for name in ("seen", "sound")}
        for name, said in answers(getattr(ours, fitted), labels[0], asked, classes).items():
            told[fitted, name] = said
    if not above_chance(told["sound", "sound"], labels[1]):
        told = {}
    only_val, both, as_trained = (treatment(run, images.rows, ours, theirs, w) for w in ("validation", "both", "as trained"))
    heard = ask(as_trained) if ask is not None and isinstance(as_trained, Intervention) else None
    again = heard if isinstance(heard, AskedAgain) else None
    if not told and (again is None or again.val is None):
        return "classes that a pretrained network tells apart at this size"
    odd = odd_side(run, ours, theirs)
    apart = apart_by(again, odd) if again is not None else None
    if apart is None and ours.colours.plausible != theirs.colours.plausible and knows_nothing(again, labels[1]):
        apart = Apart(odd, None, None, SURE)
    reached = val.samples.accuracy if val.samples.answered else 0.0
    return Sides(ours, theirs, told, again, apart, only_val, both, run.mixes(train), reached)


def compare_val(sides: Sides | str) -> Compared:
    """Validation images as seen against the same files, both asked of a probe that learned from training images as seen."""
    if isinstance(sides, str):
        return Compared("unknown", "", missing=sides)
    points, nats, confidence, facts = _of_val(sides)
    own = sides.again is not None and sides.again.val is not None
    same = Compared("sound", "validation images are read as well as their files allow", points, nats, confidence, facts)
    if confidence < 0.5:
        return replace(same, own=own, treatment=sides.treat_val)
    turn = _turn(sides.val)
    kind, what = _kind(sides.val, turn[0])
    told = f"validation images{what} lose {points.value:.0f} points against the same files" if points is not None else ""
    return Compared(
        "at fault",
        f"{told or 'validation images' + what + ' are read otherwise than their files'}, read as the training images are",
        points,
        nats,
        confidence,
        (*facts, *_turn_evidence("val", sides.val, *turn)),
        "read validation images exactly as training images, without the random part; look at some of them as the network does",
        pictures=_few(sides.val.names),
        kind=kind,
        own=own,
        treatment=sides.treat_val,
    )


def _of_val(sides: Sides) -> tuple[Measured | None, Measured | None, float, tuple[Evidence, ...]]:
    """(points, nats, confidence, evidence) of validation read from its files: by the finished model, else by a probe."""
    if sides.again is None or sides.again.val is None:
        before, after = sides.told["seen", "seen"], sides.told["seen", "sound"]
        points, nats = gained(before, after)
        asked, who = False, "a probe taught by the training images as seen"
        confidence = SURE * likely_above(points, LEAST_POINTS)
    else:
        before, after = answers_of(sides.again.val)
        points, nats = gained(before, after)
        asked, who = True, "the finished model"
        confidence = sides.apart.confidence if sides.apart is not None and sides.apart.side == "val" else 0.0
    facts = (
        _evidence(f"{who}, asked about val read from its files", after),
        _evidence(f"{who}, asked about val as the program reads it", before),
        *_about("val", sides.val),
    )
    if asked and confidence < 0.5 and abs(points.value) >= LEAST_OWN:
        return None, None, confidence, facts  # it is used to another way of reading, which is training's to answer for
    return points, nats, confidence, facts


def compare_train(sides: Sides | str) -> Compared:
    """Training images as seen against the same files, by what probes that learned from either know of val."""
    if isinstance(sides, str):
        return Compared("unknown", "", missing=sides)
    if sides.mixed:
        return Compared("unknown", "", missing="training images of one file each: these are mixed of several")
    if sides.apart is not None and sides.apart.side == "train":
        return _train_apart(sides, sides.apart)
    told = sides.told
    if not told:
        return Compared("unknown", "", missing="classes that a pretrained network tells apart at this size")
    done = _done_to_all(sides)
    fault = _undone(sides, done) if done is not None else None
    if fault is not None:
        return fault
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
    least = RANDOM_POINTS if excused else LEAST_POINTS
    alike = alike_by(sides.again, sides.val.labels) or (excused and _as_strong_augmentation_does(told[own], sound, sides))
    confidence = 0.0 if alike else SURE * likely_above(points, HALF * least if used_to_another(sides.again) else least)
    if confidence >= 0.5 and sides.reached >= sound.accuracy:
        # It cannot show that these images teach too little: they taught the program more than the files teach it.
        missing = "a probe that answers more of validation than the program itself"
        return Compared("unknown", "", points, nats, 0.0, facts, missing=missing, treatment=sides.treat_train)
    if confidence < 0.5:
        same = "training images show what their files show"
        found = Compared("sound", same, points, nats, confidence, facts, own=alike, treatment=sides.treat_train)
        missing = "" if alike else _undecided(points, least)
        return replace(found, verdict="unknown", summary="", missing=missing) if missing else found
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


def _undecided(points: Measured, least: float) -> str:
    """What is missing to call it sound; "" where nothing is: so many points may be lost as would be a fault twice over."""
    if points.value < HALF * least or points.high < 2 * least:
        return ""
    return f"more validation images: on these, between {points.low:.0f} and {points.high:.0f} points may be lost by reading"


def _done_to_all(sides: Sides) -> Undone | None:
    """What is done to all training images alike, and not to those of validation."""
    points, _ = gained(sides.told["seen", "seen"], sides.told["sound", "sound"])
    if points.value < LEAST_POINTS:
        return None
    train, val = sides.train, sides.val
    found = undone(train.under, train.files_under, train.labels, (val.sound, val.labels))
    same = undone(val.under, val.files_under, val.labels, (train.sound, train.labels)) if found is not None else None
    return found if same is None or found is None or same.what != found.what else None


def _undone(sides: Sides, done: Undone) -> Compared | None:
    """The fault of training images that are better known, and teach more, once something that was done to all is undone."""
    train, val = sides.train, sides.val
    classes = int(max(train.labels.max(), val.labels.max())) + 1
    before = sides.told["seen", "seen"]
    after = answers(train.under(done.undo), train.labels, {"val": (val.seen, val.labels)}, classes)["val"]
    points, nats = gained(before, after)
    if points.value <= 0 or nats.value <= 0:
        return None
    facts = (
        _evidence("a probe taught by the files of val, asked about training images as seen", done.before),
        _evidence("the same probe, asked about training images with that undone", done.after),
        _evidence("a probe taught by training images as seen, asked about val as seen", before),
        _evidence("a probe taught by training images with that undone, asked about val as seen", after),
        *_about("train", train),
    )
    told = f"training images {done.what} as the network sees them, validation images do not"
    remedy = "look at some training images as the network is given them; compare the order of axes and channels on both sides"
    return Compared(
        "at fault", told, points, nats, SURE * done.likely, facts, remedy,
        pictures=_few(train.names), kind="turned", treatment=sides.treat_train,
    )  # fmt: skip


def _as_strong_augmentation_does(seen: Answers, sound: Answers, sides: Sides) -> bool:
    """Whether images that change at random leave a probe most of what the files teach above chance, and nothing else is odd.

    Usual augmentation goes beyond crops and light: colours posterised, parts erased. So long as half is left, as
    excessive_augmentation.py asks, it may be that, where the finished model does not tell it from its files' own kind.
    """
    chance = float(np.bincount(sides.val.labels).max() / max(1, len(sides.val.labels)))
    known = sides.again is not None and sides.again.train is not None and not knows_nothing(sides.again, sides.val.labels)
    odd = _kind(sides.train, _turn(sides.train)[0])[0] or used_to_another(sides.again)
    return not known and not odd and seen.accuracy - chance >= HALF * (sound.accuracy - chance)


def _train_apart(sides: Sides, apart: Apart) -> Compared:
    """The fault of training images that are read otherwise than their files, and than validation."""
    assert sides.again is not None
    turn = _turn(sides.train)
    kind, what = _kind(sides.train, turn[0])
    facts: tuple[Evidence, ...] = ()
    if sides.again.train is not None:
        own, sound = answers_of(sides.again.train)
        facts = (
            _evidence("the finished model, asked about training images as the program reads them", own),
            _evidence("the finished model, asked about the same images read from their files", sound),
        )
    told = f"training images{what} are read otherwise than their files and validation"
    points, nats = apart.points, apart.nats
    if points is not None:
        told += f": {points.value:.0f} points lie between"
    if sides.told and knows_nothing(sides.again, sides.val.labels):
        # A model at chance loses little by any reading: what these images fail to teach is what they cost.
        own_way = max(("seen", "seen"), ("seen", "sound"), key=lambda k: sides.told[k].accuracy)
        taught = gained(sides.told[own_way], sides.told["sound", "sound"])
        if points is None or taught[0].value > points.value:
            points, nats = taught
            told = f"training images{what} as the network sees them teach {points.value:.0f} points less than the same files"
    return Compared(
        "at fault",
        told,
        points,
        nats,
        apart.confidence,
        (*facts, *_about("train", sides.train), *_turn_evidence("train", sides.train, *turn)),
        "read training images exactly as validation images but for the random part; look at some of them as the network does",
        pictures=_few(sides.train.names),
        kind=kind,
        own=True,
        treatment=sides.treat_train,
    )


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
