"""Diagnoses with every part of a page, real pictures on disk included; and a browser where the machine has one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.checks.cases import healthy
from valgap.checks import CATALOGUE
from valgap.diagnosis import judge, order
from valgap.types import (
    Accuracy,
    Diagnosis,
    Effect,
    Evidence,
    Experiments,
    Finding,
    Judged,
    LedgerLine,
    Outcome,
    Ranked,
    RunRecord,
    SeenInputs,
)

HOSTILE = "<script>alert(1)</script>\"'&\n<img src=x onerror=alert(2)>😀"
CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
CHROMEDRIVER = shutil.which("chromedriver")
NO_BROWSER = "no Chromium with its driver is installed"
# In CI a browser has to be there (.ci/run): without one these tests fail, by browser().
IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
needs_browser = pytest.mark.skipif((CHROMIUM is None or CHROMEDRIVER is None) and not IN_CI, reason=NO_BROWSER)


def record(folder: Path, **changes: Any) -> RunRecord:
    """A sound run whose 300 images exist as small files below ``folder``."""
    run = healthy().run
    rng = np.random.default_rng(0)
    for name in run.sample_names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(folder / name)
    header = {"script": "train.py", "argv": ["train.py", "--x"], "cwd": str(folder), "packages": {"torch": "2"}}
    tensors = rng.integers(0, 255, (8, 3, 16, 16), dtype=np.uint8)
    limits = np.full(3, -2.0, np.float32), np.full(3, 2.0, np.float32)
    seen = (SeenInputs(0, tensors, *limits), SeenInputs(1, tensors, *limits))
    return replace(run, path=str(folder / "run"), header=header, seen=seen, **changes)


def diagnosis(run: RunRecord, *findings: tuple[str, Outcome]) -> Diagnosis:
    """The run judged by the whole catalogue, with findings put in by code; the first one is confirmed."""
    from valgap.types import Case

    given = dict(findings)
    judged = [replace(j, outcome=given.get(j.check.code, j.outcome)) for j in judge(Case(run), CATALOGUE)]
    lines: tuple[LedgerLine, ...] = ()
    facts = None
    if findings:
        first = findings[0][0]
        effect = Effect(12.4, 7.5, 17.8, 0.001, 3, 100)
        judged = [
            Judged(j.check, j.outcome, "confirmed", effect, "the effect is not chance; placebo +0.3")
            if j.check.code == first
            else j
            for j in judged
        ]
        name = next(c.name for c in CATALOGUE if c.code == first)
        lines = (LedgerLine(name, 12.4, 7.5, 17.8), LedgerLine("unexplained", 3.1, note="up to the probe"))
        facts = Experiments(9, 0, 3, 2, 3, 1.0, "control 75.0%, recorded 75.0%", True, 80.0, ("fewer samples",))
    value = run.last_validation.samples.accuracy if run.last_validation else 0.0
    return Diagnosis(run, tuple(order(judged)), 0.8, 0.82, Accuracy(value, 0.6, 0.8, 100), lines, facts)


def finding(**changes: Any) -> Finding:
    """A finding with evidence, subjects and ranking, with changes."""
    whole = Finding(
        "98 statistics moved", 12.4, 0.95, (Evidence("share moved", 1.0, 0.0, "of all", 98, 0.9, 1.0),), "hold them still"
    )
    return replace(whole, **changes)


def suspects(names: tuple[str, ...], n: int) -> tuple[Ranked, ...]:
    """The first n names as label suspects."""
    return tuple(Ranked(name, 1 - i / (n + 1), "ant", "bee") for i, name in enumerate(names[:n]))


@contextmanager
def browser(width: int = 1200, dark: bool = False) -> Iterator[Any]:
    """A headless Chromium that logs its console and every request."""
    assert CHROMIUM is not None and CHROMEDRIVER is not None, NO_BROWSER
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"):
        options.add_argument(flag)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    try:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        yield driver
    finally:
        driver.quit()
