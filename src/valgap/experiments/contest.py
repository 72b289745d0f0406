"""Verdicts under way: seeds go to the suspect whose verdict is open and likeliest to be had for the time that a seed takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from valgap.experiments.arm_result import ArmResult
from valgap.experiments.halved import as_cost, is_halved
from valgap.experiments.halved import told as told_of_half
from valgap.experiments.lab import LEAST_SEEDS, OUT_OF_TIME, Group, Lab
from valgap.experiments.placebo import has_placebo
from valgap.experiments.scoring import without
from valgap.experiments.seen_again import is_seen_again, seen_again
from valgap.experiments.sequential import Spread
from valgap.experiments.suspects import Suspect
from valgap.experiments.verdicts import (
    MEANINGFUL_NATS,
    Judgement,
    beats_placebo,
    compared,
    effect_of,
    judge_effect,
    measure,
)
from valgap.types import Effect, Judged, RestsOn, Verdict

# The first look at a treatment. Two seeds leave one degree of freedom, with which next to nothing can be said, and would use
# up half of the level: in simulations the same effects take more arms then.
FIRST_SEEDS = 3
# More seeds than these tell nothing more that anybody would wait for.
MOST_SEEDS = 32
# The seeds at each look: every look uses up a part of the level, so that later ones are spaced.
LOOKS = (3, 4, 6, 8, 12, 16, 24, MOST_SEEDS)


class Contest:
    """One suspect against the control: what is known of it, whether it is open, and what another seed would bring.

    Args:
        tried: how many causes chance is corrected for.
    """

    def __init__(self, lab: Lab, suspect: Suspect, tried: int) -> None:
        self.lab, self.suspect, self.tried = lab, suspect, tried
        self.judged = suspect.judged
        self.look = 0
        self.seeds = 0  # of the last look
        self.done = False  # no seed would change the verdict
        self._spreads: tuple[Spread, Spread | None] | None = None
        self._best = (1.0, 1.0)  # the smallest p-values so far, of points and nats: each of them holds
        self._samples = 0
        self._no_better = False  # as many samples at random do as much

    @property
    def open(self) -> bool:
        """Whether more seeds may give another verdict."""
        return not self.done and self.seeds < MOST_SEEDS

    @property
    def first(self) -> int:
        """The seeds of the first look."""
        return self.lab.seeds if self.lab.base.weights else FIRST_SEEDS

    def wanted(self, seeds: int) -> list[Group]:
        """The arms that a look at so many seeds needs."""
        treated = Group((self.suspect.treatment,), short=self.short)
        own = [Group()] if self.lab.from_control(self.suspect.treatment) else [Group(), treated]
        if self.judged.verdict == "confirmed" or self._waits_for_placebo:
            own += [replace(treated, placebo=True)] if has_placebo(self.suspect.treatment) else []
        return [replace(g, seeds=seeds) for g in own]

    @property
    def short(self) -> bool:
        """Whether its arms have no more epochs than show what shows early, and the control has more."""
        return self.lab.short((self.suspect.treatment,))

    @property
    def _waits_for_placebo(self) -> bool:
        return self.judged.points_verdict == "confirmed" or self.judged.nats_verdict == "confirmed"

    def look_again(self, seeds: int) -> None:
        """Judge by the arms of these seeds that have finished."""
        lab, suspect = self.lab, self.suspect
        if suspect.treatment.name == "score_without":
            self._without()
            return
        control = _finished(lab.arms((), max(seeds, lab.seeds)))
        if is_seen_again(suspect.treatment):
            self._seen_again(control)
            return
        if not self.look:
            gone = lab.symptom_gone(suspect, control)
            if gone is not None:
                self._close(gone)
                return
        before, arms = lab.treated(suspect.treatment, control, seeds, self.short)
        before, treated = _finished(before), _finished(arms)
        if not before:
            self._close("the re-runs of the unchanged program hold nothing to compare with")
            return
        broken = next((a.error for a in arms if a.error is not None), None)
        if broken is not None and (not broken.startswith(OUT_OF_TIME) or len(treated) < min(LEAST_SEEDS, len(arms))):
            self._close(f"the treated program could not be run: {broken}")
            return
        if any(a.spec.interventions and not any(a.acted[: len(a.spec.interventions)]) for a in treated):
            self._close(f"{suspect.treatment.name} found nothing to act on in this program")
            return
        if self.look and len(treated) <= self.seeds:
            self.done = True  # the time is over
            return
        found = compared(before, treated[: len(before)])
        if found is None:
            self._close("the arms saw no common validation samples")
            return
        self.look += 1
        self.seeds, self._samples = found.right[1].shape
        self._spreads = found.spreads()
        effect = self._with_best(measure(found, self.tried, self.look))
        effect = replace(effect, trained=lab.trained((suspect.treatment,)))
        told = judge_effect(effect, suspect.expected)
        verdict, reason = told.verdict, told.reason
        if suspect.by_stage:
            verdict, reason = _of_stage(verdict, reason)
        if is_halved(suspect.treatment):
            reason = told_of_half(reason)
        if verdict == "confirmed" and has_placebo(suspect.treatment):
            verdict, reason = self._against_placebo(effect, reason, treated)
        self._settle(effect, told, verdict, reason)
        self.done = lab.alike or self._no_better or self._needed() == 0

    @property
    def to_come(self) -> list[int]:
        """The seeds of the looks that may follow."""
        return [n for n in LOOKS if n > self.seeds]

    def gain_per_second(self) -> float:
        """Verdicts to be expected for each second of arms, were all further seeds this suspect's."""
        needed = self._needed()
        if not needed:
            return 0.0
        lab = self.lab
        arms = sum(map(lab.weight, lab.missing(self.wanted(self.seeds + 1)))) or 1.0
        return 1.0 / (needed * arms * max(lab.runner.expected_s, 1e-3))

    def more_s(self) -> float | None:
        """Seconds of re-runs that would decide it, as things stand; None where it is decided, or no seeds are likely to."""
        if self._spreads is None:
            return self._seconds_to(self.first) if OUT_OF_TIME in self.judged.reason else None
        if not self._needed():
            return None
        # Half of the time it was lucky so far: seeds are counted as for an effect that is smaller by its own error.
        careful = _smaller(self._spreads[0]), _smaller(self._spreads[1]) if self._spreads[1] is not None else None
        needed = self._seeds_to_an_end(*careful)
        return self._seconds_to(self.seeds + needed) if needed else None

    def _seconds_to(self, seeds: int) -> float:
        return self.lab.seconds(self.lab.unfinished(self.wanted(seeds)))

    def _needed(self) -> int:
        """How many more seeds give a verdict, as things stand; 0 where there is one, or where none would give it."""
        if self._spreads is None or self._final(self.judged):
            return 0
        needed = self._seeds_to_an_end(*self._spreads)
        if needed:
            return needed
        # Its luck so far may have been bad, or too good: moved by what the seeds leave open, would endless seeds decide?
        for toward in (1.0, -1.0):
            moved = [_moved(s, toward) if s is not None else None for s in self._spreads]
            assert moved[0] is not None
            if self._ends(moved[0], moved[1], 0, 0):
                return 2 * MOST_SEEDS
        return 0

    def _seeds_to_an_end(self, points: Spread, nats: Spread | None) -> int:
        """How many more seeds give a verdict, where effects stay as these are; 0 where that many are too many."""
        for looks, seeds in enumerate(self.to_come, 1):
            more = seeds - self.seeds
            then = points.after(more, self.seeds), nats.after(more, self.seeds) if nats is not None else None
            if self._ends(*then, more, looks):
                return more
        return 0

    def _ends(self, points: Spread, nats: Spread | None, more: int, looks: int) -> bool:
        effect = effect_of(points, nats, self.tried, self.look + looks, self.seeds + more, self._samples)
        told = judge_effect(effect, self.suspect.expected)
        nats_best = max(effect.nats.low * self.suspect.expected, effect.nats.high * self.suspect.expected) if effect.nats else 0.0
        return told.verdict == "confirmed" or (told.verdict == "refuted" and nats_best < MEANINGFUL_NATS)

    @staticmethod
    def _final(judged: Judged) -> bool:
        ruled_out = judged.points_verdict == "refuted" and judged.nats_verdict in (None, "refuted")
        return judged.verdict == "confirmed" or ruled_out

    def _with_best(self, effect: Effect) -> Effect:
        """With the smallest p-values of all looks: each look has its own share of the level."""
        by_loss = effect.nats_p_value if effect.nats_p_value is not None else 1.0
        self._best = (min(self._best[0], effect.p_value), min(self._best[1], by_loss))
        return replace(effect, p_value=self._best[0], nats_p_value=self._best[1] if effect.nats_p_value is not None else None)

    def _against_placebo(self, effect: Effect, reason: str, treated: Sequence[ArmResult]) -> tuple[Verdict, str]:
        lab, suspect = self.lab, self.suspect
        at_random = _finished(lab.arms((suspect.treatment,), len(treated), placebo=True, short=self.short))
        found = compared(at_random, treated[: len(at_random)]) if len(at_random) >= LEAST_SEEDS else None
        if found is None:
            return "inconclusive", f"{reason}; as many samples at random could not be tried"
        against = measure(found, self.tried, self.look)
        self._no_better = judge_effect(against, suspect.expected).verdict == "refuted"
        verdict, told = beats_placebo(against, effect, suspect.expected)
        return verdict, f"{reason}; {told}"

    def _without(self) -> None:
        lab, suspect = self.lab, self.suspect
        found = without(lab.control(), lab.names(suspect.treatment), self.tried)
        if found is None:
            self._close("leaving them out leaves nothing to compare")
            return
        effect, at_random = found
        told = judge_effect(effect, suspect.expected)
        self._settle(effect, told, told.verdict, f"{told.reason}; placebo {at_random:+.1f}")
        self.done = True

    def _seen_again(self, control: Sequence[ArmResult]) -> None:
        lab, check = self.lab, self.suspect.judged.check
        stages = [lab.compare(a.record) if lab.compare is not None and a.record is not None else None for a in control]
        verdict, effect, reason = seen_again(check, control, stages)
        rests_on: RestsOn = "accuracy" if verdict == "confirmed" else ""
        self.judged = replace(
            self.suspect.judged, verdict=verdict, effect=effect, reason=reason, rests_on=rests_on, points_verdict=verdict
        )
        self.done = True

    def _settle(self, effect: Effect, told: Judgement, verdict: Verdict, reason: str) -> None:
        if is_halved(self.suspect.treatment):
            effect = as_cost(effect)
        self.judged = replace(
            self.suspect.judged,
            verdict=verdict,
            effect=effect,
            reason=reason,
            rests_on=told.rests_on if verdict == "confirmed" else "",
            points_verdict=told.points,
            nats_verdict=told.nats,
        )

    def _close(self, reason: str) -> None:
        self.judged = replace(self.suspect.judged, verdict="inconclusive", reason=reason)
        self.done = True


