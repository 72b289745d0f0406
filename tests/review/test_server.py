"""The review server over HTTP: nobody without host, token and origin gets anything; what is decided is on the disk."""

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.report.pages import HOSTILE, browser, diagnosis, finding, needs_browser, record, suspects
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
    found[0] = replace(found[0], near_given=(7, 9), near_likely=(6,))
    known = [str(one.file) for one in found]
    with serving(ReviewServer(found, LABELS, Decisions(tmp_path / "decisions.csv"), 0, known)) as made:
        yield made


@contextmanager
def serving(server: ReviewServer) -> Iterator[ReviewServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
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
    good = {"numbers": [0], "kind": "drop"}
    assert post(server, "decide", good, Origin="http://evil.example")[0] == 403
    assert post(server, "decide", good, Origin="null")[0] == 403
    assert post(server, "decide", good, Content_Type="text/plain")[0] == 403, "what a form could send"
    assert post(server, "decide", good, Host="localhost.evil")[0] == 403
    assert ask(server, "POST", f"{whole}decide", good)[0] == 403, "no origin at all"
    assert len(server.decisions) == 0


def test_answers_forbid_everything_foreign(server: ReviewServer) -> None:
    for place in ("", "review.js", "zoom.js", "grid.js", "review.css", "common.css", "suspects", "image/0"):
        status, _, headers = ask(server, "GET", f"/{server.token}/{place}")
        assert status == 200, place
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
        assert headers["Access-Control-Allow-Origin"] is None


def test_pictures_are_encoded_again_and_lies_are_told(server: ReviewServer) -> None:
    status, data, headers = ask(server, "GET", f"/{server.token}/image/0")
    assert (status, headers["Content-Type"], data[8:12]) == (200, "image/webp", b"WEBP")
    widths = {}
    for place in ("beside/4", "image/0/small", "image/0/large", "known/7/small"):
        status, data, _ = ask(server, "GET", f"/{server.token}/{place}")
        assert status == 200, place
        widths[place] = Image.open(io.BytesIO(data)).width
    assert widths == {"beside/4": 640, "image/0/small": 192, "image/0/large": 900, "known/7/small": 192}
    for place in (
        "image/3",
        "image/20",
        "image/-1",
        "image/x",
        "image/../../etc/passwd",
        "image/0/huge",
        "beside/0",
        "known/8",
        "../server.py",
    ):
        status, data, headers = ask(server, "GET", f"/{server.token}/{place}")
        assert status == 404 and headers["Content-Type"].startswith("text/plain") and b"script" not in data, place


def test_decisions_are_on_the_disk_when_they_are_answered(server: ReviewServer) -> None:
    assert post(server, "decide", {"numbers": [2], "kind": "relabel", "label": HOSTILE})[0] == 200
    kept = Decisions(server.decisions.file).current()
    assert kept[f"{HOSTILE}2"].label == HOSTILE and kept[f"{HOSTILE}2"].cause == "DAT104"
    bad: list[object] = [
        {"numbers": [99], "kind": "drop"}, {"numbers": [True], "kind": "drop"}, {"numbers": [0], "kind": "explode"},
        {"numbers": [0], "kind": "relabel"}, {"numbers": [0], "kind": "relabel", "label": "no class"}, [], {},
        {"numbers": [], "kind": "drop"},
        {"numbers": [1, 1], "kind": "drop"}, {"numbers": 0, "kind": "drop"}, {"numbers": [0], "kind": "drop", "label": 1},
        {"numbers": list(range(20)) * 5, "kind": "drop"}, {"numbers": [0, 20], "kind": "drop"},
        b"{", b"[" * 5000,
    ]  # fmt: skip
    assert all(post(server, "decide", body)[0] == 400 for body in bad)
    assert post(server, "decide", b"x" * 20_000)[0] == 413
    state = json.loads(ask(server, "GET", f"/{server.token}/suspects")[1])
    assert state["suspects"][2]["decision"] == {"kind": "relabel", "label": HOSTILE}
    assert post(server, "undo", {})[1] == {"decided": [[2, None]]}
    assert len(Decisions(server.decisions.file)) == 0


def test_a_page_that_is_closed_while_it_waits_is_no_fault(server: ReviewServer, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        gone = socket.create_connection(server.server_address[:2])
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
        host = server.origin.removeprefix("http://")
        gone.sendall(f"GET /{server.token}/image/0/large HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        gone.close()
    time.sleep(0.3)
    assert ask(server, "GET", f"/{server.token}/image/0/large")[0] == 200
    assert capsys.readouterr().err == ""


def test_a_group_is_decided_and_undone_at_once(server: ReviewServer) -> None:
    assert post(server, "decide", {"numbers": [5], "kind": "keep"})[0] == 200
    status, told = post(server, "decide", {"numbers": [4, 5, 6], "kind": "relabel", "label": None})
    assert status == 200 and told["decided"][1] == [5, {"kind": "relabel", "label": "bee"}], "each its likely class"
    assert len(Decisions(server.decisions.file)) == 3
    again = ReviewServer(server.suspects, LABELS, Decisions(server.decisions.file), 0, ["x"] * 20)
    again.server_close()
    assert again.undo() == {"decided": [[6, None], [5, {"kind": "keep", "label": ""}], [4, None]]}, "by another start as well"


def test_thousands_stay_fluent(server: ReviewServer) -> None:
    many = [replace(server.suspects[i % 3], path=f"image {i}") for i in range(5_000)]
    with serving(ReviewServer(many, LABELS, server.decisions, 0, [str(s.file) for s in server.suspects])) as large:
        begun = time.perf_counter()
        state = json.loads(ask(large, "GET", f"/{large.token}/suspects")[1])
        for i in range(0, 4_800, 48):
            assert post(large, "decide", {"numbers": list(range(i, i + 48)), "kind": "drop"})[0] == 200
        assert len(state["suspects"]) == 5_000 and len(large.decisions) == 4_800
        assert time.perf_counter() - begun < 20, "100 groups of 48 among 5,000"


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


@needs_browser
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


@needs_browser
def test_thousands_in_a_grid_by_keyboard_and_mouse(server: ReviewServer) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    # 2,500 given ant and likely bee, 2,500 the other way round, a hundred with a copy and no label at all.
    many = [
        replace(server.suspects[i % 3], path=f"{HOSTILE}{i}", given=("ant", "bee")[i % 2], likely=("bee", "ant")[i % 2])
        for i in range(5_000)
    ]
    pair = replace(server.suspects[4], given="", likely="", cause="DAT101", name=HOSTILE)
    many += [replace(pair, path=f"copy {i}") for i in range(100)]
    file = server.decisions.file
    with (
        serving(ReviewServer(many, LABELS, Decisions(file), 0, [str(s.file) for s in server.suspects])) as large,
        browser() as driver,
    ):
        wait = WebDriverWait(driver, 20)

        def press(*keys: str) -> None:
            ActionChains(driver).send_keys(*keys).perform()

        def outlined() -> int:
            return len(driver.find_elements("css selector", ".cell[aria-selected=true]:not([hidden])"))

        def decided(n: int) -> None:
            wait.until(lambda d: f"{n} of 5100 decided" in d.find_element("id", "progress").text)

        driver.get(f"{large.address}#grid")
        wait.until(lambda d: outlined() > 0)
        whole = outlined()
        assert 12 <= whole <= 96, "tens at once"
        # one is taken out by keyboard, one by mouse; the others get their likely class, by one key
        press(Keys.ARROW_RIGHT, " ")
        driver.find_elements("css selector", ".cell")[3].click()
        press("r")
        decided(whole - 2)
        kept = Decisions(file).current()
        assert {d.label for d in kept.values()} == {"bee"} and f"{HOSTILE}2" not in kept and f"{HOSTILE}6" not in kept
        assert outlined() == 2, "what was left out is next"
        press("k")
        decided(whole)
        wait.until(lambda d: d.find_element("id", "page").text.startswith(f"{whole + 1} to {2 * whole} of 2500"))
        begun = time.monotonic()
        for n in range(20):
            press("d")
            decided(whole * (n + 2))
        assert time.monotonic() - begun < 20, "twenty groups among 5,000"
        press("z", "z")
        decided(whole * 19)
        # a reload goes on where it was, and undo still knows what was decided together
        driver.get("about:blank")
        driver.get(f"{large.address}#grid")
        decided(whole * 19)
        press("z")
        decided(whole * 18)
        assert len(Decisions(file)) == whole * 18
        # a group of a cause; its copies stand beside their originals, and from near both are moved alike
        driver.execute_script(
            "const box = document.getElementById('group');"
            "box.value = [...box.options].find((o) => o.text.startsWith('DAT101')).value; box.dispatchEvent(new Event('change'))"
        )
        wait.until(lambda d: " of 100" in d.find_element("id", "page").text)
        press(Keys.ENTER, "+", "+")
        wait.until(lambda d: d.find_element("id", "beside").get_attribute("src").endswith("/large"))
        one, copy = (driver.find_element("id", name).get_attribute("style") for name in ("picture", "beside"))
        assert "scale(2.25)" in one and "scale(2.25)" in copy
        console = [e for e in driver.get_log("browser") if "image/" not in e["message"]]
        requests = [json.loads(e["message"])["message"] for e in driver.get_log("performance")]
        marked = driver.execute_script("return window.alerted || document.querySelectorAll('main script').length")
    assert console == [] and marked == 0
    asked = [e["params"]["request"]["url"] for e in requests if e["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith((large.origin, "data:", "about:")) for url in asked), asked


def test_what_is_no_request_is_not_repeated(server: ReviewServer) -> None:
    host = server.origin.removeprefix("http://")
    for asked in (
        f"PUT /{server.token}/x HTTP/1.1\r\nHost: {host}\r\n\r\n",
        "<script>alert(1)</script> a b c\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        f"GET /{'a' * 70_000} HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(server.server_address[:2], timeout=5) as line:
            line.sendall(asked.encode())
            answer = b""
            with suppress(ConnectionError):  # closed before all of it was read
                while part := line.recv(1 << 16):
                    answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head[:5] == b"HTTP/" and head.split()[1][:1] in b"45", asked[:40]
        assert b"text/plain" in head and b"default-src 'none'" in head
        assert body == b"that is no request of this page"
