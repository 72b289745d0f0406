"""Fingerprints: equal bits, equal numbers, against an independent computation; nothing of the program is touched."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import valgap
from tests.comparison.programs import Pictures, Program, recorded
from valgap.seams.hosting.program_text import MAX_TEXT, ProgramText
from valgap.seams.looking.fingerprints import FACTOR, OFFSET, WIDTH, Chosen, checksum
from valgap.types import QUANTITIES

NUMPY = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}


def by_numpy(tensor: torch.Tensor) -> int:
    """The same number from Python's own integers."""
    raw = tensor.contiguous()
    values = (raw.view(torch.int16) if raw.dtype == torch.bfloat16 else raw).numpy()
    size = values.itemsize
    whole = values.size // (WIDTH * 8 // size) * (WIDTH * 8 // size)
    flat = values.reshape(-1)
    body = [int(v) for v in flat[:whole].view(np.int64)]
    if values.size <= WIDTH * 8 // size:
        whole, body = 0, []
    weight = [(((i + 1) * FACTOR + OFFSET) & (2**64 - 1)) | 1 for i in range(max(WIDTH, len(body) // WIDTH, values.size - whole))]
    columns = [sum(body[c::WIDTH]) for c in range(WIDTH)]
    rows = [sum(body[r * WIDTH : (r + 1) * WIDTH]) for r in range(len(body) // WIDTH)]
    total = sum(c * w for c, w in zip(columns, weight, strict=False)) + 3 * sum(r * w for r, w in zip(rows, weight, strict=False))
    rest = flat[whole:].view(NUMPY[size])
    total += 5 * sum(int(v) * w for v, w in zip(rest, weight, strict=False)) + values.size
    return (total + 2**63) % 2**64 - 2**63


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(7),
        torch.randn(3, 1024),
        torch.randn(5, 3, 33, 21),
        torch.randn(2, 3, 40, 40, dtype=torch.float64),
        torch.randn(90, 100).bfloat16(),
        torch.randint(0, 256, (4, 3, 61, 61), dtype=torch.uint8),
        torch.arange(12),
    ],
    ids=lambda t: f"{tuple(t.shape)}-{t.dtype}",
)
def test_the_checksum_is_what_it_is_said_to_be(tensor: torch.Tensor) -> None:
    assert int(checksum(tensor)) == by_numpy(tensor)


def test_it_depends_on_values_and_order_and_not_on_memory() -> None:
    images = torch.randn(6, 3, 40, 40)
    same = int(checksum(images))
    assert int(checksum(images.contiguous(memory_format=torch.channels_last))) == same
    assert int(checksum(torch.cat([torch.zeros(1), images.reshape(-1)])[1:].reshape(images.shape))) == same
    assert int(checksum(images.flip(0))) != same and int(checksum(images.flip(3))) != same
    changed = images.clone()
    changed[4, 2, 11, 5] = torch.nextafter(changed[4, 2, 11, 5], torch.tensor(9.0))
    assert int(checksum(changed)) != same
    swapped = images.clone()
    swapped[[1, 2]] = swapped[[2, 1]]
    assert int(checksum(swapped)) != same


def test_the_first_batches_and_powers_of_two_are_taken() -> None:
    chosen = Chosen()
    assert [i for i in range(70) if chosen.next(True)] == [*range(9), 16, 32, 64]
    assert chosen.next(False)  # counted apart


def test_each_quantity_of_a_batch_is_there_and_is_what_the_program_computed(tmp_path: Path) -> None:
    run = recorded(tmp_path / "r")
    first = run.traced[0]
    assert {QUANTITIES[q] for q in first.quantity[first.batch == 0]} == set(QUANTITIES)
    model, rows = Program(), first.rows_of(0)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    loader = DataLoader(Pictures(0, model), 8, shuffle=True)
    net = model.network()
    images, targets = next(iter(loader))
    torch.set_rng_state(state)
    logits = net(images)
    nn.functional.cross_entropy(logits, targets).backward()
    assert first.norm[rows["input"]] == pytest.approx(float(images.norm()), rel=1e-5)
    assert first.mean[rows["logits"]] == pytest.approx(float(logits.detach().mean()), rel=1e-4, abs=1e-6)
    norms = torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None])
    assert first.norm[rows["gradient"]] == pytest.approx(float(norms.norm()), rel=1e-4)
    kept = torch.cat([net[1].running_mean, net[1].running_var])
    assert first.norm[rows["statistics"]] == pytest.approx(float(kept.norm()), rel=1e-5)


def test_the_program_draws_and_computes_what_it_does_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    alone = Program(noise=0.2, dropout=0.2).train()
    after = torch.get_rng_state()
    torch.set_rng_state(state)

    with valgap.watch(out=tmp_path / "r", closing=0):
        watched = Program(noise=0.2, dropout=0.2).train()
    assert torch.equal(torch.get_rng_state(), after)
    torch.set_rng_state(state)
    assert all(torch.equal(a, b) for a, b in zip(alone.state_dict().values(), watched.state_dict().values(), strict=True))


def test_the_programs_own_files_are_kept_and_long_ones_by_their_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "train.py"
    script.write_text("print(1)\n")
    (tmp_path / "own_long_module.py").write_text("# " + "x" * MAX_TEXT)
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "others_module.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    text = ProgramText(str(script), None)
    first = list(text.first())
    script.write_text("print(2)\n")  # edited while it runs: the text is the one that runs
    importlib.import_module("own_long_module")
    importlib.import_module("others_module")
    rest = list(text.rest())
    assert [(f["path"], f["text"], f["entry"]) for f in first] == [("train.py", "print(1)\n", True)]
    assert [(f["path"], f["text"], f["entry"]) for f in rest] == [("own_long_module.py", None, False)]
    for name in ("own_long_module", "others_module"):
        del sys.modules[name]
    assert list(ProgramText("no such file", None).first()) == []
