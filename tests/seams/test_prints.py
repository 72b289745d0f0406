"""What is heard of a program's own printing: real streams, real bars, real loggers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tests.processes import forked
from valgap.checks.evaluation.miscomputed_metric import CHECK
from valgap.record.reader import read_record
from valgap.seams.hosting.prints import FIRST, LAST, Moment, PrintTap
from valgap.types import Case, Clear, Finding

Heard = list[tuple[str, Moment]]


class Tape:
    """A tap on two streams, with what it heard and the moment that it is told."""

    def __init__(self) -> None:
        self.heard: Heard = []
        self.moment: Moment = (1, True)
        self.tap = PrintTap(lambda line, moment: self.heard.append((line, moment)), lambda: self.moment)

    @property
    def lines(self) -> list[str]:
        return [line for line, _ in self.heard]


@pytest.fixture
def tape(capsys: pytest.CaptureFixture[str]) -> Iterator[Tape]:
    tape = Tape()
    yield tape
    tape.tap.detach()


def test_a_handler_that_was_made_before(tape: Tape) -> None:
    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("tests.prints")
    logger.addHandler(handler)
    tape.tap.attach()
    logger.warning("val acc %.2f", 0.75)
    logger.removeHandler(handler)
    assert tape.lines == ["val acc 0.75"]


def test_a_console_that_was_made_before(tape: Tape) -> None:
    console = Console(width=40)
    tape.tap.attach()
    table = Table("epoch", "val acc")
    table.add_row("1", "0.5")
    console.print(table)
    assert [line.split() for line in tape.lines if "acc" in line or "0.5" in line] == [
        ["┃", "epoch", "┃", "val", "acc", "┃"],
        ["│", "1", "│", "0.5", "│"],
    ]


@pytest.mark.parametrize("leave", [True, False])
def test_a_bar_counts_in_its_last_state(tape: Tape, leave: bool) -> None:
    tape.tap.attach()
    for i in (bar := tqdm(range(5), leave=leave, mininterval=0)):
        bar.set_postfix(acc=i / 10)
    assert len(tape.lines) == 1
    assert "acc=0.4" in tape.lines[0]


def test_a_bar_is_heard_when_the_moment_changes(tape: Tape) -> None:
    tape.tap.attach()
    sys.stderr.write("\r1/5 acc 0.1")
    sys.stderr.write("\r2/5 acc 0.2")
    tape.moment = (1, False)
    sys.stderr.write("\r5/5 acc 0.3")
    tape.moment = (2, True)
    sys.stderr.write("\rnext 0/5")
    tape.tap.detach()
    assert tape.heard == [("2/5 acc 0.2", (1, True)), ("5/5 acc 0.3", (1, False)), ("next 0/5", (2, True))]


def test_headings_come_with_the_line_below(tape: Tape) -> None:
    tape.tap.attach()
    print("nothing\n\nmuch\nclasses  top1_acc\n   all  0.5\nafter")
    assert tape.lines == ["nothing", "much", "classes  top1_acc", "   all  0.5"]


def test_first_and_last_lines_of_many(tape: Tape) -> None:
    tape.tap.attach()
    for i in range(1000):
        print(f"line {i}")
    tape.moment = (2, False)
    print("line x2")
    assert tape.lines == [f"line {i}" for i in (*range(FIRST), *range(1000 - LAST, 1000))] + ["line x2"]


def test_streams_come_back_and_hold_what_was_written(tape: Tape, capsys: pytest.CaptureFixture[str]) -> None:
    out = sys.stdout
    tape.tap.attach()
    print("a\rb", 1, end="")
    tape.tap.detach()
    assert "write" not in out.__dict__
    assert capsys.readouterr().out == "a\rb 1"
    assert tape.lines == ["b 1"]


SCRIPT = """
import logging, sys
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
torch.manual_seed(0)
x = nn.functional.interpolate(torch.randn(60, 3, 3, 3), 16, mode="bilinear")
y = torch.arange(60) % 3
train, val = TensorDataset(x[:30], y[:30]), TensorDataset(x[30:56], y[30:56])
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 3))
optimizer = torch.optim.SGD(model.parameters(), 0.05)
for epoch in range(6):
    model.train()
    for a, b in DataLoader(train, 8, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(a), b).backward()
        optimizer.step()
    model.eval()
    right, shares = 0, []
    with torch.no_grad():
        for a, b in (bar := tqdm(DataLoader(val, 8), desc="val")):
            good = model(a).argmax(1) == b
            right += int(good.sum())
            shares.append(float(good.float().mean()))
            {inside}
    {after}
"""
# The right accuracy so far, and the mean of batch means.
VALUES = {True: "right / (8 * len(shares) if len(shares) < 4 else 26)", False: "sum(shares) / len(shares)"}
INSIDE = """value = VALUE
            bar.set_postfix(acc=f"{value:.4f}")
            print(f"Test: [{len(shares) - 1}/4] Acc@1 {100 * shares[-1]:.2f} ({100 * value:.2f}) Acc@5 100.00 (100.00)")
"""
AFTER = 'logging.info("epoch %d accuracy %.4f", epoch, value)'


@pytest.mark.takes(20)
@pytest.mark.parametrize("right", [True, False])
def test_a_program_with_a_logger_a_bar_and_a_meter(right: bool, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("{inside}", INSIDE.replace("VALUE", VALUES[right])).replace("{after}", AFTER))
    done = forked(["-m", "valgap.cli", "run", "--closing", "0", "--out", tmp_path / "run", script])
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "run")
    outcome = CHECK.detect(Case(record))
    passes = [p.index for p in record.of_phase("validation")]
    for label in ("acc", "accuracy", "acc@1"):
        last = {n.after_pass: n for n in record.printed if n.metric == "accuracy" and n.label.endswith(label)}
        assert [i for i, n in last.items() if not n.running] == passes, label
    if right:
        assert isinstance(outcome, Clear), outcome
        assert outcome.evidence[0].value == outcome.evidence[0].n == 18
    else:
        assert isinstance(outcome, Finding) and "batch means" in outcome.summary
