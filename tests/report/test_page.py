"""The HTML page: every part in its order, nothing of the user's unescaped, no request possible, small."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.checks.cases import dataset
from tests.report.pages import HOSTILE, diagnosis, finding, record, suspects
from valgap.exhibits import gather
from valgap.report.as_html import diagnosis_to_html, statement
from valgap.report.charts import ticks
from valgap.types import Diagnosis, LedgerLine, Measured

VOID = {"meta", "img", "br", "link"}


class Reader(HTMLParser):
    """Tags with their attributes and the visible text; a page whose tags do not match fails."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def page_of(one: Diagnosis) -> str:
    return diagnosis_to_html(one, gather(one, {"MOD302": "model.train()  # <b>"}))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> object:
    return record(tmp_path_factory.mktemp("page"))


def test_every_part_in_its_order(run: object) -> None:
    names = run.sample_names  # type: ignore[attr-defined]
    twins = finding(subjects=(f"{names[0]} = {names[1]}", names[2]))
    labels = finding(ranking=suspects(names, 30), subjects=names[:30])
    page = page_of(diagnosis(run, ("MOD302", finding()), ("DAT101", twins), ("PRE201", labels)))  # type: ignore[arg-type]
    seen = Reader(page)
    ids = [a["id"] for _, a in seen.tags if "id" in a]
    assert [i for i in ids if i.islower()] == ["ledger", "findings", "seen", "curves", "classes", "clear", "open", "settings"]
    assert next(i for i in ids if not i.islower()) == "MOD302"
    for word in ("given ant", "likely bee", "in a sound run", "p = 0.001", "placebo +0.3", "model.train()  # <b>"):
        assert word in seen.text, word
    for word in (
        "train, scored like validation",
        "Confusion matrix",
        "Calibration",
        "In validation (tensors of 3 x 224 x 224",
        "--x",
    ):
        assert word in seen.text, word
    assert "The first 24 of 30." in seen.text
    pair = page.split('class="pictures"')
    assert any(part.count("<img") == 2 for one in pair for part in one.split("<li>")), "copies stand side by side"
    assert all(a.get("alt") for tag, a in seen.tags if tag == "img")


def test_the_ledger_is_a_waterfall(run: object) -> None:
    rows = statement(diagnosis(run, ("MOD302", finding())))  # type: ignore[arg-type]
    assert [r["name"] for r in rows] == [
        "reached by this run", "batchnorm_drift", "reached with every confirmed remedy", "unexplained",
    ]  # fmt: skip
    start = float(rows[0]["points"].split()[0])
    assert float(rows[2]["points"].split()[0]) == pytest.approx(start + 12.4)
    x, width = (float(re.search(rf' {k}="([\d.]+)"', str(rows[1]["bar"])).group(1)) for k in ("x", "width"))  # type: ignore[union-attr]
    ends_at = float(re.search(r' width="([\d.]+)"', str(rows[2]["bar"])).group(1))  # type: ignore[union-attr]
    assert x + width == pytest.approx(ends_at, abs=0.02)


def test_what_the_script_prints_comes_before_what_it_reached_and_gains_beside(run: object) -> None:
    printed = LedgerLine("miscomputed_metric", -8.8, note="a mean of batch means", kind="measurement", stage="measure")
    gain = LedgerLine("reading training images", -3.0, -5.0, -1.0, kind="gain", stage="read_train")
    one = diagnosis(run, ("MOD302", finding()))  # type: ignore[arg-type]
    cause = replace(one.ledger[0], nats=Measured(0.31, 0.2, 0.4))
    rows = statement(replace(one, ledger=(printed, cause, replace(one.ledger[1], kind="rest"), gain)))
    assert [r["name"] for r in rows] == [
        "as the script reports it", "miscomputed_metric", "reached by this run", "batchnorm_drift",
        "reached with every confirmed remedy", "unexplained", "reading training images",
    ]  # fmt: skip
    totals = [float(r["points"].split()[0]) for r in rows if r["total"]]
    assert totals[0] - 8.8 == pytest.approx(totals[1]) and totals[1] + 12.4 == pytest.approx(totals[2])
    assert rows[3]["loss"] == "-0.31" and "-0.31" in Reader(page_of(replace(one, ledger=(cause,)))).text


