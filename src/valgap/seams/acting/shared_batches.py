"""Batches that arms draw alike: what one has loaded, another copies.

Validation images of a deterministic transform are the same in every epoch of every arm; training images are the same in arms of
one seed, whose random numbers stand alike. Shared is only what is known to follow from files, transform and random numbers: image
folders of torchvision (and parts of them), its transforms down to the last one, batches put together by torch, all in the
program's own process. A batch is stored under a digest of its files (names, sizes, times), targets, transform and, where that
draws, of the state of all random numbers; what these are afterwards is stored with it. Everything else is loaded as ever.

Not taken on trust: the first batch of each transform that is found is loaded as well, and nothing more of it is shared in this
process where the two differ in any bit.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Subset, default_collate, get_worker_info

from valgap.seams.acting.shared_room import SharedRoom

MOST_BYTES = 1 << 30
MOST_DRAWN = 0.5  # share of it for batches that only arms of one seed share
NAMES = "batch-*.safetensors"
TRANSFORMS = ("torchvision.transforms.transforms", "torchvision.transforms.autoaugment")
DETERMINISTIC = (
    "Compose",
    "Resize",
    "CenterCrop",
    "ToTensor",
    "Normalize",
    "Pad",
    "Grayscale",
    "ConvertImageDtype",
    "PILToTensor",
)
MOST_DEPTH = 8

Original = Callable[..., Any]


class _UnknownError(Exception):
    """Something that a batch depends on is not known."""


class SharedBatches:
    """The batches of one arm, in ``folder``, which arms share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copied = 0  # batches
        self._verified: dict[bytes, bool] = {}  # by transform: whether a shared batch was the one that is loaded
        self._room = SharedRoom(folder, NAMES, MOST_BYTES)

    def make_fetch(self, original: Original) -> Original:
        """What stands in the place of ``_MapDatasetFetcher.fetch``."""

        def fetch(fetcher: Any, index: Any) -> Any:
            known = self._key(fetcher, index) if get_worker_info() is None else None
            return original(fetcher, index) if known is None else self._fetch(*known, lambda: original(fetcher, index))

        return fetch

    def _fetch(self, key: str, transform: bytes, load: Callable[[], Any]) -> Any:
        file = self.folder / f"batch-{key}.safetensors"
        if self._verified.get(transform) is False:
            return load()
        found = _stored(file)
        if found is not None and self._verified.get(transform):
            self.copied += 1
            _put_random(found)
            return [found["images"], found["targets"]]
        before = _random_state()
        batch = load()
        if type(batch) is not list or len(batch) != 2 or any(type(b) is not torch.Tensor or not b.is_contiguous() for b in batch):
            self._verified[transform] = False
            return batch
        now = _random_state()
        drawn = {name: state for name, state in now.items() if not torch.equal(state, before[name])}
        made = {"images": batch[0], "targets": batch[1], **drawn}
        if found is not None:
            same = found.keys() == made.keys()
            self._verified[transform] = same and all(torch.equal(found[k], made[k]) for k in made)
        elif drawn and is_deterministic(transform):
            self._verified[transform] = False  # its key holds no random numbers
        else:
            self._store(file, made, bool(drawn))
        return batch

    def _store(self, file: Path, made: dict[str, torch.Tensor], drawn: bool) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        size = sum(t.numel() * t.element_size() for t in made.values())
        if not self._room.takes(size, MOST_DRAWN if drawn else 1.0):
            return
        half = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            save_file(made, str(half))
            half.replace(file)
        except (OSError, SafetensorError):
            self._room.closed = True  # no space: the arm goes on without

    def _key(self, fetcher: Any, index: Any) -> tuple[str, bytes] | None:
        """(the batch's name, its transform); None where it depends on what is not known."""
        vision = sys.modules.get("torchvision")
        if (
            vision is None
            or fetcher.collate_fn is not default_collate
            or not isinstance(index, list)
            or not fetcher.auto_collation
        ):
            return None
        try:
            if vision.get_image_backend() != "PIL":
                return None
            items = [item_of(fetcher.dataset, int(i)) for i in index]
            transforms = {id(t): t for _, t in items}
            transform = "\n".join(described(t) for t in transforms.values()).encode()
            files = [(*item, _identity(item[0])) for item, _ in items]
        except (_UnknownError, OSError, TypeError, ValueError, IndexError):
            return None
        facts = files, [list(transforms).index(id(t)) for _, t in items], str(torch.get_default_dtype())
        digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
        digest.update(transform)
        if not is_deterministic(transform):
            for state in _random_state().values():
                digest.update(state.numpy().data)
        return digest.hexdigest(), transform


