"""The one way to read an image: any file that Pillow opens, as 8-bit RGB, upright."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from valgap.data.contents import is_address, read_content
from valgap.data.regular import regular
from valgap.errors import DataError
from valgap.suffixes import SUFFIXES as SUFFIXES

FORMAT_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "MPO": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm"),
}
STARTS_PROGRAMS = ("EPS",)
# Pillow's own limit against decompression bombs, made an error.
MAX_PIXELS = 178_956_970
# A thumbnail is not worth more memory than this many pixels decoded.
MAX_SMALL_PIXELS = 64_000_000


def read_rgb(path: str | Path, min_side: int | None = None) -> Image.Image:
    """The image as 8-bit RGB with its EXIF rotation applied; transparency is put on white.

    Args:
        path: any image file that Pillow opens.
        min_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size (much faster, and nearly the same after a further
            reduction), as long as both sides keep this many pixels. None: always at full size.

    Raises:
        DataError: the file is no readable image, or has more pixels than `MAX_PIXELS`.
    """
    try:
        with Image.open(_openable(path), formats=formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path} has {image.width} x {image.height} pixels, too many to read safely")
            if min_side is not None:
                image.draft(None, (min_side, min_side))
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise many kinds on damaged files
        raise DataError(f"{path} is no readable image ({type(error).__name__}: {error})") from error


def _openable(path: str | Path) -> str | BytesIO:
    """What Pillow can open: the path of a regular file, the bytes behind an address."""
    return BytesIO(read_content(path)) if is_address(str(path)) else regular(str(path))


def formats() -> tuple[str, ...]:
    """All that Pillow reads, but for what it hands to another program: Ghostscript would run what is called .jpg."""
    Image.init()
    return tuple(name for name in Image.ID if name not in STARTS_PROGRAMS)


def read_middle(
    path: str | Path, size: tuple[int, int], share: float = 1.0, how: Image.Resampling = Image.Resampling.BILINEAR
) -> npt.NDArray[np.uint8]:
    """(h, w, 3): the middle square of an image, ``share`` of its shorter side, resized to ``size`` (h, w).

    Raises:
        DataError: the file is no readable image.
    """
    image = read_rgb(path, 2 * max(size))
    side = share * min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size[1], size[0]), how, box))


def read_whole(
    path: str | Path, size: tuple[int, int], how: Image.Resampling = Image.Resampling.BILINEAR
) -> npt.NDArray[np.uint8]:
    """(h, w, 3): all of an image, resized to ``size`` (h, w) whatever its own shape.

    Raises:
        DataError: the file is no readable image.
    """
    return np.asarray(read_rgb(path, 2 * max(size)).resize((size[1], size[0]), how))


def read_small(path: str | Path, side: int) -> Image.Image:
    """The image as 8-bit RGB, at most ``side`` pixels high and wide; large JPEG files are decoded at a reduced scale.

    Meant for files of which nothing is known: the size is looked at before anything is decoded.

    Raises:
        DataError: the file is no readable image of a kind in FORMAT_SUFFIXES, or has more than `MAX_SMALL_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Others can start programs (EPS) or draw with fonts; Pillow opens MPO through JPEG.
            with Image.open(_openable(path), formats=[f for f in FORMAT_SUFFIXES if f != "MPO"]) as image:
                width, height = image.size
                image.draft("RGB", (2 * side, 2 * side))
                if image.width * image.height > MAX_SMALL_PIXELS:
                    raise DataError(f"{path} has {width} x {height} pixels, too many to draw")
                image.thumbnail((side, side))
                return to_rgb(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} has too many pixels to draw") from error
    except Exception as error:
        raise DataError(f"{path} is no readable image ({type(error).__name__})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow as RGB: 16-bit scaled, not clipped; alpha and transparent palettes put on white."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_scaled(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _scaled(values: np.ndarray) -> np.ndarray:
    """Grey values (H, W) of 16 or 32 bits as uint8; 0..255 and 0..1 are recognised by their range."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0))
    full = 1.0 if top <= 1.0 and values.dtype.kind == "f" else 255.0 if top <= 255 else 65535.0
    return np.asarray(np.clip(values.astype(np.float64) * (255.0 / full), 0, 255), dtype=np.uint8)


def oddities(path: Path) -> list[str]:
    """What is unusual about a readable file, in words: mode, rotation, an extension that lies."""
    with Image.open(path, formats=formats()) as image:
        found = unusual(image, image.getexif().get(0x0112, 1))
        known = FORMAT_SUFFIXES.get(str(image.format))
        if known is not None and path.suffix.lower() not in known:
            found.append("wrongly named")
    return found


def unusual(image: Image.Image, turned: int) -> list[str]:
    """What is unusual about an open image, in words; ``turned`` is its EXIF orientation."""
    found: list[str] = []
    if image.mode == "P":
        found.append("palette")
    elif image.mode == "CMYK":
        found.append("CMYK")
    elif image.mode.startswith("I") or image.mode == "F":
        found.append("16-bit")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        found.append("alpha")
    if turned not in (0, 1):
        found.append("EXIF-rotated")
    return found
