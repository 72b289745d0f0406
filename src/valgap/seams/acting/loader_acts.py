"""What is changed at the loader: transforms, labels, and which samples are drawn in which order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from valgap.seams.acting.act import Act
from valgap.seams.looking import datasets as ds
from valgap.seams.looking.batches import read_batch
from valgap.seams.looking.changes import replace_transform, transform_for, without_randomness


class OtherTransform(Act):
    """Another transform in place of a data set's own; a subclass says which."""

    def __init__(self, phase: str = "validation") -> None:
        super().__init__(phase)
        self._done: set[int] = set()

    def transform(self, found: ds.FoundTransform) -> Any | None:
        """The transform that takes the place of the one found; None where there is none."""
        raise NotImplementedError

    def dataset(self, dataset: Any) -> Any:
        found = ds.transform_of(dataset)
        other = self.transform(found) if found is not None else None
        clone = replace_transform(dataset, other) if other is not None else None
        if clone is None:
            return dataset
        self.acted += 1
        return clone

    def iterating(self, loader: Any) -> None:
        if id(loader.dataset) in self._done:
            return
        clone = self.dataset(loader.dataset)
        if clone is not loader.dataset:
            self.replaced(loader.dataset, clone)
            object.__setattr__(loader, "dataset", clone)
            self._done.add(id(clone))


class FixedTransform(OtherTransform):
    """The random steps taken out of a data set's transform."""

    def transform(self, found: ds.FoundTransform) -> Any | None:
        return without_randomness(found.transform)


class WeightsTransform(OtherTransform):
    """Images prepared from the file on as the published weights want them; the settings are those of `transform_for`."""

    def __init__(self, phase: str = "validation", **settings: Any) -> None:
        super().__init__(phase)
        self._transform = transform_for(**settings)

    def transform(self, found: ds.FoundTransform) -> Any | None:
        return self._transform


class RelabelSamples(Act):
    """The samples at ``positions`` of the data set get the class indices ``targets``."""

    def __init__(self, positions: Sequence[int], targets: Sequence[int], phase: str = "train") -> None:
        super().__init__(phase)
        self.labels = {int(i): int(t) for i, t in zip(positions, targets, strict=True)}

    def iterating(self, loader: Any) -> None:
        if not isinstance(loader.dataset, Relabelled):
            clone = Relabelled(loader.dataset, self.labels)
            self.replaced(loader.dataset, clone)
            object.__setattr__(loader, "dataset", clone)
            self.acted += 1


class Relabelled(torch.utils.data.Dataset[Any]):
    """A data set in which some samples have another class index."""

    def __init__(self, dataset: Any, labels: dict[int, int]) -> None:
        self.dataset, self.labels = dataset, labels

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        item = self.dataset[index]
        target = self.labels.get(int(index))
        return item if target is None else _with_target(item, target)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "dataset":  # __getitems__ would lead past us
            raise AttributeError(name)
        return getattr(self.dataset, name)


def _with_target(item: Any, target: int) -> Any:
    """The item with its class index exchanged: the second place of a tuple, or a field with a label's name."""
    if isinstance(item, dict):
        key = next((k for k in ("label", "labels", "target", "y") if k in item), None)
        return item if key is None else {**item, key: _like(item[key], target)}
    if isinstance(item, (tuple, list)) and len(item) > 1:
        return type(item)([item[0], _like(item[1], target), *item[2:]])
    return item


def _like(old: Any, target: int) -> Any:
    return torch.full_like(old, target) if isinstance(old, torch.Tensor) else type(old)(target)


class RemapLabels(Act):
    """Target t becomes ``mapping[t]`` in the batches of a phase."""

    def __init__(self, mapping: Sequence[int], phase: str = "validation") -> None:
        super().__init__(phase)
        self.mapping = torch.tensor([int(v) for v in mapping])

    def batch(self, batch: Any) -> Any:
        for target in read_batch(None, None, batch).targets.values():
            if target.is_floating_point() or target.ndim != 1 or int(target.max()) >= len(self.mapping):
                continue
            target.copy_(self.mapping.to(target.device)[target.long()].to(target.dtype))
            self.acted += 1
            break
        return batch


class DropSamples(Act):
    """The samples at ``positions`` of the data set are not drawn."""

    def __init__(self, positions: Sequence[int], phase: str = "train") -> None:
        super().__init__(phase)
        self.positions = frozenset(int(i) for i in positions)

    def sampler(self, sampler: Any, loader: Any) -> Any:
        self.acted += 1
        return Chosen(sampler, lambda i: i not in self.positions)


class Shuffle(Act):
    """Samples drawn in random order."""

    def sampler(self, sampler: Any, loader: Any) -> Any:
        self.acted += 1
        return torch.utils.data.RandomSampler(range(len(sampler)))


