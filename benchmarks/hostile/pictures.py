"""Hostile image files, one by one through every reader, and in folders through the commands."""

from __future__ import annotations

import functools
import io
import os
import pickle
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from hostile.names import name
from hostile.trial import CANARY, Kind, Trial, UnsoundError, clean, clean_page, command, refused
from valgap.data.folder import load_folder
from valgap.data.images import oddities, read_middle, read_rgb, read_small, read_whole
from valgap.engine.reading import read_pixels
from valgap.features.looking import look_at
from valgap.models.preprocessing import Preprocessing
from valgap.suffixes import SUFFIXES

MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
    "I;16B",
    "I;16L",
)
SIZES = ((24, 17), (1, 1), (3, 200), (300, 2))
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><html><body onload=alert(1)><script>alert(1)</script></body></html>"
# PostScript that writes a file, where an interpreter is started for it and lets it.
EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n"
    b"(" + CANARY.encode() + b") (w) file closefile\n0 0 20 20 rectfill showpage\n%%EOF\n"
)


class Bait:
    """Pickled: writes the canary when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {CANARY}",)


@functools.cache
def encoded() -> dict[str, bytes]:
    """Every mode, size and format that Pillow writes."""
    Image.init()
    found: dict[str, bytes] = {}
    rng = np.random.default_rng(0)
    for size in SIZES:
        rgb = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8))
        for mode in MODES:
            try:
                image = rgb.convert(mode)
            except ValueError:
                image = (
                    Image.frombytes(
                        mode, size, rng.bytes(size[0] * size[1] * (2 if mode.startswith("I;16") else 4))[: size[0] * size[1] * 2]
                    )
                    if mode.startswith("I;16")
                    else None
                )  # type: ignore[assignment]
            if image is None:
                continue
            for kind in sorted(Image.SAVE):
                stream = io.BytesIO()
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        image.save(stream, kind)
                except Exception:
                    continue
                found[f"{kind} {mode} {size[0]}x{size[1]}"] = stream.getvalue()
    frames = [Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)) for _ in range(12)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"):
        if kind in Image.SAVE_ALL:
            stream = io.BytesIO()
            frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
            found[f"{kind} of 12 frames"] = stream.getvalue()
    return found


def plain(draw: random.Random) -> tuple[str, bytes]:
    what, data = draw.choice(list(encoded().items()))
    return what, data


def truncated(draw: random.Random) -> tuple[str, bytes]:
    what, data = plain(draw)
    return f"{what}, cut off", data[: draw.randrange(len(data))]


def flipped(draw: random.Random) -> tuple[str, bytes]:
    what, data = plain(draw)
    edited = bytearray(data)
    most = len(edited) if draw.random() < 0.4 else min(len(edited), 80)
    for _ in range(draw.choice((1, 2, 5, 20))):
        edited[draw.randrange(most)] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
    return f"{what}, bytes changed", bytes(edited)


def spliced(draw: random.Random) -> tuple[str, bytes]:
    (one, first), (other, second) = plain(draw), plain(draw)
    cut = draw.randrange(len(first))
    return f"{one} into {other}", first[:cut] + second[draw.randrange(len(second)) :]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixels: bytes, bits: int = 8, colour: int = 0, more: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")


def lying(draw: random.Random) -> tuple[str, bytes]:
    """A size in the header that the pixels do not have."""
    wide, high = (draw.choice((0, 1, 2, 255, 4000, 13_000, 65_535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)) for _ in "ab")
    form = draw.randrange(6)
    if form == 0:
        return f"PNG that says {wide} x {high}", png(
            wide, high, bytes(900), draw.choice((1, 2, 4, 8, 16)), draw.choice((0, 2, 3, 4, 6))
        )
    if form == 1:
        return (
            f"PPM that says {wide} x {high}",
            f"P{draw.choice('123456')} {wide} {high} {draw.choice((0, 1, 255, 65535, 99999))}\n".encode() + bytes(300),
        )
    if form == 2:
        head = struct.pack("<4sHHBBB", b"GIF8", 0x6139, wide & 0xFFFF, 0x80, 0, 0)
        return "GIF that lies", head + struct.pack("<H", high & 0xFFFF) + bytes(400)
    if form == 3:
        head = struct.pack(
            "<IiiHHIIiiII",
            40,
            wide & 0x7FFFFFFF,
            (high & 0x7FFFFFFF) * draw.choice((1, -1)),
            1,
            draw.choice((1, 8, 24, 32)),
            draw.choice((0, 1, 2, 3)),
            0,
            0,
            0,
            draw.choice((0, 256, 1 << 30)),
            0,
        )
        return f"BMP that says {wide} x {high}", b"BM" + struct.pack("<IHHI", 500, 0, 0, 54) + head + bytes(400)
    if form == 4:
        tags = [(256, 4, 1, wide & 0xFFFFFFFF), (257, 4, 1, high & 0xFFFFFFFF), (258, 3, 1, draw.choice((1, 8, 16, 32))), (259, 3, 1, draw.choice((1, 5, 7, 8, 32773))),
                (262, 3, 1, draw.randrange(9)), (273, 4, draw.choice((1, 1 << 28)), draw.choice((8, 1 << 31))), (277, 3, 1, draw.choice((1, 3, 4, 65535))), (278, 4, 1, high & 0xFFFFFFFF), (279, 4, 1, draw.choice((100, (1 << 32) - 1)))]  # fmt: skip
        body = (
            struct.pack("<H", len(tags))
            + b"".join(struct.pack("<HHII", *t) for t in tags)
            + struct.pack("<I", draw.choice((0, 8)))
        )
        return f"TIFF that says {wide} x {high}", b"II*\0" + struct.pack("<I", 8) + body + bytes(200)
    head = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, high & 0xFFFF, wide & 0xFFFF, 3) + b"\1\x22\0\2\x11\1\3\x11\1"
    return f"JPEG that says {wide & 0xFFFF} x {high & 0xFFFF}", head + b"\xff\xda" + struct.pack(
        ">HB", 12, 3
    ) + b"\1\0\2\x11\3\x11\0\x3f\0" + bytes(200) + b"\xff\xd9"


@functools.cache
def bombs() -> dict[str, bytes]:
    """Little files of very many pixels, texts or frames."""
    stream = io.BytesIO()
    frames = [Image.new("P", (900, 900), i) for i in range(40)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    tiff = io.BytesIO()
    Image.new("L", (7_000, 7_000)).save(tiff, "TIFF", compression="tiff_adobe_deflate")
    jpeg = io.BytesIO()
    Image.new("L", (9_000, 6_000)).save(jpeg, "JPEG")
    zeros = zlib.compress(bytes(80 << 20), 9)
    return {
        "PNG of 30,000 x 30,000": png(30_000, 30_000, bytes(900 << 10), 1),
        "PNG of 14,000 x 12,000, one bit": png(14_000, 12_000, bytes(1751 * 12_000), 1),
        "PNG with a compressed text of 80 MB": png(9, 9, bytes(90), more=chunk(b"zTXt", b"x\0\0" + zeros)),
        "PNG with a compressed profile of 80 MB": png(9, 9, bytes(90), more=chunk(b"iCCP", b"x\0\0" + zeros)),
        "PNG with 20,000 texts": png(9, 9, bytes(90), more=chunk(b"tEXt", b"k\0v") * 20_000),
        "GIF of 40 large frames": stream.getvalue(),
        "TIFF of 7,000 x 7,000": tiff.getvalue(),
        "JPEG of 9,000 x 6,000": jpeg.getvalue(),
    }


def foreign(draw: random.Random) -> tuple[str, bytes]:
    """What is no image at all."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../etc/x", b"x")
    every = {
        "SVG": SVG, "HTML": HTML, "EPS": EPS, "pickle": pickle.dumps(Bait()), "empty": b"", "zip": packed.getvalue(),
        "program": b"\x7fELF\2\1\1" + bytes(60), "script": f"#!/bin/sh\ntouch {CANARY}\n".encode(), "noise": draw.randbytes(500),
        "PDF": b"%PDF-1.4\n1 0 obj<</OpenAction<</S/JavaScript>>>>endobj", "JPEG's mark alone": b"\xff\xd8\xff",
        "JPEG, then HTML": encoded()["JPEG RGB 24x17"] + HTML, "HTML in a comment": encoded()["JPEG RGB 24x17"][:2] + b"\xff\xfe\0\x54" + HTML[:82] + encoded()["JPEG RGB 24x17"][2:],
        "WMF": b"\xd7\xcd\xc6\x9a\0\0" + draw.randbytes(80), "FITS": b"SIMPLE  =                    T" + b" " * 2850, "XBM": b"#define x_width 9999\n#define x_height 9999\nstatic char x[] = {0x00};",
        "MSP": b"DanM" + draw.randbytes(60), "IM": b"Image type: L 32F image\r\n" + draw.randbytes(600), "PALM": b"\x8a\x01" + draw.randbytes(80),
    }  # fmt: skip
    return draw.choice(list(every.items()))


