"""Which images a run is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checks.cases import TRAIN, VAL, dataset, healthy
from valgap.errors import DataError
from valgap.features import rows_of_run
from valgap.features.source import rows_of_path, some_rows
from valgap.record.known_samples import with_seen_labels
from valgap.reference.reading import Sides, compare_train
from valgap.types import KeptInputs, RunRecord


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


@pytest.mark.parametrize(("kind", "of_files"), [("soft", True), ("index", False)])
def test_targets_of_images_that_are_mixed_anew_in_every_pass_are_no_labels(kind: str, of_files: bool, tmp_path: Path) -> None:
    run = sharing_one_folder(tmp_path, True)
    own = {int(s): int(t) for s, t in zip(run.last_train.samples.sample, run.last_train.samples.target, strict=True)}  # type: ignore[union-attr]
    declared = np.array([own.get(i, 0) for i in range(TRAIN + VAL)])
    datasets = {k: replace(d, targets=declared) for k, d in run.datasets.items()}
    passes = [
        replace(
            p,
            loss=replace(p.loss, target_kind=kind) if p.loss is not None else None,
            samples=replace(p.samples, target=np.roll(p.samples.target, 1 + p.index)),
        )
        if p.phase == "train"
        else p
        for p in run.passes
    ]
    rows = rows_of_run(replace(run, datasets=datasets, passes=tuple(passes)))
    assert rows is not None
    labels = {n: int(t) for n, t, val in zip(rows.names, rows.labels, rows.is_val, strict=True) if not val}
    assert ([labels[run.sample_names[s]] for s in sorted(own)] == [own[s] for s in sorted(own)]) is of_files


def test_a_data_set_without_targets_has_none_where_its_images_are_mixed(tmp_path: Path) -> None:
    run = sharing_one_folder(tmp_path, True)
    train = run.last_train
    assert train is not None and train.loss is not None and run.closing is not None
    passes = [
        replace(
            p, loss=replace(train.loss, target_kind="soft"), samples=replace(p.samples, target=np.roll(p.samples.target, p.index))
        )
        if p.phase == "train"
        else p
        for p in run.passes
    ]
    closing = replace(run.closing, rescores={**run.closing.rescores, "train_eval": train.samples})
    datasets = {k: replace(d, targets=None) for k, d in run.datasets.items()}
    bare = replace(run, datasets=datasets, closing=closing)
    seen, mixed = (with_seen_labels(r).datasets[train.dataset].targets for r in (bare, replace(bare, passes=tuple(passes))))
    assert seen is not None and mixed is None


def test_images_that_are_mixed_of_several_are_not_held_against_one_file() -> None:
    nothing: Any = None
    found = compare_train(Sides(nothing, nothing, {}, None, None, nothing, nothing, mixed=True))
    assert found.verdict == "unknown" and "mixed" in found.missing


def test_of_a_run_cut_short_those_that_were_shown_come_first(tmp_path: Path) -> None:
    run = sharing_one_folder(tmp_path, complete=False)
    shown = np.array([3, 50, TRAIN - 1], np.int32)
    kept = KeptInputs(0, shown, np.zeros((3, 3, 8, 8), np.uint8), np.zeros(3, np.float32), np.ones(3, np.float32))
    rows = rows_of_run(run)
    assert rows is not None
    some = some_rows(replace(run, kept=(kept,)), rows, 40)
    assert len(some.names) == 40 and some.is_val.sum() == 20
    assert {f"photos/{i}.jpg" for i in shown.tolist()} <= set(np.array(some.names)[~some.is_val])
    assert np.bincount(some.labels[some.is_val]).tolist() == [5] * 4  # evenly spread over the classes
    assert all(path.endswith(name) for path, name in zip(some.paths, some.names, strict=True))
    # Where one side has few, the other has the room.
    few = replace(rows, is_val=np.arange(len(rows.names)) >= len(rows.names) - 4)
    assert some_rows(run, few, 40).is_val.sum() == 4 and len(some_rows(run, few, 40).names) == 40


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "has the columns none"),
        (b"\n\n", "has the columns none"),
        (b"label\nant,bee,cow\n", "has the columns label"),
        (b"a,b\n", "has the columns a, b"),
        (b"path,label\n\xff,a\n", "no CSV file that can be read"),
        (b'path,label\n"' + b"x" * 200_000, "no CSV file that can be read"),
    ],
)
def test_a_senseless_list_is_refused_in_words(text: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(text)
    with pytest.raises(DataError, match=said):
        rows_of_path(tmp_path / "list.csv")
