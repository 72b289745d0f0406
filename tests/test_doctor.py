"""`valgap doctor`: one line a fact, exit status 1 where something is missing, broken packages told and not fallen over."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

import valgap.cli
from tests.processes import fresh
from valgap import doctor
from valgap.engine.store import FeatureStore, cache_folder

pytestmark = pytest.mark.takes(10)

runner = CliRunner()


def test_a_line_for_each_fact() -> None:
    done = runner.invoke(valgap.cli.app, ["doctor", "--quick"])
    lines = done.stdout.splitlines()
    assert done.exit_code == 0, done.stdout
    named = {line[8:].split("  ")[0].strip(): line for line in lines}
    for name in ("valgap", "python", "torch", "torchvision", "timm", "device", "bundled weights", "cache", "sandbox"):
        assert named[name].startswith("ok"), name
    assert str(cache_folder()) in named["cache"]
    assert {f"extra {e}" for e in doctor.EXTRAS} < set(named)
    assert not [n for n in named if n.startswith("speed")]


@pytest.mark.slow
def test_speed_of_every_engine_is_measured() -> None:
    from valgap.engine.forward import candidates

    timed = {f.name: f for f in doctor.speeds()}
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert list(timed) == ["speed reading", "speed fp32", *(f"speed {n}" for n in candidates(device))]
    assert float(timed["speed fp32"].text.split()[0]) > 0
    assert timed["speed fp32"].state == "ok"
    assert not (cache_folder() / "forwards.json").exists(), "a measurement for people decides nothing for later jobs"


def test_a_package_that_cannot_be_imported_ends_with_status_one(tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise OSError('libgone.so: cannot open\\nshared object file')\n")
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from valgap.cli import main; main()"
    done = fresh(["-c", program, tmp_path, "doctor"])
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    missing = [line for line in done.stdout.splitlines() if line.startswith("MISSING")]
    assert len(missing) == 1 and "timm" in missing[0] and "libgone.so" in missing[0]


def test_packages_that_are_absent_or_too_old() -> None:
    absent = doctor.package(Requirement("no-such-package-of-anybody>=2; python_version > '3'"))
    assert (absent.state, absent.text) == ("missing", "not installed: pip install 'no-such-package-of-anybody>=2'")
    old = doctor.package(Requirement("numpy>=999"))
    assert old.state == "missing" and ">=999" in old.text
    assert doctor.package(Requirement("numpy>=1")).state == "ok"


def test_cache_size_counts_what_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setenv("VALGAP_CACHE", str(tmp_path / "kept"))
    FeatureStore().space("k", "about").append([b"0" * 16], {"features": np.zeros((1, 500_000), np.float32)})
    size, disk, _ = doctor.cache()
    assert size.text.startswith("2.0 MB of at most") and str(tmp_path / "kept") in size.text
    assert disk.state == "ok" and disk.text.endswith("free")


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that nobody can write to, root included")
def test_a_folder_that_cannot_be_written_to_is_told() -> None:
    fact = doctor._room("cache disk", Path("/proc/valgap"))
    assert fact.state == "note" and "cannot be written" in fact.text


def test_asking_for_the_sandbox_restricts_nothing(tmp_path: Path) -> None:
    assert doctor.sandbox() == doctor.sandbox()
    (tmp_path / "still").write_text("writable")
