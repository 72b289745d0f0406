"""Files, classes and targets of whatever a data set is: learnt by watching it read, and put right where an attribute lies."""

from __future__ import annotations

import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, default_collate

import valgap
from valgap.experiments.arm import ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.experiments.lab import named_as_in
from valgap.experiments.scoring import same_answers
from valgap.features import rows_of_run
from valgap.record.identities import Identities
from valgap.record.reader import read_record
from valgap.record.writer import RecordWriter
from valgap.seams.looking.opened import OpenedFiles
from valgap.seams.looking.provenance import Provenance, learn
from valgap.seams.looking.samples import Samples
from valgap.types import RunRecord

pytestmark = pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated.*:DeprecationWarning")
CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 training and 8 validation images of two classes, 12 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for label in CLASSES:
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(pixels.integers(0, 255, (12, 12, 3), np.uint8)).save(folder / split / label / f"{i:03d}.png")
    return folder


def tensor(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, np.float32).copy()).permute(2, 0, 1) / 255


def label(file: Path) -> int:
    return CLASSES.index(file.parent.name)


class Lazy(Dataset[Any]):
    """Lists its files when it is first read, under a name of its own."""

    def __init__(self, folder: Path) -> None:
        self.where, self.stock = folder, None

    def __len__(self) -> int:
        return sum(1 for _ in self.where.rglob("*.png"))

    def file(self, index: int) -> Path:
        if self.stock is None:
            self.stock = dict(enumerate(sorted(self.where.rglob("*.png"))))
        return self.stock[index]

    def __getitem__(self, index: int) -> Any:
        file = self.file(index)
        return tensor(self.read(str(file))), label(file)

    def read(self, file: str) -> Any:
        with Image.open(file) as image:
            return image.convert("RGB")


class WithOpenCV(Lazy):
    def read(self, file: str) -> Any:
        from cv2 import imread

        return imread(file)[:, :, ::-1]


class WithTorchvision(Lazy):
    def read(self, file: str) -> Any:
        from torchvision.io import read_file

        with Image.open(BytesIO(read_file(file).numpy().tobytes())) as image:
            return image.convert("RGB")


class Keys(Lazy):
    """Keeps names without folder and suffix."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.keys = [f"{f.parent.name}/{f.stem}" for f in sorted(folder.rglob("*.png"))]

    def file(self, index: int) -> Path:
        return self.where / f"{self.keys[index]}.png"


class Liar(Lazy):
    """Lists other files than it reads."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.paths = [f"thumbs/{i}.jpg" for i in range(len(self))]


class Sloppy(Lazy):
    """Takes any error for a damaged file, and puts it away."""

    def read(self, file: str) -> Any:
        try:
            return super().read(file)
        except:
            Path(file).unlink()
            raise


