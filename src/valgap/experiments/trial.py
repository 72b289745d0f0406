"""One control, and the suspects that are judged against it: from first looks to the account."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from valgap.experiments.arm_result import ArmResult
from valgap.experiments.contest import Contest, decide, first_looks, of_first_looks
from valgap.experiments.course import course
from valgap.experiments.halved import is_halved
from valgap.experiments.joint import Confirmed
from valgap.experiments.lab import Group, Lab
from valgap.experiments.ledger import account
from valgap.experiments.plan import recorded_epochs
from valgap.experiments.scoring import is_rescore, is_score, misleads_probe
from valgap.experiments.screening import hints, in_place, references, screen
from valgap.experiments.seen_again import is_seen_again
from valgap.experiments.suspects import Suspect
from valgap.experiments.verdicts import compared, judge_effect, measure
from valgap.types import (
    STAGE_WORDS,
    Clear,
    Diagnosis,
    Effect,
    Experiments,
    Finding,
    Intervention,
    Judged,
    Proposal,
    Stage,
    StageShare,
)

# So many undecided causes are removed together, to see each without the others.
MOST_TOGETHER = 4
# What no other cause can hide.
UNHIDDEN = ("score_without", "see_again", "draw_half")
# Sets of confirmed causes that time is kept for, to be removed together.
MOST_JOINT = 8
# The checks that tell a stage, for faults without a name.
UNNAMED = "STG"
PROVED = 0.95


@dataclass
class Trial:
    """One control and the suspects that are judged against it."""

    lab: Lab
    chosen: Sequence[Suspect]
    settled: list[Judged]
    screens: bool = True  # whether stages that nobody suspects are tried as well

    def run(self, diagnosis: Diagnosis, begun: float) -> Diagnosis:
        """Every suspect's verdict, then the joint account."""
        lab = self.lab
        lab.reads_controls = any(is_seen_again(s.treatment) for s in self.chosen)
        contests = [Contest(lab, s, len(self.chosen)) for s in self.chosen]
        # Beside the control, but for what a control arm may tell by itself.
        beside = of_first_looks([c for c in contests if c.suspect.treatment not in lab.rescores])
        lab.prepare([Group(seeds=lab.seeds), *beside])
        control = lab.control()
        problem, fidelity, reproduced = lab.fidelity(control)
        contests = contests if problem is None else []
        if problem is not None:
            self.settled += [replace(s.judged, verdict="inconclusive", reason=problem) for s in self.chosen]
        self._tell_short([c for c in contests if c.short])
        first_looks(lab, contests)
        decide(lab, contests, self._kept_s(contests))
        self.settled += [c.judged for c in contests]
        confirmed = self.second_look(_confirmed(contests))
        causes = _in_order(confirmed)
        found = account(diagnosis, lab, causes)  # first, so that its joint re-runs come before those of the screening
        late = self._decided_late(contests)
        proposals = self.proposals(contests)
        lengthened = self._lengthened([*confirmed, *late], control)
        if late or lengthened:
            confirmed = lengthened or [*confirmed, *late]
            causes = _in_order(confirmed)
            found = account(diagnosis, lab, causes)
        if problem is None and self.screens:
            more, screened = self.unsuspected(diagnosis, causes)
            if more or screened:
                found = account(diagnosis, lab, [*causes, *more], screened)
        if any(misleads_probe(s.treatment) for s, _ in confirmed):
            lab.notes.append("how much is left to gain is not known: the probe saw validation under the same fault")
        self._tell_courses(control, causes)
        facts = self.facts(control, fidelity, reproduced, begun)
        return replace(
            diagnosis,
            judged=merged(diagnosis, self.settled),
            ledger=found.lines,
            shares=found.shares,
            experiments=facts,
            proposals=proposals,
        )

    def _tell_short(self, contests: Sequence[Contest]) -> None:
        """Whose arms end before the control does."""
        if contests:
            names, lab = ", ".join(c.judged.check.name for c in contests), self.lab
            ends = f"after {lab.length.short} of {recorded_epochs(lab.run)} epochs"
            lab.notes.append(f"re-runs of {names} end {ends}, which show it, and are held against the others as they stood then")

    def _lengthened(
        self, confirmed: Sequence[tuple[Suspect, Effect]], control: Sequence[ArmResult]
    ) -> list[tuple[Suspect, Effect]]:
        """The confirmed causes with their effects in whole arms, where short ones proved some and there is time; else none."""
        lab, found = self.lab, []
        if not any(lab.short((s.treatment,)) for s, _ in confirmed):
            return []
        own = [Group((s.treatment,), lab.seeds) for s, _ in confirmed if lab.short((s.treatment,))]
        together = [lab.programs_of([s.treatment for s, _ in confirmed], lab.seeds)] if len(confirmed) > 1 else []
        if not lab.time_for(lab.missing([*own, *together])):
            return []
        lab.prepare(own)
        for suspect, effect in confirmed:
            if lab.short((suspect.treatment,)):
                arms = lab.arms((suspect.treatment,))
                both = compared(control, arms) if all(a.error is None for a in (*control, *arms)) else None
                if both is None:
                    return []
                whole = replace(measure(both, len(self.chosen)), trained=lab.trained(()))
                ends = f"{lab.length.short} of {recorded_epochs(lab.run)}"
                name = suspect.judged.check.name
                lab.notes.append(
                    f"{name}: {effect.value:+.1f} points after {ends} epochs, {whole.value:+.1f} in re-runs that go on"
                )
                effect = whole
            found.append((suspect, effect))
        lab.lengthen()
        return found

    def _tell_courses(self, control: Sequence[ArmResult], causes: Sequence[Confirmed]) -> None:
        """Of shortened arms, where each confirmed cause's effect leads."""
        lab = self.lab
        for one in causes if lab.length.fraction == 1.0 and not lab.base.weights else ():
            if is_score(one.treatment) or one.treatment in lab.rescores:
                continue
            short = lab.short((one.treatment,))
            epochs = lab.length.short if short else lab.length.epochs
            treated = lab.arms((one.treatment,), short=short)
            told = course(one.name, control, treated, epochs, recorded_epochs(lab.run))
            lab.notes += [told] if told else []

    def proposals(self, contests: Sequence[Contest]) -> tuple[Proposal, ...]:
        """What more time would decide, the cheapest first."""
        given = [(c.suspect.judged.check.code, c.more_s()) for c in contests if self.verdict(c.suspect) == "inconclusive"]
        return tuple(sorted((Proposal(code, round(s, 1)) for code, s in given if s), key=lambda p: p.seconds))

    def _kept_s(self, contests: Sequence[Contest]) -> float:
        """Seconds that are kept from single causes for trying them together, at most half of what is left."""
        lab = self.lab
        sure = sum(c.judged.verdict == "confirmed" for c in contests)
        unsure = sum(c.judged.effect is not None for c in contests) - sure
        groups = (unsure if sure else 0) + (min(2**sure, MOST_JOINT) - sure - 1 if sure > 1 else 0)
        rounds = -(-groups * lab.seeds // lab.runner.parallel)
        return min(rounds * lab.runner.expected_s, max(0.0, lab.runner.deadline - time.monotonic()) / 2)

    def _decided_late(self, contests: Sequence[Contest]) -> list[tuple[Suspect, Effect]]:
        """What is left of the budget goes to what is still open; those that are then confirmed."""
        rest = [c for c in contests if self.verdict(c.suspect) != "confirmed"]
        decide(self.lab, rest)
        now = {c.judged.check.code: c.judged for c in rest if c.judged.effect is not None}
        self.settled = [now.get(j.check.code, j) for j in self.settled]
        return _confirmed(rest)

    def unsuspected(self, diagnosis: Diagnosis, causes: Sequence[Confirmed]) -> tuple[list[Confirmed], list[StageShare]]:
        """(stages whose reference gives points back although no cause of theirs was confirmed; what was found of the others).

        Only with what is left of the budget. A stage that gives points back is confirmed as a stage, without a name.
        """
        lab = self.lab
        trained = not lab.base.weights
        if lab.compare is None or (trained and not lab.length.whole()):
            return [], []  # what a short training gains by other images says little of a whole one
        stages = lab.compare(lab.run)
        known = references(stages, [c.stage for c in causes], trained)
        removed = [c.treatment for c in causes]
        if any(is_score(t) or is_rescore(t) for t in removed):
            known.pop("choose", None)  # which epoch is best is another question under other images or labels

        def tried(group: Sequence[Stage], alike: int, look: int, seeds: int) -> Effect | None:
            own = in_place(group, known)
            if look > 1 and lab.alike:
                return None  # every seed gives the same
            if not lab.time_for(lab.missing(lab.programs_of(g, seeds) for g in (removed, [*removed, *own]))):
                return None
            before, after = lab.results(removed, seeds), lab.results([*removed, *own], seeds)
            both = min(len(before), len(after))
            if any(a.error is not None for a in (*before[:both], *after[:both])):
                return None
            found = compared(before[:both], after[:both])
            return measure(found, alike, look) if found is not None else None

        found = screen(list(known), tried, *hints(list(known), stages))
        lab.notes += [_told_among(group, effect, "change") for group, effect in found.among]
        lab.notes += [_told_among(group, effect, "seem to change") for group, effect in found.likely]
        more = []
        for share in (s for s in found.shares if s.told == "cost"):
            effect = found.alone[share.stage]
            check = next((j for j in diagnosis.judged if j.check.stage == share.stage and j.check.code.startswith(UNNAMED)), None)
            if check is None:
                continue
            self.settled = [j for j in self.settled if j.check.code != check.check.code]
            self.settled.append(_as_found(check, effect))
            more.append(Confirmed(check.check.name, known[share.stage], effect, share.stage))
        return more, [s for s in found.shares if s.told != "cost"]

    def second_look(self, confirmed: list[tuple[Suspect, Effect]]) -> list[tuple[Suspect, Effect]]:
        """One cause can hide another: those not confirmed alone are tried once more, with others removed.

        First with the confirmed ones removed; then, of those still undecided, each with all others removed: two causes of
        which either suffices to spoil the result gain nothing alone.
        """
        undecided = [s for s in self.chosen if s.treatment.name not in UNHIDDEN and self._undecided(s)]
        tries = len(self.chosen)
        if confirmed:
            tries += len(undecided)
            confirmed = self._beside(confirmed, undecided, tries, "the other confirmed causes are")
        still = [s for s in undecided if self.verdict(s) == "inconclusive"][:MOST_TOGETHER]
        if len(still) > 1:
            confirmed = self._beside(confirmed, still, tries + len(still), "the other suspected causes are", together=True)
        return confirmed

    def _undecided(self, suspect: Suspect) -> bool:
        return self.verdict(suspect) != "confirmed" and self._settled(suspect).effect is not None

    def verdict(self, suspect: Suspect) -> str:
        """As it stands now."""
        return self._settled(suspect).verdict

    def _settled(self, suspect: Suspect) -> Judged:
        return next(j for j in self.settled if j.check.code == suspect.judged.check.code)

    def _beside(
        self, confirmed: list[tuple[Suspect, Effect]], tried: Sequence[Suspect], tries: int, removed: str, together: bool = False
    ) -> list[tuple[Suspect, Effect]]:
        """The confirmed and those of ``tried`` that are confirmed with them removed (and, ``together``, the others tried)."""
        found = list(confirmed)
        for suspect in tried:
            base = [s.treatment for s, _ in confirmed]
            base += [s.treatment for s in tried if together and s is not suspect]
            all_of_them = [*base, suspect.treatment]
            before, after = self.lab.results(base, among=all_of_them), self.lab.results(all_of_them, among=all_of_them)
            if any(a.error is not None for a in (*before, *after)):
                continue
            arms = compared(before, after)
            if arms is None:
                continue
            effect = replace(measure(arms, tries), trained=self.lab.trained(all_of_them))
            judgement = judge_effect(effect, suspect.expected)
            if judgement.verdict != "confirmed":
                continue
            told = f"hidden until {removed} removed; then {judgement.reason}"
            judged = replace(
                suspect.judged,
                verdict="confirmed",
                effect=effect,
                reason=told,
                rests_on=judgement.rests_on,
                points_verdict=judgement.points,
                nats_verdict=judgement.nats,
            )
            self.settled = [judged if j.check.code == judged.check.code else j for j in self.settled]
            found.append((suspect, effect))
        return found

    def facts(self, control: Sequence[ArmResult], fidelity: str, reproduced: bool, begun: float) -> Experiments:
        """How the re-runs were made."""
        lab, total = self.lab, recorded_epochs(self.lab.run)
        return Experiments(
            arms=lab.finished,
            reused=lab.reused,
            seeds=sum(a.error is None for a in control),
            epochs=total if lab.base.weights else lab.length.epochs or total,
            recorded_epochs=total,
            train_fraction=lab.length.fraction,
            fidelity=fidelity,
            reproduced=reproduced,
            seconds=round(time.monotonic() - begun, 1),
            replayed=lab.replayed,
            notes=tuple(
                dict.fromkeys(
                    [
                        *lab.notes,
                        *(f"re-runs began anew, each with its imports: {r}" for r in lab.runner.cold),
                        *(f"not guarded by the kernel here: {w}" for w in lab.runner.unguarded),
                    ]
                )
            ),
            forked=lab.runner.forks,
        )


def removes_nothing(treatment: Intervention) -> bool:
    """Whether a cause is proved by it, and not removed."""
    return is_seen_again(treatment) or is_halved(treatment)


def _confirmed(contests: Sequence[Contest]) -> list[tuple[Suspect, Effect]]:
    judged = [(c.suspect, c.judged) for c in contests]
    removed = [(s, j) for s, j in judged if j.verdict == "confirmed" and not removes_nothing(s.treatment)]
    return [(s, j.effect) for s, j in removed if j.effect is not None]


def _in_order(confirmed: Sequence[tuple[Suspect, Effect]]) -> list[Confirmed]:
    """The confirmed causes, the costliest first."""
    ranked = sorted(confirmed, key=lambda pair: -abs(pair[1].value))
    return [Confirmed(s.judged.check.name, s.treatment, e, s.judged.check.stage) for s, e in ranked]


def _told_among(stages: Sequence[Stage], effect: Effect, changes: str) -> str:
    """Of stages that give points back, where there was no time to be sure or to tell them apart."""
    words = [STAGE_WORDS[s] for s in stages]
    span = f"{effect.value:+.1f} points ({effect.low:+.1f} .. {effect.high:+.1f})"
    if len(words) == 1:
        return f"the plain way of {words[0]} {changes.replace('seem', 'seems')} {span}: a larger budget would decide it"
    named = f"{', '.join(words[:-1])} and {words[-1]}"
    return f"the plain ways of {named}, all at once, {changes} {span}: a larger budget would say which of them costs accuracy"


def _as_found(judged: Judged, effect: Effect) -> Judged:
    """A stage whose reference gives points back in re-runs."""
    told = f"with the plain way in the place of {STAGE_WORDS[judged.check.stage]}, re-runs gain {effect.value:.0f} points"
    remedy = "compare this stage of the program with the plain way, step by step"
    old = judged.outcome
    evidence = old.evidence if isinstance(old, (Finding, Clear)) else ()
    finding = Finding(told, effect.value, PROVED, evidence, remedy)
    return Judged(judged.check, finding, "confirmed", effect, f"tried without suspicion (p = {effect.p_value:.2g})")


def _without_assumptions(judged: Judged) -> Judged:
    """A confirmed cause without the cost that its check assumed: re-runs have measured it."""
    found = judged.outcome
    if judged.verdict != "confirmed" or judged.effect is None or not isinstance(found, Finding):
        return judged
    kept = tuple(e for e in found.evidence if not e.assumed)
    return replace(judged, outcome=replace(found, evidence=kept))


def merged(diagnosis: Diagnosis, settled: Sequence[Judged]) -> tuple[Judged, ...]:
    """What was judged, with what re-runs say of it in its place."""
    by_code = {j.check.code: _without_assumptions(j) for j in settled}
    return tuple(by_code.get(j.check.code, j) for j in diagnosis.judged)
