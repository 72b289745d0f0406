"""An arm can run edited copies of the program's files in their place: under their names, so that tracebacks and paths agree."""

from __future__ import annotations

import importlib.machinery
import os
import types
from collections.abc import Mapping
from pathlib import Path

from valgap.seams.hosting.host import Target


def put_in_place(edited: Mapping[str, str]) -> None:
    """From now on, this process imports the edited text of each of these files (path -> path of the copy)."""
    if not edited:
        return
    sources = {os.path.realpath(file): Path(copy).read_bytes() for file, copy in edited.items()}
    loader = importlib.machinery.SourceFileLoader
    get_code, get_data = loader.get_code, loader.get_data

    def edited_code(self: importlib.machinery.SourceFileLoader, fullname: str) -> types.CodeType | None:
        source = sources.get(os.path.realpath(self.path))
        if source is None:
            return get_code(self, fullname)
        code: types.CodeType = compile(source, self.path, "exec", dont_inherit=True)  # never from __pycache__
        return code

    def edited_data(self: importlib.machinery.SourceFileLoader, path: str) -> bytes:
        return sources.get(os.path.realpath(path)) or get_data(self, path)

    loader.get_code = edited_code  # type: ignore[method-assign,assignment]
    loader.get_data = edited_data  # type: ignore[method-assign,assignment]


def edited_target(target: Target, edited: Mapping[str, str]) -> Target:
    """The script's target with its edited text, where there is one."""
    for original, copy in edited.items():
        if target.source is not None and os.path.realpath(original) == os.path.realpath(target.file):
            return target._replace(source=Path(copy).read_bytes())
    return target  # what runpy finds is read by put_in_place
