"""What fits into a time budget: how many causes, how many epochs, which share of the training samples."""

from __future__ import annotations

import itertools
import math
import os
import re
from dataclasses import dataclass, replace

import psutil

from valgap.errors import ValgapError
from valgap.types import Pass, RunRecord

SEEDS = 3
RESERVE = 0.85  # of the budget is planned
# Arms side by side with fewer threads each get more done than one program with all; on the reference script 2.2 times.
SIDE_BY_SIDE = 1.4
# Where each has as many threads as the program had, so many of them get done in the time of one, as a share of their number.
BESIDE = 0.8
# What a forked arm takes beside its epochs at least: a folder is made, a record is written and read.
LEAST_REST_S = 0.5
# A program that took this share of the recorded time to wait does so where its first pass began.
SAME_PLACE = 0.4
MIN_EPOCHS = 2
MIN_FRACTION = 0.25
# Arms of causes that show late have this share of the recorded training at least.
LONG_ENOUGH = 0.75
LEAST_SHARE_S = 60.0  # a share of the program's own time is at least that
UNITS = {"": 60.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_budget(text: str, script_s: float | None = None) -> float:
    """Seconds of "90s", "10m", "1h" or "10" (minutes). Raises ValgapError for anything else.

    With ``script_s``, what the program itself took, also of "1x" or "0.5x": so many times that, but no less than a minute.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhx]?)", text.strip().lower())
    if found is None or (found.group(2) == "x" and script_s is None):
        raise ValgapError(f"--budget takes a time such as 90s, 10m or 1h (0: no re-runs), not {text!r}")
    number, unit = float(found.group(1)), found.group(2)
    if unit == "x" and script_s is not None:
        return max(LEAST_SHARE_S, number * script_s) if number else 0.0
    return number * UNITS[unit]


@dataclass(frozen=True)
class Length:
    """How long every arm of an experiment is."""

    epochs: int  # training passes per arm; 0: all
    fraction: float  # share of the training samples
    seconds: float  # expected, per arm
    as_recorded: bool = False  # whether so many training passes are all that the record holds whole
    # Of arms whose effect a few epochs show, where these have fewer: training passes and expected seconds. 0: as all others.
    short: int = 0
    short_s: float = 0.0

    def whole(self) -> bool:
        """Whether arms are as long as the recorded program: the control, and all that is said to have no ``short`` ones."""
        return (self.epochs == 0 or self.as_recorded) and self.fraction == 1.0

    def long_enough(self, total: int) -> bool:
        """Whether arms of a program of ``total`` training passes show what comes late."""
        return self.whole() or self.fraction * (self.epochs or total) >= LONG_ENOUGH * total


@dataclass(frozen=True)
class Need:
    """How many arms there will be: of full length, and of those that a few epochs suffice."""

    long: int
    short: int = 0
    late: bool = False  # whether what comes late in a training must show

    @property
    def arms(self) -> int:
        """All of them."""
        return self.long + self.short


def recorded_epochs(run: RunRecord) -> int:
    """Training passes of the record."""
    return len(run.of_phase("train"))


def can_stop_early(run: RunRecord) -> bool:
    """Whether every training pass is followed by a validation pass before the next begins."""
    phases = [p.phase for p in run.passes if p.phase in ("train", "validation")]
    first = next((i for i, p in enumerate(phases) if p == "train"), len(phases))
    order = phases[first:]
    return bool(order) and all(b == "validation" for a, b in itertools.pairwise(order) if a == "train")


def stopped_after(run: RunRecord) -> int:
    """Training passes, each with its validation, of a program that was stopped: an arm would go on to its end. 0 for others."""
    if run.exit_status == 0 or not can_stop_early(run):
        return 0
    phases = [p.phase for p in run.passes if p.phase in ("train", "validation")]
    return sum((a, b) == ("train", "validation") for a, b in itertools.pairwise(phases))


def epoch_seconds(run: RunRecord) -> tuple[float, float]:
    """(of start and end, of one epoch with its validation), from the record."""
    inside: list[Pass] = [p for p in run.passes if p.phase in ("train", "validation")]
    per_epoch = sum(p.seconds for p in inside) / max(1, recorded_epochs(run))
    return max(0.5, run.seconds - per_epoch * recorded_epochs(run)), max(per_epoch, 1e-3)


def rest_of_fork(run: RunRecord, waited_s: float) -> float:
    """Seconds that an arm takes beside its epochs when it is forked from a program that took ``waited_s`` to its first loader.

    The record says when its first pass began, on the machine as busy as it was then. Only where the program waits far earlier,
    at a loader that no model is called on, is what it took now all that is known.
    """
    before = run.passes[0].began if run.passes else -1.0
    begun = before if 0 < before * SAME_PLACE <= waited_s else waited_s
    return max(LEAST_REST_S, epoch_seconds(run)[0] - begun)


def arms_in_parallel(run: RunRecord) -> int:
    """How many arms at once: up to four on the cores, one on each GPU, and no more than the free memory holds."""
    if bool(run.header.get("cuda")):
        gpus = run.header.get("gpus")
        wanted = max(1, gpus) if isinstance(gpus, int) else 1
    else:
        wanted = max(1, min(4, (os.cpu_count() or 1) // 2 * 2))
    need = arm_memory(run)
    fitting = int(psutil.virtual_memory().available // need) if need is not None else wanted
    return max(1, min(wanted, fitting))


def arm_memory(run: RunRecord) -> int | None:
    """Bytes that an arm may take: half more than the record's peak, and a GiB; None where the record does not say."""
    peak = run.header.get("peak_memory_bytes")
    return int(1.5 * peak) + (1 << 30) if isinstance(peak, int) else None


def recorded_threads(run: RunRecord) -> int | None:
    """How many threads the program computed with; None where the record does not say."""
    threads = run.header.get("threads")
    return threads if isinstance(threads, int) and threads > 0 else None


def recorded_terminal(run: RunRecord) -> tuple[int, int] | None:
    """(columns, lines) of the terminal that the program read from; None where it had none."""
    size = run.header.get("terminal")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(n, int) and 0 <= n < 1 << 16 for n in size):
        return None
    return size[0], size[1]


