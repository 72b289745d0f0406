"""What tests that need a browser do where there is none: they skip, but never in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST = "tests/report/test_in_browser.py::test_the_page_is_drawn_and_asks_for_nothing"


@pytest.mark.parametrize(("ci", "status", "word"), [("", 0, "2 skipped"), ("false", 0, "2 skipped"), ("true", 1, "2 failed")])
def test_only_outside_ci_it_is_skipped(ci: str, status: int, word: str, tmp_path: Path) -> None:
    bare = {**os.environ, "PATH": str(tmp_path), "CI": ci}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", TEST]
    done = subprocess.run(command, cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == status and word in done.stdout, done.stdout + done.stderr
    assert "no Chromium with its driver is installed" in done.stdout
