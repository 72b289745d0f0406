"""Before and after, on the same validation images; and on those that are left when leaks and wrong labels are taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from valgap.fix.manifest import Row
from valgap.review.suspects import labels_of
from valgap.stats import paired_difference, paired_p_value, wilson_interval
from valgap.types import Accuracy, Effect, RunRecord


@dataclass(frozen=True)
class Score:
    """One line of the table, all on the same images."""

    name: str
    before: Accuracy
    after: Accuracy
    gain: Effect


def answers(
    run: RunRecord, renamed: Mapping[str, str] | None = None, targets: Mapping[str, int] | None = None
) -> dict[str, tuple[bool, str]]:
    """Path -> (whether it counts as right, the class answered), of the last validation pass.

    ``renamed`` gives other paths by absolute ones, where a run went over links; ``targets`` the train index by the program's
    own index of a label, where validation numbers its classes otherwise (a class that train lacks is never right).
    """
    last = run.last_validation
    if last is None:
        return {}
    classes = labels_of(run)
    base = Path(str(run.header.get("cwd", ".")))
    table = last.samples
    found = {}
    for sample, target, answer in zip(table.sample.tolist(), table.target.tolist(), table.prediction.tolist(), strict=True):
        if 0 <= sample < len(run.sample_names) and target >= 0:
            path = run.sample_names[sample]
            name = classes[answer] if 0 <= answer < len(classes) else ""
            true = target if targets is None else targets.get(str(target))
            found[(renamed or {}).get(str(base / path), path)] = (true == answer, name)
    return found


def compare(before: Mapping[str, tuple[bool, str]], after: Mapping[str, tuple[bool, str]], rows: Sequence[Row]) -> list[Score]:
    """On the same images as each program counts them, and, where any is left out or relabelled, on the cleaned ones."""
    common = [p for p in before if p in after]
    if not common:
        return []
    scores = [_score("the same validation images", [before[p][0] for p in common], [after[p][0] for p in common])]
    plan = {r.path: r for r in rows if r.split == "val"}
    clean = [p for p in common if p not in plan or plan[p].kept]
    moved = {p: plan[p].label for p in clean if p in plan and plan[p].label != plan[p].given}
    if clean and (moved or len(clean) < len(common)):
        told = [[one[p][1] == moved[p] if p in moved else one[p][0] for p in clean] for one in (before, after)]
        scores.append(_score("validation cleaned of leaks and wrong labels", *told))
    return scores


def _score(name: str, before: Sequence[bool], after: Sequence[bool]) -> Score:
    a, b = np.array(before, bool), np.array(after, bool)
    value, low, high = paired_difference(a, b)
    gain = Effect(100 * value, 100 * low, 100 * high, paired_p_value(a, b), 1, len(a))
    return Score(name, _accuracy(a), _accuracy(b), gain)


def _accuracy(right: npt.NDArray[np.bool_]) -> Accuracy:
    return Accuracy(float(right.mean()), *wilson_interval(int(right.sum()), len(right)), len(right))
