"""Runs the arms of one diagnosis and judges single suspects by them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from valgap.experiments.arm import ArmSpec
from valgap.experiments.arm_result import OUT_OF_TIME as OUT_OF_TIME
from valgap.experiments.arm_result import ArmResult, below, last_scored
from valgap.experiments.course import after
from valgap.experiments.halved import of_seed
from valgap.experiments.joint import Answer
from valgap.experiments.placebo import placebo
from valgap.experiments.plan import SEEDS, Length, recorded_epochs, recorded_threads
from valgap.experiments.runner import Runner
from valgap.experiments.scoring import (
    PLAIN,
    SAME_ANSWERS,
    called_with,
    is_arguments,
    is_score,
    leave_out,
    rescored,
    same_answers,
    scored_plainly,
    scored_under,
)
from valgap.experiments.suspects import SUSPECTED, Suspect
from valgap.experiments.verdicts import reproduces
from valgap.record.identities import Identities
from valgap.types import Case, CaseStages, Finding, Intervention, NotApplicable, Pass, RunRecord

# The control's closing measurements let a check be asked again whether it still sees its symptom.
CONTROL_CLOSING = 0.3
# Seeds where recorded weights are scored again and validation draws random numbers: nothing is trained, so that arms are
# cheap, and their luck would be as large as many an effect.
DRAWS = 2 * SEEDS
# With so many seeds of either side a verdict is told, where there is no time for more.
LEAST_SEEDS = 2
# References of stages that rest on the image files, and not on how long the program trained.
BY_FILES = ("draw_all", "pair_by_file", "read_soundly")
# Holds the stages of a record against their references.
Compare = Callable[[RunRecord], CaseStages]


@dataclass(frozen=True)
class Group:
    """The same program under the same changes, in the first ``seeds`` seeds.

    ``placebo``: as many samples at random instead. ``short``: no more epochs than show what shows early.
    """

    treatments: tuple[Intervention, ...] = ()
    seeds: int = 0
    placebo: bool = False
    short: bool = False

    @property
    def key(self) -> str:
        """Equal for equal changes, in whatever order."""
        kind = "short " * self.short + "placebo of " * self.placebo
        return f"{kind}{sorted(map(repr, self.treatments))!r}"


def named_as_in(run: RunRecord, arm: ArmResult) -> ArmResult:
    """The arm with the run's names for its samples: one of the two may not have watched its data set read, and know no files."""
    if arm.record is None or arm.names is not None:
        return arm
    known = Identities()
    known.add(run)
    ids = known.add(arm.record).samples
    return replace(arm, names=tuple(known.names[i] for i in ids.tolist()))


def trained_at_once(run: RunRecord) -> bool:
    """Whether several processes of no group, which so wait for nobody, trained weights that yet another one holds too."""
    alone = [r for r in run.ranks if r.rank is None]
    trainers = [r for r in alone if r.training()]
    left = {p.weights for r in trainers for p in r.training() if p.weights}
    return len(trainers) > 1 and any(p.weights in left for r in alone if not r.training() for p in r.passes)


