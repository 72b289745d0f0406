"""Frozen features, once per image: read ahead, run by the fastest way, kept in the cache."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from valgap.engine.forward import TRIED_IMAGES, Forward, Outputs, Pixels, choose_forward
from valgap.engine.reading import View, read_batches, read_pixels
from valgap.engine.split import Cut, FrontAndFeatures, Normalised, body_of
from valgap.engine.store import DIGEST_BYTES, FeatureStore, Space, file_digest
from valgap.models.preprocessing import Preprocessing

BATCH = 32
FEATURES, ACTIVATIONS = "features", "activations"
FORWARDS = "forwards.json"
# Activations are kept as float16: its relative step of 5e-4 is far below what a weight step changes, at half the disk.
ACTIVATION_DTYPE = np.float16
Progress = Callable[[int, int], None]
# Compiled networks of this process, the newest last: train, val and mirrored images go through the same one.
KEPT_FORWARDS = 2
_forwards: dict[str, Forward] = {}


@dataclass(frozen=True)
class Rows:
    """Rows of a memory-mapped array, by position. ``array[rows]`` would copy them all; ``rows[i]`` reads one."""

    array: npt.NDArray[Any]  # (R, ...)
    places: npt.NDArray[np.int64]  # (N,)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> npt.NDArray[Any]:
        row: npt.NDArray[Any] = self.array[self.places[index]]
        return row

    def all(self) -> npt.NDArray[Any]:
        """(N, ...): a view of the memory map where the rows lie together, else a copy."""
        if len(self) and np.array_equal(self.places, np.arange(self.places[0], self.places[0] + len(self))):
            return self.array[self.places[0] : self.places[0] + len(self)]
        return np.asarray(self.array[self.places])


def extract(
    model: nn.Module,
    head: nn.Module,
    preprocessing: Preprocessing,
    paths: Sequence[str | Path],
    *,
    view: View = "plain",
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    images: int = 0,
) -> npt.NDArray[np.float32]:
    """(N, D) float32: what goes into ``head`` for each image, in eval mode. Memory-mapped, read-only.

    Each image passes the network once; later calls with the same weights, preprocessing, view and file content, by whatever
    program, read the cache. The model is not touched: not its mode, its statistics, or its hooks.

    Args:
        model: the whole network, e.g. ``create_model(...).model``.
        head: its last layer, e.g. ``create_model(...).head``.
        preprocessing: what the weights expect, e.g. ``create_model(...).preprocessing``.
        paths: readable image files (`valgap.data.load_folder` sorts out the others).
        view: ``plain`` or ``flipped`` (mirrored left and right).
        store: another cache than the user's.
        progress: told (done, total) after each batch; total counts the images that are not cached yet.
        images: about how many it will see, in however many calls: a faster way to run it pays for all together.

    Raises:
        DataError: a file is no readable image.
    """
    body = body_of(model, head)
    key = _key(body, preprocessing, FEATURES)
    return _run(body, key, preprocessing, paths, view, store, progress, _device(model), images)[FEATURES].all()


def unseen(
    model: nn.Module,
    head: nn.Module,
    preprocessing: Preprocessing,
    paths: Sequence[str | Path],
    *,
    store: FeatureStore | None = None,
) -> int:
    """How many different images of these `extract` would have to look at: the rest are in the cache."""
    body = body_of(model, head)
    return _unseen(_key(body, preprocessing, FEATURES), paths, store)


class SplitNetwork:
    """A frozen copy of a network that was cut in two: it goes on seeing as it did when the original learns."""

    def __init__(self, model: nn.Module, head: nn.Module, cut: Cut, preprocessing: Preprocessing, images: int = 0) -> None:
        """``images``: about how many it will see, in however many calls: a faster way to run it pays for all together."""
        self.images = images
        network = FrontAndFeatures(copy.deepcopy(cut.front), body_of(cut.tail, head))
        self.network, self.preprocessing, self.device = network.eval().requires_grad_(False), preprocessing, _device(model)
        self.key = _key(self.network, preprocessing, cut.name)

    def unseen(self, paths: Sequence[str | Path], *, store: FeatureStore | None = None) -> int:
        """How many different images of these `extract` would have to look at: the rest are in the cache."""
        return _unseen(self.key, paths, store)

    def extract(
        self,
        paths: Sequence[str | Path],
        *,
        view: View = "plain",
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> tuple[npt.NDArray[np.float32], Rows]:
        """(features (N, D), activations before the cut (N, ...) float16); as `extract`."""
        found = _run(self.network, self.key, self.preprocessing, paths, view, store, progress, self.device, self.images)
        return found[FEATURES].all(), found[ACTIVATIONS]


def _unseen(key: str, paths: Sequence[str | Path], store: FeatureStore | None) -> int:
    digests = list(dict.fromkeys(file_digest(p) for p in paths))
    places = Space((store or FeatureStore()).spaces_folder / f"{key}-plain").places(digests)
    return sum(1 for place in places if place < 0)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _run(
    network: nn.Module,
    key: str,
    preprocessing: Preprocessing,
    paths: Sequence[str | Path],
    view: View,
    store: FeatureStore | None,
    progress: Progress | None,
    device: torch.device,
    expected: int = 0,
) -> dict[str, Rows]:
    store = store or FeatureStore()
    about = f"{type(network).__name__} {preprocessing.size} px, {view}"
    space = store.space(f"{key}-{view}", about)
    digests = [file_digest(p) for p in paths]
    first = {d: i for i, d in reversed(list(enumerate(digests)))}
    missing = [i for i, place in enumerate(space.places(digests)) if place < 0 and first[digests[i]] == i]
    kept = _Kept(store, space, len(missing))
    if missing:
        todo = [paths[i] for i in missing]
        done = 0
        with contextlib.closing(_compute(network, key, device, preprocessing, todo, view, store, expected)) as batches:
            for outputs in batches:
                count = len(outputs[0])
                kept.add([digests[i] for i in missing[done : done + count]], outputs)
                done += count
                if progress is not None:
                    progress(done, len(todo))
    return kept.rows(digests)


def _compute(
    network: nn.Module,
    key: str,
    device: torch.device,
    preprocessing: Preprocessing,
    paths: Sequence[str | Path],
    view: View,
    store: FeatureStore,
    expected: int,
) -> Generator[Outputs, None, None]:
    """The outputs of batches in order. The network runs in a thread of its own while others read ahead.

    A recorder that listens to the program's own thread does not see these calls: they are no pass of the program.
    """
    with ThreadPoolExecutor(1) as lane:
        name = f"{key} {device} {torch.get_num_threads()} {expected}"
        chosen = _forwards.get(name)
        if chosen is None:
            sample = np.stack([read_pixels(p, preprocessing, view) for p in paths[:TRIED_IMAGES]])
            whole = Normalised(network, preprocessing.mean, preprocessing.std).eval()
            count = max(len(paths), expected)
            chosen = lane.submit(choose_forward, whole, device, sample, count, store.folder / FORWARDS).result()
            if expected or chosen.name != "fp32":  # which may only mean that there are few images in this call
                for old in list(_forwards)[: max(0, len(_forwards) - KEPT_FORWARDS + 1)]:
                    del _forwards[old]
                _forwards[name] = chosen
        forward = chosen
        waiting = None
        for pixels in read_batches(paths, preprocessing, view, BATCH, os.cpu_count() or 1):
            running = lane.submit(run_within_memory, forward, pixels)
            if waiting is not None:
                yield waiting.result()
            waiting = running
        if waiting is not None:
            yield waiting.result()


def run_within_memory(forward: Forward, pixels: Pixels) -> Outputs:
    """The outputs of a batch; where memory runs out, of its halves one after the other."""
    try:
        return forward(pixels)
    except (RuntimeError, MemoryError) as error:
        if len(pixels) == 1 or not is_out_of_memory(error):
            raise
    middle = len(pixels) // 2
    parts = [run_within_memory(forward, pixels[:middle]), run_within_memory(forward, pixels[middle:])]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine has no memory left."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and ("out of memory" in str(error) or "not enough memory" in str(error))


class _Kept:
    """Where outputs go: into the space while the disk takes them, else into memory."""

    def __init__(self, store: FeatureStore, space: Space, expected: int) -> None:
        self.store, self.space, self.expected = store, space, expected
        self.on_disk: bool | None = None
        self.memory: dict[bytes, tuple[npt.NDArray[Any], ...]] = {}
        self.names: tuple[str, ...] = tuple(c.name for c in space.columns)

    def add(self, digests: Sequence[bytes], outputs: Outputs) -> None:
        """Keep one batch."""
        self.names = (FEATURES, ACTIVATIONS)[: len(outputs)]
        kept: list[npt.NDArray[Any]] = [outputs[0], *(o.astype(ACTIVATION_DTYPE) for o in outputs[1:])]
        arrays = dict(zip(self.names, kept, strict=True))
        if self.on_disk is None:
            row = sum(a[0].nbytes for a in arrays.values()) + DIGEST_BYTES
            self.on_disk = self.store.make_room(self.expected * row, self.space)
        if self.on_disk:
            try:
                self.space.append(digests, arrays)
                return
            except OSError:  # full or read-only after all
                self.on_disk = False
        for i, digest in enumerate(digests):
            self.memory[digest] = tuple(a[i] for a in arrays.values())

    def rows(self, digests: Sequence[bytes]) -> dict[str, Rows]:
        """Each column's rows, in the order of ``digests``."""
        if not self.memory:
            places = self.space.places(digests)
            return {name: Rows(self.space.column(name), places) for name in self.names}
        stored = self.space.places(digests)
        columns = {name: self.space.column(name) for name in self.names} if (stored >= 0).any() else {}
        found: dict[str, Rows] = {}
        for k, name in enumerate(self.names):
            one = [columns[name][p] if p >= 0 else self.memory[d][k] for d, p in zip(digests, stored, strict=True)]
            found[name] = Rows(np.stack(one), np.arange(len(one)))
        return found


def _key(network: nn.Module, preprocessing: Preprocessing, what: str) -> str:
    """Stands for architecture, weights, preprocessing and the place where the network was cut."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(repr((repr(network), asdict(preprocessing), what)).encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
