"""Folders for temporary files are known to the janitor before they are there, and their absence is said in one line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from valgap.errors import ValgapError
from valgap.experiments.arm import ArmSpec
from valgap.experiments.forks import WaitingProgram
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


def test_a_path_too_long_for_a_socket_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    spec = ArmSpec("train.py", None, ["train.py"], str(tmp_path), 0, 0, 1.0, [0], [1])
    with pytest.raises(ValgapError, match="shorter path"):
        WaitingProgram(spec, tmp_path / "warm", {}, tmp_path, Listening())
