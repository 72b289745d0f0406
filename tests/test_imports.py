"""The import rule of docs/architecture.md, and what must stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "valgap"
BASE = {"suffixes", "types", "errors", "stats", "allocator", "visible"}
# package -> what of ours it may import
ALLOWED = {
    "types": set(),
    "errors": set(),
    "stats": set(),
    "allocator": set(),
    "suffixes": set(),
    "visible": set(),
    "data": BASE,
    "record": BASE,
    "models": BASE | {"data"},
    "seams": BASE | {"record", "data"},
    "engine": BASE | {"data", "models"},
    "recipe": BASE,
    "gap": BASE | {"checks"},
    "training": BASE | {"data", "engine", "models", "recipe"},
    "features": BASE | {"data", "engine", "models"},
    "checks": {"types", "stats"},
    "stages": BASE | {"confidence"},
    "confidence": set(),
    "reference": BASE | {"data", "features", "checks", "recipe"},
    "report": {"types", "visible"},
    "edits": BASE,
    "exhibits": BASE | {"data"},
    "comparison": BASE | {"exhibits", "experiments"},
    "review": BASE | {"data", "exhibits"},
    "experiments": BASE | {"record", "seams"},
    "diagnosis": BASE | {"gap", "record", "features", "reference", "stages", "confidence", "checks", "experiments"},
    "fix": BASE | {"data", "record", "edits", "exhibits", "review", "experiments", "diagnosis", "checks"},
    "preflight": BASE | {"record", "checks", "edits", "stages", "experiments", "diagnosis", "fix"},
    "live": BASE | {"record", "stages", "diagnosis", "checks", "review"},
    "agents": BASE | {"record", "checks", "data", "experiments", "report"},
    "integrations": BASE | {"seams"},
    "demo_data": BASE,
    "doctor": BASE | {"engine", "models", "experiments"},
    "symptoms": BASE | {"record"},
}

# The rooms of the seams, from the ground up: each may import those before it.
ROOMS = ("looking", "attaching", "recording", "acting", "closing", "hosting")


def imported(file: Path, depth: int = 1) -> set[str]:
    """The part below ``valgap`` of every import in the file, at a depth: 1 is a package, 2 what is in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        parts = [n.split(".") for n in names if n.startswith("valgap.")]
        found |= {p[depth] for p in parts if len(p) > depth}
    return found


FILES = [f for f in SOURCE.rglob("*.py") if f.relative_to(SOURCE).parts[0].removesuffix(".py") in ALLOWED]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_imports_point_one_way(file: Path) -> None:
    package = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert imported(file) <= ALLOWED[package] | {package}


SEAMS = SOURCE / "seams"


@pytest.mark.parametrize("file", sorted(SEAMS.rglob("*.py")), ids=lambda f: str(f.relative_to(SEAMS)))
def test_rooms_of_the_seams_stand_on_each_other(file: Path) -> None:
    room = file.relative_to(SEAMS).parts[0]
    if room == "__init__.py":
        assert not imported(file)
        return
    assert imported(file, depth=2) & set(ROOMS) <= set(ROOMS[: ROOMS.index(room) + 1])


def test_recording_starts_without_torch_and_numpy() -> None:
    code = (
        "import sys; import valgap, valgap.seams.hosting.host, valgap.record.writer, valgap.cli;"
        "print(sorted({'torch', 'numpy', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_running_program_is_judged_without_torch() -> None:
    """It would be three quarters of what the process beside the program takes to start."""
    code = "import sys; import valgap.live.judging; print(sorted({'torch', 'timm', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
