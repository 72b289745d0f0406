"""Training and prediction on real photographs."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file

from tests.processes import forked, fresh
from valgap.errors import ConfigError, DataError, RecordError
from valgap.models import create_model
from valgap.recipe import RECIPE, REFERENCE, Recipe
from valgap.record.foreign import read_log
from valgap.training import TrainResult, load, predict, train
from valgap.training.export import export
from valgap.training.forecast import spread_order
from valgap.training.probe import fit_probe
from valgap.training.sight import Sight
from valgap.training.stages import cut_for
from valgap.training.summary import summary_lines

pytestmark = pytest.mark.takes(80)
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "clothing_mini"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not DATA.is_dir():
        pytest.skip("the real images are not here")
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 20), ("val", 8)):
        for label in ("hat", "shirt", "shorts"):
            (folder / split / label).mkdir(parents=True)
            for file in sorted((DATA / split / label).iterdir())[:count]:
                (folder / split / label / file.name).symlink_to(file)
    return folder


QUICK = Recipe.changed(RECIPE, {"unfreeze": "last", "epochs": 2, "flip": True})
SETTINGS: dict[str, Any] = {"backbone": "efficientnet_lite0", "size": 64}


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run of the last stage, with a test folder and a logger, which must not change anything."""
    return train(photos, tmp_path_factory.mktemp("run") / "a", recipe=QUICK, test=photos / "val", log=["tensorboard"], **SETTINGS)


def test_the_last_stage_learns_twice_the_same(photos: Path, trained: TrainResult, tmp_path: Path) -> None:
    two = train(photos, tmp_path / "b", recipe=QUICK, **SETTINGS)
    weights = [(r.run / "checkpoint.safetensors").read_bytes() for r in (trained, two)]
    assert weights[0] == weights[1]
    assert str(trained.epochs) == str(two.epochs)
    assert len(trained.epochs) == 3
    assert trained.epochs[2].train_loss < 1.0
    other = train(photos, tmp_path / "c", recipe=QUICK, seed=1, **SETTINGS)
    assert (other.run / "checkpoint.safetensors").read_bytes() != weights[0]
    moved = moved_tensors(trained.run)
    assert any("blocks.6" in name for name in moved)
    assert not any("blocks.2" in name or "running" in name for name in moved)


def test_the_logger_holds_the_curve(trained: TrainResult) -> None:
    (file,) = (trained.run / "tensorboard").glob("*.tfevents.*")
    curves = read_log(file).curves
    accuracies = [row.val_accuracy for row in trained.epochs]
    assert curves["val_accuracy"].values == pytest.approx(accuracies)
    assert len(curves["train_loss"].values) == 2  # epoch 0 has none


def moved_tensors(run: Path) -> list[str]:
    """Tensors of a run's checkpoint that differ from the bundled weights."""
    start = create_model("efficientnet_lite0", 3).model.state_dict()
    end = load_file(str(run / "checkpoint.safetensors"))
    return [k for k, v in start.items() if not torch.equal(v, end[k])]


def test_numbers_are_true(photos: Path, trained: TrainResult) -> None:
    """What the summary says is what the checkpoint does, counted by a plain loop."""
    classifier = load(trained.run)
    for split, scores in (("val", trained.val), ("val", trained.test), ("train", trained.train)):
        assert scores is not None
        predictions = classifier.predict(classifier.files([photos / split]))
        right = [p.label == p.path.parent.name for p in predictions if p.path is not None]
        assert scores.n == len(right)
        assert abs(float(np.mean(right)) - scores.accuracy) <= 1 / len(right) + 1e-9
        assert scores.low < scores.accuracy <= scores.high + 1e-9
    body = json.loads((trained.run / "summary.json").read_text())
    assert body["val"]["accuracy"] == trained.val.accuracy
    assert not (trained.run / "state").exists()
    facts = json.loads((trained.run / "checkpoint.json").read_text())
    assert facts["classes"] == ["hat", "shirt", "shorts"]
    assert facts["temperature"] == trained.temperature
    stated = [max(p.probabilities.values()) for p in classifier.predict(classifier.files([photos / "val"]))]
    gap = trained.val.accuracy - float(np.mean(stated))
    assert abs(gap) <= trained.val.calibration_error + 0.02, "predict says what was measured: calibrated probabilities"


