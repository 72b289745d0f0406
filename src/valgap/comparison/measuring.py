"""The end of a run: how long it trained, what it printed of its own validation, and what it kept."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from valgap.types import Departure, RunRecord

# A printed accuracy lies off the recorded one by more than this, beside what its digits leave open.
OFF = 0.005


def length_departures(first: RunRecord, second: RunRecord) -> Iterator[Departure]:
    """Another number of epochs."""
    counts = [len(run.of_phase("train")) for run in (first, second)]
    if counts[0] != counts[1]:
        text = f"{counts[0]} training passes, then {counts[1]}"
        ends = [f"{w} run: {run.stopped}" for w, run in (("first", first), ("second", second)) if run.stopped]
        ended = (("first", first.exit_status), ("second", second.exit_status))
        ends += [f"{w} run ended with status {status}" for w, status in ended if status]
        where = f"epoch {min(counts) + 1}"
        planned = [_planned(run) for run in (first, second)]
        ends += [f"{n} epochs were planned, then {m}" for n, m in [planned] if None not in planned and n != m]
        # Who stops by results trains longer or shorter under another seed.
        told = bool(ends) or (None in planned and min(counts) == 0)
        yield Departure("length", "choose", "substance", text, where, evidence=tuple(ends), told=told)
    validations = [len(run.of_phase("validation")) for run in (first, second)]
    if counts[0] == counts[1] and validations[0] != validations[1] and min(validations) >= 0:
        text = f"{validations[0]} validation passes, then {validations[1]}"
        yield Departure("length", "choose", "substance", text, told=True)


def _planned(run: RunRecord) -> int | None:
    """Turns of the outermost counted loop around the training passes; None where there is none."""
    loops = [p.loops for p in run.of_phase("train") if p.loops]
    return loops[0][-1][1] if loops else None


def metric_departures(first: RunRecord, second: RunRecord) -> Iterator[Departure]:
    """A printed accuracy that is that of the recorded answers in one run, and lies off it in the other."""
    off = [_off(run) for run in (first, second)]
    if not len(off[0]) or not len(off[1]):
        return
    wrong = [bool((np.abs(o) > OFF).mean() > 0.5) for o in off]
    if wrong[0] == wrong[1]:
        return
    words = [
        f"{100 * float(np.median(o)):+.1f} points off its answers" if w else "that of its answers"
        for o, w in zip(off, wrong, strict=True)
    ]
    text = f"the printed validation accuracy is {words[0]}, then {words[1]}"
    yield Departure("metric", "measure", "substance", text, told=True)


def _off(run: RunRecord) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Printed minus recorded accuracy, of every printed value that can only be a validation's."""
    passes = {p.index: p for p in run.of_phase("validation") if p.samples.answered}
    off = []
    for n in run.printed:
        one = passes.get(n.after_pass)
        if one is None or n.metric != "accuracy" or n.kind != "value" or n.running or n.side == "train" or n.k != 1:
            continue
        value = n.value / 100 if n.unit == "percent" or (n.unit is None and n.value > 1) else n.value
        off.append(value - one.samples.accuracy)
    return np.array(off, np.float64)
