"""Weights, modes, loss, gradients and updates: what holds of a program whatever its random numbers were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from valgap.comparison.aligned import WORDS
from valgap.comparison.weights import first_weights
from valgap.types import QUANTITIES, Departure, FloatArray, LossStats, OptimizerInfo, Pass, Phase, Quantity, RunRecord

# Bookkeeping of optimizers, and ways to compute the same.
IGNORED = {"initial_lr", "foreign", "fused", "capturable", "differentiable", "maximize", "lr", "decoupled_weight_decay"}
# A loss is the same one where its gradient at the logits lies so near; losses of one's own, and mixed targets, vary by chance.
COSINE_APART, RATIO_APART = 0.02, 0.2
# The value that is back-propagated over the cross-entropy of its batch, by its median, and so many standard errors.
VALUE_APART, SIGNS = 0.1, 5.0
# Norms of gradients that are equal to this share in so many steps: they are clipped there.
CLIPPED_ALIKE, CLIPPED_STEPS, BEYOND = 1e-3, 3, 0.01
RATE_APART = 1e-5
PLATEAU = "ReduceLROnPlateau"


def weight_departures(first: RunRecord, second: RunRecord) -> Iterator[Departure]:
    """Another architecture, or other first weights than chance gives."""
    found = first_weights(first, second)
    if found is not None and found.nature == "substance":
        told = not np.isfinite(found.size)
        text = found.text if told else f"training begins from other weights: {found.text}"
        evidence = tuple(
            f"{word} run: {'given weights' if m.pretrained else 'weights as they were made'}"
            for word, m in (("first", first.trained_model), ("second", second.trained_model))
            if m is not None and m.pretrained is not None
        )
        yield Departure("weights", "forward", "substance", text, size=found.size, evidence=evidence, told=True)


def mode_departures(first: RunRecord, second: RunRecord) -> Iterator[Departure]:
    """Dropout and BatchNorm in another mode, or other layers of dropout."""
    models = [run.trained_model for run in (first, second)]
    if models[0] is not None and models[1] is not None and sorted(models[0].dropout) != sorted(models[1].dropout):
        layers = [", ".join(f"{p:g}" for p in m.dropout) or "none" for m in models if m is not None]
        text = f"dropout is another one: {layers[0]}, then {layers[1]}"
        yield Departure("mode", "forward", "substance", text, told=True)
    phases: tuple[Phase, ...] = ("train", "validation")
    precision = [_half(run) for run in (first, second)]
    if None not in precision and precision[0] != precision[1]:
        words_of = [f"{16 if half else 32} bits" for half in precision]
        yield Departure(
            "mode", "forward", "substance", f"the logits are numbers of {words_of[0]}, then of {words_of[1]}", told=True
        )
    for phase in phases:
        passes = [run.of_phase(phase) for run in (first, second)]
        for k, (a, b) in enumerate(zip(*passes, strict=False)):
            text = _modes(a, b)
            if text:
                quantity: Quantity = "mode" if phase == "train" else "val mode"
                words = f"in {WORDS[phase]} {text}"
                yield Departure(quantity, "forward", "substance", words, where=f"epoch {k + 1}", told=True)
                break


def _half(run: RunRecord) -> bool | None:
    """Whether the first logits of training are numbers of 16 bits; None where no fingerprint tells."""
    number = QUANTITIES.index("logits")
    training = {p.index for p in run.of_phase("train")}
    rows = (t.half[t.quantity == number] for t in run.traced if t.pass_index in training)
    return next((bool(half[0]) for half in rows if len(half)), None)


def _modes(a: Pass, b: Pass) -> str:
    if a.modes.batchnorm_layers and b.modes.batchnorm_layers:
        x, y = a.modes.batchnorm_training, b.modes.batchnorm_training
        if abs(x - y) > 0.01:
            return f"{x:.0%} of the BatchNorm layers use the batch's statistics, then {y:.0%}"
    if a.modes.dropout_layers and b.modes.dropout_layers:
        x, y = a.modes.dropout_training, b.modes.dropout_training
        if abs(x - y) > 0.01:
            return f"{x:.0%} of the dropout layers are at work, then {y:.0%}"
    return ""


def loss_departures(first: RunRecord, second: RunRecord) -> Iterator[Departure]:
    """Another loss: by its settings where it has the same name, by its gradient at the logits where it is written otherwise."""
    a, b = (next(iter(run.of_phase("train")), None) for run in (first, second))
    if a is None or b is None:
        return
    found, evidence = "", []
    if a.loss is not None and b.loss is not None:
        found = _loss_settings(a.loss, b.loss)
        if a.loss.name != b.loss.name:
            evidence.append(f"{a.loss.name}, then {b.loss.name}")
    if a.gradient is not None and b.gradient is not None:
        x, y = a.gradient, b.gradient
        evidence.append(f"cosine of its gradient to the mean cross-entropy's: {x.cosine:.4f}, then {y.cosine:.4f}")
        evidence.append(f"its length over that one's: {x.ratio:.4g}, then {y.ratio:.4g}")
        if not found and abs(x.cosine - y.cosine) > COSINE_APART:
            found = "its gradient at the logits has another direction"
        if not found and abs(np.log(max(x.ratio, 1e-12) / max(y.ratio, 1e-12))) > RATIO_APART:
            found = f"its gradient at the logits is {y.ratio / x.ratio:.3g} times as long"
    elif not found and (a.gradient is None or b.gradient is None):
        found = _value(a, b)
    if found:
        yield Departure("loss", "loss", "substance", f"the loss is another one: {found}", evidence=tuple(evidence), told=True)


def _loss_settings(a: LossStats, b: LossStats) -> str:
    if a.target_kind != b.target_kind and "unknown" not in (a.target_kind, b.target_kind):
        return f"targets are of the kind {a.target_kind}, then {b.target_kind}"
    if a.name != b.name:
        return ""
    if a.label_smoothing != b.label_smoothing:
        return f"label smoothing {a.label_smoothing:g}, then {b.label_smoothing:g}"
    if list(a.weights) != list(b.weights) or a.class_weights != b.class_weights:
        words = [", ".join(f"{w:.3g}" for w in s.weights[:8]) or "none" for s in (a, b)]
        return f"class weights {words[0]}, then {words[1]}"
    return ""


def _value(a: Pass, b: Pass) -> str:
    """The value that is back-propagated, in cross-entropies of its batch."""
    ratios = []
    for one in (a, b):
        sums = np.bincount(one.samples.batch, np.nan_to_num(one.samples.loss, nan=0.0), one.num_batches)
        if len(one.steps) != one.num_batches:
            return ""
        mean = sums / np.maximum(1, np.bincount(one.samples.batch, minlength=one.num_batches))
        ratio = one.steps.loss / np.maximum(mean, 1e-6)
        ratios.append(np.log(ratio[np.isfinite(ratio) & (ratio > 0)]))
    if min(len(r) for r in ratios) < CLIPPED_STEPS:
        return ""
    apart = float(np.median(ratios[1]) - np.median(ratios[0]))
    error = float(np.hypot(*(r.std() / np.sqrt(len(r)) for r in ratios)))
    if abs(apart) > max(VALUE_APART, SIGNS * error):
        times = [float(np.exp(np.median(r))) for r in ratios]
        return f"it is {times[0]:.3g} times the mean cross-entropy of its batch, then {times[1]:.3g} times"
    return ""


def gradient_departures(first: RunRecord, second: RunRecord) -> Iterator[Departure]:
    """Gradients that are gathered, left over or clipped otherwise."""
    a, b = (next(iter(run.of_phase("train")), None) for run in (first, second))
    if a is None or b is None or not len(a.steps) or not len(b.steps):
        return
    each = [int(np.median(p.steps.backwards)) for p in (a, b)]
    if each[0] != each[1]:
        yield _gradients(f"a step is made after {each[0]} backward passes, then after {each[1]}")
    stale = [float((p.steps.stale_gradients[p.steps.stale_gradients >= 0] == 1).mean() > 0.5) for p in (a, b)]
    known = [(p.steps.stale_gradients >= 0).any() for p in (a, b)]
    if all(known) and stale[0] != stale[1]:
        words = {0.0: "cleared", 1.0: "left over"}
        yield _gradients(f"gradients of the last step are {words[stale[0]]}, then {words[stale[1]]}")
    x, y = clipped_at(first), clipped_at(second)
    if x != y:
        words_of = [f"clipped to a norm of {c:.4g}" if c is not None else "not clipped" for c in (x, y)]
        beyond = _largest(second if y is None else first)  # one that never came so far says nothing
        if (x and y and abs(np.log(x / y)) > CLIPPED_ALIKE) or beyond > (1 + BEYOND) * (x or y or np.inf):
            yield _gradients(f"gradients are {words_of[0]}, then {words_of[1]}")


def _gradients(text: str) -> Departure:
    return Departure("gradients", "update", "substance", text, told=True)


def clipped_at(run: RunRecord) -> float | None:
    """The norm that gradients are clipped to: several sampled steps have just this one, and none a larger one."""
    norms = np.concatenate([p.steps.grad_norm for p in run.of_phase("train")] or [np.zeros(0)])
    norms = norms[np.isfinite(norms) & (norms > 0)]
    if not len(norms):
        return None
    top = float(norms.max())
    return top if int((norms >= top * (1 - CLIPPED_ALIKE)).sum()) >= CLIPPED_STEPS else None


def _largest(run: RunRecord) -> float:
    norms = np.concatenate([p.steps.grad_norm for p in run.of_phase("train")] or [np.zeros(0)])
    return float(np.nanmax(norms, initial=0.0))


def optimizer_departures(first: RunRecord, second: RunRecord) -> Iterator[Departure]:
    """Another optimizer, other settings, other layers that learn, or another course of the learning rate."""
    used = [_used(run) for run in (first, second)]
    if used[0] and used[1]:
        kinds = [sorted({o.kind for o in own}) for own in used]
        if kinds[0] != kinds[1]:
            text = f"the optimizer is another one: {', '.join(kinds[0])}, then {', '.join(kinds[1])}"
            yield Departure("optimizer", "update", "substance", text, told=True)
        elif (text := _options(*used)) != "":
            yield Departure("optimizer", "update", "substance", text, told=True)
    frozen = _learns(first, second)
    if frozen:
        yield Departure("optimizer", "update", "substance", frozen, told=True)
    yield from _rates(first, second)


def _used(run: RunRecord) -> list[OptimizerInfo]:
    stepped = {int(o) for p in run.of_phase("train") for o in p.steps.optimizer.tolist()}
    return [o for o in run.optimizers.values() if o.id in stepped]


def _options(a: list[OptimizerInfo], b: list[OptimizerInfo]) -> str:
    """In which options they differ; groups that share all options are one."""
    sets = [[_plain(g) for o in own for g in o.groups] for own in (a, b)]
    names = sorted({n for side in sets for g in side for n in g})
    for name in names:
        values = [sorted({str(g.get(name)) for g in side}) for side in sets]
        if all(any(name in g for g in side) for side in sets) and values[0] != values[1]:
            return f"the optimizer's {name} is {', '.join(values[0])}, then {', '.join(values[1])}"
    return ""


def _plain(group: Mapping[str, object]) -> dict[str, object]:
    return {k: float(v) if isinstance(v, (int, float)) else v for k, v in group.items() if k not in IGNORED}


def _learns(first: RunRecord, second: RunRecord) -> str:
    models = [run.trained_model for run in (first, second)]
    if models[0] is None or models[1] is None or len(models[0].numel) != len(models[1].numel):
        return ""
    learns = [m.requires_grad & m.in_optimizer & m.is_parameter for m in models if m is not None]
    other = learns[0] != learns[1]
    if not other.any() or (models[0].numel != models[1].numel).any():
        return ""
    counts = [int(m.numel[own].sum()) for m, own in zip(models, learns, strict=True) if m is not None]
    named = [models[0].tensor_names[i] for i in np.flatnonzero(other)[:3]]
    return (
        f"{counts[0]:,} parameters learn, then {counts[1]:,}: {', '.join(named)} and others"
        if len(named) == 3
        else (f"{counts[0]:,} parameters learn, then {counts[1]:,}: {', '.join(named)}")
    )


def _rates(first: RunRecord, second: RunRecord) -> Iterator[Departure]:
    """The learning rate by step, or by the share of an epoch where epochs have other numbers of steps."""
    passes = [run.of_phase("train") for run in (first, second)]
    # Without a schedule of torch's, or with one that looks at results, a later change may be the results' doing.
    by_results = any(not run.schedules or any(s.kind == PLATEAU for s in run.schedules) for run in (first, second))
    for k, (a, b) in enumerate(zip(*passes, strict=False)):
        rates = [_highest(p) for p in (a, b)]
        if not len(rates[0]) or not len(rates[1]):
            return
        n = min(len(r) for r in rates)
        same_length = len(rates[0]) == len(rates[1])
        x, y = (r[:n] for r in rates) if same_length else (r[:1] for r in rates)
        apart = np.abs(x - y) > RATE_APART * np.maximum(np.abs(x), np.abs(y))
        if apart.any():
            at = int(apart.argmax())
            text = f"the learning rate is {x[at]:.4g}, then {y[at]:.4g}"
            where = f"epoch {k + 1}, step {at + 1}" if k or at else ""
            yield Departure("rate", "update", "substance", text, where, a.index, at, told=not (k and by_results))
            return


def _highest(one: Pass) -> FloatArray:
    """(S,) the highest rate of any group at each step, (S', ) of those where one is known."""
    rates = one.steps.learning_rate.astype(np.float64)
    if not rates.size:
        return np.zeros(0)
    known = np.isfinite(rates).any(1)
    return np.asarray(np.nanmax(rates[known], axis=1)) if known.any() else np.zeros(0)
