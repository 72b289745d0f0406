"""Callbacks in their real libraries: the examples are recorded whole, and a training that fails leaves a record that says so."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.features.pictures import photo_folder
from tests.processes import forked, fresh
from valgap.diagnosis import diagnose
from valgap.record.reader import read_record
from valgap.record.told import told

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
LIBRARY = {"lightning": "lightning", "trainer": "transformers", "fastai": "fastai"}
# What is made to raise, after the callback has begun.
FAILURES = {
    "lightning": "Classifier.training_step = fails",
    "trainer": "ResNetForImageClassification.forward = fails",
    "fastai": "nn.CrossEntropyLoss.forward = fails",
}
FASTAI_LOADERS = (
    "import sys\n"
    "from fastai.vision.all import *\n"
    "own = ImageDataLoaders.from_folder(sys.argv[1], train='train', valid='val', bs=8, item_tfms=Resize(32), num_workers=0)\n"
)


def require(name: str) -> None:
    if importlib.util.find_spec(LIBRARY[name]) is None:
        pytest.skip(f"{LIBRARY[name]} is not installed")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_folder(tmp_path_factory.mktemp("callbacks") / "photos", train=12, val=6)


@pytest.mark.parametrize("name", LIBRARY)
def test_the_example_is_recorded(name: str, photos: Path, tmp_path: Path) -> None:
    require(name)
    out = tmp_path / "run"
    done = forked([EXAMPLES / f"with_{name}.py", photos, "--out", out, "--epochs", "2"], tmp_path)
    assert done.returncode == 0, done.stderr
    record = read_record(out)
    assert record.recorder_errors == () and record.stopped is None and record.exit_status == 0
    phases = [(p.phase, len(p.samples)) for p in record.passes if not (name == "lightning" and p.index == 0)]
    assert phases == [("train", 24), ("validation", 12)] * 2, "Lightning alone validates once before it trains"
    assert {p.num_batches for p in record.of_phase("train")} == {3}
    assert {len(p.steps) for p in record.of_phase("train")} == {3}
    names = {record.sample_names[i] for p in record.passes for i in p.samples.sample.tolist()}
    assert names == {str(p) for p in photos.rglob("*.png")}
    (printed,) = re.findall(r"val acc (\S+)", done.stdout)
    assert record.last_validation is not None and record.last_validation.samples.accuracy == pytest.approx(float(printed))
    # A fit of a second leaves the closing measurements a fifth of one: they are made, or say that there was no time.
    assert record.closing is not None and {"val_eval", "rescores"} & {*record.closing.rescores, *record.closing.skipped}
    assert diagnose(out, images=0).crashed == ()


@pytest.mark.parametrize("name", LIBRARY)
def test_a_training_that_fails(name: str, photos: Path, tmp_path: Path) -> None:
    """The example itself, with one function that raises."""
    require(name)
    text = (EXAMPLES / f"with_{name}.py").read_text()
    head, body = text.split('if __name__ == "__main__":\n')
    fails = "def fails(*args, **kwargs):\n    raise KeyError('mine')\n\n\n"
    script = tmp_path / "spoiled.py"
    script.write_text(f'{head}{fails}{FAILURES[name]}\nif __name__ == "__main__":\n{body}')
    done = fresh([script, photos, "--out", tmp_path / "run"], tmp_path)  # a fork would skip what runs at the exit
    assert done.returncode == 1 and "KeyError: 'mine'" in done.stderr, done.stderr
    record = read_record(tmp_path / "run")
    assert record.exit_status == 1 and record.closing is None
    events = (tmp_path / "run" / "events.jsonl").read_text()
    assert ("KeyError" if name == "lightning" else "UnfinishedError: the program ended before the fit had") in events


# Where each library's own user looks for warnings.
TOLD_IN = {"lightning": "stderr", "trainer": "stderr", "fastai": "stdout"}


@pytest.mark.parametrize("name", LIBRARY)
def test_a_live_warning_goes_where_the_library_tells_its_own(name: str, photos: Path, tmp_path: Path) -> None:
    """The example with a softmax before cross_entropy, and images that take their time."""
    require(name)
    script = spoiled(name, tmp_path, "live=True")
    done = forked([script, photos, "--out", "run", "--epochs", "6"], tmp_path, {"VALGAP_LIVE_NICE": "0"})
    assert done.returncode == 0, done.stderr
    assert "MOD306" in [w.code for w in told(tmp_path / "run")]
    assert "valgap: warning" in getattr(done, TOLD_IN[name]) and "softmax before cross_entropy" in getattr(done, TOLD_IN[name])


@pytest.mark.parametrize("name", LIBRARY)
def test_a_training_is_stopped_the_librarys_own_way(name: str, photos: Path, tmp_path: Path) -> None:
    require(name)
    script = spoiled(name, tmp_path, 'stop_on="suspected"')
    done = forked([script, photos, "--out", "run", "--epochs", "60"], tmp_path, {"VALGAP_LIVE_NICE": "0"})
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "val acc" in done.stdout, "what follows the fit is done"
    assert "valgap: warning" in getattr(done, TOLD_IN[name])
    record = read_record(tmp_path / "run")
    assert (record.exit_status, record.recorder_errors, record.closing) == (5, (), None)
    assert 1 <= len(record.of_phase("train")) < 40


def test_two_ranks_are_stopped_at_one_place(photos: Path, tmp_path: Path) -> None:
    """Lightning's own two processes: the first one alone records, and both end."""
    require("lightning")
    script = spoiled("lightning", tmp_path, 'stop_on="suspected"')
    two = 'accelerator="cpu", devices=2, strategy="ddp"'
    script.write_text(
        script.read_text().replace('accelerator="cpu"', two) + "    print('ended', trainer.global_rank, trainer.current_epoch)\n"
    )
    done = fresh([script, photos, "--out", tmp_path / "run", "--epochs", "60"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    ended = dict(re.findall(r"ended (\d) (\d+)", done.stdout))
    assert set(ended) == {"0", "1"} and ended["0"] == ended["1"] and int(ended["0"]) < 40
    assert read_record(tmp_path / "run").exit_status == 5


def spoiled(name: str, folder: Path, more: str) -> Path:
    """The example with a softmax before cross_entropy, images that take their time, and more that is asked of the callback."""
    text = (EXAMPLES / f"with_{name}.py").read_text()
    text = re.sub(r"(nn\.Linear\(256, .*\)),\n", r"\1, nn.Softmax(1),\n", text)
    text = text.replace("ResNetForImageClassification(config)", "softened(ResNetForImageClassification(config))")
    text = text.replace("transforms.ToTensor()", "transforms.Lambda(late), transforms.ToTensor()")
    text = text.replace("out=args.out", f"out=args.out, {more}")
    spoilt = "import time\ndef softened(m):\n    m.classifier.append(torch.nn.Softmax(1))\n    return m\n"
    script = folder / "spoiled.py"
    script.write_text(f"{spoilt}def late(image):\n    time.sleep(0.04)\n    return image\n{text}")
    return script


def test_fastais_own_loaders_and_optimizer_are_recorded(photos: Path, tmp_path: Path) -> None:
    require("fastai")
    script = tmp_path / "own.py"
    script.write_text(
        FASTAI_LOADERS + "from valgap.integrations.fastai import ValgapCallback\n"
        "net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "learner = Learner(own, net, metrics=accuracy)\n"
        "with learner.no_bar():\n"
        "    learner.fit(2, cbs=ValgapCallback(out='r'))\n"
    )
    done = forked([script, photos], tmp_path)
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r")
    assert [(p.phase, len(p.samples), p.optimizer_steps) for p in record.passes] == [("train", 24, 3), ("validation", 12, 0)] * 2
    names = {record.sample_names[i] for p in record.passes for i in p.samples.sample.tolist()}
    assert {Path(n).name for n in names} == {p.name for p in photos.rglob("*.png")}


def test_fastai_alone_is_not_misread(photos: Path, tmp_path: Path) -> None:
    """A plain `valgap run` sees the weights change and accuses nobody of steps that were not made."""
    require("fastai")
    script = tmp_path / "own.py"
    script.write_text(
        FASTAI_LOADERS + "net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "learner = Learner(own, net, metrics=accuracy)\n"
        "with learner.no_bar():\n"
        "    learner.fit(2)\n"
    )
    done = forked(["-m", "valgap.cli", "run", "--out", "r", script, photos], tmp_path)
    assert "MOD303" not in done.stdout
    assert all(p.optimizer_steps for p in read_record(tmp_path / "r").of_phase("train"))


def test_a_second_fit_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from valgap.integrations.recording import Recording

    recording = Recording(tmp_path / "run", closing=0)
    recording.begin()
    recording.end()
    recording.begin()
    recording.begin()  # the second never told of its end
    recording.end()
    recording.end()  # which ends nothing
    assert recording.folders == [tmp_path / "run", Path(f"{tmp_path}/run-2"), Path(f"{tmp_path}/run-3")]
    assert [read_record(f).exit_status for f in recording.folders] == [0, 1, 0]


def test_a_callback_without_its_library_says_what_is_missing() -> None:
    program = "import sys; sys.modules['transformers'] = None\nimport valgap.integrations.transformers"
    done = fresh(["-c", program])
    assert done.returncode == 1 and "transformers" in done.stderr.splitlines()[-1]
