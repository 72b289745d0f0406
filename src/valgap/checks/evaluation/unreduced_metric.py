"""The printed validation accuracy is that of one process's share of the images.

What it looks for
    A validation that is shared out among processes, whose printed accuracies are those of a single process's share and not
    those of all images.

Why it hurts validation
    It does not: only the number is wrong. But it rests on a fraction of the images, models are chosen and trainings are
    stopped by it, and each process may choose another epoch.

What else looks like this
    Shares that happen to have equal accuracies cannot be told apart. A number that every process prints of its own share,
    beside a reduced one, is no fault.

Remedy
    Sum right answers and images over all processes (`torch.distributed.all_reduce`), then divide once; or let a library do
    it (torchmetrics with `sync_on_compute`, Accelerate's `gather_for_metrics`, `self.log(..., sync_dist=True)`).

Source
    PyTorch documentation, "Writing distributed applications"; Lightning documentation, "Logging: sync_dist".
"""

from __future__ import annotations

from valgap.checks.shared.printed_accuracy import Told, mean_of_batches, told
from valgap.checks.shared.processes import NO_GROUP, shares_of, with_repeats
from valgap.types import Case, Check, Clear, Evidence, Finding, NotApplicable, Pass, RankPass

# Numbers of a print that must be a share's and not the whole's, by count of validations: one may be chance.
MIN_FITS = 2
NOTABLE_POINTS = 0.5


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Hold the printed accuracies against those of each rank's share and of all images."""
    run = case.run
    if not run.group:
        return NotApplicable(NO_GROUP)
    shared = {p.index: shares_of(run, p) for p in run.of_phase("validation") if p.samples.answered}
    shared = {i: s for i, s in shared.items() if s and any(len(x.samples) < len(run.passes[i].samples) for x in s)}
    if not shared:
        return NotApplicable("a labelled validation pass that several processes share")
    numbers = [t for members in told(run, "accuracy").values() for t in members if t.passes[-1].index in shared]
    if not numbers:
        return NotApplicable("a printed accuracy of such a pass")
    whole = [t for t in numbers if _is_whole(t, t.passes[-1], shared[t.passes[-1].index])]
    parts = [t for t in numbers if t not in whole and _rank_of(t, shared[t.passes[-1].index]) is not None]
    facts = (
        Evidence("printed accuracies of all images", len(whole), len(numbers), "", len(numbers)),
        Evidence("printed accuracies of one process's share alone", len(parts), 0, "", len(numbers)),
    )
    if whole or not parts:
        return Clear("the printed accuracy is not that of one process's share", facts)
    last = parts[-1]
    one = last.passes[-1]
    shares = shared[one.index]
    rank = _rank_of(last, shares)
    assert rank is not None
    share = shares[rank].samples
    apart = max(abs(_share(t, shared) - t.passes[-1].samples.accuracy) for t in parts)
    sure = len(parts) >= min(MIN_FITS, len(shared)) and len(parts) > len(numbers) / 2 and 100 * apart >= NOTABLE_POINTS
    return Finding(
        summary=f"the printed accuracy is that of rank {rank}'s {len(share)} images; all {len(one.samples)} give "
        f"{100 * one.samples.accuracy:.1f} %",
        severity_points=100 * (one.samples.accuracy - share.accuracy),
        confidence=0.9 if sure else 0.4,
        evidence=(
            Evidence("printed validation accuracy", last.number.value, one.samples.accuracy, "", len(share)),
            *facts,
            Evidence("largest distance of the share's accuracy from that of all images", 100 * apart, 0.0, "points", len(parts)),
        ),
        remedy="sum right answers and images over all processes with all_reduce, then divide once",
    )


def _is_whole(t: Told, one: Pass, shares: list[RankPass]) -> bool:
    """Whether the number may be that of all images, each once or as often as shown, or the mean over processes or batches."""
    means = [s.samples.accuracy for s in shares]
    values = [one.samples.accuracy, with_repeats(shares).accuracy, sum(means) / len(means), mean_of_batches(one)]
    return any(t.states(v) for v in values)


def _rank_of(t: Told, shares: list[RankPass]) -> int | None:
    """The place of the share whose accuracy the number is; the first process prints most often."""
    return next((i for i, s in enumerate(shares) if t.equals(s.samples.accuracy)), None)


def _share(t: Told, shared: dict[int, list[RankPass]]) -> float:
    shares = shared[t.passes[-1].index]
    return shares[_rank_of(t, shares) or 0].samples.accuracy


CHECK = Check(code="EVA511", name="unreduced_metric", stage="measure", detect=detect, doc=__doc__ or "")
