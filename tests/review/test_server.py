"""The review server over HTTP: nobody without host, token and origin gets anything; what is decided is on the disk."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.report.pages import CHROMEDRIVER, CHROMIUM, HOSTILE, browser, diagnosis, finding, record, suspects
from valgap.review import Decisions, ReviewServer, Suspect, suspects_of
from valgap.review.suspects import labels_of
from valgap.types import Clear, Ranked

LABELS = ["ant", "bee", HOSTILE]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReviewServer]:
    found = []
    for i in range(20):
        file = tmp_path / f"{i}.png"
        Image.new("RGB", (900, 600), (i * 12, 0, 0)).save(file)
        found.append(Suspect(f"{HOSTILE}{i}", file, "DAT104", "wrong_train_labels", "train", "ant", "bee", "", 0.9))
    (tmp_path / "page.jpg").write_text("<html><script>alert(1)</script>")
    found[3] = replace(found[3], file=tmp_path / "page.jpg")
    found[4] = replace(found[4], beside=found[5].file)
    made = ReviewServer(found, LABELS, Decisions(tmp_path / "decisions.csv"))
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def ask(server: ReviewServer, method: str, place: str, body: object = None, **headers: str) -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, place, data, named)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def post(server: ReviewServer, place: str, body: object, **headers: str) -> tuple[int, Any]:
    given = {"Origin": server.origin, "Content_Type": "application/json", **headers}
    status, data, _ = ask(server, "POST", f"/{server.token}/{place}", body, **given)
    return status, json.loads(data) if data[:1] in b"{[" else data


def test_only_this_page_on_this_machine(server: ReviewServer) -> None:
    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 32
    whole = f"/{server.token}/"
    for place in ("/", "/suspects", "/image/0", "/x" + whole, f"/{server.token[:-1]}/", f"/{'a' * 32}/"):
        status, data, _ = ask(server, "GET", place)
        assert status == 403 and server.token.encode() not in data, place
    assert ask(server, "GET", whole)[0] == 200
    assert ask(server, "GET", whole, Host="evil.example")[0] == 403, "a foreign name that leads to this machine"
    assert ask(server, "GET", whole, Sec_Fetch_Site="cross-site")[0] == 403
    good = {"number": 0, "kind": "drop"}
    assert post(server, "decide", good, Origin="http://evil.example")[0] == 403
    assert post(server, "decide", good, Origin="null")[0] == 403
    assert post(server, "decide", good, Content_Type="text/plain")[0] == 403, "what a form could send"
    assert post(server, "decide", good, Host="localhost.evil")[0] == 403
    assert ask(server, "POST", f"{whole}decide", good)[0] == 403, "no origin at all"
    assert len(server.decisions) == 0


def test_answers_forbid_everything_foreign(server: ReviewServer) -> None:
    for place in ("", "review.js", "review.css", "suspects", "image/0"):
        status, _, headers = ask(server, "GET", f"/{server.token}/{place}")
        assert status == 200, place
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
        assert headers["Access-Control-Allow-Origin"] is None


def test_pictures_are_encoded_again_and_lies_are_told(server: ReviewServer) -> None:
    status, data, headers = ask(server, "GET", f"/{server.token}/image/0")
    assert (status, headers["Content-Type"], data[8:12]) == (200, "image/webp", b"WEBP")
    assert ask(server, "GET", f"/{server.token}/image/4/beside")[0] == 200
    for place in ("image/3", "image/20", "image/-1", "image/x", "image/../../etc/passwd", "image/0/beside", "../server.py"):
        status, data, headers = ask(server, "GET", f"/{server.token}/{place}")
        assert status == 404 and headers["Content-Type"].startswith("text/plain") and b"script" not in data, place


def test_decisions_are_on_the_disk_when_they_are_answered(server: ReviewServer) -> None:
    assert post(server, "decide", {"number": 2, "kind": "relabel", "label": HOSTILE})[0] == 200
    kept = Decisions(server.decisions.file).current()
    assert kept[f"{HOSTILE}2"].label == HOSTILE and kept[f"{HOSTILE}2"].cause == "DAT104"
    bad: list[object] = [
        {"number": 99, "kind": "drop"}, {"number": True, "kind": "drop"}, {"number": 0, "kind": "explode"},
        {"number": 0, "kind": "relabel"}, {"number": 0, "kind": "relabel", "label": "no class"}, [], {}, b"{", b"[" * 5000,
    ]  # fmt: skip
    assert all(post(server, "decide", body)[0] == 400 for body in bad)
    assert post(server, "decide", b"x" * 20_000)[0] == 413
    state = json.loads(ask(server, "GET", f"/{server.token}/suspects")[1])
    assert state["suspects"][2]["decision"] == {"kind": "relabel", "label": HOSTILE}
    assert post(server, "undo", {})[1] == {"number": 2, "decision": None}
    assert len(Decisions(server.decisions.file)) == 0


def test_thousands_stay_fluent(server: ReviewServer) -> None:
    server.suspects = [replace(server.suspects[i % 3], path=f"image {i}") for i in range(5_000)]
    begun = time.perf_counter()
    state = json.loads(ask(server, "GET", f"/{server.token}/suspects")[1])
    for i in range(100):
        assert post(server, "decide", {"number": i * 40, "kind": "drop"})[0] == 200
    assert len(state["suspects"]) == 5_000
    assert time.perf_counter() - begun < 20, "100 decisions among 5,000"


def test_suspects_come_from_findings_each_once(tmp_path: Path) -> None:
    run = record(tmp_path)
    names = run.sample_names
    ranked = finding(ranking=suspects(names, 5), subjects=names[:2])
    twins = finding(subjects=(f"{names[200]} = {names[1]}", names[0], "gone.jpg", "not/a/file = x"))
    one = diagnosis(run, ("MOD302", ranked), ("DAT101", twins))
    found = suspects_of(one)
    assert [s.path for s in found] == [names[0], names[1], names[200]]
    assert (found[0].given, found[0].likely, found[0].split) == ("ant", "bee", "train")
    assert found[2].split == "val" and found[2].beside == tmp_path / names[1]
    assert [s.path for s in suspects_of(one, ["DAT"])] == [names[200], names[0]]
    assert labels_of(run) == ["ant", "bee", "cat", "dog"]


def test_without_a_finding_about_labels_the_least_certain_are_shown(tmp_path: Path) -> None:
    run = record(tmp_path)
    names = run.sample_names
    ranking = (Ranked(names[4], 0.3, "ant", None, "fly"), *suspects(names, 2), Ranked(names[5], 0.05, "ant", "bee"))
    one = diagnosis(run, ("MOD302", finding(subjects=names[9:10])), ("DAT104", Clear("hardly any", (), ranking)))
    found = suspects_of(one)
    assert [s.path for s in found] == [names[9], names[4], names[0], names[1]]
    assert (found[1].given, found[1].likely, found[1].seen, found[1].cause) == ("ant", "", "fly", "DAT104")
    # with a finding about labels its own suspects are the ones
    likely = finding(ranking=suspects(names, 5), subjects=names[:2])
    assert [s.path for s in suspects_of(diagnosis(run, ("DAT104", likely)))] == [names[0], names[1]]


@pytest.mark.skipif(CHROMIUM is None or CHROMEDRIVER is None, reason="no Chromium with its driver is installed")
def test_twenty_suspects_by_keyboard(server: ReviewServer) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    with browser() as driver:
        driver.get(server.address)
        wait = WebDriverWait(driver, 10)
        wait.until(lambda d: d.execute_script("return document.getElementById('picture').naturalWidth > 0"))
        for i in range(20):
            keys = ("k", "d", "u", "r")[i % 4]
            ActionChains(driver).send_keys(keys).perform()
            if keys == "r":
                ActionChains(driver).send_keys(Keys.ENTER if i < 10 else "ant" + Keys.ENTER).perform()
        wait.until(lambda d: "20 decided" in d.find_element("id", "progress").text)
        ActionChains(driver).send_keys("z").perform()
        wait.until(lambda d: "19 decided" in d.find_element("id", "progress").text)
        console = [e for e in driver.get_log("browser") if "image/3" not in e["message"]]
        requests = [json.loads(e["message"])["message"] for e in driver.get_log("performance")]
        marked = driver.execute_script("return window.alerted || document.querySelectorAll('#facts script').length")
    assert console == [] and marked == 0
    asked = [e["params"]["request"]["url"] for e in requests if e["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith((server.origin, "data:")) for url in asked), asked
    kept = Decisions(server.decisions.file).current()
    assert [kept[f"{HOSTILE}{i}"].kind for i in range(19)] == (["keep", "drop", "unsure", "relabel"] * 5)[:19]
    assert kept[f"{HOSTILE}3"].label == "bee" and kept[f"{HOSTILE}11"].label == "ant"
    assert f"{HOSTILE}19" not in kept
