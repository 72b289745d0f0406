"""A wrongly computed metric has no change that removes it: it is confirmed where every re-run reports it again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checks.test_miscomputed_metric import TABLE, TRUTH, printed
from tests.processes import forked
from valgap.checks.evaluation.miscomputed_metric import CHECK
from valgap.experiments.arm import ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.experiments.seen_again import seen_again

SPEC = ArmSpec("a.py", None, ["a.py"], "here", 0, 0, 1.0, [0], [1])


def arms(*values: float) -> list[ArmResult]:
    """Re-runs of equal answers that printed these accuracies."""
    cases = [printed(f"epoch 1 val acc: {v:.4f}") for v in values]
    return [ArmResult(replace(SPEC, seed=k), c.run, TABLE, (), 1.0, None) for k, c in enumerate(cases)]


@pytest.mark.parametrize(
    ("values", "verdict", "word"),
    [
        ((0.8, 0.8, 0.8), "confirmed", "each of 3"),
        ((0.8, TRUTH, 0.8), "inconclusive", "2 of 3"),
        ((0.8, 0.8), "inconclusive", "too few"),
        ((TRUTH, TRUTH, TRUTH), "inconclusive", "0 of 3"),
    ],
)
def test_it_is_confirmed_where_every_re_run_shows_it(values: tuple[float, ...], verdict: str, word: str) -> None:
    told, effect, reason = seen_again(CHECK, arms(*values), [None] * len(values))
    assert told == verdict and word in reason
    assert (effect is not None) == (told == "confirmed")
    if effect is not None:
        assert effect.value == pytest.approx(100 * (TRUTH - 0.8), abs=0.01) and effect.samples == len(TABLE)


def test_a_program_that_divides_by_the_training_set(tmp_path: Path) -> None:
    source = (Path(__file__).with_name("program.py")).read_text()
    script = tmp_path / "train.py"
    script.write_text(source.replace("{right / len(val_set):.4f}", "{right / len(train_set):.4f}"))
    done = forked(["-m", "valgap.cli", "run", "--out", "r", script], tmp_path)
    assert done.returncode == 0, done.stderr
    command = ["-m", "valgap.cli", "diagnose", "r", "--select", "EVA503", "--json", "--budget"]
    soon = json.loads(forked([*command, "1s"], tmp_path).stdout)
    assert soon["findings"][0]["verdict"] == "untested" and "too small" in soon["findings"][0]["reason"]
    (proposed,) = soon["proposals"]
    assert proposed["code"] == "EVA503" and 0 < proposed["seconds"] < 60
    done = forked([*command, "1x"], tmp_path)  # of a program of a second: a minute
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    found = next(f for f in body["findings"] if f["code"] == "EVA503")
    assert found["verdict"] == "confirmed" and found["rests_on"] == "accuracy", found["reason"]
    assert found["effect_points"]["seeds"] == 3 and found["effect_points"]["value"] > 0
    line = next(x for x in body["ledger"] if x["name"] == CHECK.name)
    assert line["kind"] == "measurement" and body["proposals"] == []
    assert next(x for x in body["stages"] if x["stage"] == "measure")["proved"]
