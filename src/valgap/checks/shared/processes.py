"""What checks of several processes share: the ranks' shares of the passes. No check itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from valgap.types import Pass, RankInfo, RankPass, RunRecord, SampleTable

NO_GROUP = "a training by several processes of one group"


def shares_of(run: RunRecord, one: Pass) -> list[RankPass]:
    """Each rank's share of a pass, by rank; empty where the pass is of one process alone."""
    found = [share for rank in run.group for share in rank.passes if share.merged == one.index]
    return found if len(found) > 1 else []


def with_repeats(shares: Sequence[RankPass]) -> SampleTable:
    """All rows that the ranks showed, also those of samples that others had shown."""
    tables = [s.samples for s in shares]
    return SampleTable(**{f.name: np.concatenate([getattr(t, f.name) for t in tables]) for f in fields(SampleTable)})


def trained_together(run: RunRecord) -> tuple[RankInfo, ...]:
    """The ranks of a group that trained one model, each with its own copy of it; empty where none did.

    Ranks that hold parts of the weights (sharded wrappers) cannot be compared, and are left out.
    """
    ranks = tuple(r for r in run.group if r.training())
    sharded = any("Sharded" in (w.wrapper or "") or "FSDP" in (w.wrapper or "") for r in ranks for w in r.wrappings)
    models = {p.model for r in ranks for p in r.training()}
    return ranks if len(ranks) > 1 and len(models) == 1 and not sharded else ()
