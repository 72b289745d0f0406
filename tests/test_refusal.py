"""What is not called sound, what is refused at once, and what is said where nothing could be tried."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import valgap
from valgap import diagnosis as flow
from valgap.errors import NothingRecordedError
from valgap.exhibits import gather
from valgap.exhibits.answer import two_sentences
from valgap.record.reader import read_record
from valgap.report.as_html import diagnosis_to_html
from valgap.report.as_json import diagnosis_to_json
from valgap.report.terminal import show_details, show_diagnosis
from valgap.types import Diagnosis


def recorded(folder: Path, trains: bool = True, validates: bool = True, other_model: bool = False) -> Path:
    """A run of three steps on noise, and a validation of 40 images."""
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(64, 3, 8, 8, generator=generator), torch.arange(64) % 2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    validated = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Linear(8, 2)) if other_model else model
    with valgap.watch(out=folder, closing=0):
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for images, targets in DataLoader(torch.utils.data.Subset(data, range(24)), 8, shuffle=True) if trains else ():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), targets).backward()
            optimizer.step()
        with torch.no_grad():
            for images, targets in DataLoader(torch.utils.data.Subset(data, range(24, 64)), 8) if validates else ():
                nn.functional.cross_entropy(validated.eval()(images), targets)
    return folder


def screen(show: object, one: Diagnosis) -> str:
    stream = io.StringIO()
    assert callable(show)
    show(one, Console(file=stream, width=200))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({}, ""),
        ({"trains": False}, "no training was seen"),
        ({"validates": False}, "no validation was seen"),
        ({"other_model": True}, "the model that was validated was not seen training"),
    ],
)
def test_only_a_training_and_a_validation_of_one_model_can_be_sound(tmp_path: Path, made: dict[str, bool], words: str) -> None:
    record = read_record(recorded(tmp_path / "r", **made))
    assert len(record.unseen) == bool(words) and all(words in u for u in record.unseen)
    one = Diagnosis(record, (), None, None, None)
    page = diagnosis_to_html(one, gather(one, {}))
    body = diagnosis_to_json(one)["record"]
    assert body["seen_whole"] == (not words) and body["unseen"] == list(record.unseen)
    for text in (screen(show_diagnosis, one), page, two_sentences(one)):
        assert ("Nothing is broken" in text) == (not words) and words in text
    killed = replace(one, run=replace(record, unseen=(*record.unseen, "the program ended with status 1")))
    assert "Nothing is broken" not in screen(show_diagnosis, killed)


def test_a_run_without_validation_is_refused_before_its_images_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[object] = []
    monkeypatch.setattr(flow, "images_of_run", lambda *a: looked.append(a))
    with pytest.raises(NothingRecordedError, match="no validation was seen"):
        valgap.diagnose(recorded(tmp_path / "r", validates=False), select=["EVA"])
    assert looked == []


def test_with_a_budget_every_suspect_is_told_to_be_tried_or_why_not(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "r")
    without, given = valgap.diagnose(folder, images=0), valgap.diagnose(folder, images=0, budget="1s")
    likely = flow.suspected(given)
    assert likely and all("tried" in j.reason for j in likely)
    assert "--budget 10m" in screen(show_diagnosis, without)
    for show in (show_diagnosis, show_details):
        text = screen(show, given)
        assert "--budget 10m" not in text and "No re-run was made, for the reasons given." in text
        assert all(j.reason[:40] in text for j in likely)
