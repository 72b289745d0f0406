"""Folders for temporary files are known to the janitor before they are there, and their absence is said in one line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from valgap.errors import ValgapError
from valgap.experiments.janitor import FOLDER, Janitor
from valgap.experiments.temporary import temporary_folder


class Listening(Janitor):
    def __init__(self) -> None:
        super().__init__()
        self.known: list[tuple[str, Path, bool]] = []

    def knows(self, kind: str, name: object) -> None:
        assert isinstance(name, Path)
        self.known.append((kind, name, name.exists()))


def test_the_janitor_knows_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    janitor = Listening()
    folders = [temporary_folder(janitor) for _ in range(2)]
    assert janitor.known == [(FOLDER, folder, False) for folder in folders]
    assert len(set(folders)) == 2
    for folder in folders:
        assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700 and not list(folder.iterdir())


def test_nowhere_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)
    with pytest.raises(ValgapError, match="set TMPDIR"):
        temporary_folder(Listening())