def test_other_kinds_of_images_are_none_of_these(trained: TrainResult, photos: Path) -> None:
    classifier = load(trained.run)
    own = classifier.predict(classifier.files([photos / "val"]), none_of_these=True)
    noise = np.random.default_rng(0).integers(0, 255, (6, 80, 80, 3), np.uint8)
    other = classifier.predict(list(noise), none_of_these=True)
    assert all(p.unlike for p in other)
    assert sum(p.unlike for p in own) <= len(own) / 4
    assert all(p.nearness is None and not p.unlike for p in classifier.predict(list(noise[:1])))
    told = forked(["-m", "valgap.cli", "predict", trained.run, photos / "val" / "hat", "--csv", "--none-of-these"]).stdout
    assert told.splitlines()[0].endswith("problem,nearness,none of these") and len(told.splitlines()) == 9
    (trained.run / "known.safetensors").rename(trained.run / "elsewhere")
    try:
        with pytest.raises(RecordError, match="train again"):
            classifier.predict(list(noise), none_of_these=True)
    finally:
        (trained.run / "elsewhere").rename(trained.run / "known.safetensors")


def test_the_head_alone_is_the_probe(photos: Path, tmp_path: Path) -> None:
    recipe = Recipe.changed(RECIPE, {"unfreeze": "head"})
    result = train(photos, tmp_path / "a", recipe=recipe, **SETTINGS)
    assert result.val.accuracy > 0.8
    assert moved_tensors(result.run) == ["classifier.weight", "classifier.bias"]
    with pytest.raises(RecordError, match="nothing is overwritten"):
        train(photos, tmp_path / "a", recipe=recipe, **SETTINGS)


