"""`valgap view`: a run that goes on, has ended or has died, in the terminal and on the page."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import valgap
from tests.processes import forked
from tests.report.pages import HOSTILE, browser, needs_browser
from valgap.live.server import ViewServer
from valgap.live.view import Watched
from valgap.record.told import append, tell, told
from valgap.types import LiveWarning

pytestmark = pytest.mark.takes(15)
WARNING = LiveWarning(1.0, 1, 1, "EVA501", "train_mode_at_validation", "forward", 0.98, HOSTILE, (HOSTILE,), f"mend {HOSTILE}")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The lines of a finished record of three epochs, its script's name a hostile one."""
    folder = tmp_path_factory.mktemp("view") / "run"
    images = nn.functional.interpolate(torch.randn(60, 3, 3, 3, generator=torch.Generator().manual_seed(0)), 8, mode="bilinear")
    data = TensorDataset(images[:40], torch.arange(40) % 2), TensorDataset(images[40:], torch.arange(20) % 2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with valgap.watch(folder, closing=0):
        for _ in range(3):
            for x, y in DataLoader(data[0], 8, shuffle=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
            with torch.no_grad():
                for x, y in DataLoader(data[1], 10):
                    nn.functional.cross_entropy(net(x), y)
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    return [_edited(line, script=HOSTILE) if b'"script":' in line else line for line in lines]


def _edited(line: bytes, **changes: object) -> bytes:
    return json.dumps({**json.loads(line), **changes}, separators=(",", ":")).encode() + b"\n"


def run_of(folder: Path, lines: list[bytes], state: str, passes: int = 6) -> Path:
    """A run directory in that state: cut after so many passes, its process this one, or one that has ended."""
    folder.mkdir()
    if state != "finished":
        ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        pid = os.getpid() if state == "running" else int(ended.stdout)
        ends = [i for i, line in enumerate(lines) if b'"t":"pass_end"' in line[:20]]
        lines = [_edited(lines[0], pid=pid, started=time.time()), *lines[1 : ends[passes - 1] + 1]]
    (folder / "events.jsonl").write_bytes(b"".join(lines))
    tell(folder, WARNING)
    return folder


@pytest.mark.parametrize("state", ["running", "finished", "died"])
def test_view_once(state: str, recorded: list[bytes], tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", recorded, state, passes=4)
    view = Watched(run).now()
    assert view.state == state and len(view.epochs) == (3 if state == "finished" else 2)
    last = view.epochs[-1]
    assert last.train is not None and last.train.images == 40 and last.validation is not None
    accuracy = last.validation.accuracy
    assert accuracy is not None and accuracy.n == 20 and accuracy.low < accuracy.value < accuracy.high
    assert sum(last.train.spent.values()) == pytest.approx(last.train.seconds, rel=0.05)
    assert last.train.spent["backward"] > 0 and last.validation.spent["backward"] == 0

    done = forked(["-m", "valgap.cli", "view", run, "--once"], tmp_path)
    assert done.returncode == 0, done.stderr
    text = re.sub(r"\s+", " ", done.stdout)
    assert f" {state} " in text and f"{accuracy.low:.1%}..{accuracy.high:.1%}" in text
    assert "EVA501 <script>alert(1)</script>" in text and "\\n" in text, "a name stays one line"
    assert ("was killed, or runs elsewhere" in text) == (state == "died")


def test_a_process_number_that_came_again_is_no_running_run(recorded: list[bytes], tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", recorded, "running")
    lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    (run / "events.jsonl").write_bytes(b"".join([_edited(lines[0], started=1.0), *lines[1:]]))
    assert Watched(run).now().state == "died"


def test_lines_that_are_no_warnings_are_passed_over(tmp_path: Path) -> None:
    append(tmp_path, {"time": 1.0, "error": "Traceback"})
    tell(tmp_path, WARNING)
    with (tmp_path / "live.jsonl").open("a") as file:
        file.write('[1]\n{"time": 1}\nnot json\n{"time": 1.0, "epoch"')
    assert told(tmp_path) == [WARNING]


def test_view_of_what_is_no_run_is_one_line(tmp_path: Path) -> None:
    done = forked(["-m", "valgap.cli", "view", tmp_path, "--page"], tmp_path)
    assert done.returncode == 2 and "is no run directory" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def server(recorded: list[bytes], tmp_path: Path) -> Iterator[ViewServer]:
    made = ViewServer(run_of(tmp_path / "run", recorded, "running", passes=3))
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def ask(server: ViewServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Host": server.origin.removeprefix("http://"), **headers}.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read().decode()


def test_the_page_is_for_who_has_its_address_alone(server: ViewServer) -> None:
    own = f"/{server.token}/"
    status, headers, page = ask(server, own)
    assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"] and not re.search(r"<script(?![^>]*src=)", page)
    state = json.loads(ask(server, f"{own}state")[2])
    assert state["script"] == HOSTILE and state["state"] == "running" and state["warnings"][0]["what"] == HOSTILE
    refused = [
        ask(server, "/"), ask(server, "/wrong/state"), ask(server, f"{own}state", Host="evil.example"),
        ask(server, f"{own}state", Sec_Fetch_Site="cross-site"),
    ]  # fmt: skip
    assert [r[0] for r in refused] == [403] * 4
    assert ask(server, f"{own}../../etc/passwd")[0] == 404
    assert ask(server, f"{own}state", "POST")[0] == 501


def test_a_run_that_is_gone_is_told(server: ViewServer, tmp_path: Path) -> None:
    (tmp_path / "run" / "events.jsonl").unlink()
    status, _, text = ask(server, f"/{server.token}/state")
    assert status == 410 and "no run directory" in text


@needs_browser
def test_the_page_updates_itself_while_the_run_goes_on(server: ViewServer, recorded: list[bytes], tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    events = tmp_path / "run" / "events.jsonl"
    with browser() as driver:
        driver.get(server.address)
        wait = WebDriverWait(driver, 15)
        wait.until(lambda d: len(d.find_elements("css selector", "#rows tr")) == 2)
        assert "<script>alert(1)</script>" in driver.find_element("id", "warnings").text
        assert driver.find_element("id", "script").text.startswith("<script>alert(1)</script>")
        written = len(events.read_bytes().splitlines())
        with events.open("ab") as file:
            file.write(b"".join(recorded[written:]))
        wait.until(lambda d: len(d.find_elements("css selector", "#rows tr")) == 3)
        wait.until(lambda d: d.find_element("id", "state").text.startswith("finished"))
        assert driver.find_elements("css selector", "#accuracy polygon.band")
        if "SCREENSHOT" in os.environ:
            driver.save_screenshot(os.environ["SCREENSHOT"])
        marked = driver.execute_script("return document.querySelectorAll('body script, body img').length")
        assert driver.get_log("browser") == [] and marked == 0
