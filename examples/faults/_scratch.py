"""Scratch copies of the validation folder. The user's own data are only read."""

import atexit
import shutil
import tempfile
from pathlib import Path


def scratch_val():
    """An empty folder that goes away with the program."""
    folder = Path(tempfile.mkdtemp(prefix="val-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def images(folder):
    """The image files below a class folder, sorted."""
    return sorted(p for p in Path(folder).rglob("*") if p.is_file())


def classes(data, split):
    """The class folders of a split, sorted."""
    return sorted(p for p in (Path(data) / split).iterdir() if p.is_dir())
