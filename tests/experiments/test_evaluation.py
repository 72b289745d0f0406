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

from tests.checks.cases import healthy
from tests.experiments.test_interventions import spec
from tests.processes import ForkedPopen, forked
from valgap.experiments.arm import ArmSpec
from valgap.experiments.prove import _with_decided
from valgap.experiments.runner import Limits, Runner
from valgap.experiments.scoring import PLAIN, same_answers, scored_plainly
from valgap.record.reader import read_record
from valgap.seams.acting.loading import KeepLoaded, LoadWeights
from valgap.types import Check, Diagnosis, Effect, Experiments, Finding, Intervention, Judged, LedgerLine, Proposal

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


def changed(tmp_path: Path, old: str, new: str) -> ArmSpec:
    """The small program with a line of its own."""
    source = Path(spec("").script).read_text()
    assert old in source
    script = tmp_path / "train.py"
    script.write_text(source.replace(old, new))
    return replace(spec(""), script=str(script), argv=[str(script)], cwd=str(tmp_path))


def test_what_a_program_makes_of_the_logits_is_held_against_the_model_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", ForkedPopen)
    validation = "        right += (logits.argmax"
    program = changed(
        tmp_path, validation, f"        logits = logits.roll(1, 1)\n        F.cross_entropy(logits, labels)\n{validation}"
    )
    runner = Runner(tmp_path / "arms", 2, time.monotonic() + 200, planned=2, warm=True)
    own, sound = runner.run([replace(s, rescore=[PLAIN]) for s in (program, spec(""))])
    runner.close()
    assert own.error is None and sound.error is None, (own.error, sound.error)
    plain, same = scored_plainly([own]), scored_plainly([sound])
    assert plain is not None and same is not None
    assert same_answers(sound, same[0]) == 1.0
    assert same_answers(own, plain[0]) < 0.2, "the program answers with the next class"
    assert same_answers(sound, plain[0]) == 1.0, "the model itself is the one that the sound program has trained"
    assert scored_plainly([replace(own, spec=program)]) is None


def test_weights_that_change_after_the_last_validation_are_not_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", ForkedPopen)
    line = "optimizer = torch.optim.SGD("
    program = changed(tmp_path, line, f"import atexit\n{line}")
    text = Path(program.script).read_text() + "with torch.no_grad():\n    model.head.weight.mul_(2.0)\n"
    Path(program.script).write_text(text)
    runner = Runner(tmp_path / "arms", 1, time.monotonic() + 200)
    (one,) = runner.run([replace(program, rescore=[PLAIN])])
    assert one.error is None and scored_plainly([one]) is None


def test_loaded_weights_that_were_changed_are_put_back_but_for_the_head() -> None:
    own, given = net(), net().state_dict()
    act = KeepLoaded()
    own.load_state_dict(act.loading(own, given))
    first, norm, _, head = own
    with torch.no_grad():
        first.weight.add_(1.0)
        head.weight.add_(1.0)
    act.before_call(own)
    assert act.acted == 1 and torch.equal(first.weight, given["0.weight"])
    assert not torch.equal(head.weight, given["3.weight"]) and torch.equal(norm.weight, given["1.weight"])
    with torch.no_grad():
        first.weight.add_(1.0)  # what training does later is its own
    act.before_call(own)
    assert act.acted == 1


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


def test_what_whole_arms_leave_open_the_recorded_weights_decide() -> None:
    found = Finding("", 9.0, 0.9, (), "")
    effect = Effect(9.0, 6.0, 12.0, 0.001, 3, 99)
    checks = {n: Check(n, n.lower(), lambda case: found, "", stage=s) for n, s in (("A", "read_val"), ("B", "update"))}  # type: ignore[arg-type]
    facts = Experiments(6, 0, 3, 4, 4, 1.0, "", True, 9.0)

    def diagnosed(**verdicts: tuple[str, Effect | None]) -> Diagnosis:
        judged = tuple(Judged(checks[n], found, v, e) for n, (v, e) in verdicts.items())  # type: ignore[arg-type]
        lines = tuple(LedgerLine(n.lower(), 9.0, 6.0, 12.0, "") for n, (v, _) in verdicts.items() if v == "confirmed")
        proposals = (Proposal("A", 60.0), Proposal("B", 90.0))
        empty = Diagnosis(healthy().run, judged, None, None, None, ledger=lines, proposals=proposals)
        return replace(empty, experiments=facts)

    scored = diagnosed(A=("confirmed", effect), B=("untested", None))
    both = _with_decided(diagnosed(A=("inconclusive", None), B=("confirmed", effect)), scored)
    assert [(j.check.code, j.verdict) for j in both.judged] == [("A", "confirmed"), ("B", "confirmed")]
    assert [line.name for line in both.ledger] == ["b"] and [p.code for p in both.proposals] == ["B"]
    assert both.experiments is not None and "recorded weights" in both.experiments.notes[-1]
    alone = _with_decided(diagnosed(A=("inconclusive", None), B=("inconclusive", None)), scored)
    assert [line.name for line in alone.ledger] == ["a"]
    arms = diagnosed(A=("refuted", effect), B=("confirmed", effect))
    assert _with_decided(arms, scored) is arms