def exif(draw: random.Random) -> tuple[str, bytes]:
    """An image with odd metadata."""
    tags = Image.Exif()
    tags[0x0112] = draw.choice((0, 1, 3, 6, 8, 9, 65_535))
    tags[0x0110] = draw.choice(("camera", "\x1b[31mred\x07", "<script>alert(1)</script>", "x" * 60_000, "\u202egpj"))
    raw = bytearray(tags.tobytes())
    for _ in range(draw.choice((0, 0, 1, 3, 9))):
        raw[draw.randrange(6, len(raw))] = draw.randrange(256)
    stream = io.BytesIO()
    kind = draw.choice(("JPEG", "PNG", "WEBP", "TIFF"))
    try:
        Image.new("RGB", (30, 20), (9, 99, 9)).save(stream, kind, exif=bytes(raw) if kind != "TIFF" else tags)
    except Exception:
        return "EXIF that Pillow does not write", encoded()["JPEG RGB 24x17"][:2] + b"\xff\xe1" + struct.pack(
            ">H", (len(raw) + 2) & 0xFFFF
        ) + bytes(raw) + encoded()["JPEG RGB 24x17"][2:]
    return f"{kind} with odd EXIF", stream.getvalue()


def nested(draw: random.Random) -> tuple[str, bytes]:
    """A TIFF or ICO whose directories point at each other, or anywhere."""
    what, data = draw.choice(
        [
            (k, v)
            for k, v in encoded().items()
            if k.split()[0]
            in (
                "TIFF",
                "ICO",
                "ICNS",
                "GIF",
                "MPO",
                "WEBP",
                "AVIF",
                "JPEG2000",
                "DDS",
                "TGA",
                "PCX",
                "SGI",
                "SPIDER",
                "IM",
                "MSP",
            )
        ]
    )
    edited = bytearray(data)
    for _ in range(draw.choice((1, 2, 4))):
        place = draw.randrange(max(1, len(edited) - 4))
        edited[place : place + 4] = struct.pack(
            draw.choice("<>") + "I", draw.choice((0, 1, 4, 8, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFF, draw.randrange(len(edited) + 1)))
        )
    return f"{what}, a word changed", bytes(edited)


