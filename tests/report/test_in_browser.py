"""The page in a real browser: charts drawn, pictures shown, no console error, nothing requested, in every shape."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.pages import HOSTILE, browser, diagnosis, finding, needs_browser, record, suspects
from valgap.edits import SNIPPETS
from valgap.exhibits import gather
from valgap.report.as_html import diagnosis_to_html

pytestmark = needs_browser

BOXES = """
const wide = [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
  && !e.closest('.wide, pre, .skip') && getComputedStyle(e).position !== 'absolute');
const clear = e => { const b = e.getBoundingClientRect(); return b.width > 3 && b.height > 3; };
return {wide: wide.map(e => e.outerHTML.slice(0, 200)), charts: [...document.querySelectorAll('svg.chart')].filter(clear).length,
  bars: [...document.querySelectorAll('rect.bar')].filter(clear).length,
  pictures: [...document.images].filter(i => i.complete && i.naturalWidth > 0).length, all: document.images.length,
  background: getComputedStyle(document.body).backgroundColor, alert: window.alerted || 0,
  headings: [...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])};
"""


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_the_page_is_drawn_and_asks_for_nothing(tmp_path: Path, width: int, dark: bool) -> None:
    run = record(tmp_path)
    run = replace(run, sample_names=(HOSTILE, *run.sample_names[1:]))
    names = run.sample_names
    labels = finding(summary=HOSTILE, ranking=suspects(names, 20), subjects=names[:20])
    one = diagnosis(run, ("MOD302", labels), ("DAT101", finding(subjects=(f"{names[3]} = {names[4]}", "z" * 300))))
    page = tmp_path / "report.html"
    page.write_text(diagnosis_to_html(one, gather(one, {"MOD302": SNIPPETS["batchnorm_drift"]})), encoding="utf-8")
    with browser(width, dark) as driver:
        driver.get(page.as_uri())
        seen = driver.execute_script(BOXES)
        console = driver.get_log("browser")
        events = [json.loads(e["message"])["message"] for e in driver.get_log("performance")]
    assert console == []
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert seen["wide"] == [], "nothing reaches beyond the screen"
    assert seen["charts"] == 3 and seen["bars"] >= 8
    assert seen["pictures"] == seen["all"] >= 20 + 2 + 16
    assert (seen["background"] == "rgb(255, 255, 255)") is not dark
    steps = [b - a for a, b in zip(seen["headings"], seen["headings"][1:], strict=False)]
    assert seen["headings"][0] == 1 and max(steps) <= 1, "no level of heading is left out"
