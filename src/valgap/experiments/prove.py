"""From suspects to verdicts: control, one treatment per suspect, joint treatments of what was confirmed, the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from valgap.experiments.arm import WEIGHTS_FILE, ArmSpec
from valgap.experiments.forks import EARLY
from valgap.experiments.lab import Compare, Lab
from valgap.experiments.ledger import account
from valgap.experiments.plan import (
    LEAST_REST_S,
    SEEDS,
    Length,
    arm_memory,
    arms_in_parallel,
    can_stop_early,
    choose_length,
    epoch_seconds,
    least_budget,
    recorded_epochs,
    rest_of_fork,
)
from valgap.experiments.runner import PATIENCE, PATIENCE_S, Limits, Runner
from valgap.experiments.scoring import PLAIN, is_evaluation, is_rescore
from valgap.experiments.suspects import (
    NotRepeatableError,
    Suspect,
    base_spec,
    fit,
    like_before,
    number_of_arms,
    sort_out,
)
from valgap.experiments.trial import Trial, merged
from valgap.types import (
    Diagnosis,
    Intervention,
    Judged,
    Proposal,
    RunRecord,
)

# A machine that is busy with other things slows arms down; those that run at the end of the budget may finish.
GRACE = 0.05
# Scoring recorded weights again costs next to nothing, but one training's luck is in every figure: a planted fault whose
# removal gives 62 % from the recorded weights gives 68 to 77 % from those of five other seeds (benchmarks/ledger.py).
EASY = 0.5

DECIDED = ("confirmed", "refuted")

Progress = Callable[[int, int, float], None]


def prove(diagnosis: Diagnosis, budget_s: float, progress: Progress | None = None, compare: Compare | None = None) -> Diagnosis:
    """The diagnosis with verdicts and ledger, from re-runs of the recorded program within ``budget_s`` seconds.

    ``compare`` holds the stages of a record against their references; None: what needs that is not tried. Arms live in
    ``RUN/experiments``; finished ones are used again by a later call. Ctrl-C leaves them there.
    """
    begun = time.monotonic()
    run = diagnosis.run
    suspects, settled = sort_out(diagnosis, compare(run) if compare is not None else None)
    # Without a suspect, the stages are tried: that needs whole arms, of the program as it is and with all references.
    screening = not suspects and compare is not None and choose_length(run, 2 * SEEDS, budget_s, LEAST_REST_S)
    if not suspects and not (screening and screening.whole()):
        return replace(diagnosis, judged=merged(diagnosis, settled), ledger=account(diagnosis, _Nothing(), ()).lines)
    try:
        base = base_spec(run, [s.treatment for s in suspects])
    except NotRepeatableError as why:
        settled += [replace(s.judged, verdict="inconclusive", reason=str(why)) for s in suspects]
        return replace(diagnosis, judged=merged(diagnosis, settled))
    gpus = run.header.get("gpus")
    runner = Runner(
        Path(run.path) / "experiments",
        arms_in_parallel(run),
        begun + budget_s,
        progress,
        GRACE * budget_s,
        Limits(PATIENCE_S + PATIENCE * run.seconds, arm_memory(run)),
        gpus if isinstance(gpus, int) else 0,
        number_of_arms(suspects) if suspects else 2 * SEEDS,
        epoch_seconds(run)[0],
        warm=True,
        like=run,
    )
    try:
        return _tried(diagnosis, base, runner, suspects, settled, compare, begun)
    finally:
        runner.close()
        runner.forget_features()


def _tried(
    diagnosis: Diagnosis,
    base: ArmSpec,
    runner: Runner,
    suspects: Sequence[Suspect],
    settled: Sequence[Judged],
    compare: Compare | None,
    begun: float,
) -> Diagnosis:
    """What re-runs say of the suspects, or of the stages where there is none."""
    run = diagnosis.run
    # What all arms share is paid first: how long they can be depends on it.
    own = [replace(base, interventions=[s.treatment]) for s in suspects if s.treatment.name in EARLY]
    waited = runner.warmed_up(base, own)
    rest = rest_of_fork(run, waited) if waited is not None else None
    budget_s = max(1.0, runner.deadline - time.monotonic())
    if suspects:
        chosen, length, left_out = fit(run, suspects, budget_s, rest)
    else:
        chosen, length, left_out = [], choose_length(run, 2 * SEEDS, budget_s, rest), []
        if length is None or not length.whole():
            return replace(diagnosis, judged=merged(diagnosis, settled), ledger=account(diagnosis, _Nothing(), ()).lines)
    if length is not None:
        runner.plan(number_of_arms(chosen) if chosen else 2 * SEEDS, length.seconds)
    easy = trains_easily(run, chosen, budget_s, rest)
    # Beside causes that need training, those that need none are decided first, unless all of it is cheap.
    beside = any(not is_evaluation(s.treatment) for s in chosen)
    quick = _without_training(diagnosis, base, runner, suspects, compare) if not (beside and easy) else None
    scored = None
    if quick is not None:
        told = {s.judged.check.code for s in quick.chosen}
        quick.screens = length is None or not (easy or beside)
        quick.settled = [*settled, *(j for j in left_out if j.check.code not in told)]
        scored = quick.run(diagnosis, begun)
    if length is None or (scored is not None and not easy and not beside):
        judged = scored or replace(diagnosis, judged=merged(diagnosis, [*settled, *left_out]))
        return _with_left_out(judged, left_out, lambda late: least_budget(run, 2 * SEEDS, rest, late) - budget_s)
    length = like_before(runner.folder, base, length, recorded_epochs(run), any(s.late for s in chosen))
    rescores = [s.treatment for s in chosen if is_rescore(s.treatment)]
    lab = Lab(run, base, length, runner, rescores, compare, [s.treatment for s in chosen if s.early])
    trained = Trial(lab, chosen, [*settled, *left_out]).run(diagnosis, begun)
    # On a machine that is busier now than it was, arms may not end in time: then the recorded weights have the word.
    judged = trained
    if scored is not None:
        judged = _with_decided(trained, scored) if beside else max(trained, scored, key=_measured)
    one_more = SEEDS * length.seconds / runner.parallel
    whole = least_budget(run, 2 * SEEDS, rest, late=True) - budget_s
    return _with_left_out(judged, left_out, lambda late: max(one_more, whole) if late else one_more)


def _with_left_out(diagnosis: Diagnosis, left_out: Sequence[Judged], seconds: Callable[[bool], float]) -> Diagnosis:
    """The diagnosis, which proposes more time for what the budget left out and nothing else has judged.

    ``seconds``: so much of it, by whether a cause takes a whole training to show.
    """
    open_now = {j.check.code for j in diagnosis.findings if j.verdict == "untested"}
    left = [j.check for j in left_out if j.check.code in open_now]
    more = [Proposal(c.code, round(max(1.0, seconds(bool(c.whole_training))), 1)) for c in left]
    return replace(diagnosis, proposals=tuple(sorted((*diagnosis.proposals, *more), key=lambda p: p.seconds)))


def trains_easily(run: RunRecord, chosen: Sequence[Suspect], budget_s: float, start_s: float | None = None) -> bool:
    """Whether whole arms in all seeds take a small part of the budget: then effects hold beyond the one recorded training."""
    length = choose_length(run, number_of_arms(chosen), EASY * budget_s, start_s) if chosen else None
    return length is not None and length.whole()


def _with_decided(trained: Diagnosis, scored: Diagnosis) -> Diagnosis:
    """What whole arms say; of causes that they leave open, what the recorded weights say."""
    known = {j.check.code: j for j in scored.judged if j.verdict in DECIDED}
    taken = {j.check.code: known[j.check.code] for j in trained.judged if j.verdict not in DECIDED and j.check.code in known}
    if not taken or trained.experiments is None:
        return trained
    names = ", ".join(j.check.name for j in taken.values())
    notes = (*trained.experiments.notes, f"{names}: decided on the recorded weights, of the one recorded training")
    only = not any(j.verdict == "confirmed" and j.effect is not None for j in trained.judged)
    return replace(
        trained,
        judged=tuple(taken.get(j.check.code, j) for j in trained.judged),
        ledger=scored.ledger if only else trained.ledger,
        shares=scored.shares if only else trained.shares,
        proposals=tuple(p for p in trained.proposals if p.code not in taken),
        experiments=replace(trained.experiments, notes=notes),
    )


def _measured(diagnosis: Diagnosis) -> int:
    """How many causes have an effect."""
    return sum(j.effect is not None for j in diagnosis.judged)


def _without_training(
    diagnosis: Diagnosis,
    base: ArmSpec,
    runner: Runner,
    suspects: Sequence[Suspect],
    compare: Compare | None,
) -> Trial | None:
    """The trial that scores the recorded weights again, which takes seconds, of the causes that need no training.

    None where there are none, or the weights do not repeat the record.
    """
    weights = Path(diagnosis.run.path).resolve() / WEIGHTS_FILE
    evaluated = [s for s in suspects if is_evaluation(s.treatment)]
    if not evaluated or not weights.is_file():
        return None
    seconds = epoch_seconds(diagnosis.run)[0]
    # The first validation is that of the recorded weights already; where a program validates otherwise at first, its last one.
    plain = [s.treatment for s in evaluated if s.treatment == PLAIN]
    for epochs in (1, 0) if can_stop_early(diagnosis.run) else (0,):
        lab = Lab(diagnosis.run, replace(base, weights=str(weights)), Length(epochs, 1.0, seconds), runner, plain, compare)
        if lab.fidelity(lab.control())[0] is None:
            return Trial(lab, evaluated, [])
    return None


class _Nothing:
    """No experiment: the ledger then holds what the record alone says."""

    def answers(self, treatments: Sequence[Intervention], among: Sequence[Intervention] = ()) -> None:
        return None
