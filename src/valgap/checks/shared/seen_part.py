"""How much of a run was seen: whole walks over the data, and whether it ended before its own plan. No check; many use it.

A trial run of a long recipe is no fault. What rests on few steps, few batches or an unfinished schedule is not judged.
"""

from __future__ import annotations

import math
import re

import numpy as np

from valgap.types import FloatArray, IntArray, Pass, RunRecord, ScheduleState

# A walk is whole when it saw this share of its data set (an incomplete last batch may be dropped).
WHOLE = 0.9
# Momentum .9 takes some 3 / (1 - .9) steps to build up; before, neither a loss that rises nor one that stays says much.
SETTLED_STEPS = 30
# Nobody plans so many epochs: a longer schedule counts batches.
MOST_EPOCHS = 1_000
EPOCH_FLAGS = ("--epochs", "--num-epochs", "--num_epochs", "--max-epochs", "--max_epochs", "--n-epochs", "--n_epochs", "-e")
# "Epoch 3/50"; and what a call names that goes on with an earlier training.
PROGRESS = re.compile(r"\bep(?:och)?s?\b\W{0,3}(\d+)\s*(?:/|of)\s*(\d+)", re.IGNORECASE)
RESUMED = re.compile(r"resume|checkpoint|ckpt", re.IGNORECASE)
LENGTHS = ("T_max", "T_0", "total_steps", "total_iters", "step_size")


def optimizer_steps(run: RunRecord) -> int:
    """Steps of all optimizers in all training passes."""
    return sum(p.optimizer_steps for p in run.of_phase("train"))


def few_steps(run: RunRecord, least: int) -> str | None:
    """What is missing, in words, where fewer optimizer steps were seen."""
    steps = optimizer_steps(run)
    if run.shortened is not None and not run.running:
        return f"a whole training: this one was cut short after {steps} optimizer steps"
    return None if steps >= least else f"more steps: only {steps} optimizer steps were seen; at least {least} are needed to tell"


def is_whole(run: RunRecord, one: Pass) -> bool:
    """Whether the pass walked over (nearly) its whole data set; unknown sizes count by whether the loader ran to its end."""
    info = run.datasets.get(one.dataset)
    if info is None or info.size <= 0:
        return one.complete
    return len(one.samples) >= WHOLE * info.size or (one.complete and _drops_or_draws(run, one))


def _drops_or_draws(run: RunRecord, one: Pass) -> bool:
    """Whether the loader itself leaves samples out: an incomplete last batch, or a sampler of its own."""
    loader = run.loaders.get(one.loader)
    return loader is not None and (loader.drop_last or loader.shuffled is None)


def part_seen(run: RunRecord, one: Pass) -> str:
    """How many images of its data set a pass saw, in words."""
    info = run.datasets.get(one.dataset)
    of = f" of {info.size:,}" if info is not None and info.size > len(one.samples) else ""
    return f"{len(one.samples):,}{of} images"


def labels_of(run: RunRecord, *passes: Pass) -> list[IntArray] | None:
    """Labels of the whole data set of each pass: as seen in whole walks, else as declared; None where a side is known in part.

    All from one source: what a data set declares may be numbered otherwise than what its loader hands out.
    """
    if all(is_whole(run, p) for p in passes):
        return [p.samples.target[p.samples.labelled] for p in passes]
    infos = [run.datasets.get(p.dataset) for p in passes]
    declared = [i.targets for i in infos if i is not None and i.targets is not None]
    return [t[t >= 0] for t in declared] if len(declared) == len(passes) else None


def unseen(run: RunRecord, *passes: Pass) -> str:
    """What is missing, in words, where a data set was walked over in part."""
    parts = [f"{p.phase} saw {part_seen(run, p)}" for p in passes if not is_whole(run, p)]
    return f"labels of the whole data sets: {', '.join(parts)}"


def not_seen(run: RunRecord) -> tuple[str, ...]:
    """What is missing, in words, of a training and a validation of one model that were seen whole; empty if nothing is."""
    train, val = run.last_train, run.last_validation
    found = []
    if train is None:
        found.append("no training was seen")
    elif not is_whole(run, train):
        found.append(f"training was seen on {part_seen(run, train)}")
    if val is None or not val.samples.labelled.any():
        found.append("no validation with labels was seen")
    elif not is_whole(run, val):
        found.append(f"validation was seen on {part_seen(run, val)}")
    if train is not None and val is not None and not same_network(run, train, val):
        found.append("what was validated is another model than what was trained")
    if train is not None and optimizer_steps(run) < SETTLED_STEPS:
        found.append(f"{optimizer_steps(run)} optimizer steps were seen")
    return tuple(found)


