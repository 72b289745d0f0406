"""Folders for temporary files of arms: the janitor knows each before it is there, so that none is left by who is killed."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path

from valgap.errors import ValgapError
from valgap.experiments.janitor import FOLDER, Janitor


def temporary_folder(janitor: Janitor) -> Path:
    """A new, empty folder that only this user can enter.

    Raises:
        ValgapError: none can be made.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"valgap-{secrets.token_hex(4)}"
        janitor.knows(FOLDER, folder)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise ValgapError(
            f"nothing can be run again without a folder for temporary files ({error.strerror or error}): set TMPDIR to one"
        ) from error
    return folder
