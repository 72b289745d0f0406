"""Data and drawing: files gone, new or relabelled, and how batches are made of them, whatever the order that chance gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from valgap.comparison.aligned import WORDS, Aligned
from valgap.types import DataDifference, Departure, Pass, Phase, Quantity, RunRecord

MAX_EXAMPLES = 5
MAX_CLASSES = 8
# Counts of a class drawn in the first pass differ by more than so many standard deviations: another way of drawing.
DRAWN_OTHERWISE = 5.0


def data_difference(first: RunRecord, second: RunRecord, aligned: Aligned, phase: Phase) -> DataDifference | None:
    """How the samples of a phase differ; None where a run has none of it."""
    a, b = _held(first, aligned, 0, phase), _held(second, aligned, 1, phase)
    if a is None or b is None:
        return None
    common = a.keys() & b.keys()
    names = [_class_names(run, phase) for run in (first, second)]
    labels = [{k: n.get(c, str(c)) for k, c in own.items()} for n, own in zip(names, (a, b), strict=True)]
    changed = sorted(k for k in common if a[k] >= 0 and b[k] >= 0 and labels[0][k] != labels[1][k])
    examples = [f"{aligned.name(phase, k)}: {labels[0][k]}, then {labels[1][k]}" for k in changed]
    for k in sorted(a.keys() ^ b.keys(), key=lambda k: aligned.name(phase, k)):
        examples.append(f"{aligned.name(phase, k)}: {'first' if k in a else 'second'} run only")
    counts = [Counter(v for k, v in own.items() if source[k] >= 0) for own, source in zip(labels, (a, b), strict=True)]
    classes = [(c, counts[0][c], counts[1][c]) for c in sorted(counts[0] | counts[1]) if counts[0][c] != counts[1][c]]
    return DataDifference(
        phase,
        len(common),
        len(a.keys() - common),
        len(b.keys() - common),
        len(changed),
        tuple(examples[:MAX_EXAMPLES]),
        tuple(classes[:MAX_CLASSES]),
    )


def _held(run: RunRecord, aligned: Aligned, side: int, phase: Phase) -> dict[int, int] | None:
    """Number -> target, of all samples that a phase's passes saw and of those that their data sets hold; -1 without a target."""
    passes = run.of_phase(phase)
    if not passes:
        return None
    held: dict[int, int] = {}
    for one in passes:
        data = run.datasets.get(one.dataset)
        whole = data is not None and one.samples.sample.size and _is_whole(one, data.size)
        if data is not None and data.sample is not None and whole:
            targets = data.targets if data.targets is not None else np.full(len(data.sample), -1)
            for i, t in zip(data.sample.tolist(), np.asarray(targets).tolist(), strict=False):
                held.update(dict.fromkeys(aligned.of_ids(side, phase, np.array([i])), t) if i >= 0 else {})
    for one in passes if not run.mixes(passes[-1]) else ():
        seen = zip(aligned.keys(side, one).tolist(), one.samples.target.tolist(), strict=True)
        held.update({k: t for k, t in seen if k >= 0 and (t >= 0 or k not in held)})
    if run.mixes(passes[-1]):
        held |= {k: held.get(k, -1) for one in passes for k in aligned.keys(side, one).tolist() if k >= 0}
    return held


def _is_whole(one: Pass, size: int) -> bool:
    """Whether a pass drew (nearly) all that its data set holds: what it left out is then the last, incomplete batch."""
    most = int(one.batch_sizes.max()) if len(one.batch_sizes) else 0
    return size > 0 and len(one.samples) > size - max(1, most)


def _class_names(run: RunRecord, phase: Phase) -> dict[int, str]:
    for one in run.of_phase(phase):
        data = run.datasets.get(one.dataset)
        if data is not None and data.class_to_idx:
            return {i: n for n, i in data.class_to_idx.items()}
    return {}


def data_departures(difference: DataDifference) -> Iterator[Departure]:
    """What of it is of substance."""
    quantity: Quantity = "data" if difference.phase == "train" else "val data"
    what = WORDS[difference.phase]
    if not difference.common and (difference.only_first or difference.only_second):
        return  # no name in common: nothing is known
    lost, new = difference.only_first, difference.only_second
    evidence = difference.examples + tuple(f"class {c}: {a} images, then {b}" for c, a, b in difference.classes)
    if lost or new:
        parts = [f"{lost} are gone" if lost else "", f"{new} are new" if new else ""]
        text = f"the {what} images are other ones: {' and '.join(p for p in parts if p)}, {difference.common} are in both"
        yield Departure(quantity, "files", "substance", text, evidence=evidence, told=True)


