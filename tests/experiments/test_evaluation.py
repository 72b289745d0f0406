"""Recorded weights are scored again without training; arms that hang or swell are stopped; skipped weights are fitted."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.experiments.test_interventions import spec
from tests.processes import ForkedPopen, forked
from valgap.experiments.arm import ArmSpec
from valgap.experiments.runner import Limits, Runner
from valgap.experiments.scoring import same_answers
from valgap.record.reader import read_record
from valgap.seams.loading import LoadWeights
from valgap.types import Intervention

SHIFT = {"phase": "validation", "scale": [-1.0], "shift": [0.5]}


def test_recorded_weights_are_scored_again_and_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "r"
    program = spec("")
    done = forked(["-m", "valgap.cli", "run", "--out", run, program.script])
    assert done.returncode == 0, done.stderr
    recorded = read_record(run)
    last = recorded.last_validation
    assert last is not None
    base = replace(program, weights=str(run / "final.safetensors"))
    runner = Runner(tmp_path / "arms", 2, time.monotonic() + 200)
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.Popen", ForkedPopen)  # test_diagnose.py scores again in fresh processes
        own, treated = runner.run([base, replace(base, interventions=[Intervention("affine", SHIFT)])])
    assert own.error is None and treated.error is None, (own.error, treated.error)
    assert same_answers(replace(own, record=recorded, samples=last.samples), own) == 1.0
    assert treated.acted[0] > 0
    assert treated.record is not None and own.record is not None
    assert [p.num_batches for p in own.record.passes if p.dataset == 0] == [1, 1]
    assert treated.correct() != own.correct()
    for result in (own, treated):
        assert result.record is not None and result.record.trained_model is not None
        place = result.record.trained_model.tensor_names.index("head.weight")
        wanted = load_file(str(run / "final.safetensors"))["head.weight"]
        assert result.record.states[-1].norms[place] == pytest.approx(float(wanted.norm()), rel=1e-6)


def arm(script: Path, name: str) -> ArmSpec:
    return ArmSpec(str(script), None, [str(script), name], str(script.parent), 0, 0, 1.0, [0], [1])


def test_arms_are_stopped_at_their_limits(tmp_path: Path) -> None:
    script = tmp_path / "hang.py"
    script.write_text("import sys, time\nkept = bytearray(700 << 20) if sys.argv[1] == 'big' else b''\ntime.sleep(60)\n")
    told: list[tuple[int, int]] = []
    runner = Runner(
        tmp_path / "arms",
        2,
        time.monotonic() + 50,
        progress=lambda done, total, left: told.append((done, total)),
        limits=Limits(seconds=6.0, memory_bytes=600 << 20),
        planned=5,
    )
    begun = time.monotonic()
    small, big = runner.run([arm(script, "small"), arm(script, "big")])
    assert small.error is not None and "6 s" in small.error
    assert big.error is not None and "GiB of memory" in big.error
    assert time.monotonic() - begun < 40
    assert told[0] == (0, 5) and told[-1][0] == 1


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("prefix", ["module.", "backbone.model."])
def test_skipped_weights_are_fitted(prefix: str) -> None:
    own, given = net(), net().state_dict()
    act = LoadWeights()
    wrong: Any = {prefix + k: v for k, v in given.items()}
    own.load_state_dict(act.loading(own, wrong), strict=False)
    assert act.acted == 1
    assert all(torch.equal(v, given[k]) for k, v in own.state_dict().items())
    sound = LoadWeights()
    assert sound.loading(own, given) is given
    sound.before_call(own)
    assert sound.acted == 0


def test_published_weights_on_this_machine_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    model = timm.create_model("tf_efficientnet_lite0", num_classes=3)
    act = LoadWeights()
    act.before_call(model)
    assert act.acted == 1
    assert float(model.bn1.running_mean.abs().sum()) > 0
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(net().state_dict(), tmp_path / "checkpoints" / "net.pth")
    (tmp_path / "checkpoints" / "bad.pth").write_bytes(b"no weights")
    other = net()
    act = LoadWeights()
    act.before_call(other)
    assert act.acted == 1
    foreign = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Linear(5, 2))
    act = LoadWeights()
    act.before_call(foreign)
    assert act.acted == 0