class Backwards(Dataset[Any]):
    """Holds a data set under the usual name, and reads it from its end."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[len(self) - 1 - index]


def timm_folder(folder: Path) -> Any:
    from timm.data import ImageDataset

    return ImageDataset(str(folder), transform=tensor)


def torchvision_folder(folder: Path) -> Any:
    from torchvision.datasets import ImageFolder

    return ImageFolder(str(folder), transform=tensor)


def table(folder: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    files = sorted(folder.rglob("*.png"))
    rows = {"picture": [str(f) for f in files], "label": [label(f) for f in files]}
    features = datasets.Features({"picture": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    made = datasets.Dataset.from_dict(rows, features=features)

    def both(batch: Any) -> Any:
        return {"picture": [tensor(i.convert("RGB")) for i in batch["picture"]], "label": batch["label"]}

    return made.with_transform(both)


KINDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "lazy": (Lazy, "watched"),
    "opencv": (WithOpenCV, "watched"),
    "torchvision.io": (WithTorchvision, "watched"),
    "keys": (Keys, "watched"),
    "wrong paths": (Liar, "watched"),
    "bare except": (Sloppy, "watched"),
    "backwards": (lambda f: Backwards(torchvision_folder(f)), "watched"),
    "parts": (lambda f: ConcatDataset([Subset(Lazy(f), range(3, 8)), Subset(Lazy(f), range(3))]), "watched"),
    "timm": (timm_folder, "declared"),
    "ImageFolder": (torchvision_folder, "declared"),
    "table": (table, "watched"),
}


def known(dataset: Any, folder: Path, deadline: float = 30.0) -> tuple[Provenance, list[str]]:
    """What is learnt of a data set, and the names of its samples then, by position."""
    writer = RecordWriter(folder / "run")
    samples = Samples(writer)
    number = samples.dataset_id(dataset)
    found = learn(samples, dataset, number, default_collate, time.perf_counter() + deadline)
    writer.close()
    names = list(samples.names)
    ids = samples.ids[number]
    return found, [names[i] for i in ids] if ids is not None else []


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_of_each_sample(kind: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    make, how = KINDS[kind]
    dataset = make(photos / "val")
    files = [str(f.relative_to(photos)) for f in sorted((photos / "val").rglob("*.png"))]
    expected = {"backwards": files[::-1], "parts": [*files[3:], *files[:3]]}.get(kind, files)
    found, names = known(dataset, tmp_path)
    assert (found.how, found.named, names) == (how, 1.0, expected), found.note
    assert found.checked >= 3
    assert len(list(photos.rglob("*.png"))) == 24, "nothing was taken for damaged"


def test_members_of_archives(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = sorted((photos / "val").rglob("*.png"))
    with tarfile.open("all.tar", "w") as tar, zipfile.ZipFile("all.zip", "w") as bundle:
        for f in files:
            tar.add(f, f"{f.parent.name}/{f.name}")
            bundle.write(f, f"{f.parent.name}/{f.name}")

    class Packed(Lazy):
        def __init__(self, archive: Any, take: Callable[[str], bytes]) -> None:
            self.archive, self.take = archive, take

        def __len__(self) -> int:
            return len(files)

        def file(self, index: int) -> Path:
            return files[index]

        def read(self, file: str) -> Any:
            return Image.open(BytesIO(self.take("/".join(Path(file).parts[-2:]))))

    tar, bundle = tarfile.open("all.tar"), zipfile.ZipFile("all.zip")  # noqa: SIM115
    for number, dataset in enumerate((Packed(tar, lambda n: tar.extractfile(n).read()), Packed(bundle, bundle.read))):  # type: ignore[union-attr]
        found, names = known(dataset, tmp_path / str(number))
        assert (found.how, found.named) == ("archive", 1.0), found.note
        assert names == [f"all.{('tar', 'zip')[number]}!{f.parent.name}/{f.name}" for f in files]


def test_what_has_no_file_says_so(tmp_path: Path) -> None:
    class Arrays(Lazy):
        def __init__(self) -> None:
            self.xs = torch.zeros(8, 3, 4, 4)

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            return self.xs[index], 0

    found, names = known(Arrays(), tmp_path)
    assert (found.how, found.named) == ("memory", 0.0)
    assert len(set(names)) == 8


def test_a_data_set_that_reads_another_file_each_time_is_given_none(photos: Path, tmp_path: Path) -> None:
    class Pairs(Lazy):
        asked = 0

        def file(self, index: int) -> Path:
            self.asked += 1
            return super().file((index + self.asked) % len(self))

    found, names = known(Pairs(photos / "train"), tmp_path)
    assert (found.how, found.named) == ("unknown", 0.0)
    assert found.note and not any("png" in n for n in names)


def test_a_file_for_each_item_of_a_stream(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)

    class Walk(IterableDataset[Any]):
        def __init__(self, split: str) -> None:
            self.files = sorted((photos / split).rglob("*.png"))

        def __iter__(self) -> Iterator[Any]:
            for f in self.files:
                with Image.open(f) as image:
                    yield tensor(image), label(f)

    record = trained(Walk("train"), Walk("val"), tmp_path, shuffle=False)
    assert {p.how for p in record.provenance.values()} == {"watched"}
    files = {str(f.relative_to(photos)) for f in photos.rglob("*.png")}
    assert {record.sample_names[i] for p in record.passes for i in p.samples.sample} == files


def test_nothing_stays_patched(photos: Path) -> None:
    import builtins
    import io
    import os

    before = (builtins.open, io.open, os.open, os.unlink, tarfile.TarFile.extractfile)
    with OpenedFiles() as opened:
        assert opened.of(lambda: Image.open(photos / "val/cat/000.png").load()) == [str(photos / "val/cat/000.png")]
    assert before == (builtins.open, io.open, os.open, os.unlink, tarfile.TarFile.extractfile)


def trained(train: Any, val: Any, folder: Path, shuffle: bool = True, workers: int = 0, closing: float = 500) -> RunRecord:
    """The record of two epochs with closing measurements."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with valgap.watch(out=folder / "run", closing=closing):
        for _ in range(2):
            for batch in DataLoader(train, 4, shuffle=shuffle, num_workers=workers):
                x, y = batch.values() if isinstance(batch, dict) else batch
                optimizer.zero_grad()
                functional.cross_entropy(net.train()(x), y).backward()
                optimizer.step()
            with torch.no_grad():
                for batch in DataLoader(val, 4, num_workers=workers):
                    x, y = batch.values() if isinstance(batch, dict) else batch
                    functional.cross_entropy(net.eval()(x), y)
    record = read_record(folder / "run")
    assert record.recorder_errors == ()
    return record


