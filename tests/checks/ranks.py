"""Sound runs of two processes, with any part replaced."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from tests.checks.cases import healthy, samples, steps
from valgap.types import Case, Pass, PrintedNumber, RankInfo, RankPass, SampleTable, Wrapping

WRAPPING = Wrapping(0, "DistributedDataParallel", True, True, (), 0, 0, True, 0)


def rows(table: SampleTable, keep: Any) -> SampleTable:
    """The table's rows at these places; batches of ten, numbered anew."""
    found = SampleTable(**{f.name: getattr(table, f.name)[keep] for f in fields(SampleTable)})
    return replace(found, batch=(np.arange(len(found)) // 10).astype(np.int32))


def share(one: Pass, table: SampleTable, **changes: Any) -> RankPass:
    """A rank's share of a pass, with changes."""
    learns = one.phase == "train"
    batches = int(table.batch.max()) + 1
    sound = RankPass(
        merged=one.index, phase=one.phase, epoch=one.epoch, dataset=one.dataset, model=0, complete=True,
        batch_sizes=np.bincount(table.batch), samples=table, steps=own_steps(table) if learns else steps(0), device="cpu",
        weights=f"w{one.epoch}", buffers=f"b{one.epoch}", calls=batches * learns, unsynced_calls=0, calls_past_wrapper=0,
        wrapped_steps=batches * learns, unsynced_steps=0,
    )  # fmt: skip
    return replace(sound, **changes)


def own_steps(table: SampleTable, scale: float = 1.0) -> Any:
    """One step a batch, whose loss is ``scale`` times the batch's mean."""
    means = [float(table.loss[table.batch == b].mean()) for b in np.unique(table.batch)]
    return steps(len(means), loss=np.array(means, np.float32) * np.float32(scale))


def rank(number: int, passes: list[RankPass], **changes: Any) -> RankInfo:
    """Rank ``number`` of two, with changes."""
    sound = RankInfo(
        name="" if number == 0 else f"rank-{number}", rank=number, local_rank=number, world_size=2, backend="gloo",
        pid=100 + number, parent=99, how="", started=0.0, seconds=9.0, exit_status=0, error=None, stopped=None,
        passes=tuple(passes), first_weights={0: "w"}, first_buffers={0: "b"}, wrappings=(WRAPPING,), printed=(),
    )  # fmt: skip
    return replace(sound, **changes)


def two_ranks(case: Case | None = None, **changes: Any) -> Case:
    """A sound run of two processes, each with every other row of each pass; ``changes`` are made to all their training shares."""
    run = (case or healthy()).run
    parts: list[list[RankPass]] = [[], []]
    for one in run.passes:
        for i in range(2):
            learning = changes if one.phase == "train" else {}
            parts[i].append(share(one, rows(one.samples, np.arange(i, len(one.samples), 2)), **learning))
    return Case(replace(run, ranks=tuple(rank(i, p) for i, p in enumerate(parts))))


def of_ranks(case: Case, **changes: Any) -> Case:
    """The case with every rank changed: a callable is given the rank's info."""
    given = {k: v for k, v in changes.items() if not callable(v)}
    made = {k: v for k, v in changes.items() if callable(v)}
    ranks = tuple(replace(r, **given, **{k: v(r) for k, v in made.items()}) for r in case.run.ranks)
    return Case(replace(case.run, ranks=ranks), case.images)


def printing(case: Case, values: dict[int, float], decimals: int = 4) -> Case:
    """Each of these passes printed with such an accuracy (position of the pass -> share)."""
    told = tuple(
        PrintedNumber("val acc", round(v, decimals), i, f"val acc {v:.{decimals}f}", decimals, "accuracy", 1, "share", "val",
                      series="val acc")
        for i, v in values.items()
    )  # fmt: skip
    return Case(replace(case.run, printed=told))


__all__ = ["WRAPPING", "of_ranks", "own_steps", "printing", "rank", "rows", "samples", "share", "two_ranks"]
