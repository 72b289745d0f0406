"""All that one decode of an image file gives: digests, attributes, oddities, a thumbnail and the network's input."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from valgap.data.contents import is_address, read_content
from valgap.data.images import FORMAT_SUFFIXES, MAX_PIXELS, formats, to_rgb, unusual
from valgap.types import ImageRows

Pixels = npt.NDArray[np.uint8]
# Sides of the square image that the backbone is given, of its larger mirror image, and of the thumbnail for pairs.
INPUT_SIDE = 160
MIRROR_SIDE = 192
THUMB_SIDE = 48
# JPEGs are decoded at the smallest scale (of 1, 1/2, 1/4, 1/8) that keeps this many pixels a side.
DECODE_SIDE = 224
SHARPNESS_SIDE = 128
# Rows and columns at the edge whose grey values (0..255) spread less than this are of one colour.
PLAIN = 3.0
MAX_TRIMMED = 0.6
ORIENTATION, CAMERA = 0x0112, 0x0110
NUMBERS = (
    "width", "height", "aspect", "bytes", "bits_per_pixel", "brightness", "contrast", "sharpness", "colourfulness",
    "jpeg_quality", "border", "rotated", "grey",
)  # fmt: skip
WORDS = ("format", "mode", "camera")
# Sum of the luminance table of the JPEG standard, annex K: quality 50.
STANDARD_TABLE_SUM = 3692.0


# Words of Pillow's decoders where a file ends too early.
CUT_OFF = ("truncated", "broken data stream", "unexpected end", "no more data")


@dataclass
class Look:
    """One image file. ``error`` says why it cannot be decoded; the other fields then keep what is known without pixels."""

    digest: bytes  # of the file's bytes
    error: str | None = None
    pixels: bytes = b""  # digest of the decoded RGB pixels
    numbers: dict[str, float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    odd: tuple[str, ...] = ()
    thumb: Pixels | None = None  # (THUMB_SIDE, THUMB_SIDE, 3)
    image: Pixels | None = None  # (INPUT_SIDE, INPUT_SIDE, 3), for the backbone
    mirrored: Pixels | None = None  # (MIRROR_SIDE, MIRROR_SIDE, 3), for its second look


def read_bytes(path: str) -> tuple[bytes, str | None]:
    """(the file's bytes, None), or (nothing, why it cannot be read)."""
    try:
        return read_content(path), None
    except OSError as error:
        return b"", f"cannot be read: {error.strerror or error}"


def digest_of(data: bytes) -> bytes:
    """16 bytes that name the content."""
    return hashlib.blake2b(data, digest_size=16).digest()


def look_at(data: bytes) -> Look:
    """What the bytes of an image file hold. Never raises on odd or damaged files."""
    look = Look(digest_of(data))
    look.numbers["bytes"] = float(len(data))
    if not data:
        look.error = "empty file"
        return look
    try:
        with Image.open(BytesIO(data), formats=formats()) as image:
            _header(image, look)
            if image.width * image.height > MAX_PIXELS:
                look.error = f"{image.width} x {image.height} pixels, too many to read safely"
                return look
            image.draft("RGB", (DECODE_SIDE, DECODE_SIDE))
            image.load()
            rgb = to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow's plugins raise many kinds on damaged files
        look.error = (
            "truncated" if any(word in str(error).lower() for word in CUT_OFF) else f"{type(error).__name__}: {error}"[:200]
        )
        return look
    _pixels(rgb, look)
    return look


def _header(image: Image.Image, look: Look) -> None:
    width, height = image.size
    turned = image.getexif().get(ORIENTATION, 1)
    if turned in (5, 6, 7, 8):
        width, height = height, width
    size = look.numbers["bytes"]
    look.numbers |= {"width": float(width), "height": float(height), "aspect": width / height}
    look.numbers |= {"bits_per_pixel": 8 * size / (width * height), "rotated": float(turned not in (0, 1))}
    tables = getattr(image, "quantization", None)
    look.numbers["jpeg_quality"] = jpeg_quality(tables[0]) if tables and 0 in tables else math.nan
    camera = str(image.getexif().get(CAMERA, "")).strip("\x00 ")[:60]
    look.words = {"format": str(image.format), "mode": image.mode, "camera": camera}
    look.odd = tuple(_oddities(image, turned))


def _oddities(image: Image.Image, turned: int) -> list[str]:
    return [*unusual(image, turned), *(["animated"] if _frames(image) > 1 else [])]


def _frames(image: Image.Image) -> int:
    """How many pictures a file holds; 1 where only the first can be found, which is the one that is read."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # Pillow's plugins raise many kinds on damaged files
        return 1


def ending_of(rows: ImageRows, place: int) -> str | None:
    """How an image's file ends; None of one in a table that has no name of its own."""
    ending = Path(rows.names[place] if is_address(rows.paths[place]) else rows.paths[place]).suffix.lower()
    return None if not ending and is_address(rows.paths[place]) else ending


def wrongly_named(ending: str | None, format_name: str) -> bool:
    """Whether the file's ending belongs to another format than its content."""
    known = FORMAT_SUFFIXES.get(format_name)
    return known is not None and ending is not None and ending not in known


def jpeg_quality(table: object) -> float:
    """Quality 1..100 of the IJG scale whose luminance table has the same sum."""
    values = np.asarray(table, np.float64)
    scale = 100.0 * float(values.sum()) / STANDARD_TABLE_SUM
    return float(np.clip(5000.0 / scale if scale > 100 else (200.0 - scale) / 2, 1, 100))


def _pixels(rgb: Image.Image, look: Look) -> None:
    look.pixels = digest_of(rgb.tobytes() + repr(rgb.size).encode())
    box = Image.Resampling.BOX
    larger = rgb.reduce(max(1, min(rgb.size) // MIRROR_SIDE)).resize((MIRROR_SIDE, MIRROR_SIDE), Image.Resampling.BICUBIC)
    look.mirrored = np.ascontiguousarray(np.asarray(larger)[:, ::-1])
    if min(rgb.size) >= 2 * INPUT_SIDE:
        rgb = rgb.reduce(max(1, min(rgb.size) // INPUT_SIDE))
    look.image = np.asarray(rgb.resize((INPUT_SIDE, INPUT_SIDE), Image.Resampling.BICUBIC))
    look.numbers["border"], inner = inside(np.asarray(rgb.convert("L"), np.float32))
    # Copies with and without a border are to look alike in the thumbnail; hardly anything may be left of a plain picture.
    trimmed = rgb.crop(inner) if look.numbers["border"] < MAX_TRIMMED else rgb
    thumb = np.asarray(trimmed.resize((THUMB_SIDE, THUMB_SIDE), box))
    look.thumb = thumb
    grey = np.asarray(rgb.convert("L").resize((64, 64), box), np.float64)
    look.numbers["brightness"] = float(grey.mean()) / 255
    look.numbers["contrast"] = float(grey.std()) / 255
    look.numbers["colourfulness"] = colourfulness(thumb)
    look.numbers["grey"] = float(np.ptp(thumb.astype(np.int16), axis=2).max() <= 2)
    side = SHARPNESS_SIDE / max(rgb.size)
    small = rgb.convert("L").resize(
        (max(3, round(rgb.width * side)), max(3, round(rgb.height * side))), Image.Resampling.BILINEAR
    )
    look.numbers["sharpness"] = sharpness(np.asarray(small, np.float32))


def sharpness(grey: npt.NDArray[np.float32]) -> float:
    """log10 of the variance of the Laplacian of grey values 0..255 (H, W), plus one; low where blurred."""
    inner = grey[1:-1, 1:-1]
    laplacian = grey[2:, 1:-1] + grey[:-2, 1:-1] + grey[1:-1, 2:] + grey[1:-1, :-2] - 4 * inner
    return float(np.log10(1.0 + laplacian.var()))


def colourfulness(rgb: Pixels) -> float:
    """0 for grey images, above 80 for garish ones. Source: Hasler and Suesstrunk 2003, M3."""
    r, g, b = (rgb[..., i].astype(np.float64) for i in range(3))
    rg, yb = r - g, (r + g) / 2 - b
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def inside(grey: npt.NDArray[np.float32]) -> tuple[float, tuple[int, int, int, int]]:
    """(share of the picture (H, W) in plain rows and columns at its edges, box (left, top, right, bottom) of the rest).

    A wholly plain picture has no border.
    """
    height, width = grey.shape
    rows, columns = np.flatnonzero(grey.std(1) >= PLAIN), np.flatnonzero(grey.std(0) >= PLAIN)
    if not len(rows) or not len(columns):
        return 0.0, (0, 0, width, height)
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return 1.0 - (box[2] - box[0]) * (box[3] - box[1]) / (width * height), box