MUTATORS: tuple[tuple[Callable[[random.Random], tuple[str, bytes]], int], ...] = (
    (plain, 25), (truncated, 20), (flipped, 25), (spliced, 4), (lying, 12), (foreign, 10), (exif, 8), (nested, 14),
)  # fmt: skip


def hostile(draw: random.Random) -> tuple[str, bytes]:
    """(how it was made, bytes) of one image file."""
    if draw.random() < 0.004:
        return draw.choice(list(bombs().items()))
    return draw.choices([m for m, _ in MUTATORS], [w for _, w in MUTATORS])[0](draw)


READERS: dict[str, Callable[[Path], object]] = {
    "read_rgb": read_rgb,
    "read_rgb at a reduced scale": lambda p: read_rgb(p, 64),
    "read_small": lambda p: read_small(p, 96),
    "read_middle": lambda p: read_middle(p, (32, 32)),
    "read_whole": lambda p: read_whole(p, (32, 32)),
    "read_pixels": lambda p: read_pixels(p, Preprocessing(32, 0.875, "bicubic", (0.5,) * 3, (0.2,) * 3)),
}


def one(draw: random.Random, folder: Path) -> Trial:
    """An image file through all readers of image files."""
    what, data = hostile(draw)
    path = folder / f"{name(draw)}{draw.choice(SUFFIXES)}"
    path.write_bytes(data)

    def act() -> str:
        came = {}
        for reader, read in READERS.items():
            came[reader] = refused(lambda read=read: read(path))
        look = look_at(data)
        if look.error is not None:
            text = look.error
        if came["read_rgb"] == "read":
            oddities(path)
            if look.error is not None:
                raise UnsoundError(f"read_rgb reads it, look_at says {text}")
        return came["read_rgb"]

    return Trial(what, act, len(READERS) + 1)


