"""One record out of the parts of all processes of a program.

Ranks of one group share their passes: the k-th walk of each over the same data, learning or not, is one pass. Other processes
(children that train or evaluate on their own) add their passes in the order of time.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from valgap.record.identities import Identities, Numbers
from valgap.record.phases import PassFacts, infer_phases
from valgap.types import (
    Closing,
    IntArray,
    Pass,
    RankInfo,
    RankPass,
    RunRecord,
    SampleTable,
    StateSnapshot,
    StepTable,
    Wrapping,
)


@dataclass
class Part:
    """What one process wrote: a record of its own, and what it says of the process."""

    name: str
    record: RunRecord
    begins: list[float]  # of each pass, seconds since 1970
    told: dict[str, Any]  # of its header and of its group of processes
    wrappings: list[dict[str, Any]]
    counts: dict[int, dict[str, Any]]  # position of a pass -> what was counted in it
    error: str | None
    numbers: Numbers | None = None
    passes: list[Pass] = field(default_factory=list)  # with merged numbers
    merged: dict[int, int] = field(default_factory=dict)  # position of a pass -> that in the merged record

    @property
    def rank(self) -> int | None:
        """Rank in its group; None where it belongs to none."""
        return None if self.told.get("rank") is None else int(self.told["rank"])

    @property
    def started(self) -> float:
        return float(self.told.get("started", 0.0))

    @property
    def learns(self) -> bool:
        return any(p.backwards or p.optimizer_steps for p in self.record.passes)

    @property
    def trains_and_validates(self) -> bool:
        return self.learns and any(p.phase == "validation" for p in self.record.passes)


@dataclass
class _Shared:
    """One pass with every process's share of it."""

    begun: float
    shares: list[tuple[Part, int]]  # the part, and the position in it; the first is of the lowest rank


def merge(parts: Sequence[Part]) -> RunRecord:
    """The record of the whole program; ``parts[0]`` is that of its first process."""
    main = parts[0]
    groups = _groups([p for p in parts if p.rank is not None and p.record.passes])
    units = groups + [[p] for p in parts if p.rank is None and p.record.passes]
    units.sort(key=lambda u: u[0].started)
    whole = [u for u in units if any(p.trains_and_validates for p in u)]
    chosen = max(whole, key=lambda u: sum(len(p.samples) for part in u for p in part.record.passes if p.backwards), default=None)
    left_out = [u for u in whole if u is not chosen]
    units = [u for u in units if u not in left_out]
    lead = chosen[0] if chosen is not None else units[0][0] if units else main
    known = Identities()
    for part in [lead, *(p for p in parts if p is not lead)]:
        part.numbers = known.add(part.record)
        part.passes = [part.numbers.of(p) for p in part.record.passes]
    shared = sorted((s for u in units for s in _shared(u)), key=lambda s: s.begun)
    leading = [u[0] for u in units]
    states, places = _states(leading)
    passes = _passes(shared, places)
    record = _record(main, lead, leading, known, passes, states)
    return replace(
        record,
        ranks=tuple(_info(p, states) for p in parts if p.record.passes or p.rank is not None or p is main),
        unseen=_left_out(left_out),
    )


def _left_out(units: Sequence[Sequence[Part]]) -> tuple[str, ...]:
    if not units:
        return ()
    many = f"{len(units)} processes" if len(units) > 1 else "another process"
    return (f"{many} of this program trained and validated on {'their' if len(units) > 1 else 'its'} own: only one is judged",)


def _groups(parts: Sequence[Part]) -> list[list[Part]]:
    """Ranks of one group, by rank; a rank that comes again belongs to a later group."""
    groups: list[list[Part]] = []
    for part in sorted(parts, key=lambda p: p.started):
        size = part.told.get("world_size")
        place = next((g for g in groups if g[0].told.get("world_size") == size and part.rank not in {p.rank for p in g}), None)
        if place is None:
            groups.append([part])
        else:
            place.append(part)
    return [sorted(g, key=lambda p: p.rank or 0) for g in groups]