def _gain(run: RunRecord) -> float:
    """How many arms are done in the time that one takes by itself."""
    parallel = arms_in_parallel(run)
    if parallel == 1:
        return 1.0
    own = max(1, (os.cpu_count() or 1) // parallel)
    as_before = (recorded_threads(run) or own + 1) <= own
    return max(SIDE_BY_SIDE, BESIDE * parallel) if as_before else SIDE_BY_SIDE


def least_budget(run: RunRecord, arms: int, start_s: float | None = None, late: bool = False) -> float:
    """Seconds in which the shortest arms fit, ``arms`` of them; ``start_s``: what each takes beside its epochs.

    ``late``: the shortest that show what comes late in a training.
    """
    start, epoch = epoch_seconds(run)
    start = start if start_s is None else start_s
    total = recorded_epochs(run)
    least = MIN_FRACTION * (min(MIN_EPOCHS, total) if can_stop_early(run) else total)
    if late:
        least = _long_epochs(total) if can_stop_early(run) else total
    gain = _gain(run)
    return max(1, arms) * (start + least * epoch) / (gain * RESERVE)


def _long_epochs(total: int) -> int:
    """The fewest training passes that are long enough for what comes late."""
    return math.ceil(LONG_ENOUGH * total)


def needed_length(run: RunRecord, need: Need, budget_s: float, start_s: float | None = None) -> Length | None:
    """The longest arms that fit, long enough for what comes late where that must show; None when these do not fit.

    Where not all arms can be so long, those that a few epochs suffice have fewer: a control that goes on has stood there, too.
    """
    alike = choose_length(run, need.arms, budget_s, start_s)
    total = recorded_epochs(run)
    if not need.late or (alike is not None and alike.long_enough(total)):
        return alike
    if not need.short or not can_stop_early(run):
        return None
    start, epoch = epoch_seconds(run)
    start = start if start_s is None else start_s
    seconds = _gain(run) * RESERVE * budget_s
    for epochs in (total, _long_epochs(total)):
        each = (seconds - need.long * (start + epochs * epoch)) / need.short
        short = math.floor((each - start) / epoch)
        if MIN_EPOCHS <= short < epochs:
            stopped = stopped_after(run) if epochs == total else epochs
            whole = Length(stopped, 1.0, start + epochs * epoch, epochs == total and stopped > 0)
            return replace(whole, short=short, short_s=start + short * epoch)
    return None


def choose_length(run: RunRecord, arms: int, budget_s: float, start_s: float | None = None) -> Length | None:
    """The longest arms of which ``arms`` fit into the budget; None when not even the shortest do.

    ``start_s``: what each takes beside its epochs; None: as the record had it, from a new process on.
    """
    start, epoch = epoch_seconds(run)
    start = start if start_s is None else start_s
    total = recorded_epochs(run)
    gain = _gain(run)
    each = gain * RESERVE * budget_s / max(1, arms)
    if start + total * epoch <= each:
        stopped = stopped_after(run)
        return Length(stopped, 1.0, start + total * epoch, stopped > 0)
    if can_stop_early(run):
        fitting = math.floor((each - start) / epoch)
        if fitting >= MIN_EPOCHS:
            return Length(min(fitting, total - 1), 1.0, start + fitting * epoch)
        least = min(MIN_EPOCHS, total)
    else:
        fitting, least = 0, total
    share = (each - start) / (least * epoch)
    if share < MIN_FRACTION:
        return None
    epochs = least if can_stop_early(run) and least < total else 0
    return Length(epochs, min(1.0, round(share, 2)), each)