def many(draw: random.Random, folder: Path) -> Trial:
    """A folder of hostile images through `valgap check`, its files of results, and the reader of `valgap train`."""
    data = folder / "data"
    classes = [name(draw) for _ in range(2)] + ["plain"]
    whats = set()
    for split in ("train", "val"):
        for label in classes:
            place = data / split / label
            place.mkdir(parents=True, exist_ok=True)
            for number in range(7):
                what, content = hostile(draw) if number > 2 else ("sound", noise(draw))
                file = place / f"{number}{name(draw)[:60]}{draw.choice(SUFFIXES)}"
                whats.add(what)
                try:
                    file.write_bytes(content)
                except OSError:  # too long a name
                    (place / f"{number}.jpg").write_bytes(content)
    out = folder / "out"
    out.mkdir()
    form = draw.choice(
        (["--details"], ["--json"], [], ["--html", out / "page.html"], ["--junit", out / "j.xml"], ["--sarif", out / "s.json"])
    )

    def act() -> str:
        came = command("check", data, "--lists", out / "lists", *form)
        if (out / "page.html").exists():
            clean_page(out / "page.html")
        if (out / "j.xml").exists():
            from xml.etree import ElementTree

            ElementTree.fromstring((out / "j.xml").read_text())
            clean((out / "j.xml").read_text(), "JUnit's XML")
        if (out / "s.json").exists():
            clean((out / "s.json").read_text(), "SARIF")
        return came

    return Trial(f"check {' '.join(map(str, form[:1]))}", act)


def trained(draw: random.Random, folder: Path) -> Trial:
    """The folder reader of `valgap train`, and the lines that it shows."""
    from rich.console import Console

    from valgap.training.screen import say

    data = folder / "data"
    for label in (name(draw), "b", "c"):
        (data / label).mkdir(parents=True, exist_ok=True)
        for number in range(8):
            content = hostile(draw)[1] if number > 3 else noise(draw)
            (data / label / f"{number}{name(draw)[:50]}.png").write_bytes(content)

    def act() -> str:
        def read() -> None:
            stream = io.StringIO()
            for line in load_folder(data).report.lines():
                say(line, Console(file=stream, width=100))
            clean(stream.getvalue(), "the screen of valgap train")

        return refused(read)

    return Trial("folder of valgap train", act)


def noise(draw: random.Random) -> bytes:
    """A sound picture."""
    stream = io.BytesIO()
    Image.fromarray(np.frombuffer(draw.randbytes(192), np.uint8).reshape(8, 8, 3)).resize((40, 40)).save(stream, "PNG")
    return stream.getvalue()


KINDS = (
    Kind("image", "image files, each through every reader of images", 4000, one),
    Kind("image folder", "folders of 24 hostile and 18 sound images through `valgap check`", 12, many, 42),
    Kind("training folder", "folders of 12 hostile images through the reader of `valgap train`", 40, trained, 12),
)