def _of_stage(verdict: Verdict, reason: str) -> tuple[Verdict, str]:
    """Of a cause that no change removes by itself: the plain way in its stage's place may leave the cause where it is."""
    told = f"with the plain way in the place of its whole stage: {reason}"
    return ("inconclusive" if verdict == "refuted" else verdict), told


def of_first_looks(contests: Sequence[Contest]) -> list[Group]:
    """The arms that a first look at each of them needs."""
    return [g for c in contests for g in c.wanted(c.first)]


def first_looks(lab: Lab, contests: Sequence[Contest]) -> None:
    """Look at all of them once, the likeliest first."""
    lab.prepare(of_first_looks(contests))
    for contest in contests:
        contest.look_again(contest.first)


def decide(lab: Lab, contests: Sequence[Contest], kept_s: float = 0.0) -> None:
    """Give seeds to open contests while there is time for them, ``kept_s`` seconds left for what comes after."""
    while True:
        waiting = sorted((c for c in contests if c.open), key=lambda c: -c.gain_per_second())
        picked: dict[Contest, int] = {}
        for contest in waiting:
            more = {**picked, contest: contest.to_come[0]}
            if picked and len(lab.missing(_groups(more))) > lab.runner.parallel:
                break
            picked = more
        fitting = picked if picked and _fits(lab, picked, kept_s) else _fewer(lab, waiting[:1], kept_s)
        if not fitting:
            return
        lab.prepare(_groups(fitting))
        for contest, seeds in fitting.items():
            contest.look_again(seeds)


