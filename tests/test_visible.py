"""What strangers call their files reaches a terminal as text, on one line."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from valgap.cli import console
from valgap.training import screen
from valgap.training.predict import Classifier, Prediction
from valgap.visible import visible

HOSTILE = "a\x1b[2J\x07\r\nvalgap: all is well\u202egpj\x9b31m\udcff"
SHOWN = r"a\x1b[2J\x07\r\nvalgap: all is well\u202egpj\x9b31m\udcff"


def test_only_what_cannot_be_seen_is_changed() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible(HOSTILE, keep="\n").count("\n") == 1
    assert visible("plain, Größe, 漢字, 😀, é") == "plain, Größe, 漢字, 😀, é"


def test_a_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(f"{HOSTILE} is no image")
    assert capsys.readouterr().err == f"valgap: {SHOWN} is no image\n"
    stream = io.StringIO()
    screen.say(f"{HOSTILE} is no image", Console(file=stream, width=200))
    assert stream.getvalue() == f"{SHOWN} is no image\n"


def test_predictions_name_files_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    file = tmp_path / HOSTILE
    answer = Prediction(file, "ant", 0.5, {"ant": 0.5, "bee": 0.5})

    class Known(Classifier):
        def __init__(self) -> None:
            self.classes, self.flip = ("ant", "bee"), False

        def files(self, paths: object) -> list[Path]:
            return [file]

        def predict(self, images: object, *, tta: bool = False, none_of_these: bool = False) -> list[Prediction]:
            return [answer]

        def predict_proba(self, images: object) -> np.ndarray:  # type: ignore[override]
            raise NotImplementedError

    monkeypatch.setattr("valgap.training.load", lambda run: Known())
    for words, name in (([], SHOWN.encode()), (["--csv"], os.fsencode(HOSTILE))):
        monkeypatch.setattr(sys, "argv", ["valgap", "predict", str(tmp_path), "x.png", *words])
        with pytest.raises(SystemExit) as ended:
            console_main()
        assert ended.value.code == 0
        assert name in capsysbinary.readouterr().out


def console_main() -> None:
    from valgap.cli import commands

    commands.main()
