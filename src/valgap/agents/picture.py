"""Small pictures for an agent: a run's curves, or the images that a finding names; base64 and text together below 8 kB."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from valgap.agents.roots import Roots
from valgap.data.images import read_small
from valgap.errors import DataError, ValgapError
from valgap.types import RunRecord

MAX_PICTURE_BYTES = 4_800  # as base64 6,400: the rest is for the words
MAX_FILE_BYTES = 256 << 20
ROWS, COLUMNS = 2, 4
WIDTH, HEIGHT, EDGE = 420, 130, 24
TRAIN, VAL, PALE = (31, 119, 180), (214, 39, 40), (220, 220, 220)


def curves(run: RunRecord) -> tuple[bytes, list[str]]:
    """(PNG: accuracy above, loss below, over epochs; train blue, validation red; the same as lines of text).

    Raises:
        ValgapError: the record holds no pass.
    """
    passes = {phase: [p for p in run.of_phase(phase) if len(p.samples)] for phase in ("train", "validation")}
    if not any(passes.values()):
        raise ValgapError(f"{run.path} holds no pass of a model over data: there is no curve to draw")
    image = Image.new("RGB", (WIDTH, 2 * HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    lines = []
    for row, name in enumerate(("accuracy", "loss")):
        series = {
            phase: [(float(p.epoch), p.samples.accuracy if name == "accuracy" else p.samples.mean_loss) for p in those]
            for phase, those in passes.items()
        }
        _panel(draw, row * HEIGHT, name, series["train"], series["validation"])
        for phase, points in series.items():
            shown = points if len(points) <= 12 else [*points[:4], *points[-8:]]
            lines.append(f"{phase} {name}: " + ", ".join(f"{y:.4g}" for _, y in shown))
    return _smallest(image, lambda im, _: _as_png(im), (0,)), lines


def _panel(
    draw: ImageDraw.ImageDraw,
    top: int,
    name: str,
    train: Sequence[tuple[float, float]],
    val: Sequence[tuple[float, float]],
) -> None:
    known = [(x, y) for x, y in (*train, *val) if math.isfinite(y)]
    draw.rectangle((EDGE, top + EDGE, WIDTH - EDGE, top + HEIGHT - EDGE), outline=PALE)
    if not known:
        draw.text((EDGE, top + 6), f"{name}: not known", fill="black")
        return
    x_low, x_high = min(x for x, _ in known), max(x for x, _ in known)
    y_low, y_high = min(y for _, y in known), max(y for _, y in known)

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - x_low) / (x_high - x_low or 1.0)
        up = (y - y_low) / (y_high - y_low or 1.0)
        return EDGE + right * (WIDTH - 2 * EDGE), top + HEIGHT - EDGE - up * (HEIGHT - 2 * EDGE)

    for points, colour in ((train, TRAIN), (val, VAL)):
        drawn = [place(x, y) for x, y in points if math.isfinite(y)]
        if len(drawn) > 1:
            draw.line(drawn, fill=colour, width=2)
        for x, y in drawn[:40]:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
    draw.text((EDGE, top + 6), f"{name} {y_low:.3g} .. {y_high:.3g}", fill="black")
    draw.text((WIDTH - 150, top + 6), "train", fill=TRAIN)
    draw.text((WIDTH - 100, top + 6), "validation", fill=VAL)


def sheet(names: Sequence[str], folder: Path, roots: Roots) -> tuple[bytes, list[str]]:
    """(JPEG: the first eight of these images that can be shown, row after row; what each is, or why it is not there).

    Raises:
        ValgapError: none of them can be shown.
    """
    shown: list[Image.Image] = []
    lines = []
    for name in names[: 3 * ROWS * COLUMNS]:
        if len(shown) == ROWS * COLUMNS:
            break
        try:
            path = roots.inside(folder / name, "image")
            if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
                raise DataError(f"{name} is not there, or too large to draw")
            shown.append(read_small(path, 96))
            lines.append(f"row {(len(shown) - 1) // COLUMNS + 1}, column {(len(shown) - 1) % COLUMNS + 1}: {name}")
        except (ValgapError, OSError) as reason:
            lines.append(f"left out: {reason}")
    if not shown:
        raise ValgapError(f"none of these images can be shown ({lines[0] if lines else 'the finding names no image'})")
    rows = -(-len(shown) // COLUMNS)
    image = Image.new("RGB", (COLUMNS * 100, rows * 100), "white")
    for i, one in enumerate(shown):
        image.paste(one, (i % COLUMNS * 100 + 2, i // COLUMNS * 100 + 2))
    return _smallest(image, _as_jpeg, (70, 50, 35, 20)), lines


def _smallest(image: Image.Image, write: Callable[[Image.Image, int], bytes], qualities: Sequence[int]) -> bytes:
    """The best that fits: less quality first, then fewer pixels."""
    while True:
        for quality in qualities:
            data = write(image, quality)
            if len(data) <= MAX_PICTURE_BYTES:
                return data
        image = image.resize((max(1, image.width * 4 // 5), max(1, image.height * 4 // 5)))


def _as_png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.quantize(8, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _as_jpeg(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, optimize=True)
    return stream.getvalue()
