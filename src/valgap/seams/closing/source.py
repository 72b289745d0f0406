"""The data sets of a program that has ended, read again, and its model, left as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset

from valgap.seams.looking import datasets as ds
from valgap.seams.looking.batches import as_class_index, find_images, read_batch
from valgap.seams.looking.channel_change import Change
from valgap.seams.looking.described import KeptLoader, drawn_order
from valgap.seams.looking.inputs import fingerprint
from valgap.seams.looking.random_states import random_states_kept
from valgap.seams.looking.tables import score
from valgap.seams.looking.tensors import readable
from valgap.seams.looking.tracked import TrackedModel
from valgap.seams.recording.held_images import HeldImages
from valgap.seams.recording.recorder import Recorder

# Of a batch's mean, in standard deviations, and of the logarithm of its standard deviation: how far it may be off by chance.
ALIKE = 0.5


class CannotBeReadError(Exception):
    """Why the data set cannot be read again, in a sentence."""


class Source:
    """Batches of a data set in a fixed random order, as the program's own loader would collate them."""

    def __init__(
        self,
        recorder: Recorder,
        model: TrackedModel,
        loader: Any,
        dataset: Any,
        dataset_id: int,
        most: int = 1 << 60,
        check_inputs: bool = True,
        places: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """``places`` (N,): the positions that belong to this phase, where another one may draw from the same data."""
        self.recorder = recorder
        self.loader = loader
        self.dataset = dataset
        self.dataset_id = dataset_id
        self.size = ds.safe_len(dataset)
        self.most = most
        order = np.random.default_rng(0).permutation(max(0, self.size))  # a generator of our own
        if places is not None and len(places) == len(order) and places.any():
            order = order[places[order]]
        self.order = order[:most].tolist()
        self.device = next(p.device for p in model.parts[0].parameters() if readable(p))
        walk = recorder.last.eval[1]["walk"] if recorder.last.eval else None
        lasts = (_change(last) for last in (recorder.last.eval, recorder.last.train))
        self._change = next((c[1] for c in lasts if c is not None and c[0] is loader), None)
        self._dtype = _given_as(walk)
        found = ds.transform_of(loader.dataset)
        self.in_order = comes_in_order(loader)
        self.left = 0  # batches that are still to come, where the loader gives them in its own way
        if self.in_order:
            walk = next((w for own, w in _walks(recorder) if own is loader), None)
            self.left = walk.num_batches if walk is not None else 0
        # What is random, or goes through another transform, is never what the model was given.
        fixed = dataset is loader.dataset and (self.in_order or found is None or not any(s.random for s in found.steps))
        same = walk is not None and walk.dataset_id == dataset_id and check_inputs and fixed
        self._seen = getattr(walk, "fingerprints", {}) if same else {}
        self._inputs = walk.inputs.result() if walk is not None else None
        self.only_alike = False  # whether images need only be of the kind that the model was given
        # Where several views of each image are tried, the last one stands for it: the middle of five crops. Training images
        # through the same transform have as many.
        self._crops = getattr(walk, "views", 1) > 1
        self._ids = dataset.ids if isinstance(dataset, HeldImages) else recorder.samples.ids.get(dataset_id)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, Any]]:
        """(images, class indices, sample ids) of each batch."""
        if self.in_order:
            yield from self._as_the_loader_gives()
            return
        size = min(64, self.loader.batch_size or 32)
        batches = DataLoader(
            self.dataset,
            batch_size=size,
            sampler=self.order,
            collate_fn=self.loader.collate_fn,
            num_workers=self.loader.num_workers,
            generator=torch.Generator().manual_seed(0),
        )
        ids, start = self._ids, 0
        for batch in batches:
            images = find_images(batch)
            if images is None:
                raise CannotBeReadError("the loader's batches hold no images")
            images = images[:, -1] if self._crops and images.ndim == 5 else images
            places = self.order[start : start + len(images)]
            start += len(images)
            target = self._target(read_batch(None, places, batch), len(images))
            own = ids[places] if ids is not None and len(ids) == self.size else np.full(len(images), -1, np.int32)
            images = images.to(self.device)
            yield self._as_given(images if self._change is None else self._change(images)), target, own

    def _as_given(self, images: torch.Tensor) -> torch.Tensor:
        """Of the kind of numbers that the program hands to the model."""
        return images.to(self._dtype) if self._dtype is not None and images.is_floating_point() else images

    def _as_the_loader_gives(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, Any]]:
        """The same from the loader itself, once more from its start: all that the program's last walk over it had."""
        if self.dataset is not self.loader.dataset:
            raise CannotBeReadError("the loader makes its batches in its own way, and of its own data set alone")
        loader = self.loader
        if isinstance(loader, KeptLoader):
            loader = DataLoader(loader.dataset, loader.batch_size, collate_fn=loader.collate_fn)
        known = self.recorder.samples.ids.get(self.dataset_id)
        iterator, order = iter(loader), None
        while self.left:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            images = find_images(batch)
            if images is None:
                raise CannotBeReadError("the loader's batches hold no images")
            if self.left * len(images) > 2 * self.most:
                raise CannotBeReadError("the loader makes its batches in its own way, and only all of them would do")
            self.left -= 1
            order = drawn_order(loader) if order is None else order
            places = (order or [])[: len(images)]
            order = order[len(images) :] if order is not None else None
            loaded = read_batch(None, places, batch)
            target = self._target(loaded, len(images))
            if loaded.keys is not None:
                own = np.array([self.recorder.samples.id_of_content(int(k)) for k in loaded.keys], np.int32)
            else:
                own = known[places] if known is not None else np.full(len(images), -1, np.int32)
            images = images.to(self.device)
            # What another library's loader does after torch's iterator has been done to these already.
            again = self._change if isinstance(loader, DataLoader) else None
            yield self._as_given(images if again is None else again(images)), target, own

    def _target(self, loaded: Any, n: int) -> torch.Tensor:
        keys = self.recorder.target_keys
        key = keys.get(self.dataset_id, keys.get(-1))
        if key not in loaded.targets:
            whole = [k for k, t in loaded.targets.items() if not t.is_floating_point()] or list(loaded.targets)
            key = whole[0] if whole else None
        target = as_class_index(loaded.targets[key], n) if key is not None else None
        return target if target is not None else torch.full((n,), -1)

    def _is_alike(self, images: torch.Tensor) -> bool:
        """Whether a batch has the shape, and about the light and contrast, of what the model was given."""
        if self._inputs is None or images.ndim != 4 or tuple(self._inputs["shape"][-3:]) != tuple(images.shape[1:]):
            return False
        mean, spread = _of_channels(images)
        own, theirs = np.asarray(self._inputs["mean"]), np.asarray(self._inputs["std"])
        return bool((np.abs(mean - own) < ALIKE * theirs).all() and (np.abs(np.log(spread / theirs)) < ALIKE).all())

    def same_inputs(self, ids: Any, images: torch.Tensor) -> list[bool]:
        """Whether each image is, by its fingerprint, what the model was given of that sample in the run."""
        if not self._seen:
            return []
        if self.only_alike:
            return [self._is_alike(images)] * len(images)
        marks = fingerprint(images).cpu().numpy()
        return [
            i >= 0 and bool(np.isclose(self._seen[int(i)], mark, rtol=1e-3, atol=1e-3))
            for i, mark in zip(ids, marks, strict=True)
            if int(i) in self._seen or (self.in_order and i < 0)  # known by its content: another one
        ]


