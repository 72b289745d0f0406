"""Runs the arms of one diagnosis and judges single suspects by them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from valgap.experiments.arm import ArmSpec
from valgap.experiments.joint import Answer
from valgap.experiments.placebo import has_placebo, placebo
from valgap.experiments.plan import SEEDS, Length
from valgap.experiments.runner import ArmResult, Runner, below, last_scored
from valgap.experiments.scoring import (
    SAME_ANSWERS,
    called_with,
    is_arguments,
    is_score,
    leave_out,
    rescored,
    same_answers,
    scored_under,
    without,
)
from valgap.experiments.suspects import SUSPECTED, Suspect
from valgap.experiments.verdicts import beats_placebo, differences, fallen, judge_effect, measure, reproduces
from valgap.record.identities import Identities
from valgap.types import Case, CaseStages, Finding, Intervention, Judged, NotApplicable, Pass, RunRecord

# The control's closing measurements let a check be asked again whether it still sees its symptom.
CONTROL_CLOSING = 0.3
# Seeds where recorded weights are scored again and validation draws random numbers: nothing is trained, so that arms are
# cheap, and their luck would be as large as many an effect.
DRAWS = 2 * SEEDS
# References of stages that rest on the image files, and not on how long the program trained.
BY_FILES = ("draw_all", "pair_by_file", "read_soundly")
# Holds the stages of a record against their references.
Compare = Callable[[RunRecord], CaseStages]


def named_as_in(run: RunRecord, arm: ArmResult) -> ArmResult:
    """The arm with the run's names for its samples: one of the two may not have watched its data set read, and know no files."""
    if arm.record is None or arm.names is not None:
        return arm
    known = Identities()
    known.add(run)
    ids = known.add(arm.record).samples
    return replace(arm, names=tuple(known.names[i] for i in ids.tolist()))