def same_network(run: RunRecord, train: Pass, val: Pass) -> bool:
    """Whether both passes were of one model, or the second of a copy of it (an average)."""
    first, second = run.models.get(train.model), run.models.get(val.model)
    if train.model == val.model or first is None or second is None:
        return True
    sizes = [sorted(m.numel[m.is_parameter].tolist()) for m in (first, second)]
    return sizes[0] == sizes[1]


# -- the plan ---------------------------------------------------------------------------------


def highest_rates(run: RunRecord) -> FloatArray:
    """(S,) the highest learning rate of each optimizer step, in order."""
    found = [np.nanmax(p.steps.learning_rate, axis=1) for p in run.of_phase("train") if p.steps.learning_rate.size]
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def still_rises(run: RunRecord) -> bool:
    """Whether the learning rate was at its highest at the end, and had risen: a warm-up that goes on."""
    rates = highest_rates(run)
    rates = rates[np.isfinite(rates)]
    if not len(rates) or rates.max() <= 0:
        return bool(len(rates)) and any(s.kind in ("LinearLR", "ConstantLR", "LambdaLR", "OneCycleLR") for s in run.schedules)
    last = {s.optimizer: s for s in run.schedules if s.kind in ("LinearLR", "ConstantLR", "OneCycleLR")}
    warming = any(0 <= s.steps < 0.3 * (length_of(s) or 0) for s in last.values())
    return bool(rates[-1] >= 0.999 * rates.max() and (rates.max() > 1.001 * rates.min() or warming))


def length_of(state: ScheduleState) -> int | None:
    """The number of schedule steps that it was made for; None where it does not say."""
    for name in LENGTHS:
        value = state.settings.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            return int(value)
    milestones = state.settings.get("milestones")
    if isinstance(milestones, (list, tuple, dict)) and milestones:
        return int(max(float(m) for m in milestones))
    return None


def last_states(run: RunRecord) -> list[ScheduleState]:
    """Where each schedule stood last."""
    return list({(s.optimizer, s.kind): s for s in run.schedules}.values())


def unfinished(run: RunRecord) -> str | None:
    """Why the run was seen to end before its own plan, in words; None where nothing shows that."""
    trained = run.of_phase("train")
    if not trained:
        return None
    last = trained[-1]
    if run.shortened is not None:
        return "it goes on" if run.running else "it was cut short on purpose"
    if not is_whole(run, last) and not last.complete:
        return f"the last training pass broke off after {part_seen(run, last)}"
    if run.stopped is not None:
        return "the record is not whole"
    for state in last_states(run):
        length = length_of(state)
        if length is not None and 0 <= state.steps < length - 1 and math.isfinite(length):
            return f"{state.kind} was made for {length} steps and had made {state.steps}"
    if still_rises(run):
        return "the learning rate still rises at the end"
    return None


def trained(run: RunRecord) -> list[Pass]:
    """The training passes of the model that was trained last."""
    passes = run.of_phase("train")
    return [p for p in passes if p.model == passes[-1].model]


def given_epochs(run: RunRecord) -> tuple[int, str] | None:
    """(how many epochs the training was given, where that is known from); None where nothing says it."""
    passes = trained(run) if run.of_phase("train") else []
    if not passes:
        return None
    if len(passes) > 1 and len(passes[-1].loops) == len(passes[-2].loops):
        for (turn, turns), (before, _) in zip(passes[-1].loops, passes[-2].loops, strict=True):
            if turn == before + 1:
                # Where the loop did not begin at its first turn (a training that goes on), what is left is what counts.
                return len(passes) + turns - 1 - turn, "the loop over epochs"
    counted = [turns for turn, turns in passes[0].loops if turns > 1 and turn == 0]
    if len(passes) == len(counted) == 1:
        return counted[0], "the loop over epochs"
    for number in reversed(run.printed):
        told = PROGRESS.search(number.line)
        if told is not None:
            # Some count from 0: the last of 50 is then told as 49.
            return len(passes) + max(0, int(told[2]) - int(told[1]) - 1), "its printed progress"
    argument = epochs_argument(run)
    argv = run.header.get("argv")
    if argument is None or (isinstance(argv, list) and any(RESUMED.search(str(a)) for a in argv)):
        return None
    return argument[2], f"its argument {argument[1]}"


def epochs_argument(run: RunRecord) -> tuple[int, str, int] | None:
    """(place in argv, the argument, its number): ``--epochs 3``, ``--epochs=3`` or ``epochs=3``."""
    argv = run.header.get("argv")
    if not isinstance(argv, list):
        return None
    for place, text in enumerate(map(str, argv)):
        name, equals, value = text.partition("=")
        if name in (*EPOCH_FLAGS, "epochs") and equals and value.isdigit():
            return place, text, int(value)
        if text in EPOCH_FLAGS and place + 1 < len(argv) and str(argv[place + 1]).isdigit():
            return place + 1, str(argv[place + 1]), int(argv[place + 1])
    return None
