"""The first bit in which two records part: pass by pass, batch by batch, and within a batch in causal order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from valgap.comparison.aligned import WORDS, Aligned
from valgap.comparison.weights import first_weights, state_difference
from valgap.types import QUANTITIES, STAGES, FloatArray, Nature, Pass, Quantity, RunRecord, Stage, TracedBatches

ORDER: tuple[Quantity, ...] = get_args(Quantity)
STAGE_OF: Mapping[Quantity, Stage] = {
    "data": "files",
    "drawn": "draw",
    "images": "read_train",
    "targets": "pair",
    "weights": "forward",
    "mode": "forward",
    "logits": "forward",
    "loss": "loss",
    "gradients": "update",
    "optimizer": "update",
    "rate": "update",
    "update": "update",
    "statistics": "update",
    "val data": "files",
    "val images": "read_val",
    "val targets": "pair",
    "val mode": "forward",
    "val logits": "forward",
    "length": "choose",
    "metric": "measure",
}
assert set(STAGE_OF.values()) <= set(STAGES)
# Relative differences up to these are rounding: some hundred times the spacing of the numbers themselves.
ROUNDING, ROUNDING_HALF = 1e-4, 0.03
SAMPLE_COLUMNS = {"logits": ("loss", "margin", "label_prob", "prediction"), "images": ("fingerprint",), "targets": ("target",)}
TRACED: Mapping[str, Quantity] = {
    "input": "images",
    "target": "targets",
    "logits": "logits",
    "gradient": "gradients",
    "update": "update",
    "statistics": "statistics",
}


class Place(NamedTuple):
    """Where two runs part; places sort in causal order."""

    pass_index: int
    batch: int
    rank: int  # of the quantity


@dataclass(frozen=True)
class Parted:
    """A quantity that is not equal to the last bit."""

    place: Place
    quantity: Quantity
    size: float  # relative difference; nan unknown
    half: bool = False  # numbers of 16 bits
    other_random: bool = False  # torch's random numbers stood elsewhere as this batch began
    end: bool = False  # found in the state at the end of the pass
    nature: Nature | None = None  # where what was found says it itself
    text: str = ""

    @property
    def is_rounding(self) -> bool:
        """Whether it is of the size of float arithmetic."""
        if self.nature is not None:
            return self.nature == "rounding"
        return self.quantity not in ("drawn", "targets", "mode", "length", "metric") and bool(
            self.size <= (ROUNDING_HALF if self.half else ROUNDING)
        )


def first_parting(first: RunRecord, second: RunRecord, aligned: Aligned) -> Parted | None:
    """The first place at which the records differ in any bit; None where they do not."""
    weights_seen = False
    for k, (a, b) in enumerate(zip(first.passes, second.passes, strict=False)):
        if a.phase != b.phase:
            text = f"pass {k + 1} is {WORDS[a.phase]} in the first run, {WORDS[b.phase]} in the second"
            return Parted(Place(k, 0, ORDER.index("length")), "length", float("nan"), text=text)
        found = list(_in_pass(k, (a, b), (first, second), aligned))
        if a.phase == "train" and not weights_seen:
            weights_seen = True
            start = first_weights(first, second)
            if start is not None:
                place = Place(k, 0, ORDER.index("weights"))
                found.append(Parted(place, "weights", start.size, nature=start.nature, text=start.text))
        if found:
            return _with_random(min(found, key=lambda p: p.place), first, second)
        last = _at_end(k, a, b, first, second)
        if last is not None:
            return last
    if len(first.passes) != len(second.passes):
        text = f"the first run has {len(first.passes)} passes, the second {len(second.passes)}"
        k = min(len(first.passes), len(second.passes))
        return Parted(Place(k, 0, ORDER.index("length")), "length", float("nan"), text=text)
    return None


def _in_pass(k: int, pair: tuple[Pass, Pass], runs: tuple[RunRecord, RunRecord], aligned: Aligned) -> Iterator[Parted]:
    a, b = pair
    for quantity, batch, size, half in (*_by_sample(a, b, aligned), *_by_step(a, b), *_by_trace(k, runs)):
        yield Parted(Place(k, batch, ORDER.index(quantity)), quantity, size, half)
    modes = [(p.modes.batchnorm_training, p.modes.dropout_training) for p in pair]
    layers = [(p.modes.batchnorm_layers, p.modes.dropout_layers) for p in pair]
    if modes[0] != modes[1] and layers[0] == layers[1]:
        yield Parted(Place(k, 0, ORDER.index("mode")), "mode", float("nan"))


def _by_sample(a: Pass, b: Pass, aligned: Aligned) -> Iterator[tuple[Quantity, int, float, bool]]:
    """Rows of the tables side by side, in the order in which the models saw them."""
    n = min(len(a.samples), len(b.samples))
    batch = a.samples.batch[:n]
    drawn = aligned.keys(0, a)[:n] != aligned.keys(1, b)[:n]
    drawn |= batch != b.samples.batch[:n]
    if drawn.any():
        yield "drawn", int(min(batch[drawn.argmax()], b.samples.batch[drawn.argmax()])), float("nan"), False
    elif len(a.samples) != len(b.samples):
        longer = a.samples if len(a.samples) > n else b.samples
        yield "drawn", int(longer.batch[n]), float("nan"), False
    for quantity, columns in SAMPLE_COLUMNS.items():
        first: dict[int, float] = {}
        for name in columns:
            x, y = (np.asarray(getattr(p.samples, name)[:n], np.float64) for p in (a, b))
            other = ~((x == y) | (np.isnan(x) & np.isnan(y)))
            if other.any():
                at = int(batch[other.argmax()])
                first[at] = max(first.get(at, 0.0), _relative(x[batch == at], y[batch == at]))
        if first:
            yield quantity, min(first), first[min(first)], False  # type: ignore[misc]


def _by_step(a: Pass, b: Pass) -> Iterator[tuple[Quantity, int, float, bool]]:
    """Optimizer steps side by side."""
    n = min(len(a.steps), len(b.steps))
    batches = [batch_of_step(p)[:n] for p in (a, b)]
    if len(a.steps) != len(b.steps) or (batches[0] != batches[1]).any():
        apart = np.flatnonzero(batches[0] != batches[1])
        at = int(batches[0][apart[0]]) if len(apart) else a.num_batches
        yield "update", at, float("nan"), False
        return  # steps of other batches are not held side by side
    rates = [p.steps.learning_rate[:n] for p in (a, b)]
    if rates[0].shape == rates[1].shape:
        other = ~((rates[0] == rates[1]) | (np.isnan(rates[0]) & np.isnan(rates[1])))
        rows = np.flatnonzero(other.any(1))
        if len(rows):
            yield "rate", int(batches[0][rows[0]]), float(_relative(rates[0][rows[0]], rates[1][rows[0]])), False
    columns: dict[str, Quantity] = {"loss": "loss", "grad_norm": "gradients", "update_ratio": "update"}
    for name, quantity in columns.items():
        x, y = (np.asarray(getattr(p.steps, name)[:n], np.float64) for p in (a, b))
        both = ~((x == y) | np.isnan(x) | np.isnan(y))
        rows = np.flatnonzero(both | (np.isnan(x) != np.isnan(y)) * (name == "loss"))
        if len(rows):
            yield quantity, int(batches[0][rows[0]]), _relative(x[rows[:1]], y[rows[:1]]), False


def batch_of_step(one: Pass) -> npt.NDArray[np.int64]:
    """(S,) the number of the batch after which each optimizer step was made, as far as the counts of backwards tell."""
    done = np.cumsum(one.steps.backwards).astype(np.int64)
    whole = max(1, int(one.backwards))
    return np.clip(np.ceil(done * one.num_batches / whole).astype(np.int64) - 1, 0, max(0, one.num_batches - 1))


def traces_of(run: RunRecord, k: int) -> list[TracedBatches]:
    """The fingerprints of a pass."""
    return [t for t in run.traced if t.pass_index == k]


def _by_trace(k: int, runs: tuple[RunRecord, RunRecord]) -> Iterator[tuple[Quantity, int, float, bool]]:
    rows = [_rows(run, k) for run in runs]
    for key in sorted(rows[0].keys() & rows[1].keys()):
        x, y = rows[0][key], rows[1][key]
        name = QUANTITIES[key[1]]
        if x["checksum"] != y["checksum"] and name in TRACED:
            yield TRACED[name], key[0], _few_relative(x, y), bool(x["half"] or y["half"])


def _rows(run: RunRecord, k: int) -> dict[tuple[int, int], dict[str, Any]]:
    """(batch, quantity) -> its fingerprint."""
    names = ("half", "checksum", "mean", "norm", "few")
    return {
        (int(t.batch[i]), int(t.quantity[i])): {n: getattr(t, n)[i] for n in names}
        for t in traces_of(run, k)
        for i in range(len(t.batch))
    }


def _few_relative(x: Mapping[str, Any], y: Mapping[str, Any]) -> float:
    return max(_relative(x["few"], y["few"]), _relative(np.array([x["norm"]]), np.array([y["norm"]])))


def _relative(x: FloatArray, y: FloatArray) -> float:
    """Norm of the difference over the norm of the larger one; infinite where only one of them holds numbers."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if (np.isfinite(x) != np.isfinite(y)).any():
        return float("inf")
    keep = np.isfinite(x) & np.isfinite(y)
    scale = max(float(np.linalg.norm(x[keep])), float(np.linalg.norm(y[keep])))
    return float(np.linalg.norm(x[keep] - y[keep])) / scale if scale > 0 else 0.0