def _groups(looks: Mapping[Contest, int]) -> list[Group]:
    return [group for contest, seeds in looks.items() for group in contest.wanted(seeds)]


def _fits(lab: Lab, looks: Mapping[Contest, int], kept_s: float) -> bool:
    return lab.time_for(lab.missing(_groups(looks)), kept_s)


def _fewer(lab: Lab, contests: Sequence[Contest], kept_s: float) -> dict[Contest, int]:
    """The first contest with as many seeds as there is time for, where there is none for those of its next look."""
    for contest in contests:
        for seeds in range(contest.to_come[0] - 1, contest.seeds, -1):
            if _fits(lab, {contest: seeds}, kept_s):
                return {contest: seeds}
    return {}


def _finished(arms: Sequence[ArmResult]) -> list[ArmResult]:
    """Those of the first seeds on, up to one that failed."""
    return list(itertools.takewhile(lambda arm: arm.error is None, arms))


def _smaller(given: Spread) -> Spread:
    """With an effect that is smaller by the standard error that seeds leave it."""
    error = math.sqrt(min((v for v, _ in given.seeds), default=0.0))
    return replace(given, value=math.copysign(max(0.0, abs(given.value) - error), given.value))


def _moved(given: Spread, toward: float) -> Spread:
    """As if endless seeds had moved the effect by what these leave open, and no more."""
    still = replace(given, seeds=())
    left_open = math.sqrt(max(0.0, given.half_width(0.05) ** 2 - still.half_width(0.05) ** 2))
    return replace(still, value=given.value + toward * left_open)