def _of_channels(images: torch.Tensor) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(C,) mean and standard deviation of the channels of (N, C, H, W)."""
    over = images.detach().double().transpose(0, 1).flatten(1)
    return over.mean(1).cpu().numpy(), over.std(1).cpu().numpy()


def own_places(recorder: Recorder, facts: dict[str, Any]) -> npt.NDArray[np.bool_] | None:
    """(N,) the positions of a pass's data set that belong to its phase; None for all of them, or where they are not known.

    Two samplers may share one folder: scored again, validation must not hold what only training draws, nor the other way
    round. A part that no phase drew, since a pass broke off, belongs to whichever asks. One process of a group draws its own
    share of what is everybody's.
    """
    train = recorder.last.train[1] if recorder.last.train is not None else None
    val = recorder.last.eval[1] if recorder.last.eval is not None else None
    if train is None or val is None or recorder.passes.ranks.rank is not None:
        return None
    of_train = train["dataset"], recorder.last.trained_on.get(train["dataset"])
    of_val = val["dataset"], val["walk"].shown
    (mine, own), (other, others) = (of_train, of_val) if facts is train else (of_val, of_train)
    ids, their_ids = (recorder.samples.ids.get(number) for number in (mine, other))
    if ids is None or their_ids is None or own is None or others is None:
        return None
    if len(own) != len(ids) or len(others) != len(their_ids):
        return None
    elsewhere = np.isin(ids, their_ids[others]) & (ids >= 0)
    return own | ~elsewhere if elsewhere.any() else None


def comes_in_order(loader: Any) -> bool:
    """Whether its samples can only be had as the loader gives them: a stream, or a loader that makes batches in its own way."""
    dataset = getattr(loader, "dataset", None)
    torchs = isinstance(loader, (DataLoader, KeptLoader))
    return not torchs or isinstance(dataset, IterableDataset) or ds.safe_len(dataset) < 0


def _given_as(walk: Any) -> torch.dtype | None:
    """The kind of floating-point numbers that the model was given in a walk; None where that is not known."""
    seen = walk.inputs.result() if walk is not None else None
    dtype = getattr(torch, str(seen["dtype"]).removeprefix("torch."), None) if seen is not None else None
    return dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else None


def _walks(recorder: Recorder) -> Iterator[tuple[Any, Any]]:
    """(loader, walk) of the last evaluation and the last training."""
    for last in (recorder.last.eval, recorder.last.train):
        if last is not None:
            yield last[0], last[1]["walk"]


def _change(last: tuple[Any, Any] | None) -> tuple[Any, Change | None] | None:
    """(loader, what the program does to its images) of the last walk of a kind."""
    if last is None:
        return None
    given = getattr(last[1]["walk"], "given", None)
    return last[0], given.change() if given is not None else None


def sample_rows(logits: torch.Tensor, target: torch.Tensor, ids: Any, number: int, images: torch.Tensor) -> dict[str, Any]:
    table = score(logits, target, len(ids), "")
    table["sample"] = ids
    table["batch"] = np.full(len(ids), number, np.int32)
    table["fingerprint"] = fingerprint(images).cpu().numpy()
    return table


def uncompiled() -> AbstractContextManager[Any]:
    """Compiled models run as they were written, so that their layers can be listened to."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def preserved(model: TrackedModel) -> Iterator[None]:
    """Puts weights, buffers, modes and random states back."""
    kept = [(t, t.detach().clone()) for _, t, _, _ in model.tensors]
    modes: list[tuple[Any, bool]] = [(m, m.training) for r in model.roots() for m in r.modules()]
    # A parallel wrapper begins each call by waiting for the other processes, which are not here any more.
    waiting: list[tuple[Any, bool]] = [
        (m, m.require_forward_param_sync) for m, _ in modes if hasattr(m, "require_forward_param_sync")
    ]
    for wrapper, _ in waiting:
        wrapper.require_forward_param_sync = False
    with random_states_kept():
        try:
            yield
        finally:
            for tensor, value in kept:
                tensor.data.copy_(value)
            for module, training in modes:
                module.training = training
            for wrapper, waits in waiting:
                wrapper.require_forward_param_sync = waits
