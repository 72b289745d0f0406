"""Which images a run is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.checks.cases import TRAIN, VAL, dataset, healthy
from valgap.features import rows_of_run
from valgap.types import RunRecord


def sharing_one_folder(folder: Path, complete: bool) -> RunRecord:
    """Both data sets list all files; samplers draw the first ones for training, the others for validation."""
    run = healthy().run
    for name in run.sample_names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    everything = np.arange(TRAIN + VAL)
    passes = [replace(p, complete=complete) for p in run.passes]
    return replace(
        run,
        header={**run.header, "cwd": str(folder)},
        datasets={0: dataset(0, everything), 1: dataset(1, everything)},
        passes=tuple(passes),
    )


def test_what_is_drawn_belongs_to_the_phase(tmp_path: Path) -> None:
    for complete in (True, False):
        rows = rows_of_run(sharing_one_folder(tmp_path, complete))
        assert rows is not None
        assert len(rows.names) == TRAIN + VAL
        assert set(np.array(rows.names)[rows.is_val]) == {f"photos/{i}.jpg" for i in range(TRAIN, TRAIN + VAL)}