def _shared(unit: Sequence[Part]) -> list[_Shared]:
    """The passes of a unit in order, the same walk of several ranks as one."""
    keys: list[tuple[int, bool, int]] = []
    shares: dict[tuple[int, bool, int], _Shared] = {}
    for part in unit:
        counted: Counter[tuple[int, bool]] = Counter()
        after = 0
        for position, one in enumerate(part.passes):
            kind = (one.dataset, bool(one.backwards or one.optimizer_steps))
            key = (*kind, counted[kind])
            counted[kind] += 1
            if key in shares:
                shares[key].shares.append((part, position))
                shares[key].begun = min(shares[key].begun, part.begins[position])
                after = keys.index(key) + 1
            else:
                shares[key] = _Shared(part.begins[position], [(part, position)])
                keys.insert(after, key)
                after += 1
    in_order = [shares[k] for k in keys]
    for earlier, later in itertools.pairwise(in_order):
        later.begun = max(later.begun, earlier.begun)
    return in_order


def _states(leading: Sequence[Part]) -> tuple[tuple[StateSnapshot, ...], dict[tuple[int, int], int]]:
    """(the states of all leading parts, place of each by (id of its part, its place there))."""
    states: list[StateSnapshot] = []
    places: dict[tuple[int, int], int] = {}
    for part in leading:
        assert part.numbers is not None
        for i, state in enumerate(part.record.states):
            places[id(part), i] = len(states)
            states.append(replace(state, model=part.numbers.models.get(state.model, -1)))
    return tuple(states), places


def _passes(shared: Sequence[_Shared], places: dict[tuple[int, int], int]) -> tuple[Pass, ...]:
    joined = [_joined([part.passes[i] for part, i in s.shares]) for s in shared]
    facts = [
        PassFacts(
            p.backwards,
            p.optimizer_steps,
            p.dataset,
            p.model,
            p.num_batches,
            p.complete,
            p.samples.sample,
            labelled=bool((p.samples.target >= 0).any()),
        )
        for p in joined
    ]
    out: list[Pass] = []
    epoch = 0
    for position, (one, phase, source) in enumerate(zip(joined, infer_phases(facts), shared, strict=True)):
        for part, i in source.shares:
            part.merged[i] = position
        part, i = source.shares[0]
        state = places.get((id(part), part.passes[i].state), -1)
        out.append(replace(one, index=position, phase=phase, epoch=epoch, state=state))
        epoch += phase == "train"
    return tuple(out)


def _joined(shares: Sequence[Pass]) -> Pass:
    """One pass out of the shares of several ranks."""
    first = shares[0]
    if len(shares) == 1:
        return first
    learning = any(s.backwards for s in shares)
    samples, repeated = _one_table([s.samples for s in shares], [s.batch_sizes for s in shares], learning)
    longest = max(len(s.batch_sizes) for s in shares)
    sizes = sum(np.pad(s.batch_sizes, (0, longest - len(s.batch_sizes))) for s in shares)
    return replace(
        first,
        complete=all(s.complete for s in shares),
        seconds=max(s.seconds for s in shares),
        num_batches=longest,
        batch_sizes=np.asarray(sizes, np.int32),
        samples=samples,
        steps=_mean_loss([s.steps for s in shares]),
        processes=len(shares),
        repeated=repeated,
    )


