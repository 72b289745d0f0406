"""Where images come from: tables, streams and arrays are recorded, and what cannot be told of them is said."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.features.pictures import photo_folder
from tests.processes import forked
from valgap.diagnosis import diagnose
from valgap.record.reader import read_record
from valgap.types import RunRecord

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_folder(tmp_path_factory.mktemp("inputs") / "photos", train=12, val=6)


def recorded(program: str, library: str, photos: Path, folder: Path) -> RunRecord:
    """The record of a program, whose numbers must be those that it prints by itself."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    variables = {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    bare = forked([HERE / program, photos], folder, variables)
    assert bare.returncode == 0, bare.stderr
    watched = forked(["-m", "valgap.cli", "run", "--closing", "10", "--out", "run", HERE / program, photos], folder, variables)
    assert watched.returncode == 0, watched.stderr
    assert watched.stdout == bare.stdout and bare.stdout.count("val acc") == 2
    record = read_record(folder / "run")
    assert record.recorder_errors == ()
    assert [(p.phase, len(p.samples), p.complete) for p in record.passes] == [
        ("train", 24, True),
        ("validation", 12, True),
    ] * 2
    assert all(p.samples.labelled.all() for p in record.passes)
    assert diagnose(folder / "run").crashed == ()
    return record


def names(record: RunRecord, phase: str) -> list[set[str]]:
    """The names of the samples of each pass."""
    return [{record.sample_names[i] for i in p.samples.sample.tolist()} for p in record.passes if p.phase == phase]


@pytest.mark.parametrize(
    ("program", "library", "kind"), [("hugging_face.py", "datasets", "Dataset"), ("torchvision_cifar.py", "torchvision", "Small")]
)
def test_samples_are_known_by_their_files_or_by_their_place(
    program: str, library: str, kind: str, photos: Path, tmp_path: Path
) -> None:
    record = recorded(program, library, photos, tmp_path)
    in_files = kind == "Dataset"  # the table holds paths, and its images are opened when they are read
    assert {p.how for p in record.provenance.values()} == {"watched" if in_files else "memory"}
    assert {d.kind for d in record.datasets.values()} == {kind}
    assert [d.class_to_idx for d in record.datasets.values()] == [{"blobs": 0, "stripes": 1}] * 2
    first, second = names(record, "train")
    assert first == second and len(first) == 24
    assert all(Path(n).is_file() if in_files else n.startswith(f"{kind}-") and n.endswith("]") for n in first)
    assert not first & names(record, "validation")[0]
    last = record.last_train
    assert last is not None
    order = np.argsort(last.samples.sample)
    if not in_files:
        assert last.samples.target[order].tolist() == [0] * 12 + [1] * 12, "files are sorted by class"
    assert record.closing is not None and {"val_eval", "train_eval"} <= set(record.closing.rescores)


def test_samples_of_a_stream_are_known_by_their_content(photos: Path, tmp_path: Path) -> None:
    record = recorded("web_dataset.py", "webdataset", photos, tmp_path)
    assert {d.size for d in record.datasets.values()} == {-1}
    for phase in ("train", "validation"):
        first, second = names(record, phase)
        assert first == second and len(first) == (24 if phase == "train" else 12)
        assert all(n.startswith("content[") for n in first)
    assert record.closing is not None
    assert "identities are not known" in record.closing.skipped["twins"]
    assert record.closing.skipped["rescores"].startswith("a stream cannot be read again")
