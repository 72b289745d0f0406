"""Decoded photographs, kept: what was decoded of a file once is copied in later epochs, and in arms that are forked later.

A JPEG file of so many bytes, last changed then, gives the same pixels every time that it is decoded in the same way. So the
pixels are kept under the file's identity (device, number, size, times) and all that Pillow would tell its decoder. Everything
else is done as ever: the file is opened, its header read, and what the program gets is a copy of its own.

An arm tells which files it has decoded; the program that waits to be forked decodes them as well, while it waits, and arms that
are forked from it later share its memory until they write to it, which nobody does.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Of decoded pixels in one process: some 450 photographs of 400 x 533, or 6,000 of 128 x 128.
MOST_BYTES = 384 << 20
BYTES_A_PIXEL = 4  # as Pillow holds a colour image
LIST = "decoded."  # how the lists of files that arms have decoded begin
CODEC = "jpeg"


class _Copying:
    """What stands in the place of a decoder: it gives the kept pixels."""

    pulls_fd = False

    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels

    def setimage(self, image: Any, extents: tuple[int, int, int, int] | None = None) -> None:
        """Put them into the image."""
        image.paste(self.pixels, (0, 0, *self.pixels.size))

    def decode(self, data: bytes) -> tuple[int, int]:
        """(no byte is wanted, no error)."""
        return -1, 0

    def cleanup(self) -> None:
        """Nothing is left open."""


class DecodedFiles:
    """What was decoded in this process and the one that it was forked from.

    Args:
        folder: where arms tell each other which files they have decoded; None: nowhere.
    """

    def __init__(self, folder: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        self.folder, self.room = folder, most_bytes
        self.copied = 0  # how often pixels were copied in the place of decoding
        self._kept: dict[Any, Any] = {}
        self._names: list[str] = []  # of files that this process decoded itself
        self._told = 0
        self._heard: dict[Path, int] = {}  # lists of arms, and when each was written as it was gone through
        self._now = threading.local()
        self._undo: list[Callable[[], None]] = []

    def attach(self) -> None:
        """Keep what Pillow decodes from now on, where the program has it."""
        image: Any = sys.modules.get("PIL.Image")
        if self._undo or image is None:
            return
        file: Any = importlib.import_module("PIL.ImageFile")  # which Pillow imports with the first file that it opens
        load, decoder = file.ImageFile.load, image._getdecoder

        def load_kept(picture: Any) -> Any:
            key = self._key(picture, file)
            if key is None:
                return load(picture)
            name = picture.filename or getattr(picture.fp, "name", "")  # it may have been given an open file
            self._now.pixels = self._kept.get(key)
            try:
                loaded = load(picture)
            finally:
                known, self._now.pixels = self._now.pixels, None
            if known is None:
                self._keep(key, picture, name)
            else:
                self.copied += 1
            return loaded

        def decoder_or_copy(mode: str, name: str, *args: Any, **kwargs: Any) -> Any:
            pixels = getattr(self._now, "pixels", None)
            return _Copying(pixels) if pixels is not None and name == CODEC else decoder(mode, name, *args, **kwargs)

        file.ImageFile.load, image._getdecoder = load_kept, decoder_or_copy
        self._undo = [lambda: setattr(file.ImageFile, "load", load), lambda: setattr(image, "_getdecoder", decoder)]

    def detach(self) -> None:
        """Pillow as it was."""
        while self._undo:
            self._undo.pop()()

    def _key(self, picture: Any, file: Any) -> Any:
        """What the pixels depend on; None for what is not a JPEG file that waits to be decoded."""
        tiles = picture.tile
        if len(tiles) != 1 or tiles[0][0] != CODEC or not isinstance(getattr(picture, "filename", None), (str, bytes, Path)):
            return None
        try:
            stat = os.fstat(picture.fp.fileno())
        except (AttributeError, OSError, ValueError):
            return None
        known = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
        how = picture.mode, picture.size, repr(tiles[0]), repr(picture.decoderconfig), bool(file.LOAD_TRUNCATED_IMAGES)
        return known, how

    def _keep(self, key: Any, picture: Any, name: Any) -> None:
        size = BYTES_A_PIXEL * picture.size[0] * picture.size[1]
        if size > self.room or key in self._kept:
            return
        self.room -= size
        self._kept[key] = picture.im.copy()
        if isinstance(name, (str, bytes, Path)) and name:
            self._names.append(os.fspath(Path.cwd() / os.fsdecode(name)))

    # -- between processes --------------------------------------------------------------------

    def tell(self) -> None:
        """Write down which files this process decoded, where there are new ones."""
        if self.folder is None or len(self._names) == self._told:
            return
        self._told = len(self._names)
        half = self.folder / f"half.{os.getpid()}"
        with contextlib.suppress(OSError):
            half.write_text("\0".join(self._names))
            half.replace(self.folder / f"{LIST}{os.getpid()}")

    def forked(self) -> None:
        """This process is a fork: what it has was decoded elsewhere."""
        self._names, self._told = [], 0

    def decode_like_arms(self, seconds: float) -> bool:
        """Decode what arms have decoded, for so long; whether there is more to do."""
        image = sys.modules.get("PIL.Image")
        if self.folder is None or image is None or not self._undo:
            return False
        end, have = time.monotonic() + seconds, set(self._names)
        for file in sorted(self.folder.glob(f"{LIST}*")):
            # Another program waits on the same lists: each reads all of them, and none is in its way.
            try:
                written = file.stat().st_mtime_ns
                names = file.read_text().split("\0") if self._heard.get(file) != written else []
            except OSError:
                continue
            for name in names:
                if name in have:
                    continue
                if time.monotonic() > end:
                    return True
                have.add(name)
                before = len(self._names)
                with contextlib.suppress(Exception), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    with image.open(name) as picture:
                        picture.load()
                if len(self._names) == before:  # no room, or another file by now
                    self._names.append(name)
            self._heard[file] = written
        return False
