"""In a notebook, a diagnosis is its page and a record is its table, by IPython's own formatters."""

from __future__ import annotations

import html
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.report.pages import HOSTILE, browser, diagnosis, finding, needs_browser, record
from valgap import notebook
from valgap.notebook import register
from valgap.record.reader import read_record
from valgap.seams.hosting import watch
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


def framed(frame: str) -> str:
    return html.unescape(frame.split('srcdoc="')[1].split('" width')[0])


def test_rich_representations(tmp_path: Path) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        assert register()
        run = record(tmp_path)
        run = replace(run, header={**run.header, "script": HOSTILE})
        one = diagnosis(run, ("MOD302", finding()))
        shown, _ = shell.display_formatter.format(one)
        assert shown["text/html"].startswith("<iframe") and ' sandbox="" ' in shown["text/html"]
        page = framed(shown["text/html"])
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


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """IPython's own shell, which keeps what is displayed as a notebook would show it."""
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebook, "EVERY_S", 0.05)
    made = InteractiveShell.instance(display_pub_class=CapturingDisplayPublisher)
    try:
        made.run_line_magic("load_ext", "valgap")
        yield made
    finally:
        InteractiveShell.clear_instance()
        watch.beside.clear()


def shown_by(shell: Any) -> list[dict[str, Any]]:
    return [o for o in shell.display_pub.outputs if "text/html" in o["data"]]


def test_watch_shows_the_run_while_it_goes_on(shell: Any, tmp_path: Path) -> None:
    shell.user_ns.update(FAILS=False, shown=lambda: shown_by(shell), CELL=CELL)
    done = shell.run_cell(
        "import time, valgap\n"
        "with valgap.watch('run', closing=0) as folder:\n"
        "    exec(CELL)\n"
        "    until = time.monotonic() + 60\n"
        "    while len(shown()) < 2 and time.monotonic() < until:\n"
        "        time.sleep(0.05)\n"
        "    early = len(shown())\n"
    )
    done.raise_error()
    outputs = shown_by(shell)
    assert shell.user_ns["early"] >= 2, "while it ran"
    assert [o["update"] for o in outputs] == [False] + [True] * (len(outputs) - 1)
    assert len({o["transient"]["display_id"] for o in outputs}) == 1, "one output, made anew"
    views = [given(o["data"]["text/html"]) for o in outputs[1:]]
    assert views[0]["state"] == "running" and views[-1]["state"] == "finished"
    last = views[-1]["epochs"][-1]
    assert last["train"]["images"] == 64 and last["validation"]["accuracy"]["n"] == 64
    assert threading.active_count() == 1 or "valgap view" not in {t.name for t in threading.enumerate()}
    assert read_record("run").printed == (), "nothing of it is taken for the script's words"


def given(frame: str) -> Any:
    """What the page in the frame is made of."""
    assert 'sandbox="allow-scripts"' in frame
    return json.loads(framed(frame).split('id="given">')[1].split("</script>")[0])


SQUASHED = """
import pathlib, time, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
images = nn.functional.interpolate(torch.randn(64, 3, 3, 3, generator=torch.Generator().manual_seed(0)), 8)
data = TensorDataset(images, torch.arange(64) % 2)
net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Softmax(1))
optimizer = torch.optim.SGD(net.parameters(), 0.1)
until = time.monotonic() + 60
for epoch in range(4):
    for x, y in DataLoader(data, 4, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    while not pathlib.Path("one", "live.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.4)
"""


@pytest.mark.filterwarnings("ignore::valgap.errors.SuspectedWarning")
def test_a_cell_is_ended_after_a_warning(shell: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VALGAP_LIVE_NICE", "0")
    assert shell.run_cell_magic("valgap", "--out one --stop-on suspected", SQUASHED) is None
    assert "the cell was stopped after the warning MOD306" in capsys.readouterr().err
    assert read_record("one").exit_status == 5 and shell.user_ns["epoch"] < 3
    assert shell.run_cell_magic("valgap", "--out two --stop-on confirmed", SQUASHED) is None
    assert "stop_on takes 'suspected'" in capsys.readouterr().err


def test_where_no_html_is_shown_nothing_is(shell: Any) -> None:
    shell.display_formatter.active_types = ["text/plain"]  # as IPython in a terminal
    shell.user_ns.update(FAILS=False, CELL=CELL)
    shell.run_cell("import valgap\nwith valgap.watch('run', closing=0):\n    exec(CELL)\n").raise_error()
    assert shell.display_pub.outputs == []


def test_a_fault_of_the_view_ends_no_training(
    shell: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("valgap.live.server.view_to_json", fails)
    shell.user_ns.update(FAILS=False, CELL=CELL)
    cell = "import time, valgap\nwith valgap.watch('run', closing=0):\n    exec(CELL)\n    time.sleep(0.5)\n"
    shell.run_cell(cell).raise_error()
    assert capsys.readouterr().err.count("KeyError: 'ours'") == 1
    assert read_record("run").exit_status == 0


@needs_browser
def test_the_frame_is_drawn_and_reaches_nothing_outside(shell: Any, tmp_path: Path) -> None:
    hostile = "<!--<script>\"'&amp;<img src=x onerror=alert(1)>"
    shell.user_ns.update(FAILS=False, CELL=CELL, HOSTILE=hostile)
    shell.run_cell("import valgap\nwith valgap.watch(HOSTILE, closing=0):\n    exec(CELL)\n").raise_error()
    page = tmp_path / "notebook.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><body>{shown_by(shell)[-1]['data']['text/html']}</body>")
    with browser() as driver:
        driver.get(page.as_uri())
        driver.switch_to.frame(0)
        assert len(driver.find_elements("css selector", "#rows tr")) == 1
        assert driver.find_elements("css selector", "#accuracy circle.validation")
        assert hostile in driver.find_element("id", "told").text and not driver.find_elements("css selector", "img")
        reach = "try { return parent.document.title } catch (refused) { return refused.name }"
        assert driver.execute_script(reach) == "SecurityError"
        assert driver.get_log("browser") == []
        if "SCREENSHOT" in os.environ:
            driver.switch_to.default_content()
            driver.save_screenshot(os.environ["SCREENSHOT"])
