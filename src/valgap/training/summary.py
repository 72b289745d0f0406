"""The closing summary of a training, for somebody who reads such numbers for the first time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console

from valgap.training.screen import say
from valgap.training.stages import LEARNED

if TYPE_CHECKING:
    from valgap.training.result import TrainResult

LISTED_CLASSES = 12


def show_summary(result: TrainResult, classes: tuple[str, ...], screen: Console) -> None:
    """Print it."""
    for line in summary_lines(result, classes):
        say(line, screen)


def summary_lines(result: TrainResult, classes: tuple[str, ...]) -> list[str]:
    """The summary, a line each."""
    val, learned = result.val, LEARNED[result.unfrozen]
    vetoed = result.unfrozen == "head" and len(result.epochs) > 1
    lines = [
        "",
        f"validation accuracy    {val.accuracy:6.1%}   (95 % interval {val.low:.1%} .. {val.high:.1%}, {val.n} images)",
        f"  every class counted alike (balanced)   {val.balanced_accuracy:.1%}",
        f"training accuracy      {result.train.accuracy:6.1%}   (the same images and weights, measured as validation is)",
    ]
    if result.test is not None:
        test = result.test
        interval = f"{test.low:.1%} .. {test.high:.1%}, {test.n} images, nothing was chosen by them"
        lines.append(f"test accuracy          {test.accuracy:6.1%}   ({interval})")
    lines.append(f"validation loss {val.nll:.3f}; stated probabilities are off by {val.calibration_error:.1%} on average")
    if f"{result.temperature:.2f}" != "1.00":
        before, by = result.uncalibrated, "val" if result.val_chose and not vetoed else "held-out train"
        at = f"at a temperature of {result.temperature:.2f} fitted on {by}"
        lines[-1] += f", {at} (without it {before.nll:.3f} and {before.calibration_error:.1%})"
    if result.probe is not None and result.unfrozen != "head":
        lines.append(f"the probe alone: {result.probe.accuracy:.1%}, loss {result.probe.nll:.3f}")
    recalls = sorted((r, n) for r, n in zip(val.recall, classes, strict=True) if not math.isnan(r))
    shown = recalls if len(recalls) <= LISTED_CLASSES else recalls[:LISTED_CLASSES]
    lines.append("found of each class, worst first: " + ", ".join(f"{name} {recall:.0%}" for recall, name in shown))
    lines.append(f"{learned} learned; kept: {result.chosen}" + (f"; ended early: {result.ended}" if result.ended else ""))
    if not result.val_chose:
        lines.append("Validation only measured: everything was chosen by held-out training images.")
        return lines
    chose = (
        "Validation chose among epochs and set the temperature" if len(result.epochs) > 1 else "Validation set the temperature"
    )
    if vetoed:
        chose = "Validation put the probe back"
    more = "" if result.test is not None else "; --test FOLDER scores images that nothing was chosen by"
    lines.append(f"{chose}, so its numbers are a little optimistic{more}.")
    return lines
