"""Arms that share batches and features are, to the last bit, those that share nothing."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.experiments.test_interventions import spec
from tests.experiments.test_warm import same
from tests.processes import ForkedPopen
from valgap.experiments.arm import ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.experiments.forks import can_fork
from valgap.experiments.runner import Runner, next_arm
from valgap.types import Intervention

pytestmark = pytest.mark.skipif(not can_fork(), reason="arms are forked on Linux alone")
# Frozen, but for its head, while BatchNorm goes by the batch: the commonest transfer learning there is.
PROGRAM = """
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

torch.manual_seed(0)
scale = transforms.Normalize([0.5] * 3, [0.5] * 3)
augment = transforms.Compose([transforms.RandomResizedCrop(16), transforms.ColorJitter(0.2), transforms.ToTensor(), scale])
plain = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(16), transforms.ToTensor(), scale])
train, val = (datasets.ImageFolder(f"data/{part}", t) for part, t in (("train", augment), ("val", plain)))
body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
model = nn.Sequential(body, nn.Linear(8, 3))
body.requires_grad_(False)
optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
for epoch in range(3):
    model.train()
    for images, labels in DataLoader(train, 4, shuffle=True):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        loss = sum(F.cross_entropy(model(images), labels).item() for images, labels in DataLoader(val, 4))
    print(f"val loss {loss:.4f}")
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArmSpec:
    monkeypatch.setattr("subprocess.Popen", ForkedPopen)
    rng = np.random.default_rng(0)
    for part, count in (("train", 18), ("val", 12)):
        for i in range(count):
            place = tmp_path / "data" / part / f"class{i % 3}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(place / f"{i}.jpg")
    file = tmp_path / "train.py"
    file.write_text(PROGRAM)
    return replace(spec(""), script=str(file), argv=[str(file)], cwd=str(tmp_path))


def result(runner: Runner, arm: ArmResult) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((runner.place(arm.spec) / "record" / "result.json").read_text())
    return found


def test_arms_that_share_are_those_that_share_nothing(base: ArmSpec, tmp_path: Path) -> None:
    slower, halved = Intervention("scale_rate", {"factor": 0.1}), Intervention("draw_half", {"draw": 1})
    held = Intervention("hold_batchnorm", {"only_frozen": True})
    acts = [[], [slower], [halved], [held]]
    specs = [replace(base, seed=1, interventions=a) for a in acts]
    warm = Runner(tmp_path / "shared", 1, time.monotonic() + 300, planned=len(specs), warm=True)
    shared = [arm for s in specs for arm in warm.run([s])]  # one after another, so that each finds what those before it left
    warm.close()
    alone = []
    for number, one in enumerate(specs):
        runner = Runner(tmp_path / f"alone{number}", 1, time.monotonic() + 300)
        alone += runner.run([one])
        runner.close()
    assert [a.error for a in (*shared, *alone)] == [None] * 8 and warm.forks == 4
    assert [same(a, b) for a, b in zip(shared, alone, strict=True)] == [True] * 4
    told = [result(warm, a) for a in shared]
    batches, calls = 3 * (5 + 3), 3 * (5 + 3)
    assert told[0]["batches"] == 3 + 2, "validation alone comes again in one arm; its first batch is compared"
    assert told[1]["batches"] == batches - 2, "training and validation, but the first of either transform"
    assert told[1]["replayed"] == calls - 4, "with the same order, all but those compared of either mode"
    assert told[2]["batches"] == 3 * 3 - 1, "other images: those of validation"
    assert told[2]["replayed"] == 0 and told[3]["batches"] == batches - 2


def test_records_of_answers_alone_have_the_same_answers(base: ArmSpec, tmp_path: Path) -> None:
    whole = replace(base, seed=1, interventions=[Intervention("scale_rate", {"factor": 0.1})])
    runner = Runner(tmp_path / "arms", 1, time.monotonic() + 300, planned=2, warm=True)
    kept, light = (arm for s in (whole, replace(whole, answers_only=True)) for arm in runner.run([s]))
    sizes = [(runner.place(a.spec) / "record" / "events.jsonl").stat().st_size for a in (kept, light)]
    runner.close()
    assert kept.error is None and light.error is None and same(kept, light)
    assert light.record is not None and light.record.kept == () and not light.record.recorder_errors
    assert sizes[1] < sizes[0] / 2


@pytest.mark.parametrize(("seeds", "causes", "side_by_side"), [(3, 1, 0), (3, 2, 0), (4, 1, 0), (2, 3, 0), (1, 2, 1)])
def test_arms_of_one_seed_follow_each_other(seeds: int, causes: int, side_by_side: int) -> None:
    specs = [spec("", Intervention("nothing", {"k": k}), seed=s) for s in range(seeds) for k in range(1 + causes)]
    waiting, running, done, together = list(range(len(specs))), [], [], 0
    while waiting or running:
        while waiting and len(running) < 2:
            running.append(waiting.pop(next_arm(specs, waiting, running)))
        first = [specs[i].seed for i in running if specs[i].seed not in {specs[k].seed for k in done}]
        together += len(first) > len(set(first))  # two arms that both compute what neither finds
        done.append(running.pop(0))
    assert sorted(done) == list(range(len(specs))) and together == side_by_side
