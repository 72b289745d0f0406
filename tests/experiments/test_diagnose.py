"""The whole way on real photographs: record, re-run, verdict, ledger; nothing of the user's changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.experiments.test_sandbox import tree
from tests.processes import ForkedPopen, forked

pytestmark = pytest.mark.takes(65)
ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "clothing_mini"
CLASSES = ("dress", "hat", "pants", "shoes")
OPTIONS = ["--backbone", "efficientnet_lite0", "--size", "64", "--epochs", "2"]


def valgap(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Its re-runs are forks as well; as processes that users have they run before the Ctrl-C below."""
    return forked(["-m", "valgap.cli", *arguments], cwd)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not DATA.is_dir():
        pytest.skip("the real images are not here")
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 20), ("val", 12)):
        for label in CLASSES:
            (folder / split / label).mkdir(parents=True)
            for file in sorted((DATA / split / label).iterdir())[:count]:
                with Image.open(file) as image:
                    image.convert("RGB").resize((72, 72)).save(folder / split / label / f"{file.stem}.jpg")
    return folder


@pytest.fixture(scope="module")
def shifted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the script with a shifted class map was recorded as ``r``, among files of the user's."""
    home = tmp_path_factory.mktemp("home")
    (home / "results.csv").write_text("acc\n")
    script = ROOT / "examples" / "faults" / "shifted_class_index.py"
    done = valgap("run", "--out", "r", script, photos, *OPTIONS, cwd=home)
    assert done.returncode == 0, done.stderr
    return home


def test_a_score_fault_is_confirmed_and_the_ledger_sums(shifted: Path) -> None:
    # Without the closer look at every photograph that single wrong labels take.
    command = ["diagnose", "r", "--budget", "5m", "--ignore", "DAT104"]
    done = valgap(*command, "--json", cwd=shifted)
    assert done.returncode == 0, done.stderr
    body: dict[str, Any] = json.loads(done.stdout)
    first = body["findings"][0]
    assert (first["code"], first["verdict"]) == ("DAT102", "confirmed")
    assert first["effect_points"]["seeds"] == 3
    assert first["effect_points"]["low"] > 0
    line = body["ledger"][0]
    assert (line["name"], line["stage"]) == ("class_index_mismatch", "pair") and "nats" in line
    shared = next(x for x in body["stages"] if x["stage"] == "pair")
    assert shared["proved"] and shared["points"]["value"] == pytest.approx(line["points"], abs=0.05)
    assert body["loss"]["confidence"]["value"] + body["loss"]["discrimination"] == pytest.approx(body["loss"]["value"])
    assert body["experiments"]["reproduced"]
    again = json.loads(valgap(*command, "--json", cwd=shifted).stdout)
    assert again["experiments"]["reused"] == again["experiments"]["arms"] >= 3
    assert again["findings"][0]["effect_points"] == first["effect_points"]
    told = valgap(*command, "--fail-on", "confirmed", "--html", "r.html", cwd=shifted)
    assert told.returncode == 1
    assert "with every confirmed remedy" in " ".join(told.stdout.split())


@pytest.mark.slow  # tests/experiments/test_warm.py and test_sandbox.py are quick
def test_nothing_of_the_users_changes_and_ctrl_c_keeps_what_is_finished(photos: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    source = (ROOT / "tests" / "experiments" / "program.py").read_text()
    script.write_text(
        source.replace("import sys\n", "import os, shutil, sys\n", 1)
        + "torch.save(model.state_dict(), 'best.pt')\n"
        + "open('log.csv', 'a').write('1\\n')\nshutil.rmtree('old', ignore_errors=True)\nos.rename('a.txt', 'b.txt')\n"
    )
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "x").write_text("x")
    (tmp_path / "a.txt").write_text("a")
    done = valgap("run", "--out", "r", "train.py", "softmax", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "a.txt").write_text("a")  # the recorded run itself renamed it, as the user asked
    (tmp_path / "old").mkdir()
    before = {k: v for k, v in tree(tmp_path).items() if not k.startswith("r/") and k != "r"}
    # A Ctrl-C while the program is rebuilt leaves out the rebuilding alone: here the re-runs are interrupted.
    options = ["diagnose", "r", "--no-rebuild", "--budget", "4m", "--json", "--select", "MOD306"]
    with (photos / "output.txt").open("wb") as output:
        running = ForkedPopen([sys.executable, "-m", "valgap.cli", *options], output, cwd=tmp_path)
    results = tmp_path / "r" / "experiments"
    end = time.monotonic() + 300
    while time.monotonic() < end and not list(results.glob("*/record/result.json")):
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGINT)
    assert running.wait(60) == 130
    kept = len(list(results.glob("*/record/result.json")))
    assert kept >= 1
    # The rest of the re-runs are forks: those before the Ctrl-C were processes as users have them.
    body = json.loads(valgap(*options, cwd=tmp_path).stdout)
    assert body["experiments"]["reused"] >= 1
    softmax = next(f for f in body["findings"] if f["code"] == "MOD306")
    assert softmax["verdict"] in ("confirmed", "inconclusive", "refuted")
    assert softmax["effect_points"] is not None
    assert softmax["effect_nats"]["low"] <= softmax["effect_nats"]["value"] <= softmax["effect_nats"]["high"]
    after = {k: v for k, v in tree(tmp_path).items() if not k.startswith("r/") and k != "r"}
    assert after == before


def test_what_cannot_be_run_again_is_inconclusive(shifted: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(shifted / "r", tmp_path / "r", ignore=shutil.ignore_patterns("experiments"))
    events = tmp_path / "r" / "events.jsonl"
    events.write_text(events.read_text().replace("shifted_class_index.py", "no_longer_there.py"))
    body = json.loads(valgap("diagnose", "r", "--budget", "1m", "--json", cwd=tmp_path).stdout)
    first = next(f for f in body["findings"] if f["code"] == "DAT102")
    assert first["verdict"] == "inconclusive"
    assert "no longer there" in first["reason"]
    small = json.loads(valgap("diagnose", "r", "--budget", "1s", "--json", cwd=tmp_path).stdout)
    assert all(f["verdict"] != "confirmed" for f in small["findings"])


@pytest.mark.slow
def test_where_the_machine_is_busier_than_it_was_the_recorded_weights_have_the_word(tmp_path: Path) -> None:
    source = (ROOT / "tests" / "experiments" / "program.py").read_text()
    # Each batch then takes 4 s; an arm that only scores sees one batch in each epoch.
    walk = "    for images, labels in train_loader:\n"
    source = source.replace(walk, walk + "        if os.path.exists('busy'):\n            time.sleep(4)\n")
    source = source.replace("import sys\n", "import os, sys, time\n", 1)
    (tmp_path / "train.py").write_text(source.replace("nn.Dropout(0.2)", "nn.Identity()"))  # one draw suffices then
    assert valgap("run", "--out", "r", "train.py", "train_validation", cwd=tmp_path).returncode == 0
    (tmp_path / "busy").touch()
    body = json.loads(valgap("diagnose", "r", "--budget", "2m", "--json", "--select", "EVA501", cwd=tmp_path).stdout)
    (finding,) = body["findings"]
    assert finding["effect_points"] is not None, finding
    assert any("nothing was trained" in note for note in body["experiments"]["notes"])
