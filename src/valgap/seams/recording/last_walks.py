"""What the closing measurements go by, kept alive from walk to walk: the last training, the last validation, the best weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from valgap.seams.looking.tracked import TrackedModel
from valgap.seams.recording.walk import Walk


class LastWalks:
    """The last written walks of both kinds: their loader, and their facts (model, walk, dataset, state)."""

    def __init__(self) -> None:
        self.train: tuple[Any, dict[str, Any]] | None = None
        self.eval: tuple[Any, dict[str, Any]] | None = None
        self.trained_on: dict[int, npt.NDArray[np.bool_]] = {}  # by data set: the positions that any training pass showed
        self.best: tuple[float, int, dict[str, torch.Tensor]] | None = None  # accuracy, pass, state

    def trained(self, walk: Walk, loader: Any, facts: dict[str, Any]) -> None:
        """A training walk was written."""
        if walk.shown is not None:
            known = self.trained_on.get(walk.dataset_id)
            if known is not None and len(known) == len(walk.shown):
                known |= walk.shown
            else:
                self.trained_on[walk.dataset_id] = walk.shown.copy()
        self.train = (loader, facts)

    def evaluated(self, walk: Walk, loader: Any, facts: dict[str, Any]) -> None:
        """An evaluation was written: it counts where it says as much of the training as the last one that did."""
        model: TrackedModel = facts["model"]
        if not self._tells_more(model):
            return
        trained = self.train[1]["dataset"] if self.train is not None else -1
        if ((walk.dataset_id == trained >= 0) or walk.learned) and self.eval is not None:
            return
        self.eval = (loader, facts)
        if walk.labelled and model.steps:
            self._keep_best(walk, model)

    def _tells_more(self, model: TrackedModel) -> bool:
        if model.steps or self.eval is None:
            return True
        last: TrackedModel = self.eval[1]["model"]
        trained: TrackedModel | None = self.train[1]["model"] if self.train is not None else None
        return not last.steps and trained is not None and (trained.is_alike(model) or not trained.is_alike(last))

    def _keep_best(self, walk: Walk, model: TrackedModel) -> None:
        accuracy = walk.right / walk.labelled
        if self.best is None or accuracy > self.best[0] or self.best[2].keys() != {t[0] for t in model.tensors}:
            before = self.best[2] if self.best is not None else {}
            state = {name: _copied(t.detach(), before.get(name)) for name, t, _, _ in model.tensors}
            self.best = (accuracy, walk.index, state)


def _copied(tensor: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
    """A copy on the CPU, in the memory of an earlier one that is no longer wanted: fresh memory takes several times as long."""
    if before is None or before.shape != tensor.shape or before.dtype != tensor.dtype:
        return tensor.to("cpu", copy=True)
    return before.copy_(tensor)
