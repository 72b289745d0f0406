"""Two runs side by side: each planted difference is told, and only it; the gain is paired on common samples."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from tests.checks.cases import dataset, healthy
from valgap.comparison.result import compare
from valgap.report.compare_view import comparison_to_json, show_comparison
from valgap.types import RunRecord


def changed_last(run: RunRecord, **columns: object) -> RunRecord:
    last = run.passes[-1]
    return replace(run, passes=(*run.passes[:-1], replace(last, samples=replace(last.samples, **columns))))  # type: ignore[arg-type]


def test_a_run_and_itself() -> None:
    run = healthy().run
    same = compare(run, run)
    assert same.settings == () and same.gain is not None and same.gain.value == 0 and same.gain.p_value == 1
    assert all((d.only_first, d.only_second, d.other_label) == (0, 0, 0) for d in same.data)
    stream = io.StringIO()
    show_comparison(same, Console(file=stream, width=100))
    assert "within chance" in stream.getvalue() and "no recorded setting differs" in stream.getvalue()


def test_settings_and_results_that_differ() -> None:
    run = healthy().run
    table = run.passes[-1].samples
    better = changed_last(run, prediction=np.where(np.arange(len(table)) < 90, table.target, (table.target + 1) % 4))
    optimizer = replace(run.optimizers[0], groups=({"lr": 1e-1},))
    other = replace(better, optimizers={0: optimizer}, path="runs/y", seconds=99.0)
    told = compare(run, other)
    assert [(d.name, d.first, d.second) for d in told.settings] == [("group 0 (5 tensors)", "lr 0.001", "lr 0.1")]
    first = run.passes[-1].samples.accuracy
    assert told.gain is not None and told.gain.value == pytest.approx(100 * (0.9 - first))
    assert told.gain.low < told.gain.value < told.gain.high and told.gain.p_value < 0.05
    body = json.loads(json.dumps(comparison_to_json(told)))
    assert body["gain_points"]["samples"] == 100 and body["runs"][1]["run"] == "runs/y"


def test_data_that_differ_are_named_below_their_folders() -> None:
    run = healthy().run
    moved = tuple(f"elsewhere/{n}" for n in run.sample_names)
    data = {i: replace(d, root="elsewhere/photos") for i, d in run.datasets.items()}
    copy = replace(run, sample_names=moved, datasets=data)
    assert all(d.only_first == d.only_second == 0 and d.common for d in compare(run, copy).data)
    target = run.passes[-1].samples.target.copy()
    target[3] = (target[3] + 1) % 4
    relabelled = changed_last(run, target=target)
    _, val = compare(run, relabelled).data
    assert val.other_label == 1 and val.examples == (f"{run.passes[-1].samples.sample[3]}.jpg: dog, then ant",)
    gain = compare(run, relabelled).gain
    assert gain is not None and gain.samples == 99
    renamed = replace(run, sample_names=tuple(f"new{n}" for n in run.sample_names), datasets={0: dataset(0, [0], root=None)})
    assert compare(run, renamed).gain is None