def item_of(dataset: Any, index: int) -> tuple[tuple[str, int], Any]:
    """((file, target), transform) of the sample at ``index``. Raises _UnknownError where the class is none of those known."""
    if type(dataset) is Subset:
        return item_of(dataset.dataset, int(dataset.indices[index]))
    if type(dataset) is ConcatDataset:
        part = int(np.searchsorted(dataset.cumulative_sizes, index, side="right"))
        return item_of(dataset.datasets[part], index - (dataset.cumulative_sizes[part - 1] if part else 0))
    folders = sys.modules.get("torchvision.datasets.folder")
    if folders is None or type(dataset) is not folders.ImageFolder or dataset.target_transform is not None:
        raise _UnknownError
    if dataset.loader is not folders.default_loader or dataset.__getitem__.__module__ != folders.__name__:
        raise _UnknownError  # a method may have been exchanged by the program
    path, target = dataset.samples[index]
    return (str(path), int(target)), dataset.transform


def described(value: Any, depth: int = 0) -> str:
    """A transform with all its settings, one line. Raises _UnknownError where anything of it is not torchvision's or plain."""
    if isinstance(value, enum.Enum):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if depth > MOST_DEPTH:
        raise _UnknownError
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(described(v, depth + 1) for v in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {described(v, depth + 1)}' for k, v in value.items())}}}"
    if isinstance(value, set) and not value:
        return "set()"
    if type(value) is torch.Tensor and value.numel() <= 16:
        return repr(value.tolist())
    kind = type(value)
    work = vars(kind).get("forward", vars(kind).get("__call__"))
    if kind.__module__ in TRANSFORMS and getattr(work, "__module__", "") in TRANSFORMS:
        return f"<{kind.__name__} {described(vars(value), depth + 1)}>"
    raise _UnknownError


def is_deterministic(transform: bytes) -> bool:
    """Whether a transform, as described, draws no random number."""
    names = {part.split(" ", 1)[0] for part in transform.decode().split("<")[1:]}
    return names <= set(DETERMINISTIC)


def _identity(file: str) -> tuple[int, ...]:
    stat = os.stat(file)  # noqa: PTH116
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _random_state() -> dict[str, torch.Tensor]:
    """The state of torch's, numpy's and Python's random numbers, as bytes."""
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    own = json.dumps([kind, place, has_gauss, gauss]).encode()
    return {
        "torch": torch.get_rng_state(),
        "numpy": _bytes(np.asarray(keys).tobytes() + own),
        "python": _bytes(json.dumps(random.getstate()).encode()),
    }


def _put_random(found: dict[str, torch.Tensor]) -> None:
    if "torch" in found:
        torch.set_rng_state(found["torch"])
    if "numpy" in found:
        told = found["numpy"].numpy().tobytes()
        keys, own = np.frombuffer(told[: 4 * 624], np.uint32), json.loads(told[4 * 624 :])
        np.random.set_state((own[0], keys, *own[1:]))
    if "python" in found:
        version, numbers, gauss = json.loads(found["python"].numpy().tobytes())
        random.setstate((version, tuple(numbers), gauss))


def _bytes(value: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(value), dtype=torch.uint8)


def _stored(file: Path) -> dict[str, torch.Tensor] | None:
    """The tensors in that file, in memory as torch lays it out; None where there is none."""
    from safetensors.torch import load_file

    if not file.is_file():
        return None
    return {name: torch.empty_like(t).copy_(t) for name, t in load_file(str(file)).items()}