def _at_end(k: int, a: Pass, b: Pass, first: RunRecord, second: RunRecord) -> Parted | None:
    """The model's tensors at the end of a pass."""
    if a.state < 0 or b.state < 0:
        return None
    model = first.models.get(a.model)
    found = state_difference(first.states[a.state], second.states[b.state], model)
    if found is None:
        return None
    quantity: Quantity = "statistics" if found.only_buffers else "update"
    return Parted(
        Place(k, a.num_batches, ORDER.index(quantity)),
        quantity,
        found.size,
        end=True,
        nature="rounding" if found.nature == "rounding" else "substance",
        text=found.text,
    )


def _with_random(parted: Parted, first: RunRecord, second: RunRecord) -> Parted:
    """With what the states of torch's random numbers say at that batch."""
    return replace(parted, other_random=random_differs(first, second, parted.place) is True)


def random_differs(first: RunRecord, second: RunRecord, place: Place) -> bool | None:
    """Whether torch's random numbers stood elsewhere by the time of this batch; None where no fingerprint tells."""
    told: bool | None = None
    number = QUANTITIES.index("random")
    for k in range(place.pass_index + 1):
        rows = [_rows(run, k) for run in (first, second)]
        for key in sorted(rows[0].keys() & rows[1].keys()):
            if key[1] == number and (k < place.pass_index or key[0] <= place.batch):
                told = bool(rows[0][key]["checksum"] != rows[1][key]["checksum"]) or bool(told)
    return told


def loss_growth(first: RunRecord, second: RunRecord) -> list[tuple[int, float]]:
    """(optimizer step from 1, relative difference of the losses) at steps of powers of two, and at the last one."""
    losses = [np.concatenate([p.steps.loss for p in run.of_phase("train")] or [np.zeros(0)]) for run in (first, second)]
    n = min(len(x) for x in losses)
    steps = [s for s in (2**i for i in range(32)) if s <= n]
    steps += [n] if n and n not in steps else []
    return [(s, abs(float(losses[0][s - 1] - losses[1][s - 1])) / max(1e-12, abs(float(losses[0][s - 1])))) for s in steps]
