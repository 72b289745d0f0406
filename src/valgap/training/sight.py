"""What the frozen network sees of images: features, and activations before the stages that may learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from torch import nn

from valgap.engine import Cut, Rows, SplitNetwork, extract
from valgap.engine.extract import unseen
from valgap.models import Preprocessing
from valgap.training.ranks import Ranks
from valgap.training.screen import progress

Seen = tuple[npt.NDArray[np.float32], Rows | None]


class Sight:
    """A network, where it is cut (None: nowhere), and how images reach it."""

    def __init__(
        self, model: nn.Module, head: nn.Module, cut: Cut | None, preprocessing: Preprocessing, screen: Console, images: int
    ) -> None:
        """``images``: about how many it will see in all."""
        self.model, self.head, self.preprocessing, self.screen = model, head, preprocessing, screen
        self.images = images
        self.split = SplitNetwork(model, head, cut, preprocessing, images) if cut is not None else None

    def see(self, paths: list[Path], what: str, view: Any, ranks: Ranks) -> Seen:
        """(features (N, D), activations before the cut where there is one) of images, with a progress bar.

        The processes of one host see a part of them each, and then read what the others left in the cache they share.
        """
        if ranks.world > 1:
            self._see(paths[ranks.local_rank :: ranks.local_world], what, view)
            ranks.wait()
        return self._see(paths, what, view)

    def unseen(self, paths: list[Path]) -> int:
        """How many different images of these are not in the cache."""
        if self.split is None:
            return unseen(self.model, self.head, self.preprocessing, paths)
        return self.split.unseen(paths)

    def _see(self, paths: list[Path], what: str, view: Any) -> Seen:
        with progress(what, self.screen) as shown:
            task = shown.add_task("", total=len(paths))

            def tell(done: int, total: int) -> None:
                shown.update(task, completed=done, total=total)

            if self.split is None:
                how: dict[str, Any] = {"view": view, "progress": tell, "images": self.images}
                return extract(self.model, self.head, self.preprocessing, paths, **how), None
            return self.split.extract(paths, view=view, progress=tell)
