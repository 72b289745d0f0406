"""From differences to a verdict: equal, parted by rounding, by chance, or in substance; what comes first explains the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from valgap.comparison.aligned import Aligned
from valgap.comparison.bits import ORDER, STAGE_OF, Parted, first_parting
from valgap.comparison.data import data_departures, drawing_departures, target_departures
from valgap.comparison.images import image_departures
from valgap.comparison.learning import (
    gradient_departures,
    loss_departures,
    mode_departures,
    optimizer_departures,
    weight_departures,
)
from valgap.comparison.measuring import length_departures, metric_departures
from valgap.types import (
    DataDifference,
    Departure,
    Difference,
    Nature,
    Phase,
    Quantity,
    RunRecord,
    RunsVerdict,
    SourceDifference,
)

VAL: dict[Quantity, Quantity] = {
    "drawn": "val data",
    "images": "val images",
    "targets": "val targets",
    "mode": "val mode",
    "logits": "val logits",
    "loss": "val logits",
}
QUANTITY_WORDS: dict[Quantity, str] = {
    "data": "the training data",
    "drawn": "the batches drawn",
    "images": "the images at the model's input",
    "targets": "the targets",
    "weights": "the first weights",
    "mode": "the model's mode",
    "logits": "the logits",
    "loss": "the loss",
    "gradients": "the gradients",
    "optimizer": "the optimizer",
    "rate": "the learning rate",
    "update": "the update",
    "statistics": "BatchNorm's running statistics",
    "val data": "the validation data",
    "val images": "the validation images at the model's input",
    "val targets": "the validation targets",
    "val mode": "the model's mode in validation",
    "val logits": "the logits in validation",
    "length": "the length of the training",
    "metric": "the printed metric",
}
# Of these there is one.
ONE = {"mode", "loss", "optimizer", "rate", "update", "val mode", "length", "metric"}
assert set(QUANTITY_WORDS) == set(get_args(Quantity))
# What is measured is a sign of the one setting, mostly: a difference of the same place that the program tells itself.
EXPLAINED_BY: dict[Quantity, tuple[Quantity, ...]] = {
    "drawn": ("data", "drawn"),
    "val data": ("val data",),
    "logits": ("mode", "weights"),
    "update": ("gradients", "optimizer", "rate", "loss"),
    "gradients": ("loss", "optimizer"),
    "val logits": ("val mode",),
}


@dataclass(frozen=True)
class Judgement:
    """What two records say of each other."""

    verdict: RunsVerdict
    why: str
    headline: Departure | None
    departures: tuple[Departure, ...]
    parted: Departure | None
    missing: tuple[str, ...]


def judge(
    first: RunRecord,
    second: RunRecord,
    aligned: Aligned,
    data: Sequence[DataDifference],
    settings: Sequence[Difference],
    source: Sequence[SourceDifference],
) -> Judgement:
    """The verdict on two runs."""
    missing = tuple(_missing(first, second))
    if not any(p.phase == "train" for p in first.passes) or not any(p.phase == "train" for p in second.passes):
        return Judgement(
            "unknown", "one of the runs has no training pass: there is nothing to hold side by side", None, (), None, missing
        )
    parted = first_parting(first, second, aligned)
    told = _of_substance(first, second, aligned, data)
    bit = _as_departure(parted, first, second) if parted is not None else None
    # A first bit in what the program tells itself is the same difference once more.
    alone = bit is not None and bit.nature == "substance" and all(d.quantity != bit.quantity for d in told)
    departures = _ranked([*told, *([bit] if bit is not None and alone else [])])
    # Under chance, what a program does by its results (how long it trains, say) is no difference of the program.
    by_chance = bit is not None and bit.nature != "substance"
    headline = next((d for d in departures if d.told or not by_chance), None)
    if headline is not None:
        return Judgement("parted", _why_parted(headline, bit), headline, departures, bit, missing)
    if bit is None:
        return Judgement("equal", _why_equal(first, second, source, settings), None, (), None, missing)
    verdict: RunsVerdict = "rounding"
    why = (
        f"they are equal to the last bit until {bit.where}; from there on they differ by rounding (relative {bit.size:.1g} in "
        f"{QUANTITY_WORDS[bit.quantity]}), which grows as every training magnifies it. Nothing of substance differs"
        f"{_surroundings(settings)}"
    )
    if bit.nature == "chance":
        verdict, why = "chance", _why_chance(bit, any(d.only_first or d.only_second for d in data))
    if departures:
        why += f". It follows: {'; '.join(d.text for d in departures)}"
    return Judgement(verdict, why, None, tuple(replace(d, follows=True) for d in departures), bit, missing)


def _surroundings(settings: Sequence[Difference]) -> str:
    """What may round otherwise: versions, the machine, the number of threads."""
    names = ("python", "platform", "threads", "cuda")
    told = [f"{s.name} {s.first}, then {s.second}" for s in settings if s.group == "packages" or s.name in names]
    return f". What may round otherwise: {'; '.join(told)}" if told else ""


def _of_substance(first: RunRecord, second: RunRecord, aligned: Aligned, data: Sequence[DataDifference]) -> list[Departure]:
    phases: tuple[Phase, ...] = ("train", "validation")
    found = [
        *(d for one in data for d in data_departures(one) if not aligned.same_split),
        *drawing_departures(first, second, aligned),
        *(d for phase in phases for d in image_departures(first, second, aligned, phase)),
        *(d for phase in phases for d in target_departures(first, second, aligned, phase)),
        *weight_departures(first, second),
        *mode_departures(first, second),
        *loss_departures(first, second),
        *gradient_departures(first, second),
        *optimizer_departures(first, second),
        *length_departures(first, second),
        *metric_departures(first, second),
    ]
    return found


def _as_departure(parted: Parted, first: RunRecord, second: RunRecord) -> Departure:
    """The first difference in any bit, with its nature and its place in words."""
    one = first.passes[min(parted.place.pass_index, len(first.passes) - 1)]
    quantity = VAL.get(parted.quantity, parted.quantity) if one.phase != "train" else parted.quantity
    nature = _nature(parted, first, second)
    size = f", relative difference {parted.size:.2g}" if parted.size == parted.size else ""
    text = parted.text or f"{QUANTITY_WORDS[quantity]} {'differs' if quantity in ONE else 'differ'}{size}"
    stage = "read_val" if quantity == "val images" else STAGE_OF[quantity]
    evidence = ("torch's random numbers stood elsewhere as the batch began",) if parted.other_random else ()
    return Departure(
        quantity, stage, nature, text, _where(parted, first), parted.place.pass_index, parted.place.batch, parted.size, evidence
    )


def _where(parted: Parted, run: RunRecord) -> str:
    if parted.place.pass_index >= len(run.passes):
        return "the end of the shorter run"
    one = run.passes[parted.place.pass_index]
    epochs = f"epoch {one.epoch + 1}" if one.phase == "train" else f"the validation after epoch {max(1, one.epoch)}"
    if one.phase != "train" and one.epoch == 0:
        epochs = "the validation before training"
    return f"the end of {epochs}" if parted.end else f"batch {parted.place.batch + 1} of {epochs}"


def _nature(parted: Parted, first: RunRecord, second: RunRecord) -> Nature:
    """Whether a difference in bits is rounding, another draw of chance, or one of substance."""
    if parted.nature is not None and not parted.end:
        return parted.nature
    if parted.is_rounding:
        return "rounding"
    quantity = parted.quantity
    one = first.passes[min(parted.place.pass_index, len(first.passes) - 1)]
    if quantity == "drawn":
        return "chance"  # what is not chance in it is told by counts: order, batch size, repeated draws
    if quantity in ("images", "targets") and _reads_at_random(parted, first, second):
        return "chance"
    if quantity == "logits" and one.modes.dropout_training > 0 and parted.other_random:
        return "chance"
    return "substance"


def _reads_at_random(parted: Parted, first: RunRecord, second: RunRecord) -> bool:
    """Whether what differs in the images may be another draw of the same random reading: then statistics have the word."""
    if not parted.other_random and not _workers(first, second):
        return False
    return first.passes[parted.place.pass_index].phase == "train"


def _workers(first: RunRecord, second: RunRecord) -> bool:
    return any(loader.num_workers > 0 for run in (first, second) for loader in run.loaders.values())


def _ranked(departures: Sequence[Departure]) -> tuple[Departure, ...]:
    """In causal order; what a program does not tell itself follows from what comes before it."""
    told = {d.quantity for d in departures if d.told}

    def rank(one: Departure) -> tuple[int, bool]:
        causes = [] if one.told else [q for q in EXPLAINED_BY.get(one.quantity, ()) if q in told]
        return max(ORDER.index(q) for q in (one.quantity, *causes)), not one.told

    ordered = sorted(departures, key=rank)
    out: list[Departure] = []
    for one in ordered:
        explained = not one.told and any(o.quantity in (one.quantity, *EXPLAINED_BY.get(one.quantity, ())) for o in out)
        earlier = not one.told and any(ORDER.index(o.quantity) < ORDER.index(one.quantity) for o in out)
        out.append(replace(one, follows=explained or earlier))
    return tuple(out)


def _why_parted(headline: Departure, bit: Departure | None) -> str:
    where = f" ({headline.where})" if headline.where else ""
    why = f"they part in {QUANTITY_WORDS[headline.quantity]}{where}: {headline.text}"
    if bit is not None and bit.nature == "chance":
        what = QUANTITY_WORDS[bit.quantity]
        why += f". Chance differs as well from {bit.where} on ({what}): one run each does not tell the two apart"
    elif bit is not None and bit is not headline and bit.quantity != headline.quantity and bit.where:
        why += f". The first bit that differs is in {QUANTITY_WORDS[bit.quantity]}, {bit.where}"
    return why


def _why_equal(first: RunRecord, second: RunRecord, source: Sequence[SourceDifference], settings: Sequence[Difference]) -> str:
    steps = sum(p.optimizer_steps for p in first.of_phase("train"))
    why = f"equal to the last bit that the records hold, over {steps} optimizer steps and {len(first.passes)} passes"
    if source or settings:
        why += "; what differs in source and settings made no difference"
    return why


def _why_chance(bit: Departure, split_anew: bool) -> str:
    what = {
        "drawn": "the same images are drawn in another order",
        "images": "images are changed at random in another way",
        "targets": "targets are mixed at random in another way",
        "weights": "the first weights are drawn anew from the same distribution",
        "logits": "dropout draws other numbers",
        "val data": "validation images are drawn in another order",
    }.get(bit.quantity, f"{QUANTITY_WORDS[bit.quantity]} differ")
    if split_anew:
        what = "the same images are shared out anew between training and validation"
    return (
        f"two draws of the same program: from {bit.where} on {what} (another seed, none, or other random numbers drawn before). "
        "Nothing of substance differs"
    )


def _missing(first: RunRecord, second: RunRecord) -> Iterator[str]:
    for word, run in (("first", first), ("second", second)):
        if not run.traced:
            why = "several processes" if run.ranks else "a record of before"
            what = "gradients and updates are compared by their norms"
            yield f"the {word} run has no fingerprints of its batches ({why}): {what}"
        if not run.sources:
            yield f"the {word} run's record does not hold its source"
        if run.stopped:
            yield f"the {word} run: {run.stopped}"