@pytest.mark.parametrize(("kind", "workers"), [("timm", 0), ("lazy", 0), ("table", 0), ("opencv", 2)])
def test_checks_of_images_see_the_files_and_their_classes(
    kind: str, workers: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    make = KINDS[kind][0]
    record = trained(make(photos / "train"), make(photos / "val"), tmp_path, workers=workers)
    rows = rows_of_run(record)
    assert rows is not None and rows.classes == CLASSES and rows.absent == 0
    assert set(rows.paths) == {str(f) for f in photos.rglob("*.png")}
    assert [rows.classes[i] for i in rows.labels] == [Path(p).parent.name for p in rows.paths]
    assert record.closing is not None and record.closing.twins == (), "the same samples in both would be told here"
    assert set(record.closing.rescores) >= {"val_eval"}
    last = record.last_validation
    assert last is not None
    assert set(record.closing.rescores["val_eval"].sample.tolist()) == set(last.samples.sample.tolist())


def test_data_are_known_again_where_only_one_record_has_learnt_their_files(photos: Path, tmp_path: Path) -> None:
    """As of two ranks of which one measures, and of a program that is rebuilt to measure: in either order."""
    learnt, plain = (trained(Lazy(photos / "train"), Lazy(photos / "val"), tmp_path / str(c), closing=c) for c in (500, 0))
    assert [d.learnt for r in (learnt, plain) for d in r.datasets.values()] == [True, True, False, False]
    for first, second in ((learnt, plain), (plain, learnt)):
        known = Identities()
        one, other = known.add(first), known.add(second)
        assert (one.datasets, other.datasets) == ({0: 0, 1: 1}, {0: 0, 1: 1})
        for number in (0, 1):
            own, again = first.datasets[number].sample, second.datasets[number].sample
            assert own is not None and again is not None
            assert one.ids(own).tolist() == other.ids(again).tolist()
        spec = ArmSpec("a.py", None, ["a.py"], str(tmp_path), 0, 0, 1.0, [0], [1])
        arms = [ArmResult(spec, r, r.passes[-1].samples, (), 1.0, None) for r in (first, second)]
        assert not set(arms[0].placed()) & set(arms[1].placed())
        assert (
            named_as_in(first, arms[1]).placed() == arms[0].placed() and same_answers(arms[0], named_as_in(first, arms[1])) == 1
        )


def test_one_file_in_two_data_sets_is_one_sample(photos: Path, tmp_path: Path) -> None:
    """Two objects that list nothing: that they share files is only seen by watching."""
    record = trained(Lazy(photos / "train"), Subset(Lazy(photos / "train"), range(4)), tmp_path)
    assert record.closing is not None and record.closing.twins is not None
    assert [t.kind for t in record.closing.twins] == ["same_file"] * 4


def test_folders_that_are_no_classes_name_none(photos: Path, tmp_path: Path) -> None:
    class ByPerson(Lazy):
        def __getitem__(self, index: int) -> Any:
            image, _ = super().__getitem__(index)
            return image, index % 2

    record = trained(ByPerson(photos / "train"), ByPerson(photos / "val"), tmp_path)
    assert {d.class_to_idx is None for d in record.datasets.values()} == {True}
