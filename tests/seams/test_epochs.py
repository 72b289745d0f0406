"""A shortened program ends where its next training pass would begin, whatever else it does with the training data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from tests.seams.test_loaders import OwnLoader
from valgap.record.writer import RecordWriter
from valgap.seams.acting.acting import Acting
from valgap.seams.acting.epochs import StopProgram
from valgap.seams.acting.model_acts import RecordedWeights
from valgap.seams.recording.recorder import Recorder


def torch_loader(dataset: TensorDataset) -> DataLoader[Any]:
    return DataLoader(dataset, 4)


def own_loader(dataset: TensorDataset) -> OwnLoader:
    return OwnLoader(dataset, 4, False)


class OneWalk(DataLoader[Any]):
    """One iterator for all epochs, made without DataLoader.__iter__, as ultralytics' loader does."""

    class ForEver:
        def __init__(self, batches: Any) -> None:
            self.batches = batches

        def __iter__(self) -> Iterator[Any]:
            while True:
                yield from self.batches

    def __init__(self, dataset: TensorDataset) -> None:
        super().__init__(dataset, 4)
        object.__setattr__(self, "batch_sampler", self.ForEver(self.batch_sampler))
        self.walk: Any = None

    def __len__(self) -> int:
        return len(self.batch_sampler.batches)  # type: ignore[union-attr]

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if self.walk is None:
            self.walk = self._get_iterator()
        for _ in range(len(self)):
            yield next(self.walk)


class OwnBatches:
    """A sampler of whole batches that is none of torch's."""

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[0, 1, 2, 3], [4, 5, 6, 7]])

    def __len__(self) -> int:
        return 2


def own_batches(dataset: TensorDataset) -> DataLoader[Any]:
    return DataLoader(dataset, batch_sampler=OwnBatches())  # type: ignore[arg-type]


def epoch(order: str, loaders: dict[str, Any], net: nn.Module, done: list[str]) -> None:
    """One epoch: (t)rain with backward, (g) by gradients of its own, (s)core the training data, (v)alidate."""
    for act in order:
        for images, targets in loaders["val" if act == "v" else "train"]:
            with torch.set_grad_enabled(act in "tg"):
                loss = functional.cross_entropy(net(images), targets)
            if act == "t":
                loss.backward()
            elif act == "g":
                torch.autograd.grad(loss, list(net.parameters()))
        done.append(act)


@pytest.mark.parametrize("order", ["tv", "tsv", "tvs", "tsvs", "gsv"])
@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("make", [torch_loader, own_loader, OneWalk, own_batches])
def test_it_ends_after_so_many_trainings_and_their_validation(
    make: Callable[[TensorDataset], Any], order: str, most: int, tmp_path: Path
) -> None:
    images = torch.rand(8, 3, 6, 6)
    loaders = {name: make(TensorDataset(images, torch.arange(8) % 2)) for name in ("train", "val")}
    net, done = nn.Sequential(nn.Flatten(), nn.Linear(108, 2)), list[str]()
    weights = tmp_path / "weights.safetensors"
    save_file({name: torch.zeros_like(t) for name, t in net.state_dict().items()}, weights)
    held = RecordedWeights(weights)
    acting = Acting([held], train=[0], validation=[1], epochs=most)
    acting.attach(Recorder(RecordWriter(tmp_path / "r")))
    acting.attach_outside()
    try:
        with pytest.raises(StopProgram):
            for _ in range(4):
                epoch(order, loaders, net, done)
    finally:
        acting.detach_outside()
        acting.detach()
    assert held.acted == most and not any(bool(t.any()) for t in net.state_dict().values())
    assert "".join(done) == (order * most).rstrip("s")


@pytest.mark.parametrize(("make", "left"), [(torch_loader, 4), (own_batches, 4), (OneWalk, 8)])
def test_a_share_of_the_training_images_is_drawn_from_any_loader_that_ends(
    make: Callable[[TensorDataset], Any], left: int, tmp_path: Path
) -> None:
    loader = make(TensorDataset(torch.rand(8, 3, 6, 6), torch.arange(8) % 2))
    acting = Acting([], train=[0], validation=[1], fraction=0.5)
    acting.attach(Recorder(RecordWriter(tmp_path / "r")))
    try:
        assert sum(len(targets) for _, targets in loader) == left
    finally:
        acting.detach()
