"""Batches that arms share are those that they would have loaded, to the last bit, and random numbers go on alike."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate
from torch.utils.data._utils import fetch as fetching
from torchvision import datasets, transforms

from valgap.seams.acting.shared_batches import SharedBatches

PLAIN = [transforms.Resize(12), transforms.CenterCrop(8), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
RANDOM = [transforms.RandomResizedCrop(8), transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.2), *PLAIN[2:]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(12):
        place = tmp_path / "data" / f"class{i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (14, 18, 3), dtype=np.uint8)).save(place / f"{i}.png")
    (tmp_path / "shared").mkdir()
    return tmp_path


class Own(datasets.ImageFolder):
    """A class of the program's own: what it does with an item is not known."""


def drawn(dataset: Dataset[Any], shared: SharedBatches | None, epochs: int = 2, **settings: Any) -> list[Any]:
    """All batches of so many epochs, and the random numbers that come next."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        if shared is not None:
            patch.setattr(fetching._MapDatasetFetcher, "fetch", shared.make_fetch(fetching._MapDatasetFetcher.fetch))
        seen = [t for _ in range(epochs) for batch in DataLoader(dataset, 4, **settings) for t in batch]
    return [*seen, torch.rand(3), torch.tensor(random.random()), torch.from_numpy(np.random.rand(2))]


def alike(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("steps", "copied"), [(PLAIN, [2, 5]), (RANDOM, [0, 5])], ids=["plain", "random"])
def test_copied_as_they_would_be_loaded(steps: list[Any], copied: list[int], folder: Path) -> None:
    # With 3 batches an epoch, the first that is found is loaded as well.
    made = datasets.ImageFolder(folder / "data", transforms.Compose(steps))
    plain = drawn(made, None, shuffle=steps is RANDOM)
    for wanted in copied:
        shared = SharedBatches(folder / "shared")
        assert alike(drawn(made, shared, shuffle=steps is RANDOM), plain)
        assert shared.copied == wanted


def test_parts_of_folders_share_as_the_folder(folder: Path) -> None:
    whole = datasets.ImageFolder(folder / "data", transforms.Compose(PLAIN))
    part = ConcatDataset([Subset(whole, [3, 1, 4, 0]), Subset(whole, [5, 9, 2, 6])])
    plain = drawn(part, None)
    shared = SharedBatches(folder / "shared")
    assert alike(drawn(part, shared), plain) and shared.copied == 1


def with_other_file(made: datasets.ImageFolder) -> None:
    Image.new("RGB", (14, 18), "red").save(made.samples[0][0])


def with_other_target(made: datasets.ImageFolder) -> None:
    made.samples[0] = (made.samples[0][0], 2)


def with_other_transform(made: datasets.ImageFolder) -> None:
    made.transform.transforms[0].size = 10


@pytest.mark.parametrize("change", [with_other_file, with_other_target, with_other_transform])
def test_what_has_changed_is_loaded(change: Callable[[datasets.ImageFolder], None], folder: Path) -> None:
    made = datasets.ImageFolder(folder / "data", transforms.Compose(list(PLAIN)))
    before = drawn(made, SharedBatches(folder / "shared"))
    size = made.transform.transforms[0].size
    change(made)
    plain = drawn(made, None)
    again = drawn(made, SharedBatches(folder / "shared"))
    made.transform.transforms[0].size = size
    assert alike(again, plain) and not alike(again, before)


@pytest.mark.parametrize("unknown", ["class", "function", "target", "collate", "workers", "method", "step"])
def test_what_is_not_known_is_loaded(unknown: str, folder: Path) -> None:
    kind = Own if unknown == "class" else datasets.ImageFolder
    steps = [transforms.Lambda(lambda image: image), *PLAIN] if unknown == "function" else PLAIN
    target = int if unknown == "target" else None
    made = kind(folder / "data", transforms.Compose(steps), target_transform=target)
    settings: dict[str, Any] = {"num_workers": 1} if unknown == "workers" else {}
    if unknown == "collate":
        settings = {"collate_fn": lambda rows: default_collate(rows)}
    shared = SharedBatches(folder / "shared")
    with pytest.MonkeyPatch.context() as patch:
        if unknown in ("method", "step"):
            owner, name = (datasets.DatasetFolder, "__getitem__") if unknown == "method" else (transforms.CenterCrop, "forward")
            whole = getattr(owner, name)
            patch.setattr(owner, name, lambda *args: whole(*args))
        assert alike(drawn(made, shared, **settings), drawn(made, None, **settings))
    assert shared.copied == 0 and not list((folder / "shared").iterdir())


def test_a_batch_that_is_not_the_one_loaded_ends_the_sharing(folder: Path) -> None:
    made = datasets.ImageFolder(folder / "data", transforms.Compose(PLAIN))
    drawn(made, SharedBatches(folder / "shared"))
    with pytest.MonkeyPatch.context() as patch:
        real = transforms.functional.to_tensor
        patch.setattr(transforms.functional, "to_tensor", lambda image: real(image) * 0.5)
        plain = drawn(made, None, 1)
        shared = SharedBatches(folder / "shared")
        assert alike(drawn(made, shared, 1), plain) and shared.copied == 0


def test_a_full_disk_ends_the_sharing_and_not_the_arm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    made = datasets.ImageFolder(folder / "data", transforms.Compose(PLAIN))
    plain = drawn(made, None)
    monkeypatch.setattr("safetensors.torch.save_file", full)
    shared = SharedBatches(folder / "shared")
    assert alike(drawn(made, shared), plain) and shared.copied == 0
    assert not list((folder / "shared").iterdir())
