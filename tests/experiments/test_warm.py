"""Arms that are forked from a program at its first loader are, bit by bit, those that begin anew; and nothing is left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.experiments.test_interventions import spec
from tests.processes import ForkedPopen
from valgap.experiments.arm import ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.experiments.forks import can_fork
from valgap.experiments.runner import Runner
from valgap.types import Intervention

pytestmark = [pytest.mark.takes(40), pytest.mark.skipif(not can_fork(), reason="arms are forked on Linux alone")]


def told(arm: ArmResult) -> list[Any]:
    """All that an arm's seams saw of answers, losses, weights and inputs, but for when."""
    assert arm.record is not None, arm.error
    seen: list[Any] = [arm.acted]
    for one in arm.record.passes:
        table = one.samples
        seen += [table.sample, table.target, table.prediction, table.loss, table.margin, table.fingerprint]
    return [*seen, *(s.norms for s in arm.record.states), [d.root for d in arm.record.datasets.values()]]


def same(a: ArmResult, b: ArmResult) -> bool:
    return all(
        np.array_equal(x, y, equal_nan=True) if isinstance(x, np.ndarray) else x == y
        for x, y in zip(told(a), told(b), strict=True)
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ArmResult], list[ArmResult], Runner]:
    """The same arms forked and begun anew: unchanged, of another seed, treated, shortened."""
    specs = [spec(""), spec("", seed=2), spec("", Intervention("scale_rate", {"factor": 0.1})), spec("", epochs=1)]
    warm, cold = (Runner(tmp_path_factory.mktemp("arms"), 2, time.monotonic() + 400, warm=w) for w in (True, False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subprocess.Popen", ForkedPopen)  # test_diagnose.py has them from fresh processes
        found = warm.run(specs), cold.run(specs), warm
    warm.close()
    cold.close()
    return found


def test_a_forked_arm_is_the_one_that_begins_anew(both: tuple[list[ArmResult], list[ArmResult], Runner]) -> None:
    warm, cold, runner = both
    assert runner.forks == len(warm) and not runner.cold
    assert [a.error for a in (*warm, *cold)] == [None] * 8
    assert [same(a, b) for a, b in zip(warm, cold, strict=True)] == [True] * 4
    assert not same(warm[0], warm[1]) and not same(warm[0], warm[2])


def test_nothing_is_left_of_forks(both: tuple[list[ArmResult], list[ArmResult], Runner]) -> None:
    runner = both[2]
    left = sorted(p.name for p in runner.folder.iterdir())
    assert left == sorted(["features", *(runner.place(a.spec).name for a in both[0])])
    assert not list(runner.folder.glob("*/scratch"))


def program(tmp_path: Path, before: str, inside: str = "") -> ArmSpec:
    """The small program with lines of its own before its first loader, and before each validation."""
    source = (Path(__file__).with_name("program.py")).read_text()
    source = source.replace("for epoch in range(2):\n", f"{before}\nfor epoch in range(2):\n")
    source = source.replace("    right = 0\n", f"    right = 0\n    {inside or 'pass'}\n")
    file = tmp_path / "train.py"
    file.write_text(source)
    return replace(spec(""), script=str(file), argv=[str(file)], cwd=str(tmp_path))


PRIVATE = """
import os, tempfile
place = tempfile.mkdtemp()
open('log.csv', 'a').write('begun')
table = open('table.txt')
table.read(2)
def shared():
    # What one arm wrote, or read on, must not be seen by another.
    for path in (os.path.join(place, 'best'), 'log.csv'):
        with open(path, 'a') as file:
            file.write('x')
    assert len(open(os.path.join(place, 'best')).read()) == epoch + 1
    assert open('log.csv').read() == 'old begun' + 'x' * (epoch + 1)
    assert table.read(1) == 'cd'[epoch]
    assert os.getsid(0) == os.getpgid(0) == os.getpid()  # beside other programs it has a share of the processor of its own
"""
THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(2,), daemon=True).start()"


TEMPORARY = """
import os, tempfile
def own():
    place = tempfile.mkdtemp()
    assert os.path.dirname(place) == os.environ['TMPDIR'] and os.path.isdir(place)
    import subprocess
    assert subprocess.run(['touch', f'{place}/made'], check=False).returncode == 0
    assert subprocess.run(['touch', 'made'], check=False, stderr=subprocess.DEVNULL).returncode != 0
    # What loader workers hand over goes through sockets among the temporary files.
    import socket
    socket.socket(socket.AF_UNIX).bind(f'{place}/socket')
"""


def test_forks_have_temporary_files_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", ForkedPopen)
    base = program(tmp_path, TEMPORARY, "own()")
    runner = Runner(tmp_path / "arms", 2, time.monotonic() + 300, warm=True)
    arms = runner.run([base, replace(base, seed=1)])
    runner.close()
    assert [a.error for a in arms] == [None] * 2 and runner.forks == 2
    assert not (tmp_path / "made").exists() and not runner.unguarded


@pytest.mark.parametrize(
    ("before", "inside", "reason"),
    [(PRIVATE, "shared()", ""), (THREAD, "", "threads of its own"), ("log = open('log.csv', 'a')", "", "writes to a file")],
)
def test_forks_share_nothing_that_they_write(
    before: str, inside: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", ForkedPopen)
    (tmp_path / "log.csv").write_text("old ")
    (tmp_path / "table.txt").write_text("abcdef")
    base = program(tmp_path, before, inside)
    runner = Runner(tmp_path / "arms", 2, time.monotonic() + 300, warm=True)
    arms = runner.run([base, replace(base, seed=1), replace(base, seed=2)][: 3 if not reason else 2])
    runner.close()
    assert [a.error for a in arms] == [None] * len(arms)
    assert runner.forks == (0 if reason else 3) and [reason in c for c in runner.cold] == [True] * bool(reason)
    assert (tmp_path / "log.csv").read_text() == "old "


# Weights whose names do not fit: the program goes on with those that were drawn.
UNFIT = "model.load_state_dict({'net.' + k: v / 2 for k, v in model.state_dict().items()}, strict=False)"


def test_what_acts_before_the_first_batch_is_forked_from_a_program_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", ForkedPopen)
    base = program(tmp_path, UNFIT)
    early = replace(base, interventions=[Intervention("load_weights")])
    both = replace(early, interventions=[*early.interventions, Intervention("scale_rate", {"factor": 0.1})])
    specs = [base, early, replace(early, seed=1), replace(both, seed=1)]
    warm, cold = (Runner(tmp_path / f"arms{w}", 2, time.monotonic() + 300, planned=4, warm=w) for w in (True, False))
    forked = warm.run(specs)
    anew = cold.run(specs)
    warm.close()
    cold.close()
    assert [a.error for a in (*forked, *anew)] == [None] * 8
    assert warm.forks == 4 and not warm.cold
    assert [same(a, b) for a, b in zip(forked, anew, strict=True)] == [True] * 4
    assert not same(forked[0], forked[1]) and forked[1].acted == (1,)


def test_what_would_have_changed_earlier_calls_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", ForkedPopen)
    base = program(tmp_path, "model(torch.zeros(2, 3, 16, 16))")
    runner = Runner(tmp_path / "arms", 2, time.monotonic() + 300, warm=True)
    results = runner.run([base, replace(base, interventions=[Intervention("eval_mode", {"phase": "train"})])])
    runner.close()
    assert runner.forks == 1 and "before its first batch" in runner.cold[0]
    assert [a.error for a in results] == [None, None]


PHOTOGRAPHS = """
from PIL import Image
class Photographs(Images):
    def __getitem__(self, i):
        picture = Image.open(f'{i % 20}.jpg').convert('RGB').crop((i % 5, 0, i % 5 + 16, 16))
        return transforms.functional.to_tensor(picture) + self.images[i] + torch.rand(1), self.targets[i]
train_set.__class__ = val_set.__class__ = Photographs
"""


def test_what_arms_decode_of_files_is_kept_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", ForkedPopen)
    draw = np.random.default_rng(0)
    for k in range(20):
        Image.fromarray(draw.integers(0, 255, (16, 24, 3), dtype=np.uint8)).save(tmp_path / f"{k}.jpg")
    base = program(tmp_path, PHOTOGRAPHS, "import time; time.sleep(0.4)")
    specs = [base, replace(base, seed=1), replace(base, seed=2)]
    warm, cold = (Runner(tmp_path / f"arms{w}", 2, time.monotonic() + 300, planned=3, warm=w) for w in (True, False))
    forked = [arm for s in specs for arm in warm.run([s])]  # one after another
    anew = cold.run(specs)
    copied = [json.loads((warm.place(s) / "record" / "result.json").read_text())["copied"] for s in specs]
    warm.close()
    cold.close()
    assert [a.error for a in (*forked, *anew)] == [None] * 6 and warm.forks == 3
    assert [same(a, b) for a, b in zip(forked, anew, strict=True)] == [True] * 3
    reads = 2 * (48 + 30)  # in two epochs, of twenty files
    assert copied[0] == reads - 20 and copied[2] == reads, "the last one was forked from a program that had decoded all"


WITHOUT_LOADER = """
import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
images, labels = torch.randn(60, 3, 16, 16), torch.arange(60) % 3
images += labels[:, None, None, None]
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for epoch in range(3):
    model.train()
    order = torch.randperm(40)
    for i in range(0, 40, 8):
        optimizer.zero_grad()
        chosen = order[i : i + 8]
        F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        loss = sum(F.cross_entropy(model(images[i : i + 10]), labels[i : i + 10]).item() for i in range(40, 60, 10))
    print(f"val loss {loss / 2:.4f}")
"""


def test_a_program_without_loaders_is_forked_at_its_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", ForkedPopen)
    file = tmp_path / "train.py"
    file.write_text(WITHOUT_LOADER)
    base = ArmSpec(str(file), None, [str(file)], str(tmp_path), 0, 0, 1.0, [-1], [-1])
    treated = replace(base, interventions=[Intervention("scale_rate", {"factor": 0.1})])
    specs = [base, replace(base, seed=1), treated]
    warm, cold = (Runner(tmp_path / f"arms{w}", 2, time.monotonic() + 300, planned=3, warm=w) for w in (True, False))
    forked, anew = warm.run(specs), cold.run(specs)
    warm.close()
    cold.close()
    assert [a.error for a in (*forked, *anew)] == [None] * 6 and (warm.forks, warm.cold) == (3, [])
    assert [same(a, b) for a, b in zip(forked, anew, strict=True)] == [True] * 3
    assert not same(forked[0], forked[1]), "another seed draws another order from the second epoch on"
    assert not same(forked[0], forked[2]) and forked[2].acted[0] > 0


KILLED = """
import sys, time
from pathlib import Path
from dataclasses import replace
from tests.experiments.test_warm import program
from valgap.experiments.runner import Runner
place = Path(sys.argv[1])
base = program(place, "", "import time; time.sleep(60)")
runner = Runner(place / "arms", 2, time.monotonic() + 300, warm=len(sys.argv) > 2)
runner.run([base, replace(base, seed=1)])
"""


@pytest.mark.parametrize("warm", [True, False])
def test_nothing_is_left_of_a_diagnosis_that_was_killed(warm: bool, tmp_path: Path) -> None:
    temporary = tmp_path / "t"  # sockets lie there, whose paths must be short
    temporary.mkdir()
    variables = {**os.environ, "TMPDIR": str(temporary)}
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", KILLED, str(tmp_path), *(["warm"] if warm else [])]
    running = subprocess.Popen(command, cwd=root, env=variables, start_new_session=True)
    end = time.monotonic() + 200
    while time.monotonic() < end and len(list((tmp_path / "arms").glob("**/scratch"))) < 2 + warm:
        time.sleep(0.2)
    time.sleep(1.0)
    assert arms_of(tmp_path)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()

    def left() -> list[object]:
        try:
            made = [*(tmp_path / "arms").glob("**/scratch"), *(tmp_path / "arms").glob("features")]
            return [*arms_of(tmp_path), *temporary.iterdir(), *made]
        except FileNotFoundError as error:  # a folder that was still there is gone now
            return [error]

    while time.monotonic() < end and left():
        time.sleep(0.2)
    assert not left()


def arms_of(place: Path) -> list[str]:
    """The processes of arms that live below ``place``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        if "valgap.experiments" in command and str(place) in command:
            found.append(command)
    return found


def test_specs_of_equal_programs_wait_alike() -> None:
    from valgap.experiments.forks import waiting_spec

    changed = replace(spec("", Intervention("nothing"), seed=3, epochs=1, fraction=0.5), closing=0.3, weights="w")
    assert waiting_spec(changed) == waiting_spec(spec(""))
    assert json.dumps(waiting_spec(spec("softmax")).to_json()) != json.dumps(waiting_spec(spec("")).to_json())
