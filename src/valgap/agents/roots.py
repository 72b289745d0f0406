"""Which paths an agent may name: those below the folders that the user gave when the server was started."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from valgap.errors import DataError, RecordError, ScriptError, ValgapError
from valgap.record.encoding import EVENTS_FILE

HEADER_BYTES = 4 << 20
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
NO_FILE = ("valgap train", "watch", "")  # what stands for a script in the records of these


class Roots:
    """The folders within which paths are allowed; relative paths start at the first.

    Raises:
        DataError: one of them is no folder.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(f.resolve() for f in folders)
        for folder in self.folders:
            if not folder.is_dir():
                raise DataError(f"--root {folder} is no folder")

    def inside(self, text: str | Path, what: str) -> Path:
        """The real path, with links and ``..`` gone.

        Raises:
            ValgapError: it lies outside.
        """
        if "\0" in os.fspath(text) or not os.fspath(text):
            raise ValgapError(f"{what}: this is no path; give one below {self._named()}")
        try:
            path = (self.folders[0] / text).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, half a character
            raise ValgapError(f"{what} {str(text)!r} is no path that can be looked up: give one below {self._named()}") from error
        if not any(path.is_relative_to(root) for root in self.folders):
            raise ValgapError(
                f"{what} {str(text)!r} lies outside the allowed folders: give a path below {self._named()}, "
                "or ask the user to start `valgap mcp` with another --root"
            )
        return path

    def script(self, text: str) -> Path:
        """A Python script below the roots. Raises ScriptError where there is none."""
        path = self.inside(text, "script")
        if path.suffix != ".py" or not path.is_file():
            raise ScriptError(f"script {text!r} is no Python file ({path}): give the path of a .py file")
        return path

    def folder(self, text: str) -> Path:
        """A folder below the roots, the first root for "". Raises ValgapError where there is none."""
        path = self.inside(text, "folder") if text else self.folders[0]
        if not path.is_dir():
            raise ValgapError(f"folder {text!r} is no folder ({path})")
        return path

    def record(self, text: str) -> Path:
        """A run directory below the roots. Raises RecordError where there is none."""
        path = self.inside(text, "run")
        if not (path / EVENTS_FILE).is_file():
            raise RecordError(f"run {text!r} is no run directory: give the one that `run` or `preflight` named")
        self.inside(path / EVENTS_FILE, "run")
        return path

    def program(self, text: str) -> Path:
        """A run directory whose program lies below the roots as well, so that it may be run again.

        Raises:
            RecordError: there is no record, or its first line cannot be read.
            ValgapError: the recorded program lies outside.
        """
        record = self.record(text)
        with (record / EVENTS_FILE).open("rb") as stream:
            line = stream.readline(HEADER_BYTES)
        try:
            header = json.loads(line)
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict):
            raise RecordError(f"run {text!r}: its first line is damaged; record the program again with `run`")
        base = self.inside(str(header.get("cwd") or "."), "the recorded program's folder")
        module, script = header.get("module"), str(header.get("script") or "")
        if module:
            self.inside(base / self._module(str(module), base), "the recorded module")
        elif script not in NO_FILE:
            self.inside(base / script, "the recorded script")
        return record

    def fresh(self, text: str) -> Path:
        """A path for something new below the roots. Raises ValgapError where something is there already."""
        path = self.inside(text, "out")
        if path.exists():
            raise ValgapError(f"out {text!r} is there already: name a new folder, nothing is overwritten")
        return path

    def _module(self, name: str, base: Path) -> str:
        place = name.replace(".", os.sep)
        for file in (f"{place}.py", f"{place}{os.sep}__main__.py"):
            if MODULE.fullmatch(name) and (base / file).is_file():
                return file
        raise ValgapError(f"the recorded module {name!r} is none below {base}: run it again from the command line")

    def _named(self) -> str:
        return ", ".join(str(f) for f in self.folders)
