"""The files in the place of the images that a program gives its network: the treatment of a side that is read wrongly."""

from __future__ import annotations

from typing import Literal

from valgap.checks.preprocessing.geometry_mismatch import SOUND, side
from valgap.reference.finished_model import expected_colours
from valgap.reference.positions import MADE_ONCE, files_by_position
from valgap.reference.seen_images import Colours, Side
from valgap.types import ImageRows, Intervention, RunRecord, Untreatable

# Height over width of validation images may differ by this factor from that of training images.
OTHER_SHAPE = 1.1


def treatment(
    run: RunRecord, rows: ImageRows, ours: Side, theirs: Side, way: Literal["validation", "both", "as trained"]
) -> Intervention | Untreatable:
    """The files in the place of the images: those of validation, or of both, prepared as training images are; or as wanted.

    Where training is read wrongly, its colours are no guide: pretrained weights know theirs, and fresh ones take any.
    """
    if run.made_once:
        return Untreatable(MADE_ONCE)
    files: dict[str, list[str]] = {}
    for one, is_val in ((run.last_train, False), (run.last_validation, True)):
        own = files_by_position(run, rows, one.dataset, is_val) if one is not None else None
        if one is None or own is None or (way == "validation" and not is_val):
            continue
        known = files.get(str(one.dataset), own)  # one data set may serve both
        files[str(one.dataset)] = [a or b for a, b in zip(known, own, strict=True)]
    if not files:
        return Untreatable("the position of each file in its data set is not known")
    colours = (expected_colours(run) or Colours.standard()) if way == "both" else ours.colours
    frames = [f for f in (ours.frame if not ours.random else None, theirs.frame) if f is not None]
    settings: dict[str, object] = {
        "phase": "validation" if way == "validation" else "both",
        "files": files,
        "reverse": colours.reverse,
        "scale": list(colours.scale),
        "shift": list(colours.shift),
    }
    if way != "both" and frames:
        settings["frame"] = frames[0]
    if way == "as trained":
        settings["vary"] = False
    size = _size_of_training(run)
    if way != "both" and size is not None:
        settings["size"] = list(size)
    return Intervention("read_soundly", settings)


def _size_of_training(run: RunRecord) -> tuple[int, int] | None:
    """(height, width) of training images, where those of validation have another shape than a larger or smaller view has."""
    passes = run.last_train, run.last_validation
    shapes = [p.inputs.shape for p in passes if p is not None and p.inputs is not None]
    if len(shapes) < 2 or any(len(s) != 3 for s in shapes):
        return None
    (_, height, width), (_, tall, wide) = shapes
    taller = (height / width) / (tall / wide)
    larger = side(shapes[1]) / side(shapes[0])
    odd = not 1 / OTHER_SHAPE < taller < OTHER_SHAPE or not SOUND[0] <= larger <= SOUND[1]
    return (height, width) if odd else None
