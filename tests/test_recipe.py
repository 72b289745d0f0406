"""Recipes from files: what is wrong is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from valgap.errors import ConfigError
from valgap.recipe import RECIPE, REFERENCE, Recipe, preset, read_config


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("# mine\nunfreeze: all\nlearning_rate: 1.0e-3\nprobe_inverse_l2: [0.1, 1]\n")
    found = read_config(file)
    assert (found.unfreeze, found.learning_rate, found.probe_inverse_l2) == ("all", 1e-3, (0.1, 1.0))
    assert found.momentum == RECIPE.momentum
    assert read_config(file, REFERENCE).optimizer == "adam"
    file.write_text("")
    assert read_config(file) == RECIPE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs: 3\nlerning_rate: 1\n", "line 2: no setting is called 'lerning_rate'"),
        ("\n\nunfreeze: most\n", "line 3: unfreeze"),
        ("epochs: -1\n", "line 1: epochs"),
        ("epochs: [1\n", "line 2"),
        ("- 1\n", "line 1: expected settings"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config(file)
    assert said in str(caught.value)
    assert "a.yaml" in str(caught.value)


def test_presets_and_changes() -> None:
    assert preset("reference") is REFERENCE
    with pytest.raises(ConfigError, match="recipe, reference"):
        preset("mine")
    with pytest.raises(ConfigError, match="batch_size"):
        Recipe.changed(RECIPE, {"batch_size": 0})
    with pytest.raises(ConfigError, match="cannot read"):
        read_config(Path("/nothing/here.yaml"))


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"epochs: \xff\n", "no YAML"),
        (b"epochs: !!int x\n", "no YAML|none that YAML has"),
        (b"epochs: 2001-99-99\n", "none that YAML has"),
        (b"epochs: !!timestamp x\n", "none that YAML has"),
        (b"epochs: " + b"9" * 5000, "none that YAML has"),
        (b"[" * 30_000, "too deep"),
        (b"- " * 1_000, "none that YAML has"),
        (b"#" * 70_000, "too long"),
        (b"~: 1\n", "no setting is called None"),
        (b"1: 2\n", "no setting is called 1"),
        (b"epochs: !!python/object/apply:os.system ['true']\n", "no YAML"),
        (f"{LAUGHS}epochs: *a11\n".encode(), "epochs: Input should be a valid integer"),
    ],
)
def test_a_senseless_file_is_refused_in_a_short_line(text: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_config(file)  # of names that stand for each other the whole would have 10 ** 11 values
    assert len(str(caught.value)) < 30_000