class Lab:
    """Runs the arms of one diagnosis: same program and seeds; they differ in their interventions only.

    ``early``: changes whose effect a few epochs show. Where arms have two lengths, these have the short one, and are held
    against the control as it stood after as many epochs.
    """

    def __init__(
        self,
        run: RunRecord,
        base: ArmSpec,
        length: Length,
        runner: Runner,
        rescores: Sequence[Intervention] = (),
        compare: Compare | None = None,
        early: Sequence[Intervention] = (),
    ) -> None:
        self.run = run
        self.base = replace(base, epochs=length.epochs, fraction=length.fraction)
        self.length = length
        self.runner = runner
        recorded = last_scored(run, base.validation)
        self.random = recorded is not None and self._draws(recorded)
        self.seeds = DRAWS if base.weights and self.random else SEEDS
        self.finished = 0
        self.replayed = 0
        self.reused = 0
        self.notes: list[str] = []
        self.rescores = list(rescores)
        self.compare = compare
        self._early = list(early) if length.short else []
        runner.weight = self.weight
        self.reads_controls = True  # whether checks are asked about the records of unchanged arms
        self._done: dict[str, list[ArmResult]] = {}

    @property
    def alike(self) -> bool:
        """Whether every seed would give the very same answers: nothing is trained, and nothing drawn."""
        return bool(self.base.weights) and not self.random

    def short(self, treatments: Sequence[Intervention]) -> bool:
        """Whether what is compared under these, or some of them, has arms of the short length."""
        return bool(treatments) and all(t in self._early for t in treatments)

    def lengthen(self) -> None:
        """From now on all arms go on as long as the control."""
        self._early.clear()

    def trained(self, treatments: Sequence[Intervention]) -> float:
        """Which share of the recorded training the arms have in which these are compared; 1: all, or recorded weights."""
        total = recorded_epochs(self.run)
        if self.base.weights or not total or (self.length.whole() and not self.short(treatments)):
            return 1.0
        epochs = self.length.short if self.short(treatments) else self.length.epochs or total
        return min(1.0, self.length.fraction * epochs / total)

    def weight(self, spec: ArmSpec) -> float:
        """How long an arm takes, beside one of full length."""
        short = self.length.short and spec.epochs == self.length.short
        return self.length.short_s / self.length.seconds if short else 1.0

    def specs(self, group: Group) -> list[ArmSpec]:
        """One per seed."""
        treatments = group.treatments
        base = replace(self.base, epochs=self.length.short) if group.short else self.base
        shortened = not self.length.whole() and not base.weights
        closing = CONTROL_CLOSING if shortened and not treatments else 0.0
        for treatment in treatments:
            base = called_with(base, treatment)
        # Without loaders, kept images may tell the passes apart.
        plain = not base.weights and PLAIN not in self.rescores and -1 not in (*base.train, *base.validation)
        looked_at = not treatments and (self.reads_controls or bool(self.rescores))
        made = [
            replace(
                base,
                seed=seed,
                interventions=[of_seed(t, seed) for t in treatments if not is_arguments(t)],
                closing=closing if seed == 0 else 0.0,
                rescore=[r for r in self.rescores if not treatments or r == PLAIN],
                answers_only=plain and not looked_at and not (closing and seed == 0),
            )
            for seed in range(group.seeds)
        ]
        if group.placebo:
            return [replace(s, interventions=[placebo(treatments[0], self.run, s.seed)]) for s in made]
        return made

    def missing(self, groups: Iterable[Group]) -> list[ArmSpec]:
        """The arms of these groups that were not run yet."""
        wanted: dict[tuple[str, int], ArmSpec] = {}
        for group in groups:
            done = len(self._done.get(group.key, ()))
            if not (self.alike and done):
                wanted |= {(group.key, s.seed): s for s in self.specs(group)[done : 1 if self.alike else None]}
        return list(wanted.values())

    def unfinished(self, groups: Sequence[Group]) -> list[ArmSpec]:
        """The arms of these groups that have not finished: those that were cut off, or fail, count as well."""
        wanted: dict[tuple[str, int], ArmSpec] = {}
        for group in groups:
            sound = sum(a.error is None for a in self._done.get(group.key, ())[: group.seeds])
            wanted |= {(group.key, s.seed): s for s in self.specs(group)[sound : 1 if self.alike else None]}
        return list(wanted.values())

    def prepare(self, groups: Sequence[Group]) -> None:
        """Run what is missing of these groups, all at once: seed by seed, so that all have as many when the time ends."""
        # Of two groups that are alike, the one with more seeds holds the other.
        largest: dict[str, Group] = {}
        for group in groups:
            if group.key not in largest or largest[group.key].seeds < group.seeds:
                largest[group.key] = group
        missing = {key: self.missing([g]) for key, g in largest.items()}
        order = sorted(((key, spec) for key, specs in missing.items() for spec in specs), key=lambda one: one[1].seed)
        ran: dict[str, list[ArmResult]] = {key: [] for key in missing}
        for (key, _), arm in zip(order, self.runner.run([spec for _, spec in order]), strict=True):
            ran[key].append(named_as_in(self.run, arm))
        for key, new in ran.items():
            self.finished += sum(a.error is None for a in new)
            self.replayed += sum(a.replayed for a in new)
            self.reused += sum(a.reused for a in new)
            self._done[key] = [*self._done.get(key, ()), *new]

    def arms(
        self, treatments: Sequence[Intervention], seeds: int = 0, placebo: bool = False, short: bool = False
    ) -> list[ArmResult]:
        """The arms under these program treatments, in the first ``seeds`` seeds (0: in as many as joint treatments have)."""
        group = Group(tuple(treatments), seeds or self.seeds, placebo, short)
        self.prepare([group])
        done = self._done[group.key]
        if self.alike:
            return [replace(done[0], spec=spec) for spec in self.specs(group)]
        return done[: group.seeds]

    def control(self) -> list[ArmResult]:
        """The program as it is."""
        return self.arms(())

    def fidelity(self, control: Sequence[ArmResult]) -> tuple[str | None, str, bool]:
        """(why no verdict is possible, or None; how well the control repeats the record; whether it does).

        By the arms that finished, where others were only cut off by the end of the time.
        """
        broken = next((a.error for a in control if a.error is not None), None)
        sound = list(itertools.takewhile(lambda a: a.error is None, control))
        if broken is not None and (not broken.startswith(OUT_OF_TIME) or len(sound) < min(LEAST_SEEDS, len(control))):
            return f"the control could not be run: {broken}", broken, False
        control = [named_as_in(self.run, a) for a in sound]
        if self.base.weights:
            return self._same_weights(control)
        if self.length.fraction < 1.0:
            return None, "not compared with the record: fewer training samples", True
        recorded = last_scored(self.run, self.base.validation, self.length.epochs)
        if recorded is None:
            return "the record holds no validation result to reproduce", "nothing to compare", False
        same, text = reproduces(recorded.samples.accuracy, int(recorded.samples.labelled.sum()), control)
        share = same_answers(replace(control[0], record=self.run, samples=recorded.samples, names=None), control[0])
        text += f"; with its own random numbers it gives {share:.1%} of the recorded answers"
        recorded_on = recorded_threads(self.run)
        if share < 1.0 and recorded_on is not None and recorded_on != self.runner.threads:
            text += (
                f" (computed with {self.runner.threads} threads, recorded with {recorded_on}: sums are rounded in another way)"
            )
        if share < 1.0 and trained_at_once(self.run):
            text += (
                "; several processes trained the same weights at once, without waiting for one another: no run repeats another"
            )
        return (None if same else f"the control does not reproduce the record: {text}"), text, same

    def _same_weights(self, control: Sequence[ArmResult]) -> tuple[str | None, str, bool]:
        """Whether the recorded weights, scored again, give the recorded answers; by accuracy where validation is random."""
        recorded = last_scored(self.run, self.base.validation)
        if recorded is None:
            return "the record holds no validation result to reproduce", "nothing to compare", False
        share = same_answers(replace(control[0], record=self.run, samples=recorded.samples, names=None), control[0])
        same, text = share >= SAME_ANSWERS, f"the recorded weights, scored again, give {share:.1%} of the recorded answers"
        if not same and self.random:
            same, text = reproduces(recorded.samples.accuracy, int(recorded.samples.labelled.sum()), control)
        self.notes.append("nothing was trained in these re-runs: effects are those of the recorded weights")
        return (None if same else text), text, same

    def _draws(self, recorded: Pass) -> bool:
        """Whether the pass draws random numbers: active dropout, a random transform, batches that are mixed and normalised."""
        loader = self.run.loaders.get(recorded.loader)
        if recorded.modes.batchnorm_training > 0 and (loader is None or loader.shuffled is not False):
            return True
        dataset = self.run.datasets.get(recorded.dataset)
        steps = dataset.transform if dataset is not None and dataset.transform is not None else ()
        return recorded.modes.dropout_training > 0 or any(step.random for step in steps)

    def names(self, treatment: Intervention) -> list[str]:
        """The samples that a score treatment leaves out, named as in the arms' results."""
        given = treatment.settings["names"]
        assert isinstance(given, list)
        roots = {d.root for d in self.run.datasets.values() if d.root}
        return [below(str(name), roots) for name in given]

    def from_control(self, treatment: Intervention) -> bool:
        """Whether the control's own arms tell its effect: it changes the score, or the finished model is scored under it."""
        if is_score(treatment):
            return True
        return treatment in self.rescores and self._rescored(treatment, self.control()) is not None

    def _rescored(self, treatment: Intervention, control: Sequence[ArmResult]) -> tuple[list[ArmResult], list[ArmResult]] | None:
        sound = [a for a in control if a.error is None]
        if treatment == PLAIN:
            plain = scored_plainly(sound)
            return (sound, plain) if plain else None
        return rescored(sound, self.rescores.index(treatment), self.random) if sound else None

    def treated(
        self, treatment: Intervention, control: Sequence[ArmResult], seeds: int = 0, short: bool = False
    ) -> tuple[Sequence[ArmResult], Sequence[ArmResult]]:
        """(what to compare with, the treated): the control's own scores where these are enough, else arms of their own.

        ``short``: both after as many epochs as show what shows early.
        """
        if short:
            return self._cut(control), self.arms((treatment,), seeds, short=True)
        if treatment.name in ("score_renamed", "score_best_epoch"):
            return control, [scored_under(a, treatment) for a in control]
        if treatment in self.rescores:
            found = self._rescored(treatment, control)
            if found is not None:
                return found
        return control, self.arms((treatment,), seeds)

    def _cut(self, control: Sequence[ArmResult]) -> list[ArmResult]:
        """The control as it stood when short arms end."""
        return [self._cut_one(arm) if arm.error is None else arm for arm in control]

    def _cut_one(self, arm: ArmResult) -> ArmResult:
        stood = after([arm], self.length.short)
        return stood[0] if stood else replace(arm, error="it validated nothing within the epochs that are compared")

    def symptom_gone(self, suspect: Suspect, control: Sequence[ArmResult]) -> str | None:
        """Why the shortened program is no test of this cause; None when its own check still sees it."""
        if self.length.whole() or self.base.weights or control[0].record is None:
            return None
        record, check = control[0].record, suspect.judged.check
        outcome = check.detect(Case(record, stages=self.compare(record) if self.compare is not None else None))
        if isinstance(outcome, Finding) and outcome.confidence >= SUSPECTED:
            return None
        by_files = check.code.startswith("DAT") or suspect.treatment.name in BY_FILES
        if isinstance(outcome, NotApplicable) and by_files:
            return None  # judged on the image files, which are the same however short the program is
        return "the symptom does not survive the shortening of the program; give a larger --budget"

    def seconds(self, arms: Iterable[ArmSpec]) -> float:
        """What these arms take side by side, as far as one can tell."""
        busy = [0.0] * self.runner.parallel
        for weight in sorted(map(self.weight, arms), reverse=True):
            busy[busy.index(min(busy))] += weight
        return max(busy) * self.runner.expected_s

    def time_for(self, arms: Iterable[ArmSpec], kept_s: float = 0.0) -> bool:
        """Whether these arms end within the budget, but for ``kept_s`` seconds of it, as far as one can tell."""
        return time.monotonic() + self.seconds(arms) < self.runner.deadline - kept_s

    def results(self, treatments: Sequence[Intervention], seeds: int = 0, among: Sequence[Intervention] = ()) -> list[ArmResult]:
        """The arms under all of these treatments together, those of the score included; ``seeds`` 0: as many as usual.

        ``among``: all treatments that are compared with each other. Where a few epochs show the effects of all of these, the
        arms have no more.
        """
        programs = list(self.programs_of(treatments, seeds or self.seeds).treatments)
        if self.short(among):
            return self.arms(programs, seeds, short=True) if programs else self._cut(self.arms((), seeds))
        # The best epoch is one of all passes, of which a finished model that is scored again has the last only.
        epochs = [t for t in treatments if t.name == "score_best_epoch"]
        again = len(programs) == 1 and not epochs and PLAIN not in treatments
        arms = list(self.treated(programs[0], self.control(), seeds)[1] if again else self.arms(programs, seeds))
        if PLAIN in treatments and all(a.error is None for a in arms):
            arms = scored_plainly(arms) or [replace(a, error="the finished model could not be scored by itself") for a in arms]
        for treatment in (*epochs, *(t for t in treatments if t not in epochs)):
            if treatment.name in ("score_renamed", "score_best_epoch"):
                arms = [a if a.error is not None else scored_under(a, treatment) for a in arms]
            elif treatment.name == "score_without":
                arms = [leave_out(a, self.names(treatment)) for a in arms]
        return arms

    def programs_of(self, treatments: Sequence[Intervention], seeds: int) -> Group:
        """The arms that ``results`` of these treatments needs."""
        return Group(tuple(t for t in treatments if not is_score(t) and t != PLAIN), seeds)

    def answers(self, treatments: Sequence[Intervention], among: Sequence[Intervention] = ()) -> list[dict[str, Answer]] | None:
        """Per seed, by sample name, the answer under all of these; None where an arm failed. ``among``: as in ``results``."""
        arms = self.results(treatments, among=among)
        if any(a.error is not None for a in arms):
            return None
        tables = [(a.correct(), a.losses()) for a in arms]
        return [{name: (float(right), losses[name]) for name, right in correct.items()} for correct, losses in tables]

    def accuracy(self, treatments: Sequence[Intervention]) -> float:
        """Mean validation accuracy under all of these treatments together, 0..1; nan where an arm failed."""
        return float(np.mean([a.accuracy for a in self.results(treatments)]))
