"""The shelf's own pieces: which numbers count as printed by a script, and when two accuracies are the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import real
import real_data
import real_table
from real_scripts import SCRIPTS, Script, without_class


def script(**changed: object) -> Script:
    """A script of no interest."""
    given = {"name": "s", "address": "", "commit": "", "path": "", "arguments": "", "layouts": (), "accuracy": r"acc (\S+)"}
    return Script(**{**given, "model": ("Net", 10), **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shown", "value", "percent", "floor", "same"),
    [
        ("43.750", 0.4375, True, False, True),
        ("43.8", 0.4375, True, False, True),
        ("43.7", 0.4364, True, False, False),
        ("94", 0.945, True, False, True),
        ("33", 0.339, True, True, True),
        ("34", 0.339, True, True, False),
        ("0.3375", 0.3375, False, False, True),
        ("0.3376", 0.3375, False, False, False),
        ("10.00", None, True, False, False),
    ],
)
def test_accuracies_are_the_same_to_the_last_printed_digit(
    shown: str, value: float | None, percent: bool, floor: bool, same: bool
) -> None:
    row = {"printed": shown, "accuracy": {"value": value}}
    assert real_table.equal(script(percent=percent, floor=floor), row) is same


def test_a_script_that_prints_no_accuracy_is_not_compared() -> None:
    assert real_table.equal(script(), {"printed": None, "accuracy": {"value": 0.5}}) is None


def test_times_and_what_valgap_says_at_the_end_are_no_numbers_of_the_script() -> None:
    bare = "epoch 1 loss 0.5123 (3.2s)\nEvaluation time (seconds): 0.505\nTime  2.681 ( 2.122)\tLoss 1.4606e+00\n"
    recorded = (
        "epoch 1 loss 0.5123 (4.9s)\nEvaluation time (seconds): 0.522\n"
        "Time  3.011 ( 2.500)\tLoss 1.4606e+00\nvalgap: closing measurements, at most 7 s\nx 9\n"
    )
    assert real.differing(bare, recorded) == []


def test_numbers_that_a_scripts_own_runs_do_not_agree_on_are_left_out() -> None:
    bare, again = (
        "1 of 2 loss 0.51 rate 22.9\n2 of 2 loss 0.49 rate 30.1\n",
        "1 of 2 loss 0.51 rate 25.0\n2 of 2 loss 0.49 rate 29.0\n",
    )
    assert real.differing_where_agreed(bare, again, "1 of 2 loss 0.51 rate 3.1\n2 of 2 loss 0.49 rate 2.0\n") == []
    assert real.differing_where_agreed(bare, again, "1 of 2 loss 0.51 rate 3.1\n2 of 2 loss 0.48 rate 2.0\n") == [
        ["2 2 0.49 30.1"],
        ["2 2 0.48 2.0"],
    ]
    assert real.differing_where_agreed("1 2\n3 4\n", "5 6\n7 4\n", "1 2\n3 4\n") is None


def test_another_number_or_a_missing_line_differs() -> None:
    assert real.differing("loss 0.5123\n", "loss 0.5124\n") == [["0.5123"], ["0.5124"]]
    assert real.differing("loss 0.5\nacc 0.25\n", "loss 0.5\n") == [["0.25"], []]


def test_the_last_match_is_the_printed_accuracy_and_valgaps_own_lines_are_none() -> None:
    assert real.printed(script(), "acc 10\nacc 20\nvalgap: closing measurements\nacc 30\n") == "20"


def test_a_planted_fault_is_named_first_only_if_its_code_leads() -> None:
    row = {"findings": [{"code": "A", "confidence": 0.8}, {"code": "B", "confidence": 0.9}, {"code": "C", "confidence": 0.3}]}
    assert real_table.first_named(row, ("B",)) == "A, **B**"


def test_a_control_is_told_with_its_answers_or_why_there_is_none() -> None:
    made = {"error": None, "accuracy": 0.45, "recorded": 0.5, "images": 20, "images_recorded": 20, "same_answers": 19}
    row = {"control": {**made, "same_images": True, "same": True, "told": "a|b"}}
    assert real_table.control(row) == "0.4500 | 0.5000 | 19 of 20 | yes, valgap: a/b"
    assert real_table.control({"control": {**row["control"], "same_answers": 20}}).endswith("20 of 20 | yes")
    assert real_table.control({"control": {**row["control"], "same_images": False, "same": False}}).endswith(
        "other images | **no**, valgap: a/b"
    )
    assert real_table.control({"control": {"error": "it ended with status 1"}}).endswith("**no**")
    assert real_table.control({"control": {"error": "cannot be tried: two processes"}}).endswith("| -")
    assert real_table.completed({"completed": {"cut": True, "why_not": "no a|b", "made": []}}) == "no: no a/b"
    assert real_table.completed({"completed": {"cut": True, "why_not": "", "made": ["val_eval"]}}) == "val_eval"


def test_idx_files_are_read_by_torchvision_as_they_were_written(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    images, labels = real_data.digits(20, 0)
    (tmp_path / "images").write_bytes(real_data.idx(images))
    (tmp_path / "labels").write_bytes(real_data.idx(labels))
    assert np.array_equal(torchvision.datasets.mnist.read_image_file(str(tmp_path / "images")).numpy(), images)
    assert np.array_equal(torchvision.datasets.mnist.read_label_file(str(tmp_path / "labels")).numpy(), labels)


def test_the_second_class_goes_missing(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "val" / name).mkdir(parents=True)
    without_class("val")(tmp_path)
    assert sorted(f.name for f in (tmp_path / "val").iterdir()) == ["a", "c"]


def test_every_script_has_an_address_and_names_of_its_own() -> None:
    assert len({s.name for s in SCRIPTS}) == len(SCRIPTS)
    assert all(s.path.startswith("@") or (len(s.commit) == 12 and "/" in s.address) for s in SCRIPTS)
    assert all(len({f.name for f in s.faults}) == len(s.faults) for s in SCRIPTS)


def test_what_stands_on_the_path_of_every_run_finds_the_recorder_that_it_times() -> None:
    site = Path(real.__file__).parent / "real_site"
    told = "from valgap.seams.attaching import hooks; import sitecustomize as s; print(hooks.Seams.tell.__module__ == s.__name__)"
    path = os.pathsep.join([str(site), str(site.parents[1] / "src")])
    ran = subprocess.run([sys.executable, "-c", told], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert ran.stdout.strip() == "True", ran.stderr
