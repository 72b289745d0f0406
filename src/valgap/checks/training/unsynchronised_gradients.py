"""The processes of a training learn apart: their weights differ.

What it looks for
    Ranks of one group that train the same network on parts of the data, and whose weights are not equal at the end of a
    training pass. Then it looks for the way: weights that differed from the start (other seeds, nothing broadcast), no
    parallel wrapper, calls of `model.module`, steps under `no_sync`, parameters that are in no wrapper.

Why it hurts validation
    Each process trains on its own part alone, with as many steps as before. What is validated and saved is one of them:
    a network that saw a fraction of the images.

What else looks like this
    Local SGD and averaging at the end of an epoch make the weights equal there, and are not told. Weights that are held in
    parts by several processes (FSDP) cannot be compared. BatchNorm statistics differ between ranks in a sound training.

Remedy
    Wrap the whole network once in DistributedDataParallel, after its last change, and call the wrapper; step outside of
    `no_sync`. With gradients averaged by hand, broadcast the first weights from rank 0 and reduce every parameter's gradient.

Source
    PyTorch documentation, DistributedDataParallel and its `no_sync`; TrainCheck (OSDI 2025), faults of DDP.
"""

from __future__ import annotations

from valgap.checks.shared.processes import NO_GROUP, trained_together
from valgap.types import Case, Check, Clear, Evidence, Finding, NotApplicable, RankInfo, RankPass

UNMEASURED_POINTS = 5.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the digests of the ranks' weights at the ends of their training passes."""
    ranks = trained_together(case.run)
    if not ranks:
        return NotApplicable(f"{NO_GROUP}, each with the whole network")
    trainings = [r.training() for r in ranks]
    rounds = [r for r in zip(*trainings, strict=False) if all(p.weights and p.complete for p in r)]
    if not rounds:
        return NotApplicable("the weights of several processes at the end of a whole training pass")
    if not any(_apart(r) for r in rounds):
        same = Evidence("training passes that end with equal weights in all processes", len(rounds), len(rounds), "", len(ranks))
        return Clear("all processes hold the same weights", (same,))
    differing = [len({p.weights for p in r}) for r in rounds]
    how, remedy = _way(ranks)
    facts = (
        Evidence("training passes after which the weights differ", sum(d > 1 for d in differing), 0, "passes", len(rounds)),
        Evidence("different sets of weights at the end", differing[-1], 1, "", len(ranks)),
        Evidence("different sets of weights before the first step", _first_weights(ranks), 1, "", len(ranks)),
    )
    if differing[-1] == 1:
        return Clear("the processes' weights are equal again at the end", facts)
    shared = _shared_samples(rounds[-1])
    return Finding(
        summary=f"the {len(ranks)} processes train apart: {how}",
        severity_points=UNMEASURED_POINTS,
        confidence=0.95 if shared < 1.0 or differing[-1] == len(ranks) else 0.6,
        evidence=(
            *facts,
            Evidence("training images that another process saw as well", shared, 0.0, ""),
            Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points"),
        ),
        remedy=remedy,
    )


def _apart(passes: tuple[RankPass, ...]) -> bool:
    return len({p.weights for p in passes}) > 1


def _first_weights(ranks: tuple[RankInfo, ...]) -> int:
    known = [w for r in ranks for m, w in r.first_weights.items() if m == r.training()[0].model and w]
    return len(set(known))


def _shared_samples(passes: tuple[RankPass, ...]) -> float:
    """Share of the first process's images that another one saw in the same pass, 0..1."""
    own = set(passes[0].samples.sample.tolist()) - {-1}
    others = set().union(*(p.samples.sample.tolist() for p in passes[1:]))
    return len(own & others) / len(own) if own else 0.0


def _way(ranks: tuple[RankInfo, ...]) -> tuple[str, str]:
    """(how gradients are not synchronised, what mends it)."""
    trained = [p for r in ranks for p in r.training()]
    wrappings = [w for r in ranks for w in r.wrappings if w.model == trained[0].model]
    steps, unsynced = sum(p.wrapped_steps for p in trained), sum(p.unsynced_steps for p in trained)
    past = sum(p.calls_past_wrapper for p in trained)
    if past:
        return "the network is called past its wrapper (model.module)", "call the DistributedDataParallel wrapper in training"
    if unsynced:
        return (
            f"{unsynced} of {steps} steps follow backward passes under no_sync",
            "take the last backward before a step out of no_sync",
        )
    outside = sum(w.num_outside + w.num_elsewhere for w in wrappings)
    if any(w.wrapped for w in wrappings) and outside:
        names = ", ".join(next((w.outside for w in wrappings if w.outside), ())[:3])
        what = f" ({names})" if names else ""
        return (
            f"trained parameters are in no wrapper{what}",
            "wrap the whole network, head and all, in one DistributedDataParallel",
        )
    if _first_weights(ranks) > 1:
        return (
            "their first weights differ already",
            "broadcast the first weights from rank 0 (DistributedDataParallel does), or seed all processes alike",
        )
    if not any(w.wrapped for w in wrappings):
        return (
            "the network is in no parallel wrapper, and its gradients are not averaged",
            "wrap the network in DistributedDataParallel and train through the wrapper",
        )
    return (
        "their gradients are not averaged at every step",
        "let every backward before a step go through the wrapper's synchronisation",
    )


CHECK = Check(code="TRN415", name="unsynchronised_gradients", stage="update", detect=detect, doc=__doc__ or "")
