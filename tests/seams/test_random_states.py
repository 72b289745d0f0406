"""What valgap does between a program's last line and its exit handlers draws none of the program's random numbers."""

from __future__ import annotations

from pathlib import Path

from tests.processes import fresh

PROGRAM = """
import atexit, random
import numpy as np, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
random.seed(1), np.random.seed(1), torch.manual_seed(1)
atexit.register(lambda: print(random.random(), np.random.rand(), torch.rand(1).item()))
data = [TensorDataset(torch.randn(n, 3, 8, 8), torch.arange(n) % 2) for n in (16, 12)]
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for x, y in DataLoader(data[0], 4, shuffle=True):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
with torch.no_grad():
    for x, y in DataLoader(data[1], 4):
        nn.functional.cross_entropy(model(x), y)
"""


def test_exit_handlers_draw_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    bare = fresh(["program.py"], tmp_path)
    ours = fresh(["-m", "valgap", "run", "--closing", "2", "--out", "r", "program.py"], tmp_path)
    assert bare.returncode == 0 and len(bare.stdout.split()) == 3
    assert ours.stdout == bare.stdout
    assert "recorded in r" in ours.stderr
