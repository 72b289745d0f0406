"""A program that had a terminal has one again in its re-run; nobody types there."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.checks.cases import healthy
from valgap.experiments.plan import recorded_terminal
from valgap.experiments.terminal import StandardInput
from valgap.seams.hosting.environment import describe

ASKS = """
import os, sys
print(*(os.get_terminal_size(0) if os.isatty(0) else ("none",)))
try: input()
except EOFError: print("end")
"""
pytest.importorskip("pty")


@pytest.mark.parametrize(("size", "told"), [((120, 40), "120 40"), (None, "none")])
def test_its_size_is_known_and_its_input_ends(size: tuple[int, int] | None, told: str) -> None:
    given = StandardInput(size)
    try:
        for _ in range(2):  # one for all
            done = subprocess.run(
                [sys.executable, "-c", ASKS], stdin=given.file, capture_output=True, text=True, timeout=60, check=True
            )
            assert done.stdout.split("\n")[:2] == [told, "end"]
    finally:
        given.close()


@pytest.mark.parametrize(("size", "known"), [([120, 40], (120, 40)), (None, None), ("wide", None), ([1], None), ([-1, 2], None)])
def test_the_record_tells_it(size: object, known: tuple[int, int] | None) -> None:
    run = healthy(header={"terminal": size}).run
    assert recorded_terminal(run) == known


def test_it_is_noted_at_the_start(tmp_path: Path) -> None:
    code = "import json; from valgap.seams.hosting import environment as e; print(json.dumps(e.describe([], 'a.py')['terminal']))"
    given = StandardInput((77, 11))
    try:
        told = subprocess.run([sys.executable, "-c", code], stdin=given.file, capture_output=True, text=True, check=True).stdout
    finally:
        given.close()
    assert told.strip() == "[77, 11]"
    assert "terminal" in describe([], "a.py")
