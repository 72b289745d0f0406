"""Ten programs of different style on real photographs: phases, samples, modes and accuracy as they truly were."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.processes import forked, fresh
from valgap.record.reader import read_record
from valgap.types import RunRecord

pytestmark = pytest.mark.takes(35)

HERE = Path(__file__).resolve().parent
HABITS = HERE.parent / "habits"
DATA = HERE.parents[2] / "shared" / "data" / "clothing_mini"
CLASSES = ("hat", "pants", "shoes")
TRAIN, VAL = 8, 5

NAMES = (
    "plain_loop", "functions", "trainer_class", "argparse_tqdm", "lightning_module", "hf_trainer", "csv_dataset", "opencv_reader",
    "multi_loss", "kfold",
)  # fmt: skip


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 15 validation photographs of three classes, 48 pixels."""
    if not DATA.is_dir():
        pytest.skip("the real images are not here")
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", TRAIN), ("val", VAL)):
        for label in CLASSES:
            (folder / split / label).mkdir(parents=True)
            for file in sorted((DATA / split / label).iterdir())[:count]:
                with Image.open(file) as image:
                    image.convert("RGB").resize((48, 48)).save(folder / split / label / f"{file.stem}.jpg")
    return folder


def bare(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked([HABITS / f"{name}.py", *arguments])


def recorded(
    name: str, out: Path, *arguments: str, how: Callable[[list[object]], subprocess.CompletedProcess[str]] = forked
) -> subprocess.CompletedProcess[str]:
    return how(["-m", "valgap.cli", "run", "--closing", "0", "--out", out, HABITS / f"{name}.py", *arguments])


@pytest.fixture(scope="session")
def runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[RunRecord, str]]:
    """(record, standard output) of each program."""
    folder = tmp_path_factory.mktemp("habits")
    found = {}
    for name in NAMES:
        # Frameworks import torch in an order of their own; the other one is a fresh process below, among the slow tests.
        done = recorded(name, folder / name, str(photos), how=fresh if name == "lightning_module" else forked)
        assert done.returncode == 0, done.stderr
        found[name] = (read_record(folder / name), done.stdout)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_phases(name: str, runs: dict[str, tuple[RunRecord, str]]) -> None:
    record, _ = runs[name]
    assert record.recorder_errors == ()
    expected = ["train", "validation"] * (4 if name == "kfold" else 2)
    if name == "argparse_tqdm":
        expected = ["validation", *expected]
    assert [p.phase for p in record.passes] == expected
    assert all(p.complete for p in record.passes)


@pytest.mark.parametrize("name", NAMES)
def test_samples_and_targets(name: str, runs: dict[str, tuple[RunRecord, str]]) -> None:
    record, _ = runs[name]
    for one in record.passes:
        names = [record.sample_names[i] for i in one.samples.sample]
        assert (one.samples.sample >= 0).all()
        labels = [CLASSES.index(Path(n).parent.name) for n in names]
        assert one.samples.target.tolist() == labels
        if one.phase == "validation":
            assert len(set(names)) == len(names)
        if name not in ("kfold", "argparse_tqdm"):
            assert {Path(n).parts[-3] for n in names} == {"train" if one.phase == "train" else "val"}
            assert len(names) == (TRAIN if one.phase == "train" else VAL) * 3
    train, val = record.last_train, record.last_validation
    assert train is not None and val is not None
    assert not np.isin(val.samples.sample, train.samples.sample).any()


@pytest.mark.parametrize("name", NAMES)
def test_modes_and_steps(name: str, runs: dict[str, tuple[RunRecord, str]]) -> None:
    record, _ = runs[name]
    for one in record.passes:
        training = one.phase == "train"
        assert one.modes.training_flag == float(training)
        assert one.modes.grad_enabled == float(training)
        assert (one.optimizer_steps > 0) == training
        assert (one.backwards > 0) == training
        if one.modes.batchnorm_layers:
            assert one.modes.batchnorm_training == float(training)
    train = record.last_train
    assert train is not None
    assert np.isfinite(train.steps.loss).all()
    assert not (train.steps.stale_gradients == 1).any()
    model = record.trained_model
    assert model is not None and model.trained
    wanted = model.is_parameter & model.requires_grad
    assert model.in_optimizer[wanted].all()
    if name == "trainer_class":
        assert train.backwards == 2 * train.optimizer_steps
    if name == "multi_loss":
        assert len(record.optimizers) == 2


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_is_the_printed_one(name: str, runs: dict[str, tuple[RunRecord, str]]) -> None:
    record, text = runs[name]
    printed = [float(v) for v in re.findall(r"val acc ([\d.]+)", text)]
    ours = [p.samples.accuracy for p in record.of_phase("validation")]
    assert ours == pytest.approx(printed, abs=1e-5)


@pytest.mark.parametrize("name", ["plain_loop", "functions", "trainer_class", "lightning_module", "hf_trainer"])
def test_the_recorder_changes_nothing(name: str, photos: Path, runs: dict[str, tuple[RunRecord, str]]) -> None:
    plain = bare(name, str(photos))
    ours = [line for line in runs[name][1].splitlines() if "runtime" not in line]
    assert ours == [line for line in plain.stdout.splitlines() if "runtime" not in line]
    assert any(line.startswith("weights") for line in ours)


@pytest.mark.slow
def test_a_framework_that_imports_torch_itself(photos: Path, runs: dict[str, tuple[RunRecord, str]], tmp_path: Path) -> None:
    done = recorded("hf_trainer", tmp_path / "run", str(photos), how=fresh)
    assert done.returncode == 0, done.stderr
    own, forked_one = read_record(tmp_path / "run"), runs["hf_trainer"][0]
    assert own.recorder_errors == ()
    for one, other in zip(own.passes, forked_one.passes, strict=True):
        assert (one.phase, one.samples.sample.tolist()) == (other.phase, other.samples.sample.tolist())
        assert np.array_equal(one.steps.loss, other.steps.loss)


@pytest.mark.parametrize(("name", "arguments"), [("plain_loop", ("2",)), ("trainer_class", ("--workers", "2"))])
def test_the_recorder_changes_nothing_with_workers(
    name: str, arguments: tuple[str, ...], photos: Path, tmp_path: Path, runs: dict[str, tuple[RunRecord, str]]
) -> None:
    done = recorded(name, tmp_path / "run", str(photos), *arguments)
    assert done.stdout == bare(name, str(photos), *arguments).stdout
    record, base = read_record(tmp_path / "run"), runs[name][0]
    # Workers draw in another order, so only the sets agree; validation keeps its order.
    for one, other in zip(record.passes, base.passes, strict=True):
        own, theirs = one.samples.sample.tolist(), other.samples.sample.tolist()
        assert sorted(own) == sorted(theirs)
        assert one.phase == "train" or own == theirs
    assert record.recorder_errors == ()
