"""What a training left behind, damaged or edited: refused in words, before anything is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from valgap.errors import RecordError, ValgapError
from valgap.models import create_model
from valgap.recipe import RECIPE
from valgap.training import checkpoint
from valgap.training.decide import Decision
from valgap.training.in_time import _chosen
from valgap.training.saved import FitStore


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a checkpoint."""
    made = create_model("efficientnet_lite0", 2, "default")
    folder = tmp_path_factory.mktemp("kept")
    facts = checkpoint.facts_of(("ant", "bee"), "efficientnet_lite0", RECIPE, 0, True, 1.0)
    checkpoint.save(folder, made.model, facts, made.preprocessing)
    return folder


def test_a_sound_checkpoint_is_loaded(kept: Path) -> None:
    assert checkpoint.load(kept)[1]["classes"] == ["ant", "bee"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", "ab"), ("classes", [1, 2]), ("classes", []), ("temperature", 0), ("temperature", [1]), ("temperature", 1e999),
        ("temperature", None), ("backbone", "../x"), ("schema", "x"), ("schema", 99), ("preprocessing", []),
        ("preprocessing.size", 10**30), ("preprocessing.size", "64"), ("preprocessing.size", -1),
        ("preprocessing.crop_share", 0), ("preprocessing.crop_share", 1e-9),
        ("preprocessing.interpolation", "x"), ("preprocessing.interpolation", [1]), ("preprocessing.mean", [0.5]),
        ("preprocessing.mean", ["a", "b", "c"]), ("preprocessing.std", [0.0, 0.1, 0.1]), ("preprocessing.std", [1e999, 1, 1]),
    ],
)  # fmt: skip
def test_senseless_facts_are_refused(kept: Path, tmp_path: Path, name: str, value: Any) -> None:
    facts = json.loads((kept / checkpoint.FACTS).read_text())
    *above, last = name.split(".")
    (facts[above[0]] if above else facts)[last] = value
    (tmp_path / checkpoint.FACTS).write_text(json.dumps(facts))
    (tmp_path / checkpoint.WEIGHTS).symlink_to(kept / checkpoint.WEIGHTS)
    with pytest.raises(ValgapError):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"file": "gone.safetensors"}', '{"file": "torn.safetensors"}', '{"file": 1}', "\x00"]
)
def test_a_damaged_state_is_no_traceback(tmp_path: Path, text: str) -> None:
    assert FitStore(tmp_path).read() is None, "nothing was kept: the training begins anew"
    save_file({"a": torch.ones(9)}, tmp_path / "whole.safetensors")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-5])
    (tmp_path / "place.json").write_text(text)
    with pytest.raises(RecordError, match="train anew"):
        FitStore(tmp_path).read()
    (tmp_path / "place.json").write_text('{"file": "whole.safetensors"}')
    found = FitStore(tmp_path).read()
    assert found is not None and found[1]["a"].sum() == 9


def test_a_damaged_decision_is_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "decision.json"
    whole = {"unfreeze": "last", "flip": True, "bias": [0.0, 1.0], "reasons": ["so"], "temperature": 1.0}
    file.write_text(json.dumps(whole))
    assert Decision.read(file).bias.tolist() == [0.0, 1.0]
    for changed in ({"bias": ["x"]}, {"course": [1]}, {"flip": "yes"}, {"reasons": [1]}, {"unfreeze": None}, {"more": 1}):
        file.write_text(json.dumps({**whole, **changed}))
        with pytest.raises(RecordError, match="train anew"):
            Decision.read(file)


def test_images_that_are_none_are_not_chosen(tmp_path: Path) -> None:
    file = tmp_path / "seen.json"
    file.write_text('{"train": [0, 4], "val": [1]}')
    assert _chosen(file, 5, 2)["train"] == [0, 4]
    for text in (
        "{",
        "[]",
        '{"train": [0], "val": []}',
        '{"train": [5], "val": [0]}',
        '{"train": [-1], "val": [0]}',
        '{"train": 3, "val": 1}',
    ):
        file.write_text(text)
        with pytest.raises(RecordError, match="train anew"):
            _chosen(file, 5, 2)
