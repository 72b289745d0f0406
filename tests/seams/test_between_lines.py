"""Lines of ours between those of the program: on a terminal as it is seen, with real bars."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios

import pytest

from valgap.seams.hosting.between_lines import write_between
from valgap.seams.hosting.prints import PrintTap

PROGRAM = """
import sys, time
from valgap.seams.hosting.between_lines import write_between
from valgap.seams.hosting.prints import PrintTap
heard = []
tap = PrintTap(lambda line, moment: heard.append(line), lambda: (1, True))
tap.attach()
def warn():
    write_between(tap, ["valgap: warning 95% sure", "valgap:   remedy"])
{body}
tap.detach()
assert not any("valgap" in line for line in heard), heard
"""
TQDM = """
from tqdm import tqdm
for i in tqdm(range(2), desc="outer", mininterval=0, ncols=40):
    for j in tqdm(range(3), desc="inner", mininterval=0, ncols=40, leave=False):
        if (i, j) == (1, 1):
            warn()
print("done", flush=True)
"""
RICH = """
from rich.progress import Progress
with Progress(auto_refresh=False) as progress:
    tasks = [progress.add_task(name, total=4) for name in ("first", "second")]
    for i in range(4):
        for task in tasks:
            progress.update(task, advance=1)
        progress.refresh()
        if i == 1:
            warn()
print("done", flush=True)
"""
PLAIN = """
print("epoch 1", end="", flush=True)
warn()
print(" val acc 0.5", flush=True)
print("epoch 2", flush=True)
warn()
print("done", flush=True)
"""


def screen(body: str) -> list[str]:
    """The lines of an 80 x 24 terminal on which a program has run, without blank ones."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    variables = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-c", PROGRAM.format(body=body)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=variables) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the last of its programs has ended
                break
            text += piece
    os.close(ours)
    assert process.returncode == 0, text.decode()
    return shown(text.decode())


def shown(text: str) -> list[str]:
    """What stands on a terminal: carriage returns, line feeds, and the sequences that move up and wipe."""
    lines, row, column = [[]], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.|\n|\r", text):
        if piece == "\n":
            row += 1
            lines += [[]] * (row == len(lines))
            lines[row] = lines[row] if lines[row] else []
        elif piece == "\r":
            column = 0
        elif piece.startswith("\x1b"):
            if piece.endswith("A"):
                row = max(0, row - int(piece[2:-1] or 1))
            elif piece.endswith("K"):
                lines[row] = []
        else:
            lines[row] += " " * (column + 1 - len(lines[row]))
            lines[row][column] = piece
            column += 1
    return [t for t in ("".join(line).rstrip() for line in lines) if t]


@pytest.mark.parametrize("body", [TQDM, RICH], ids=["tqdm", "rich"])
def test_bars_stay_whole(body: str) -> None:
    lines = screen(body)
    ours = [i for i, line in enumerate(lines) if line.startswith("valgap:")]
    assert [lines[i] for i in ours] == ["valgap: warning 95% sure", "valgap:   remedy"], lines
    bars = [line for line in lines if "%" in line and "valgap" not in line]
    names = ("outer",) if body is TQDM else ("first", "second")
    assert len(bars) == len(names) and all(n in bar and "100%" in bar for n, bar in zip(names, bars, strict=True)), lines
    assert lines[-1] == "done"


def test_a_line_under_way_is_left_where_it_is() -> None:
    warning = ["valgap: warning 95% sure", "valgap:   remedy"]
    assert screen(PLAIN) == ["epoch 1", *warning, " val acc 0.5", "epoch 2", *warning, "done"]


def test_a_stream_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    tap = PrintTap(lambda line, moment: None, lambda: (0, False))
    monkeypatch.setattr(sys, "stderr", None)
    write_between(tap, ["valgap: unseen"])

    class Closed:
        def write(self, text: str) -> None:
            raise ValueError("closed")

    monkeypatch.setattr(sys, "stderr", Closed())
    write_between(tap, ["valgap: unseen"])
