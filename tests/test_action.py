"""action.yml: its steps run under bash as GitHub runs them, with the inputs put in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.features.pictures import photo_folder

pytestmark = [pytest.mark.takes(40), pytest.mark.skipif(os.name == "nt", reason="the steps are bash")]
ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
INSTALL, RUN = (step for step in ACTION["runs"]["steps"] if "run" in step)
BASH = shutil.which("bash") or ""
SCRIPT = "import sys\nsys.exit(' | '.join(sys.argv))\n"


def variables(step: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """The step's variables, its expressions replaced by what they stand for."""
    assert not set(given) - set(ACTION["inputs"])
    inputs = {name: given.get(name, str(one.get("default", ""))) for name, one in ACTION["inputs"].items()}
    known = {**{f"inputs.{name}": text for name, text in inputs.items()}, "github.action_path": str(ROOT)}
    return {name: re.sub(r"\$\{\{ (\S+) \}\}", lambda m: known[m[1]], text) for name, text in step["env"].items()}


def run(step: dict[str, Any], folder: Path, tools: Path, **given: str) -> tuple[int, str, dict[str, str]]:
    """(exit status, what was printed, outputs) of a step's script, by the command line that GitHub uses."""
    script, outputs = folder / "step.sh", folder / "outputs"
    script.write_text(step["run"])
    outputs.write_text("")
    path = os.pathsep.join((str(tools), str(Path(sys.executable).parent), os.environ["PATH"]))
    put = variables(step, {name.replace("_", "-"): text for name, text in given.items()})
    whole = {**os.environ, "PATH": path, "GITHUB_OUTPUT": str(outputs), "PYTHONPATH": str(ROOT / "src"), **put}
    command = [BASH, "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)]
    done = subprocess.run(command, cwd=folder, env=whole, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr, dict(line.split("=") for line in outputs.read_text().splitlines())


def tool(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!{BASH}\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this checkout's valgap."""
    folder = tmp_path_factory.mktemp("tools")
    tool(folder, "valgap", f'exec {sys.executable} -m valgap "$@"')
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A working folder with sound images, and one more that is cut off."""
    photo_folder(tmp_path / "data", train=12, val=4)
    shutil.copytree(tmp_path / "data", tmp_path / "spoiled data")
    cut = next((tmp_path / "spoiled data" / "train").rglob("*.png"))
    cut.write_bytes(cut.read_bytes()[:60])
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def test_no_input_is_text_of_a_script() -> None:
    """Whatever stands in an input of a pull request, it is no command."""
    assert [step["run"] for step in (INSTALL, RUN) if "${{" in step["run"]] == []
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text()))
    assert used == set(ACTION["inputs"]), "an input that does nothing, or none that is used"


def test_every_input_is_explained() -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    assert [name for name in ACTION["inputs"] if f"`{name}`" not in page] == []


def test_it_installs_wheels_for_cpus_then_valgap(project: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("python", "valgap"):
        tool(tools, name, f'printf "%s " {name} "$@"; echo')
    status, text, _ = run(INSTALL, project, tools)
    torch, own, version = text.splitlines()
    assert status == 0 and torch.split()[-4:] == ["--index-url", ACTION["inputs"]["wheels"]["default"], "torch", "torchvision"]
    assert own.split()[-1] == str(ROOT) and version.split() == ["valgap", "--version"]
    _, text, _ = run(INSTALL, project, tools, wheels="", version="valgap==0.2.0")
    assert [line.split()[-1] for line in text.splitlines()] == ["valgap==0.2.0", "--version"]


@pytest.mark.slow  # tests/test_ci.py and test_check_command.py run the same command
def test_check_writes_what_is_asked_for_and_fails_on_damage(project: Path, tools: Path) -> None:
    status, text, outputs = run(RUN, project, tools, path="data", junit="a b.xml", sarif="valgap.sarif")
    assert (status, outputs) == (0, {"status": "0"}), text
    assert ElementTree.parse(project / "a b.xml").getroot().tag == "testsuites" and (project / "valgap.sarif").is_file()
    status, text, outputs = run(RUN, project, tools, path="spoiled data", args="--select 'DAT108,DAT101'")
    assert (status, outputs) == (1, {"status": "1"}) and "DAT108" in text and "DAT104" not in text
    assert run(RUN, project, tools, path="spoiled data", fail_on="", args="--select DAT108")[0] == 0


def test_preflight_hands_the_script_its_arguments_and_fails_with_it(project: Path, tools: Path) -> None:
    status, text, outputs = run(RUN, project, tools, command="preflight", path="train.py", args="--name 'two words'", fail_on="")
    assert (status, outputs) == (4, {"status": "4"}), text
    assert "train.py | --name | two words" in text


@pytest.mark.parametrize(("fail_on", "status"), [("suspected", 1), ("confirmed", 0), ("", 0)])
def test_what_preflight_suspects_fails_where_it_is_asked_for(fail_on: str, status: int, project: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    tool(tools, "valgap", "exit 1")
    assert run(RUN, project, tools, command="preflight", path="train.py", fail_on=fail_on)[::2] == (status, {"status": "1"})


@pytest.mark.parametrize("given", [{"command": "fix; id"}, {"command": "preflight", "junit": "valgap.xml"}])
def test_wrong_use_is_told_in_a_line(given: dict[str, str], project: Path, tools: Path) -> None:
    status, text, outputs = run(RUN, project, tools, path="data", **given)
    assert (status, outputs) == (2, {}) and text.startswith("::error::") and text.count("\n") == 1