def test_the_last_two_stages_learn_where_their_activations_fit(photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    result = train(photos, tmp_path / "a", recipe=Recipe.changed(QUICK, {"unfreeze": "last2"}), **SETTINGS)
    moved = moved_tensors(result.run)
    assert any("blocks.3" in name for name in moved)
    assert not any("blocks.2" in name or "running" in name for name in moved)
    assert "the last two stages and the head learned" in "\n".join(summary_lines(result, ("hat", "shirt", "shorts")))
    model = create_model("efficientnet_lite0", 3)
    for rows, stages in ((100, 2), (200, 1)):
        monkeypatch.setenv("VALGAP_CACHE_GB", str(100 * 40 * 8 * 8 * 2 / 2**30))  # holds 100 rows at 64 px
        cut = cut_for("auto", model.model, model.head, 64, rows)
        assert cut is not None
        assert cut.stages == stages


def test_a_time_limit_with_room_tries_all_layers(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe.changed(RECIPE, {"epochs": 1, "flip": True})
    for limit in (300.0, None):
        train(photos, tmp_path / str(limit), recipe=recipe, time_limit_s=limit, console=Console(width=200), **SETTINGS)
        shown = capsys.readouterr().out
        assert ("leaves room to try all layers" in shown) == (limit is not None)
        assert ("all layers were tried as well" in shown or "all layers, trained on" in shown) == (limit is not None)


def test_a_rate_that_does_harm_is_refused_after_a_lower_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not DATA.is_dir():
        pytest.skip("the shared test data are not here")
    for label in ("dress", "hat", "pants", "shirt", "shoes"):
        for split, count in (("train", 22), ("val", 8)):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            for file in sorted((DATA / split / label).iterdir())[:count]:
                (tmp_path / "photos" / split / label / file.name).symlink_to(file)
    recipe = Recipe.changed(RECIPE, {"learning_rate": 1000.0, "patience": 1})
    for unfreeze in ("auto", "last"):
        given = Recipe.changed(recipe, {"unfreeze": unfreeze})
        result = train(tmp_path / "photos", tmp_path / f"run-{unfreeze}", recipe=given, console=Console(width=200), **SETTINGS)
        assert result.unfrozen == "head"
        assert result.probe is not None
        assert (result.val.accuracy, result.val.nll) == pytest.approx((result.probe.accuracy, result.probe.nll), rel=1e-5)
        shown = capsys.readouterr().out
        assert "gained nothing that is clear on 37 others" in shown
        assert "a tenth of it was tried" in shown, shown


def test_epoch_0_is_what_a_pass_would_find(photos: Path, tmp_path: Path) -> None:
    """It is told by the features; the scores at the end come from a pass behind the cut."""
    result = train(photos, tmp_path / "a", recipe=Recipe.changed(QUICK, {"unfreeze": "last", "epochs": 0}), **SETTINGS)
    assert [row.epoch for row in result.epochs] == [0]
    assert result.epochs[0].val_accuracy == result.val.accuracy
    assert result.epochs[0].val_loss == pytest.approx(result.uncalibrated.nll, rel=1e-2)


def test_without_a_probe_the_head_learns(photos: Path, tmp_path: Path) -> None:
    recipe = Recipe.changed(RECIPE, {"start": "random", "epochs": 1})
    result = train(photos, tmp_path / "a", recipe=recipe, backbone="efficientnet_lite0", size=32)
    assert result.unfrozen == "head"
    assert set(moved_tensors(result.run)) <= {"classifier.weight", "classifier.bias"}


def test_all_layers_learn_on_images(photos: Path, tmp_path: Path) -> None:
    recipe = Recipe.changed(RECIPE, {"unfreeze": "all", "epochs": 1, "dropout": 0.1, "ema": 0.5, "mixup": 0.2})
    result = train(photos, tmp_path / "a", recipe=recipe, backbone="efficientnet_lite0", size=32)
    moved = set(moved_tensors(result.run)) if result.chosen != "epoch 0" else set()
    assert len(result.epochs) == 2
    assert not any("running" in name for name in moved)


def test_steps_in_bfloat16_learn_the_same(photos: Path, trained: TrainResult, tmp_path: Path) -> None:
    """Emulated where the processor has no such instructions."""
    half, full = (
        train(photos, tmp_path / name, recipe=Recipe.changed(QUICK, {"precision": name}), **SETTINGS) for name in ("bf16", "fp32")
    )
    for a, b in zip(half.epochs[1:], full.epochs[1:], strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=0.05)
        assert a.train_loss != b.train_loss
    assert abs(half.val.nll - full.val.nll) < 0.05
    assert {v.dtype for v in load_file(str(half.run / "checkpoint.safetensors")).values()} <= {torch.float32, torch.int64}


def test_the_preset_in_circulation_moves_batchnorm(photos: Path, tmp_path: Path) -> None:
    recipe = Recipe.changed(REFERENCE, {"epochs": 1})
    result = train(photos, tmp_path / "a", recipe=recipe, backbone="efficientnet_lite0", size=32)
    moved = moved_tensors(result.run)
    assert any("running_mean" in name for name in moved) or result.chosen == "epoch 0"
    assert not any(name.endswith("weight") and "classifier" not in name for name in moved)


def test_a_time_limit_ends_the_training(photos: Path, tmp_path: Path) -> None:
    recipe = Recipe.changed(QUICK, {"epochs": 500, "patience": 1000, "flip": False})
    result = train(photos, tmp_path / "a", recipe=recipe, time_limit_s=6, **SETTINGS)
    assert result.ended == "the time is up"
    assert (tmp_path / "a" / "checkpoint.safetensors").exists()


def test_a_time_limit_leaves_a_part_of_each_class(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where not even one look at all images fits; and the run that is resumed goes on with the same ones."""
    see = Sight.see

    def slowly(sight: Sight, paths: list[Path], *how: Any) -> Any:
        time.sleep(0.4)
        return see(sight, paths, *how)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Sight, "see", slowly)
    monkeypatch.setattr("valgap.training.in_time.SEEN_AT_ONCE", 6)
    monkeypatch.setenv("VALGAP_CACHE", str(tmp_path / "cache"))
    given: dict[str, Any] = {**SETTINGS, "recipe": Recipe.changed(RECIPE, {"unfreeze": "head"}), "console": Console(width=200)}
    with monkeypatch.context() as patch:
        patch.setattr("valgap.training.result.save", full)
        with pytest.raises(RecordError, match="make room"):
            train(photos, tmp_path / "a", time_limit_s=6, **given)
    shown = capsys.readouterr().out
    assert "expected: at most about" in shown
    assert "84 images to look at" in shown
    monkeypatch.setattr(Sight, "see", see)
    monkeypatch.setattr("valgap.training.in_time.SEEN_AT_ONCE", 64)
    result = train(None, tmp_path / "a", resume=True)
    assert f"the time limit leaves room for {result.train.n} of 60 training images and {result.val.n} of 24 validation" in shown
    assert 6 <= result.train.n < 60
    assert min(result.train.recall) > 0, "some of each class"
    assert result.val.n < 24
    train(photos, tmp_path / "b", time_limit_s=60, **given)
    shown = capsys.readouterr().out
    assert "leaves room for" not in shown
    train(photos, tmp_path / "c", **given)
    assert "expected: at most about 1 s: everything is in the cache" in capsys.readouterr().out


def test_each_beginning_of_an_order_holds_its_share_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [90, 30, 2])
    order = spread_order(labels, 0)
    assert sorted(order) == list(range(122))
    assert np.bincount(labels[order[:6]], minlength=3).tolist() == [2, 2, 2]
    assert np.bincount(labels[order[:62]], minlength=3) == pytest.approx([45, 15, 2], abs=2)
    assert not np.array_equal(order, spread_order(labels, 1))


def test_killed_and_resumed_is_the_same_to_the_last_bit(photos: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys; from pathlib import Path; from valgap.recipe import *; from valgap.training import train\n"
        "from valgap.training import saved\n"
        "data, out, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]\n"
        "recipe = Recipe.changed(RECIPE, {'unfreeze': 'last', 'epochs': 3, 'flip': True, 'ema': 0.5, 'dropout': 0.2})\n"
        "if mode == 'kill':\n"
        "    import os, signal; from valgap.training.fit import Fit; learn = Fit.learn\n"
        "    def late(fit, *a):\n"
        "        if len(fit.rows) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return learn(fit, *a)\n"
        "    Fit.learn = late\n"
        "again = mode == 'resume'\n"
        "train(None if again else data, out, backbone='efficientnet_lite0', size=32, recipe=recipe, resume=again)\n"
    )

    def run(how: Callable[[list[object]], subprocess.CompletedProcess[str]], out: str, mode: str) -> int:
        return how([program, photos, tmp_path / out, mode]).returncode

    assert run(forked, "whole", "whole") == 0
    assert run(forked, "cut", "kill") == -signal.SIGKILL
    assert not (tmp_path / "cut" / "checkpoint.safetensors").exists()
    assert run(fresh, "cut", "resume") == 0, "in a process that shares nothing with the killed one, its hash seed neither"
    whole, cut = (tmp_path / n / "checkpoint.safetensors" for n in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()
    numbers = [json.loads((tmp_path / n / "summary.json").read_text()) for n in ("whole", "cut")]
    assert numbers[0]["epochs"] == numbers[1]["epochs"]
    assert numbers[0]["val"] == numbers[1]["val"]
    assert not numbers[0]["val_chose"], "the course is one that held-out train gave"


def test_a_full_disk_at_the_end_can_be_resumed(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("valgap.training.result.save", full)
        with pytest.raises(RecordError, match="make room"):
            train(photos, tmp_path / "a", recipe=Recipe.changed(QUICK, {"epochs": 1}), **SETTINGS)
    assert (tmp_path / "a" / "state" / "place.json").exists()
    result = train(None, tmp_path / "a", resume=True)
    assert len(result.epochs) == 2
    assert (tmp_path / "a" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    "killed_at",
    [*(pytest.param(f, marks=pytest.mark.slow) for f in ("checkpoint.json", "summary.json", "state")), "checkpoint.safetensors"],
)
def test_killed_while_the_result_is_written(
    killed_at: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.changed(QUICK, {"epochs": 1})
    train(photos, tmp_path / "whole", recipe=recipe, **SETTINGS)

    class Killed(BaseException):
        pass

    replace, remove = Path.replace, Path.unlink

    def replaced(part: Path, file: Path) -> Path:
        found = replace(part, file)
        if file.name == killed_at:
            raise Killed
        return found

    def removed(file: Path, missing_ok: bool = False) -> None:
        remove(file, missing_ok)
        if file.parent.name == killed_at and file.parents[1].joinpath("summary.json").exists():
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", replaced)
        patch.setattr(Path, "unlink", removed)
        train(photos, tmp_path / "cut", recipe=recipe, **SETTINGS)
    if killed_at in ("summary.json", "state"):  # it was over
        with pytest.raises(RecordError, match="already holds a checkpoint"):
            train(None, tmp_path / "cut", resume=True)
    else:
        train(None, tmp_path / "cut", resume=True)
    for name in ("checkpoint.safetensors", "checkpoint.json", "summary.json"):
        assert (tmp_path / "cut" / name).exists()
    weights = [(tmp_path / n / "checkpoint.safetensors").read_bytes() for n in ("whole", "cut")]
    assert weights[0] == weights[1]
    load(tmp_path / "cut")


def test_a_disk_that_is_full_for_the_state_ends_keeping_and_not_training(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(tensors: Any, file: str) -> None:
        Path(file).write_bytes(b"torn")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("valgap.training.saved.save_file", full)
    result = train(photos, tmp_path / "a", recipe=Recipe.changed(QUICK, {"epochs": 1}), console=Console(), **SETTINGS)
    assert len(result.epochs) == 2 and (tmp_path / "a" / "checkpoint.safetensors").exists()
    said = " ".join(capsys.readouterr().out.split())
    assert "No space left on device" in said and "this run cannot be resumed" in said
    assert not list((tmp_path / "a").rglob("epoch-*.safetensors"))


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="resumed"):
        train(None, tmp_path, resume=True)


def test_broken_images_and_mirrors(trained: TrainResult, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no")
    picture = next((photos / "val" / "hat").iterdir())
    classifier = load(trained.run)
    mixed = classifier.predict([tmp_path / "broken.jpg", picture, Image.open(picture), np.asarray(Image.open(picture))], tta=True)
    assert mixed[0].problem is not None
    assert [p.label for p in mixed[1:]] == [mixed[1].label] * 3
    assert sum(mixed[1].probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert mixed[1].probabilities != classifier.predict([picture])[0].probabilities
    assert classifier.predict_proba([picture]).shape == (1, 3)


@pytest.mark.parametrize("format", [pytest.param("onnx", marks=pytest.mark.slow), "torchscript", "safetensors"])
def test_export_agrees(format: str, trained: TrainResult, tmp_path: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    done = export(trained.run, format, tmp_path / f"m.{format}")
    assert done.path.stat().st_size > 1e6
    assert np.isnan(done.max_difference) or done.max_difference < 1e-4
    assert json.loads((tmp_path / f"m.{format}.json").read_text())["classes"] == ["hat", "shirt", "shorts"]
    with pytest.raises(RecordError, match="nothing is overwritten"):
        export(trained.run, format, tmp_path / f"m.{format}")
    with pytest.raises(ConfigError, match="onnx, torchscript"):
        export(trained.run, "keras")


def test_predict_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no checkpoint"):
        predict(tmp_path, [tmp_path])
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "checkpoint.json").write_text("{}")
    (tmp_path / "checkpoint.safetensors").write_bytes(b"no weights")
    with pytest.raises(RecordError, match="cannot be read"):
        predict(tmp_path, [tmp_path / "a.png"])


def test_one_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "cat" / "a.png")
    with pytest.raises(DataError):
        train(tmp_path, tmp_path / "run", backbone="efficientnet_lite0")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("classes", [2, 4])
def test_probe_agrees_with_its_own_classifier_and_ignores_scale(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % classes
    centres = rng.normal(0, 2, (classes, 10))
    features = (centres[labels] + rng.normal(0, 1, (120, 10))).astype(np.float32)
    probe = fit_probe(features, labels, classes, RECIPE, 0)
    assert probe.weight.shape == (classes, 10)
    assert (probe.logits(features).argmax(1) == labels).mean() > 0.9
    scaled = fit_probe(features * 1000 + 7, labels, classes, RECIPE, 0)
    assert (scaled.logits(features * 1000 + 7).argmax(1) == probe.logits(features).argmax(1)).mean() > 0.99
    state = torch.get_rng_state()
    fit_probe(features, labels, classes, RECIPE, 0)
    assert torch.equal(torch.get_rng_state(), state)
