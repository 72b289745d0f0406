"""In a notebook, a diagnosis is its page and a record is its table, by IPython's own formatters."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.pages import HOSTILE, diagnosis, finding, record
from valgap.notebook import register
from valgap.record.reader import read_record
from valgap.types import Diagnosis

CELL = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
generator = torch.Generator().manual_seed(0)
data = TensorDataset(torch.randn(64, 3, 8, 8, generator=generator), torch.arange(64) % 2)
net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Dropout(0.5))
optimizer = torch.optim.SGD(net.parameters(), 0.01)
for x, y in DataLoader(data, 8, shuffle=True):
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
if net.training and FAILS:
    raise KeyError("accuracy")
with torch.no_grad():
    for x, y in DataLoader(data, 16):
        loss = nn.functional.cross_entropy(net(x), y).item()
"""


def test_rich_representations(tmp_path: Path) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        assert register()
        run = record(tmp_path)
        run = replace(run, header={**run.header, "script": HOSTILE})
        one = diagnosis(run, ("MOD302", finding()))
        shown, _ = shell.display_formatter.format(one)
        assert shown["text/html"].startswith("<iframe") and " sandbox " in shown["text/html"]
        page = html.unescape(shown["text/html"].split('srcdoc="')[1].split('" width')[0])
        assert page.startswith("<!doctype html>") and "batchnorm_drift" in page and "<script>" not in page
        assert len(shown["text/html"]) < 1_000_000
        assert "batchnorm_drift (confirmed)" in shown["text/plain"] and len(shown["text/plain"]) < 500
        table, _ = shell.display_formatter.format(run)
        assert "<td>validation</td>" in table["text/html"] and "<script>" not in table["text/html"]
    finally:
        InteractiveShell.clear_instance()


def test_a_cell_is_recorded_and_its_diagnosis_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.chdir(tmp_path)
    shell = InteractiveShell.instance()
    try:
        shell.run_line_magic("load_ext", "valgap")
        shell.user_ns["FAILS"] = False
        found = shell.run_cell_magic("valgap", "--out one", CELL)
        assert isinstance(found, Diagnosis)
        assert "EVA501" in {j.check.code for j in found.findings}, "validated in training mode"
        assert shell.user_ns["loss"] > 0, "what a cell makes stays in the notebook"
        assert read_record("one").exit_status == 0 and "recorded in one" in capsys.readouterr().err
        shell.user_ns["FAILS"] = True
        assert shell.run_cell_magic("valgap", "--out two", CELL) is None
        told = capsys.readouterr()
        assert (told.out + told.err).count(": 'accuracy'") == 1 and "the cell failed" in told.err
        assert read_record("two").exit_status == 1
        for line, words in (("--what", "takes --out DIR"), ("--out one", "already holds"), ("--out three", "no pass")):
            assert shell.run_cell_magic("valgap", line, "1 + 1") is None
            assert words in capsys.readouterr().err, line
    finally:
        InteractiveShell.clear_instance()
