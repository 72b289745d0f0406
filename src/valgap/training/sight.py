"""What the frozen network sees of images: features, and activations before its last stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from torch import nn

from valgap.engine import Cut, Rows, extract, extract_split
from valgap.models import Preprocessing
from valgap.training.ranks import Ranks
from valgap.training.screen import progress

Seen = tuple[npt.NDArray[np.float32], Rows | None]


@dataclass(frozen=True)
class Sight:
    """A network, where it is cut before its last stage (None: nowhere), and how images reach it."""

    model: nn.Module
    head: nn.Module
    cut: Cut | None
    preprocessing: Preprocessing
    screen: Console

    def see(self, paths: list[Path], what: str, view: Any, ranks: Ranks) -> Seen:
        """(features (N, D), activations before the last stage where the network is cut) of images, with a progress bar.

        The processes of one host see a part of them each, and then read what the others left in the cache they share.
        """
        if ranks.world > 1:
            self._see(paths[ranks.local_rank :: ranks.local_world], what, view)
            ranks.wait()
        return self._see(paths, what, view)

    def _see(self, paths: list[Path], what: str, view: Any) -> Seen:
        with progress(what, self.screen) as shown:
            task = shown.add_task("", total=len(paths))

            def tell(done: int, total: int) -> None:
                shown.update(task, completed=done, total=total)

            if self.cut is None:
                return extract(self.model, self.head, self.preprocessing, paths, view=view, progress=tell), None
            return extract_split(self.model, self.head, self.cut, self.preprocessing, paths, view=view, progress=tell)