def test_nothing_can_load_or_run(run: object) -> None:
    names = (HOSTILE, *run.sample_names[1:])  # type: ignore[attr-defined]
    maps = {HOSTILE: 0, "x" * 300: 1, "cat": 2, "dog": 3}
    data = {i: dataset(i, d.sample, class_to_idx=maps, root=HOSTILE) for i, d in run.datasets.items()}  # type: ignore[attr-defined]
    header = {**run.header, "script": HOSTILE, "argv": [HOSTILE], "git": {HOSTILE: HOSTILE}}  # type: ignore[attr-defined]
    bad = replace(run, sample_names=names, datasets=data, header=header, path=HOSTILE, stopped=HOSTILE)  # type: ignore[type-var]
    spoiled = finding(summary=HOSTILE, remedy=HOSTILE, subjects=(HOSTILE, "y" * 300), ranking=suspects((HOSTILE, *names[1:]), 3))
    page = page_of(diagnosis(bad, ("MOD302", spoiled)))  # type: ignore[arg-type]
    seen = Reader(page)
    assert not [t for t, _ in seen.tags if t in ("script", "link", "iframe", "object", "form", "base")]
    for tag, attributes in seen.tags:
        assert not [a for a in attributes if a.startswith("on") or a == "style"], (tag, attributes)
        source = attributes.get("src")
        assert source is None or source.startswith("data:image/webp;base64,")
        link = attributes.get("href")
        assert link is None or link.startswith("#")
    assert "alert(1)" in seen.text
    sheet = re.search(r"<style>(.*?)</style>", page, re.S)
    assert sheet is not None
    digest = base64.b64encode(hashlib.sha256(sheet.group(1).encode()).digest()).decode()
    policy = next(a["content"] for t, a in seen.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert f"'sha256-{digest}'" in (policy or "")
    assert "unsafe" not in (policy or "") and "script-src" not in (policy or "") and "default-src 'none'" in (policy or "")


def test_a_run_of_which_little_is_known(run: object) -> None:
    bare = replace(run, seen=(), closing=None, passes=(), datasets={}, models={}, header={})  # type: ignore[type-var]
    one = replace(diagnosis(bare), validation=None, train_reported=None, train_rescored=None)  # type: ignore[arg-type]
    assert "No pass with labels was recorded" in Reader(page_of(one)).text


def test_a_thousand_pictures_stay_below_five_megabytes(run: object) -> None:
    names = run.sample_names  # type: ignore[attr-defined]
    many = finding(subjects=names, ranking=suspects(names, len(names)))
    codes = ("MOD302", "DAT101", "DAT102", "PRE201", "PRE202", "PRE203", "EVA501", "TRN407")
    page = page_of(diagnosis(run, *((code, many) for code in codes)))  # type: ignore[arg-type]
    assert page.count("<img") > 150
    assert len(page.encode()) < 5_000_000


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.534, 0.61), (1.0, 1.0), (-3.0, 250.0), (1e-6, 2e-6)])
def test_ticks_enclose_and_are_few(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low + 1e-12 and marks[-1] >= high - 1e-12
    assert 2 <= len(marks) <= 9
    assert all(m == int(m) for m in ticks(0.0, 3.0, whole=True))


def test_no_control_character_is_in_the_page(run: object) -> None:
    names = tuple(f"{n}\x1b[2J\u202egpj\x9b31m" for n in run.sample_names)  # type: ignore[attr-defined]
    bad = replace(run, sample_names=names, header={**run.header, "script": names[0]}, path=names[0])  # type: ignore[type-var,attr-defined]
    one = diagnosis(bad, ("DAT104", finding(summary=names[0], subjects=names[:2], ranking=suspects(names, 3))))  # type: ignore[arg-type]
    page = diagnosis_to_html(one, gather(one))
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page) is None
    assert r"\x1b[2J\u202egpj\x9b31m" in page
