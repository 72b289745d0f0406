"""The images of a pass that no loader gave, held as the model was given them, so that they can be looked at once more."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from valgap.seams.looking.samples import Samples

# Of each of the last passes; a pass that takes more is not held.
MAX_BYTES = 1 << 27
# Where a pass brings more new contents than this, or as many images look otherwise than in the pass before, the program changes
# its images at random.
NEW_SHARE = 0.05
MOST_UNCHANGED = 5_000  # samples that are held as they lie as well


class HeldImages(Dataset[tuple[torch.Tensor, int]]):
    """Gathers a pass; afterwards it is a data set of (image, class index, -1 unknown)."""

    def __init__(self) -> None:
        self._batches: list[torch.Tensor] = []
        self._bytes = 0
        self._known_before = -1
        self._ids: list[Any] = []
        self._targets: list[Any] = []
        self._images: torch.Tensor | None = None
        self.changes = True  # whether training shows other images each time, as far as that is known

    def add(self, images: torch.Tensor, num_names: int) -> None:
        """A batch (N, C, H, W); ``num_names``: of all samples that are known by now."""
        if self._known_before < 0:
            self._known_before = num_names
        alike = not self._batches or self._batches[0].shape[1:] == images.shape[1:]
        self._bytes += images.numel() * images.element_size() if alike else MAX_BYTES + 1
        if self._bytes <= MAX_BYTES:
            self._batches.append(images.detach())
        else:
            self._batches = []

    def name(self, ids: Any, targets: Any) -> None:
        """Sample ids and class indices (n,) of the next images, in order."""
        if self._batches:
            self._ids.append(ids)
            self._targets.append(targets)

    def loader(self, earlier: dict[int, float] | None, marks: dict[int, float]) -> DataLoader[tuple[torch.Tensor, int]] | None:
        """A loader of what was held; None where there is nothing.

        ``earlier``: the fingerprints of some samples in an earlier pass of this kind, by their ids, None without one; ``marks``:
        those of this pass.
        """
        if not self._batches or sum(map(len, self._batches)) != sum(map(len, self._targets)):
            return None
        new = (self.ids < 0) | (self.ids >= self._known_before)
        both = [np.isclose(mark, earlier[i], rtol=1e-5, atol=1e-5) for i, mark in marks.items() if earlier and i in earlier]
        other = bool(both) and 1 - float(np.mean(both)) > NEW_SHARE
        self.changes = earlier is None or other or bool(new.mean() > NEW_SHARE)
        return DataLoader(self, batch_size=max(len(b) for b in self._batches))

    def unchanged(self, samples: Samples, dataset_id: int) -> HeldImages | None:
        """The same samples as they lie in the tensor or array that the program took them from: that data set.

        One scale and offset per channel brings them to the values that the model was given. None where it is not there any more,
        a row has another shape than what the model was given, or a sample is none of the rows.
        """
        memory, ids = samples.memory.get(dataset_id), samples.ids.get(dataset_id)
        rows = memory() if memory is not None else None
        if rows is None or ids is None:
            return None
        place = {int(s): i for i, s in enumerate(ids)}
        taken = [place.get(int(s), -1) for s in self.ids]
        if not taken or min(taken) < 0 or len(self) > MOST_UNCHANGED:
            return None
        seen = torch.stack([self[i][0] for i in range(len(self))]).float()
        if isinstance(rows, torch.Tensor):
            own = rows[torch.tensor(taken, device=rows.device)].detach().float().to(seen.device)
        else:
            own = torch.as_tensor(rows[taken]).float().to(seen.device)
        if own.ndim == 4 and own.shape != seen.shape:
            own = own.permute(0, 3, 1, 2)
        if own.ndim != 4 or own.shape != seen.shape:
            return None
        over = (0, 2, 3)
        scale = seen.std(over, keepdim=True) / own.std(over, keepdim=True).clamp_min(1e-12)
        other = HeldImages()
        other._images = (own - own.mean(over, keepdim=True)) * scale + seen.mean(over, keepdim=True)
        other._ids, other._targets = self._ids, self._targets
        other._target = np.concatenate(self._targets)
        other.changes = False
        return other

    @property
    def ids(self) -> Any:
        """(N,) ids of the samples; -1 unknown."""
        return np.concatenate(self._ids).astype(np.int32)

    def __len__(self) -> int:
        return sum(map(len, self._targets))

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        if self._images is None:
            self._images, self._batches = torch.cat(self._batches), []
            self._target = np.concatenate(self._targets)
        return self._images[place], int(self._target[place])
