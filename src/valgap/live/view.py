"""A run as it is now: its epochs so far, where time goes, its state and its warnings."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

from valgap.checks.shared.seen_part import given_epochs
from valgap.live.follower import is_there
from valgap.record.encoding import EVENTS_FILE
from valgap.record.location import LIVE, part_files
from valgap.record.reader import read_record
from valgap.record.told import told
from valgap.stats import wilson_interval
from valgap.types import Accuracy, EpochView, Pass, RunRecord, RunState, RunView, SideView

# A process number comes again: one that began so much later than its record is another one.
LATER_S = 30.0
SHOWN = ("train", "validation")
READING = 0.1


class Watched:
    """A run directory that is looked at again and again; its record is read anew where it has grown.

    Reading a long record takes seconds: at most ``share`` of the time goes into that.
    """

    def __init__(self, folder: Path, share: float = READING) -> None:
        self._folder, self._share = folder, share
        self._sizes: tuple[int, ...] = ()
        self._record: RunRecord | None = None
        self._next = 0.0  # not read again before

    def now(self) -> RunView:
        """The run as it is now. Raises RecordError where there is no record."""
        files = [self._folder / EVENTS_FILE, *part_files(self._folder)]
        sizes = tuple(f.stat().st_size if f.is_file() else -1 for f in files)
        begun = time.monotonic()
        if self._record is None or (sizes != self._sizes and begun >= self._next):
            self._record, self._sizes = read_record(self._folder), sizes
            ended = time.monotonic()
            self._next = ended + (ended - begun) / self._share
        return view_of(self._record, self._folder)


def view_of(record: RunRecord, folder: Path) -> RunView:
    """What there is to show of a record that may go on."""
    state, words = _state(record)
    passes = [p for p in record.passes if p.phase in SHOWN]
    going = next((p for p in reversed(record.passes[-1:]) if state == "running" and not _ended(record, p)), None)
    ended = [p for p in passes if p is not going]
    started = record.header.get("started")
    since = time.time() - started if isinstance(started, (int, float)) else record.seconds
    given = given_epochs(record)
    return RunView(
        path=record.path,
        script=str(record.header.get("script", "?")),
        state=state,
        told=words,
        seconds=since if state == "running" else record.seconds,
        epochs=_epochs(ended),
        given=given[0] if given is not None else None,
        going=_in_words(going) if going is not None else "",
        warnings=tuple(told(folder)) if (folder / LIVE).is_file() else (),
    )


def _ended(record: RunRecord, one: Pass) -> bool:
    """The state of the weights is written after a pass, and not before."""
    return one.state >= 0 or one.complete or record.exit_status is not None


def _state(record: RunRecord) -> tuple[RunState, str]:
    if record.exit_status is not None:
        return "finished", f"it ended with exit status {record.exit_status}"
    pid, started = record.header.get("pid"), record.header.get("started")
    if isinstance(pid, int) and isinstance(started, (int, float)) and is_there(pid) and _began(pid) < started + LATER_S:
        return "running", f"it runs as process {pid}"
    if record.stopped is not None and record.stopped.startswith("recording stopped"):
        return "died", record.stopped
    return "died", "the record has no end, and its process is not on this machine: it was killed, or runs elsewhere"


def _began(pid: int) -> float:
    """When a process of this machine began, Unix time; 0 where the system does not tell."""
    try:
        ticks = float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        up = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
        return float(up.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError, StopIteration):
        return 0.0


def _epochs(passes: list[Pass]) -> tuple[EpochView, ...]:
    train = {p.epoch + 1: p for p in passes if p.phase == "train"}
    validation = {p.epoch: p for p in passes if p.phase == "validation"}
    numbers = sorted({*train, *validation})
    return tuple(EpochView(n, _side(train.get(n)), _side(validation.get(n))) for n in numbers)


def _side(one: Pass | None) -> SideView | None:
    if one is None:
        return None
    table = one.samples
    right = table.correct if table.answered else None
    accuracy = None
    if right is not None:
        accuracy = Accuracy(float(right.mean()), *wilson_interval(int(right.sum()), len(right)), len(right))
    rest = max(0.0, one.seconds - sum(one.spent.values()))
    spent = {**one.spent, "other": rest} if one.spent else {}
    loss = table.mean_loss
    return SideView(accuracy, loss if math.isfinite(loss) else None, int(one.batch_sizes.sum()), one.seconds, spent)


def _in_words(one: Pass) -> str:
    name = {"train": "training", "validation": "validation"}.get(one.phase, "another pass")
    return f"{name}, {one.num_batches} batches, {int(one.batch_sizes.sum()):,} images so far"