class Lab:
    """Runs the arms of one diagnosis: same program, length and seeds; they differ in their interventions only."""

    def __init__(
        self,
        run: RunRecord,
        base: ArmSpec,
        length: Length,
        runner: Runner,
        rescores: Sequence[Intervention] = (),
        compare: Compare | None = None,
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
        self._done: dict[str, list[ArmResult]] = {}

    def specs(self, treatments: Sequence[Intervention]) -> list[ArmSpec]:
        """One per seed."""
        closing = CONTROL_CLOSING if not treatments and not self.length.whole() else 0.0
        base = self.base
        for treatment in treatments:
            base = called_with(base, treatment)
        return [
            replace(
                base,
                seed=seed,
                interventions=[t for t in treatments if not is_arguments(t)],
                closing=closing if seed == 0 else 0.0,
                rescore=[] if treatments else self.rescores,
            )
            for seed in range(self.seeds)
        ]

    def arms(self, treatments: Sequence[Intervention]) -> list[ArmResult]:
        """The arms under these program treatments, in all seeds."""
        key = repr(sorted(map(repr, treatments)))
        if key not in self._done:
            self._done[key] = self._run(self.specs(treatments))
        return self._done[key]

    def _run(self, specs: Sequence[ArmSpec]) -> list[ArmResult]:
        # Where nothing is trained and nothing drawn, every seed would give the very same answers.
        alike = bool(self.base.weights) and not self.random
        results = [named_as_in(self.run, a) for a in self.runner.run(specs[:1] if alike else specs)]
        self.finished += sum(a.error is None for a in results)
        self.replayed += sum(a.replayed for a in results)
        self.reused += sum(a.reused for a in results)
        return [replace(results[0], spec=spec) for spec in specs] if alike else results

    def control(self) -> list[ArmResult]:
        """The program as it is."""
        return self.arms(())

    def fidelity(self, control: Sequence[ArmResult]) -> tuple[str | None, str, bool]:
        """(why no verdict is possible, or None; how well the control repeats the record; whether it does)."""
        broken = next((a.error for a in control if a.error is not None), None)
        if broken is not None:
            return f"the control could not be run: {broken}", broken, False
        control = [named_as_in(self.run, a) for a in control]
        if self.base.weights:
            return self._same_weights(control)
        if self.length.fraction < 1.0:
            return None, "not compared with the record: fewer training samples", True
        recorded = last_scored(self.run, self.base.validation, self.length.epochs)
        if recorded is None:
            return "the record holds no validation result to reproduce", "nothing to compare", False
        same, text = reproduces(recorded.samples.accuracy, int(recorded.samples.labelled.sum()), control)
        return (None if same else f"the control does not reproduce the record: {text}"), text, same

    def _same_weights(self, control: Sequence[ArmResult]) -> tuple[str | None, str, bool]:
        """Whether the recorded weights, scored again, give the recorded answers; by accuracy where validation is random."""
        recorded = last_scored(self.run, self.base.validation)
        if recorded is None:
            return "the record holds no validation result to reproduce", "nothing to compare", False
        share = same_answers(replace(control[0], record=self.run, samples=recorded.samples), control[0])
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

    def judge(self, suspect: Suspect, control: Sequence[ArmResult], tried: int) -> Judged:
        """The verdict on one suspect."""
        if suspect.treatment.name == "score_without":
            found = without(control, self.names(suspect.treatment), tried)
            if found is None:
                return replace(suspect.judged, verdict="inconclusive", reason="leaving them out leaves nothing to compare")
            effect, at_random = found
            verdict, reason = judge_effect(effect, suspect.expected)
            return replace(suspect.judged, verdict=verdict, effect=effect, reason=f"{reason}; placebo {at_random:+.1f}")
        gone = self.symptom_gone(suspect, control)
        if gone is not None:
            return replace(suspect.judged, verdict="inconclusive", reason=gone)
        control, treated = self.treated(suspect.treatment, control)
        broken = next((a.error for a in treated if a.error is not None), None)
        if broken is not None:
            return replace(suspect.judged, verdict="inconclusive", reason=f"the treated program could not be run: {broken}")
        if any(a.spec.interventions and not any(a.acted[: len(a.spec.interventions)]) for a in treated):
            return replace(
                suspect.judged, verdict="inconclusive", reason=f"{suspect.treatment.name} found nothing to act on in this program"
            )
        delta = differences(control, treated)
        if not delta.size:
            return replace(suspect.judged, verdict="inconclusive", reason="the arms saw no common validation samples")
        effect = measure(delta, tried, fallen(control, treated))
        verdict, reason = judge_effect(effect, suspect.expected)
        if verdict == "confirmed" and has_placebo(suspect.treatment):
            against = differences(self.placebo(suspect.treatment), treated)
            verdict, told = beats_placebo(measure(against, tried), effect, suspect.expected)
            reason = f"{reason}; {told}"
        return replace(suspect.judged, verdict=verdict, effect=effect, reason=reason)

    def placebo(self, treatment: Intervention) -> list[ArmResult]:
        """The arms that change as many samples, drawn at random, another draw in every seed."""
        key = f"placebo of {treatment!r}"
        if key not in self._done:
            specs = [replace(s, interventions=[placebo(treatment, self.run, s.seed)]) for s in self.specs((treatment,))]
            self._done[key] = self._run(specs)
        return self._done[key]

    def names(self, treatment: Intervention) -> list[str]:
        """The samples that a score treatment leaves out, named as in the arms' results."""
        given = treatment.settings["names"]
        assert isinstance(given, list)
        roots = {d.root for d in self.run.datasets.values() if d.root}
        return [below(str(name), roots) for name in given]

    def treated(self, treatment: Intervention, control: Sequence[ArmResult]) -> tuple[Sequence[ArmResult], Sequence[ArmResult]]:
        """(what to compare with, the treated): the control's own scores where these are enough, else arms of their own."""
        if treatment.name in ("score_renamed", "score_best_epoch"):
            return control, [scored_under(a, treatment) for a in control]
        if treatment in self.rescores:
            found = rescored(control, self.rescores.index(treatment), self.random)
            if found is not None:
                return found
        return control, self.arms((treatment,))

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

    def time_for(self, arms: int) -> bool:
        """Whether so many more arms end within the budget, as far as one can tell."""
        rounds = -(-arms // self.runner.parallel)
        return time.monotonic() + rounds * self.runner.expected_s < self.runner.deadline

    def results(self, treatments: Sequence[Intervention]) -> list[ArmResult]:
        """The arms under all of these treatments together, in all seeds, those of the score included."""
        programs = [t for t in treatments if not is_score(t)]
        # The best epoch is one of all passes, of which a finished model that is scored again has the last only.
        epochs = [t for t in treatments if t.name == "score_best_epoch"]
        again = len(programs) == 1 and not epochs
        arms = list(self.treated(programs[0], self.control())[1] if again else self.arms(programs))
        for treatment in (*epochs, *(t for t in treatments if t not in epochs)):
            if treatment.name in ("score_renamed", "score_best_epoch"):
                arms = [a if a.error is not None else scored_under(a, treatment) for a in arms]
            elif treatment.name == "score_without":
                arms = [leave_out(a, self.names(treatment)) for a in arms]
        return arms

    def answers(self, treatments: Sequence[Intervention]) -> list[dict[str, Answer]] | None:
        """Per seed, by sample name, the answer under all of these; None where an arm failed."""
        arms = self.results(treatments)
        if any(a.error is not None for a in arms):
            return None
        tables = [(a.correct(), a.losses()) for a in arms]
        return [{name: (float(right), losses[name]) for name, right in correct.items()} for correct, losses in tables]

    def accuracy(self, treatments: Sequence[Intervention]) -> float:
        """Mean validation accuracy under all of these treatments together, 0..1; nan where an arm failed."""
        return float(np.mean([a.accuracy for a in self.results(treatments)]))