class DrawAll(Act):
    """Every sample once an epoch, in random order: those at ``positions``, or all of them.

    Where the program makes its batches in a sampler of its own, they are ``batch_size`` large.
    """

    def __init__(self, batch_size: int, positions: Sequence[int] | None = None, phase: str = "train") -> None:
        super().__init__(phase)
        self.batch_size = max(1, int(batch_size))
        self.positions = [int(i) for i in positions] if positions is not None else None

    def sampler(self, sampler: Any, loader: Any) -> Any:
        size = ds.safe_len(loader.dataset)
        positions = self.positions if self.positions is not None else list(range(max(0, size)))
        if isinstance(loader.dataset, torch.utils.data.IterableDataset) or not positions or max(positions) >= size:
            return sampler
        self.acted += 1
        every = torch.utils.data.SubsetRandomSampler(positions)
        own_batches = loader.batch_size is None and loader.batch_sampler is not None
        return torch.utils.data.BatchSampler(every, self.batch_size, False) if own_batches else every


class BalancedSampling(Act):
    """Every class drawn equally often, with replacement."""

    def sampler(self, sampler: Any, loader: Any) -> Any:
        targets = _declared_targets(loader.dataset)
        if (targets < 0).any():
            return sampler
        self.acted += 1
        counts = np.bincount(targets)
        return torch.utils.data.WeightedRandomSampler((1.0 / counts[targets]).tolist(), len(targets))


class DrawHalf(Act):
    """Half of the samples of every class (of all, where no classes are declared), each in its own place and in another's.

    Steps, batches and random numbers stay those of the program. ``draw``: which half.
    """

    def __init__(self, draw: int = 0, phase: str = "train") -> None:
        super().__init__(phase)
        self.draw = int(draw)

    def sampler(self, sampler: Any, loader: Any) -> Any:
        if isinstance(loader.dataset, torch.utils.data.IterableDataset) or ds.safe_len(loader.dataset) < 2:
            return sampler
        self.acted += 1
        return InPlace(sampler, half_for_whole(_declared_targets(loader.dataset), self.draw))


def half_for_whole(targets: np.ndarray, draw: int) -> list[int]:
    """Of each position (N,), the one that is drawn in its place: itself for half of each class, one of these for the others."""
    rng = np.random.default_rng([draw, 78])
    drawn = np.arange(len(targets))
    for label in np.unique(targets):
        own = rng.permutation(np.flatnonzero(targets == label))
        kept, others = own[: -(-len(own) // 2)], own[-(-len(own) // 2) :]
        drawn[others] = kept[: len(others)]
    return drawn.tolist()


def _declared_targets(dataset: Any) -> np.ndarray:
    """(N,) by position; -1 where none is declared."""
    targets = np.full(len(dataset), -1)
    for leaf in ds.leaves(dataset):
        declared = ds.targets_of(leaf.dataset)
        if declared is not None:
            targets[leaf.position] = declared[leaf.index]
    return targets


class InPlace:
    """A sampler, of indices or of batches of them, with other indices in their places."""

    def __init__(self, sampler: Any, others: Sequence[int]) -> None:
        self.sampler, self.others = sampler, others

    def __iter__(self) -> Iterator[Any]:
        for drawn in self.sampler:
            yield [self.others[int(i)] for i in drawn] if isinstance(drawn, (list, tuple)) else self.others[int(drawn)]

    def __len__(self) -> int:
        return len(self.sampler)


class FirstBatch(Act):
    """Only the first batch of every pass is drawn."""

    def __init__(self, phase: str = "train") -> None:
        super().__init__(phase)

    def sampler(self, sampler: Any, loader: Any) -> Any:
        self.acted += 1
        return First(sampler, loader.batch_size or 1)


class First:
    """The first ``count`` indices of a sampler."""

    def __init__(self, sampler: Any, count: int) -> None:
        self.base, self.count = sampler, count

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self.base, self.count)

    def __len__(self) -> int:
        return min(self.count, len(self.base))


class Repeated:
    """A sampler that is gone through so many times, one after the other; each time it draws anew."""

    def __init__(self, sampler: Any, times: int) -> None:
        self.sampler, self.times = sampler, times

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.times):
            yield from self.sampler

    def __len__(self) -> int:
        return self.times * len(self.sampler)


class TrainLonger(Act):
    """Every training pass goes through its samples so many times: longer training, whatever ends the program's loop."""

    def __init__(self, times: int, phase: str = "train") -> None:
        super().__init__(phase)
        self.times = int(times)

    def iterating(self, loader: Any) -> None:
        self.acted += 1

    def sampler(self, sampler: Any, loader: Any) -> Any:
        return Repeated(sampler, self.times)


class Chosen:
    """A sampler without some of its indices."""

    def __init__(self, sampler: Any, keep: Callable[[int], bool]) -> None:
        self.base, self.keep = sampler, keep

    def __iter__(self) -> Iterator[int]:
        return (i for i in self.base if self.keep(i))

    def __len__(self) -> int:
        if isinstance(self.base, Repeated):
            return self.base.times * len(Chosen(self.base.sampler, self.keep))
        source = getattr(self.base, "data_source", None)
        size = len(source) if source is not None else len(self.base)
        return sum(self.keep(i) for i in range(size))


class ChosenOfBatches:
    """A sampler of whole batches, each without some of its indices; a batch that has none left is left out."""

    def __init__(self, batches: Any, keep: Callable[[int], bool]) -> None:
        self.base, self.keep = batches, keep

    def __iter__(self) -> Iterator[list[int]]:
        kept = ([i for i in batch if self.keep(i)] for batch in self.base)
        return (batch for batch in kept if batch)

    def __len__(self) -> int:
        return len(self.base)
