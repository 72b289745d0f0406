"""What docs/ci.md and .pre-commit-hooks.yaml promise: their commands run, and fail when they should."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from typer.testing import CliRunner

import valgap
import valgap.cli
from tests.features.pictures import photo_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

pytestmark = pytest.mark.takes(20)
ROOT = Path(__file__).parents[1]
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
BLOCKS = re.findall(r"```yaml\n# (\S+)\n(.*?)```", (ROOT / "docs" / "ci.md").read_text(), re.S)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with sound images in data/."""
    root = tmp_path_factory.mktemp("project")
    photo_folder(root / "data", train=12, val=4)
    return root


def run(command: list[str]) -> int:
    """The exit status of a command line that begins with valgap."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert command[0] in scripts, command
    done = CliRunner().invoke(valgap.cli.app, command[1:])
    assert isinstance(done.exception, (SystemExit, type(None))), done.exception
    return done.exit_code


def spoiled(project: Path, folder: Path) -> Path:
    """A copy of the project in which one image is cut off."""
    shutil.copytree(project, folder)
    cut = next((folder / "data" / "train").rglob("*.png"))
    cut.write_bytes(cut.read_bytes()[:60])
    return folder


def test_the_hook_passes_sound_images_and_fails_on_damage(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (HOOK["id"], HOOK["language"], HOOK["pass_filenames"]) == ("valgap-check", "python", False)
    command = [*shlex.split(HOOK["entry"]), *HOOK["args"]]
    monkeypatch.chdir(project)
    assert run(command) == 0
    monkeypatch.chdir(spoiled(project, tmp_path / "spoiled"))
    assert run(command) == 1


def valgap_lines(value: Any) -> list[str]:
    """Every command line of valgap in a parsed workflow, uses of action.yml among them."""
    if isinstance(value, dict) and str(value.get("uses", "")).startswith("OWNER/valgap@"):
        given = value["with"]
        assert set(given) <= set(ACTION["inputs"]) and value["uses"].endswith(f"@v{valgap.__version__}")
        options = " ".join(f"--{name} {given[name]}" for name in ("fail-on", "junit", "sarif") if name in given)
        return [f"valgap {given['command']} {given['path']} {given.get('args', '')} {options}"]
    if isinstance(value, dict):
        return [line for key, part in value.items() if key != "name" for line in valgap_lines(part)]
    if isinstance(value, list):
        return [line for part in value for line in valgap_lines(part)]
    return [value] if isinstance(value, str) and value.startswith("valgap ") else []


@pytest.mark.parametrize(("name", "text"), BLOCKS, ids=[f"{i}-{n}" for i, (n, _) in enumerate(BLOCKS)])
def test_the_workflows_commands_run(name: str, text: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    workflow = yaml.safe_load(text)
    lines = valgap_lines(workflow)
    if not lines:
        (hook,) = workflow["repos"][0]["hooks"]
        assert hook["id"] == HOOK["id"], "the only block without a command uses the hook"
        lines = [shlex.join([*shlex.split(HOOK["entry"]), *hook["args"]])]
    for line in lines:
        if line.startswith("valgap preflight "):  # tests/test_action.py runs one
            continue
        assert run(shlex.split(line)) == 0, line
    for file in re.findall(r"--junit (\S+)", text):
        assert ElementTree.parse(project / file).getroot().tag == "testsuites"
        assert len(re.findall(re.escape(file), text)) >= (2 if "gitlab" in name else 1), "written, but not shown"
    for file in re.findall(r"junit: (\S+)", text) if "github" in name else []:
        assert ElementTree.parse(project / file).getroot().tag == "testsuites"


def test_every_system_is_there() -> None:
    assert [n for n, _ in BLOCKS] == [
        ".pre-commit-config.yaml",
        ".pre-commit-config.yaml",
        ".github/workflows/data.yml",
        ".github/workflows/train.yml",
        ".gitlab-ci.yml",
    ]
