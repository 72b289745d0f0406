"""How long a data set is scored again for: its share of the time, or as long as it takes where all of it will fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from valgap.record.writer import RecordWriter
from valgap.seams.closing import rescoring
from valgap.seams.closing.attempts import Attempts
from valgap.seams.closing.rescoring import Rescoring, will_fit
from valgap.seams.looking.views import View, unchanged

BATCHES, SIZE = 10, 8


class Given:
    """Ten batches of eight images, each of which takes a second."""

    in_order = False
    size = BATCHES * SIZE

    def __init__(self, clock: list[float]) -> None:
        self.order = list(range(self.size))
        self.clock = clock

    def batches(self) -> Any:
        for number in range(BATCHES):
            self.clock[0] += 1.0
            ids = np.arange(number * SIZE, (number + 1) * SIZE, dtype=np.int32)
            yield torch.zeros(SIZE, 3, 4, 4), torch.zeros(SIZE, dtype=torch.long), ids

    def same_inputs(self, ids: Any, images: torch.Tensor) -> list[bool]:
        return []


@pytest.mark.parametrize(
    ("budget_s", "later", "scored"),
    [
        (20.0, 0, BATCHES),  # beyond its share of 4 s, for there is nothing else to do
        (20.0, 8 * SIZE, BATCHES),  # 10 s of its own, 8 s for what comes later
        (20.0, 12 * SIZE, 4),
        (9.0, 0, 4),
    ],
)
def test_a_share_counts_where_not_all_will_fit(
    budget_s: float, later: int, scored: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(rescoring, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(rescoring, "forward", lambda model, images, mode: torch.zeros(len(images), 2))
    attempts = Attempts(RecordWriter(tmp_path / "r"), budget_s, clock[0])
    gathered = Rescoring(SimpleNamespace(), attempts).gather(  # type: ignore[arg-type]
        Given(clock),  # type: ignore[arg-type]
        [View("again", unchanged)],
        clock[0] + 4.0,
        later,
    )
    assert len(gathered.targets) == scored
    assert attempts.cut == ([] if scored == BATCHES else ["again"])


def test_what_fits() -> None:
    assert will_fit(2.0, 10, 20, 4.0)
    assert not will_fit(2.0, 10, 21, 4.0)
    assert not will_fit(2.0, 0, 0, 4.0)