def target_departures(first: RunRecord, second: RunRecord, aligned: Aligned, phase: Phase) -> Iterator[Departure]:
    """Targets of the same samples; where one numbering of the classes stands for the other throughout, none."""
    if phase in aligned.disordered:
        return
    tables = [_targets(run, aligned, side, phase) for side, run in enumerate((first, second))]
    common = sorted(tables[0].keys() & tables[1].keys())
    pairs = Counter((tables[0][k], tables[1][k]) for k in common)
    other = sum(n for (a, b), n in pairs.items() if a != b)
    if not other:
        return
    forth = dict(pairs.keys())
    if len(forth) == len(pairs) == len({b for _, b in pairs}):
        return  # the classes are numbered in another order
    quantity: Quantity = "targets" if phase == "train" else "val targets"
    examples = tuple(
        f"{aligned.name(phase, k)}: class {tables[0][k]}, then {tables[1][k]}" for k in common if tables[0][k] != tables[1][k]
    )
    text = f"{other} of {len(common)} {WORDS[phase]} images have another target"
    yield Departure(quantity, "pair", "substance", text, size=other / len(common), evidence=examples[:MAX_EXAMPLES], told=True)


def _targets(run: RunRecord, aligned: Aligned, side: int, phase: Phase) -> dict[int, int]:
    """Number -> target in the first pass that saw the sample; of images that are mixed anew, nothing."""
    found: dict[int, int] = {}
    for one in run.of_phase(phase):
        if run.mixes(one) or (one.loss is not None and one.loss.target_kind == "soft"):
            return {}
        for k, t in zip(aligned.keys(side, one).tolist(), one.samples.target.tolist(), strict=True):
            if k >= 0 and t >= 0:
                found.setdefault(k, t)
    return found


def drawing_departures(first: RunRecord, second: RunRecord, aligned: Aligned) -> Iterator[Departure]:
    """How training batches are made: by what was drawn, not by the names of samplers."""
    passes = [run.of_phase("train") for run in (first, second)]
    if not passes[0] or not passes[1]:
        return
    a, b = (_Drawn(aligned, side, own) for side, own in enumerate(passes))

    def differs(text: str, *evidence: str) -> Departure:
        return Departure("drawn", "draw", "substance", text, evidence=evidence, told=True)

    if a.batch != b.batch:
        yield differs(f"batches of {a.batch} images, then of {b.batch}")
    if a.in_order != b.in_order and None not in (a.in_order, b.in_order):
        words = {True: "in the order of the data set", False: "shuffled"}
        yield differs(f"training images are drawn {words[bool(a.in_order)]}, then {words[bool(b.in_order)]}")
    elif a.repeats_order != b.repeats_order and None not in (a.repeats_order, b.repeats_order):
        words = {True: "the same in every epoch", False: "drawn anew in every epoch"}
        yield differs(f"the order of training images is {words[bool(a.repeats_order)]}, then {words[bool(b.repeats_order)]}")
    if a.replaced != b.replaced:
        words = {True: "some more than once", False: "each at most once"}
        yield differs(f"in an epoch images are drawn {words[a.replaced]}, then {words[b.replaced]}")
    apart = _classes_apart(a.classes, b.classes) if a.replaced and b.replaced else None
    if apart is not None:
        yield differs(apart)
    if abs(a.count - b.count) > 0 and a.batch == b.batch and a.held == b.held:
        yield differs(f"an epoch draws {a.count} images, then {b.count}")


class _Drawn:
    """What the training passes of a run drew."""

    def __init__(self, aligned: Aligned, side: int, passes: tuple[Pass, ...]) -> None:
        keys = [aligned.keys(side, p) for p in passes]
        first = passes[0]
        self.batch = int(np.median(first.batch_sizes)) if len(first.batch_sizes) else 0
        self.count = len(first.samples)
        raw = first.samples.sample
        known = bool(len(raw)) and bool((raw >= 0).all())
        self.in_order = bool((np.diff(raw) >= 0).all()) if known and len(raw) > 2 * self.batch > 0 else None
        self.repeats_order: bool | None = None
        if len(keys) > 1 and known and len(keys[0]) == len(keys[1]):
            self.repeats_order = bool((keys[0] == keys[1]).all())
        self.replaced = known and len(np.unique(raw)) < len(raw)
        self.held = len(np.unique(np.concatenate([p.samples.sample for p in passes])))
        self.classes = Counter(first.samples.target[first.samples.target >= 0].tolist())


def _classes_apart(a: Counter[int], b: Counter[int]) -> str | None:
    """Which class two ways of drawing give another share; None where chance would."""
    for c in sorted(a | b):
        shares = [n[c] / max(1, n.total()) for n in (a, b)]
        spread = np.sqrt(sum(s * (1 - s) / max(1, n.total()) for s, n in zip(shares, (a, b), strict=True)))
        if abs(shares[0] - shares[1]) > DRAWN_OTHERWISE * max(spread, 1 / max(1, a.total())):
            return f"class {c} is {shares[0]:.0%} of what is drawn, then {shares[1]:.0%}"
    return None