def _one_table(tables: Sequence[SampleTable], sizes: Sequence[IntArray], learning: bool) -> tuple[SampleTable, int]:
    """(every sample of a pass, batch by batch, known ones once; how many were left out).

    What one process draws twice in training (a sampler with replacement) stays; in an evaluation such repeats are padding,
    where they are fewer than a batch.
    """
    rank = np.concatenate([np.full(len(t), i) for i, t in enumerate(tables)])
    batch = np.concatenate([t.batch for t in tables])
    order = np.lexsort((rank, batch))
    columns = {f.name: np.concatenate([getattr(t, f.name) for t in tables])[order] for f in fields(SampleTable)}
    rank, sample = rank[order], columns["sample"]
    keep = np.ones(len(sample), bool)
    owner: dict[int, int] = {}  # sample -> the process that showed it first
    padded = [not learning and _repeats(t) < max(1, int(s.max(initial=0))) for t, s in zip(tables, sizes, strict=True)]
    for i, (one, by) in enumerate(zip(sample.tolist(), rank.tolist(), strict=True)):
        if one < 0:
            continue
        fresh = one not in owner
        keep[i] = fresh or (owner[one] == by and not padded[by])
        owner.setdefault(one, by)
    table = SampleTable(**{name: values[keep] for name, values in columns.items()})
    return table, int((~keep).sum())


def _repeats(table: SampleTable) -> int:
    known = table.sample[table.sample >= 0]
    return len(known) - len(np.unique(known))


def _mean_loss(tables: Sequence[StepTable]) -> StepTable:
    """The first process's steps; their loss is the mean over those that took as many."""
    first = tables[0]
    alike = [t.loss for t in tables if len(t) == len(first)]
    return replace(first, loss=np.mean(alike, axis=0, dtype=np.float32)) if len(alike) > 1 and len(first) else first


def _record(
    main: Part,
    lead: Part,
    leading: Sequence[Part],
    known: Identities,
    passes: tuple[Pass, ...],
    states: tuple[StateSnapshot, ...],
) -> RunRecord:
    """The merged record but for its processes."""
    ordered = [lead, *(p for p in leading if p is not lead)]
    printing = list(dict.fromkeys(id(p) for p in (main, *leading)))
    by_id = {id(p): p for p in (main, *leading)}
    closing = next((_closing(p) for p in (*ordered, main) if p.record.closing is not None), None)
    header = {**lead.record.header, **main.record.header}
    return replace(
        main.record,
        header=header,
        sample_names=tuple(known.names),
        datasets=known.datasets,
        loaders=known.loaders,
        models=known.models,
        optimizers=known.optimizers,
        passes=passes,
        states=states,
        weights_loaded=tuple(
            replace(w, after_pass=_place(p, w.after_pass), state_of_pass=_place(p, w.state_of_pass))
            for p in leading
            for w in p.record.weights_loaded
        ),
        schedules=tuple(
            replace(s, pass_index=_place(p, s.pass_index), optimizer=_numbers(p).optimizers.get(s.optimizer, -1))
            for p in leading
            for s in p.record.schedules
        ),
        printed=tuple(replace(n, after_pass=_place(by_id[i], n.after_pass)) for i in printing for n in by_id[i].record.printed),
        scored=tuple(replace(s, after_pass=_place(main, s.after_pass)) for s in main.record.scored),
        closing=closing,
        recorder_errors=tuple(e for p in (main, *(q for q in leading if q is not main)) for e in p.record.recorder_errors),
        kept=tuple(
            replace(k, pass_index=p.merged[k.pass_index], sample=_numbers(p).samples[k.sample])
            for p in leading
            for k in p.record.kept
            if k.pass_index in p.merged
        ),
        rows=tuple(
            replace(r, pass_index=p.merged[r.pass_index], sample=np.where(r.sample >= 0, _numbers(p).samples[r.sample], -1))
            for p in leading
            for r in p.record.rows
            if r.pass_index in p.merged
        ),
        seen=tuple(
            replace(s, pass_index=p.merged[s.pass_index]) for p in leading for s in p.record.seen if s.pass_index in p.merged
        ),
        provenance={
            _numbers(p).datasets.get(d, -1): replace(known_by, dataset=_numbers(p).datasets.get(d, -1))
            for p in reversed(ordered)
            for d, known_by in p.record.provenance.items()
        },
        traced=(),  # of several processes no batch is seen whole
    )


def _numbers(part: Part) -> Numbers:
    assert part.numbers is not None
    return part.numbers


def _place(part: Part, position: int) -> int:
    """The merged place of a pass; what is before the first one stays."""
    return part.merged.get(position, -1) if position >= 0 else position


def _closing(part: Part) -> Closing:
    numbers, closing = _numbers(part), part.record.closing
    assert closing is not None
    twins = closing.twins
    if twins is not None:
        ids = numbers.samples
        twins = tuple(replace(t, train=int(ids[t.train]), validation=int(ids[t.validation])) for t in twins)
    return replace(closing, rescores={k: numbers.table(v) for k, v in closing.rescores.items()}, twins=twins)


# -- the processes ----------------------------------------------------------------------------


def _info(part: Part, states: Sequence[StateSnapshot]) -> RankInfo:
    record, told, numbers = part.record, part.told, _numbers(part)
    starts = {s.model: s for s in reversed(record.states) if s.moment == "start"}
    return RankInfo(
        name=part.name,
        rank=part.rank,
        local_rank=told.get("local_rank"),
        world_size=int(told.get("world_size", 1)),
        backend=str(told.get("backend", "")),
        pid=int(told.get("pid", -1)),
        parent=int(told.get("parent", -1)),
        how=str(told.get("how", "")),
        started=part.started,
        seconds=record.seconds,
        exit_status=record.exit_status,
        error=part.error,
        stopped=record.stopped,
        passes=tuple(_rank_pass(part, i) for i in range(len(part.passes))),
        first_weights={numbers.models.get(m, -1): digest(record, s, True) for m, s in starts.items()},
        first_buffers={numbers.models.get(m, -1): digest(record, s, False) for m, s in starts.items()},
        wrappings=tuple(
            Wrapping(**{**w, "model": numbers.models.get(w["model"], -1), "outside": tuple(w["outside"])})
            for w in {w["model"]: w for w in part.wrappings}.values()
        ),
        printed=tuple(dict.fromkeys(n.line for n in record.printed)),
    )


def _rank_pass(part: Part, position: int) -> RankPass:
    one, counts = part.passes[position], part.counts.get(position, {})
    state = part.record.states[one.state] if one.state >= 0 else None
    merged = part.merged.get(position, -1)
    return RankPass(
        merged=merged,
        phase=one.phase,
        epoch=one.epoch,
        dataset=one.dataset,
        model=one.model,
        complete=one.complete,
        batch_sizes=one.batch_sizes,
        samples=one.samples,
        steps=one.steps,
        device=str(counts.get("device", "")),
        weights=digest(part.record, state, True) if state is not None else "",
        buffers=digest(part.record, state, False) if state is not None else "",
        calls=int(counts.get("calls", 0)),
        unsynced_calls=int(counts.get("unsynced_calls", 0)),
        calls_past_wrapper=int(counts.get("calls_past_wrapper", 0)),
        wrapped_steps=int(counts.get("steps", 0)),
        unsynced_steps=int(counts.get("unsynced_steps", 0)),
    )


def digest(record: RunRecord, state: StateSnapshot, parameters: bool) -> str:
    """Hex digits that are equal for equal parameters (or BatchNorm statistics); empty where there are none."""
    model = record.models.get(state.model)
    if model is None or len(model.is_parameter) != len(state.sums):
        return ""
    kinds = np.array(["BatchNorm" in k for k in model.layer_kind], bool)
    moved = np.array([not n.endswith("num_batches_tracked") for n in model.tensor_names], bool)
    rows = model.is_parameter if parameters else ~model.is_parameter & kinds & moved
    if not rows.any():
        return ""
    return hashlib.blake2b(np.stack([state.sums[rows], state.norms[rows]]).tobytes(), digest_size=8).hexdigest()
