"""From suspects to verdicts: control, one treatment per suspect, joint treatments of what was confirmed, the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from valgap.experiments.arm import RESULT_FILE, SPEC_FILE, ArmSpec
from valgap.experiments.ledger import account
from valgap.experiments.plan import SEEDS, Length, arms_in_parallel, choose_length, recorded_epochs
from valgap.experiments.runner import ArmResult, Runner, below, last_scored
from valgap.experiments.scoring import is_arguments, is_rescore, is_score, leave_out, rescored, scored_under, without
from valgap.experiments.verdicts import differences, judge_effect, measure, reproduces
from valgap.types import (
    Case,
    Check,
    Diagnosis,
    Effect,
    Experiments,
    Finding,
    Intervention,
    Judged,
    RunRecord,
    Untreatable,
)

SUSPECTED = 0.5
MAX_JOINT = 6  # exact Shapley values need 2^n joint treatments
# The control's closing measurements let a check be asked again whether it still sees its symptom.
CONTROL_CLOSING = 0.3

# A machine that is busy with other things slows arms down; those that run at the end of the budget may finish.
GRACE = 0.15

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Suspect:
    """A finding with the intervention that would remove it."""

    judged: Judged
    finding: Finding
    treatment: Intervention

    @property
    def expected(self) -> float:
        """Sign of the effect: -1 where validation is too good."""
        return -1.0 if self.finding.severity_points < 0 else 1.0


class NotRepeatableError(Exception):
    """The recorded program cannot be run again; the message says why."""


def prove(diagnosis: Diagnosis, budget_s: float, progress: Progress | None = None) -> Diagnosis:
    """The diagnosis with verdicts and ledger, from re-runs of the recorded program within ``budget_s`` seconds.

    Arms live in ``RUN/experiments``; finished ones are used again by a later call. Ctrl-C leaves them there.
    """
    begun = time.monotonic()
    run = diagnosis.run
    suspects, settled = sort_out(diagnosis)
    if not suspects:
        return replace(diagnosis, judged=_merge(diagnosis, settled))
    try:
        base = base_spec(run, [s.treatment for s in suspects])
    except NotRepeatableError as why:
        settled += [replace(s.judged, verdict="inconclusive", reason=str(why)) for s in suspects]
        return replace(diagnosis, judged=_merge(diagnosis, settled))
    chosen, length, left_out = fit(run, suspects, budget_s)
    settled += left_out
    if length is None:
        return replace(diagnosis, judged=_merge(diagnosis, settled))
    folder = Path(run.path) / "experiments"
    length = like_before(folder, base, length, recorded_epochs(run))
    runner = Runner(folder, arms_in_parallel(run), begun + budget_s, progress, GRACE * budget_s)
    lab = Lab(run, base, length, runner, [s.treatment for s in chosen if is_rescore(s.treatment)])
    control = lab.control()
    problem, fidelity, reproduced = lab.fidelity(control)
    confirmed: list[tuple[Suspect, Effect]] = []
    for suspect in chosen:
        if problem is not None:
            settled.append(replace(suspect.judged, verdict="inconclusive", reason=problem))
            continue
        judged = lab.judge(suspect, control, len(chosen))
        settled.append(judged)
        if judged.verdict == "confirmed" and judged.effect is not None:
            confirmed.append((suspect, judged.effect))
    settled, confirmed = second_look(lab, control, chosen, settled, confirmed)
    confirmed.sort(key=lambda pair: -abs(pair[1].value))
    notes = list(lab.notes)
    if len(confirmed) > MAX_JOINT:
        notes.append(f"the ledger holds the {MAX_JOINT} largest of {len(confirmed)} confirmed causes")
    lines = account(diagnosis, lab, control, [(s.judged.check.name, s.treatment, e) for s, e in confirmed[:MAX_JOINT]])
    facts = Experiments(
        arms=lab.finished,
        reused=runner.reused,
        seeds=len(control),
        epochs=length.epochs or recorded_epochs(run),
        recorded_epochs=recorded_epochs(run),
        train_fraction=length.fraction,
        fidelity=fidelity,
        reproduced=reproduced,
        seconds=round(time.monotonic() - begun, 1),
        notes=tuple(notes),
    )
    return replace(diagnosis, judged=_merge(diagnosis, settled), ledger=lines, experiments=facts)


def second_look(
    lab: Lab,
    control: Sequence[ArmResult],
    chosen: Sequence[Suspect],
    settled: list[Judged],
    confirmed: list[tuple[Suspect, Effect]],
) -> tuple[list[Judged], list[tuple[Suspect, Effect]]]:
    """One cause can hide another: those not confirmed alone are tried once more with the confirmed ones removed."""
    known = {s.judged.check.code for s, _ in confirmed}
    verdicts = {j.check.code: j for j in settled}
    again = [
        s
        for s in chosen
        if s.judged.check.code not in known
        and s.treatment.name != "score_without"
        and verdicts[s.judged.check.code].effect is not None
    ]
    if not confirmed or not again:
        return settled, confirmed
    base = [s.treatment for s, _ in confirmed]
    before = lab.results(base)
    found = list(confirmed)
    for suspect in again:
        after = lab.results([*base, suspect.treatment])
        if any(a.error is not None for a in (*before, *after)):
            continue
        effect = measure(differences(before, after), len(chosen) + len(again))
        verdict, reason = judge_effect(effect, suspect.expected)
        if verdict != "confirmed":
            continue
        code = suspect.judged.check.code
        told = f"hidden until the other confirmed causes are removed; then {reason}"
        verdicts[code] = replace(suspect.judged, verdict=verdict, effect=effect, reason=told)
        found.append((suspect, effect))
    return list(verdicts.values()), found


def sort_out(diagnosis: Diagnosis) -> tuple[list[Suspect], list[Judged]]:
    """(suspects that can be tried, likeliest and costliest first; findings whose verdict is settled without a re-run)."""
    suspects: list[Suspect] = []
    settled: list[Judged] = []
    case = Case(diagnosis.run)
    for judged in diagnosis.findings:
        finding = judged.outcome
        treat = judged.check.treat
        if not isinstance(finding, Finding) or finding.confidence < SUSPECTED or treat is None:
            continue
        treatment = treat(case, finding)
        if isinstance(treatment, Untreatable):
            settled.append(replace(judged, verdict="inconclusive", reason=f"cannot be tried: {treatment.reason}"))
        else:
            suspects.append(Suspect(judged, finding, treatment))
    suspects.sort(key=lambda s: -abs(s.finding.severity_points) * s.finding.confidence)
    return suspects, settled


def base_spec(run: RunRecord, treatments: Sequence[Intervention] = ()) -> ArmSpec:
    """The recorded program as an arm without change. Raises NotRepeatableError.

    A treatment may name data sets that validate although the program trained on them.
    """
    header = run.header
    script, module, argv, cwd = (header.get(k) for k in ("script", "module", "argv", "cwd"))
    if script in ("watch", "valgap train") or not isinstance(argv, list) or not isinstance(cwd, str):
        raise NotRepeatableError("cannot be tried: only programs recorded by `valgap run` can be run again")
    if not Path(cwd).is_dir() or (not module and not (Path(cwd) / str(script)).is_file()):
        raise NotRepeatableError(f"cannot be tried: {script} is no longer there (looked in {cwd})")
    named = {int(i) for t in treatments for i in _numbers(t.settings.get("datasets"))}
    validation = {p.dataset for p in run.of_phase("validation")} | named
    train = {p.dataset for p in run.of_phase("train")} - named
    return ArmSpec(
        script=str(script),
        module=str(module) if module else None,
        argv=[str(a) for a in argv],
        cwd=cwd,
        seed=0,
        epochs=0,
        fraction=1.0,
        train=sorted(train),
        validation=sorted(validation),
    )


def _numbers(value: object) -> list[int]:
    return [int(v) for v in value] if isinstance(value, list) else []


def fit(run: RunRecord, suspects: Sequence[Suspect], budget_s: float) -> tuple[list[Suspect], Length | None, list[Judged]]:
    """(those that are tried, how long the arms are, those that the budget leaves out)."""
    chosen = list(suspects)
    left_out: list[Judged] = []
    while chosen:
        length = choose_length(run, number_of_arms(chosen), budget_s)
        if length is not None:
            return chosen, length, left_out
        last = next((s for s in reversed(chosen) if not is_score(s.treatment)), None)
        if last is None:
            break
        chosen.remove(last)
        left_out.append(replace(last.judged, reason="not tried: the time budget is too small; give a larger --budget"))
    left_out += [replace(s.judged, reason="not tried: the time budget is too small; give a larger --budget") for s in chosen]
    return [], None, left_out


def like_before(folder: Path, base: ArmSpec, length: Length, total: int) -> Length:
    """The length of control arms that an earlier call finished, unless the new budget allows arms twice as long."""
    best = length
    for file in sorted(folder.glob(f"*/{SPEC_FILE}")):
        spec = ArmSpec.from_json(json.loads(file.read_text()))
        same = replace(spec, epochs=0, fraction=1.0, seed=0, closing=0.0) == base
        if not same or spec.fraction != length.fraction or not (file.parent / "record" / RESULT_FILE).is_file():
            continue
        old, new = spec.epochs or total, length.epochs or total
        if old <= new < 2 * old and (best is length or spec.epochs > best.epochs):
            best = replace(length, epochs=spec.epochs)
    return best


def number_of_arms(suspects: Sequence[Suspect]) -> int:
    """Control and treatments in all seeds; joint treatments as if the two costliest are confirmed."""
    programs = sum(not is_score(s.treatment) and not is_rescore(s.treatment) for s in suspects)
    return SEEDS * (1 + programs + (1 if programs >= 2 else 0))


class Lab:
    """Runs the arms of one diagnosis: same program, length and seeds; they differ in their interventions only."""

    def __init__(
        self, run: RunRecord, base: ArmSpec, length: Length, runner: Runner, rescores: Sequence[Intervention] = ()
    ) -> None:
        self.run = run
        self.base = replace(base, epochs=length.epochs, fraction=length.fraction)
        self.length = length
        self.runner = runner
        self.finished = 0
        self.notes: list[str] = []
        self.rescores = list(rescores)
        self._done: dict[str, list[ArmResult]] = {}

    def specs(self, treatments: Sequence[Intervention]) -> list[ArmSpec]:
        """One per seed."""
        closing = CONTROL_CLOSING if not treatments and not self.length.whole() else 0.0
        inside = [t for t in treatments if not is_arguments(t)]
        base = self.base
        for treatment in treatments:
            base = called_with(base, treatment)
        return [
            replace(
                base,
                seed=seed,
                interventions=inside,
                closing=closing if seed == 0 else 0.0,
                rescore=[] if treatments else self.rescores,
            )
            for seed in range(SEEDS)
        ]

    def arms(self, treatments: Sequence[Intervention]) -> list[ArmResult]:
        """The arms under these program treatments, in all seeds."""
        key = repr(sorted(map(repr, treatments)))
        if key not in self._done:
            self._done[key] = self.runner.run(self.specs(treatments))
            self.finished += sum(a.error is None for a in self._done[key])
        return self._done[key]

    def control(self) -> list[ArmResult]:
        """The program as it is."""
        return self.arms(())

    def fidelity(self, control: Sequence[ArmResult]) -> tuple[str | None, str, bool]:
        """(why no verdict is possible, or None; how well the control repeats the record; whether it does)."""
        broken = next((a.error for a in control if a.error is not None), None)
        if broken is not None:
            return f"the control could not be run: {broken}", broken, False
        if self.length.fraction < 1.0:
            self.notes.append("fewer training samples than recorded: the control cannot be compared with the record")
            return None, "not compared (fewer training samples)", True
        recorded = last_scored(self.run, self.base.validation, self.length.epochs)
        if recorded is None:
            return "the record holds no validation result to reproduce", "nothing to compare", False
        same, text = reproduces(recorded.samples.accuracy, int(recorded.samples.labelled.sum()), control)
        return (None if same else f"the control does not reproduce the record: {text}"), text, same

    def judge(self, suspect: Suspect, control: Sequence[ArmResult], tried: int) -> Judged:
        """The verdict on one suspect."""
        if suspect.treatment.name == "score_without":
            found = without(control, self.names(suspect.treatment), tried)
            if found is None:
                return replace(suspect.judged, verdict="inconclusive", reason="leaving them out leaves nothing to compare")
            effect, placebo = found
            verdict, reason = judge_effect(effect, suspect.expected)
            return replace(suspect.judged, verdict=verdict, effect=effect, reason=f"{reason}; placebo {placebo:+.1f}")
        gone = self.symptom_gone(suspect.judged.check, control)
        if gone is not None:
            return replace(suspect.judged, verdict="inconclusive", reason=gone)
        control, treated = self.treated(suspect.treatment, control)
        broken = next((a.error for a in treated if a.error is not None), None)
        if broken is not None:
            return replace(suspect.judged, verdict="inconclusive", reason=f"the treated program could not be run: {broken}")
        if any(a.spec.interventions and not any(a.acted) for a in treated):
            return replace(
                suspect.judged, verdict="inconclusive", reason=f"{suspect.treatment.name} found nothing to act on in this program"
            )
        delta = differences(control, treated)
        if not delta.size:
            return replace(suspect.judged, verdict="inconclusive", reason="the arms saw no common validation samples")
        effect = measure(delta, tried)
        verdict, reason = judge_effect(effect, suspect.expected)
        return replace(suspect.judged, verdict=verdict, effect=effect, reason=reason)

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
            found = rescored(control, self.rescores.index(treatment))
            if found is not None:
                return found
        return control, self.arms((treatment,))

    def symptom_gone(self, check: Check, control: Sequence[ArmResult]) -> str | None:
        """Why the shortened program is no test of this cause; None when its own check still sees it."""
        if self.length.whole() or control[0].record is None:
            return None
        outcome = check.detect(Case(control[0].record))
        if isinstance(outcome, Finding) and outcome.confidence >= SUSPECTED:
            return None
        return "the symptom does not survive the shortening of the program; give a larger --budget"

    def results(self, treatments: Sequence[Intervention]) -> list[ArmResult]:
        """The arms under all of these treatments together, in all seeds, those of the score included."""
        programs = [t for t in treatments if not is_score(t)]
        arms = list(self.treated(programs[0], self.control())[1] if len(programs) == 1 else self.arms(programs))
        for treatment in treatments:
            if treatment.name in ("score_renamed", "score_best_epoch"):
                arms = [a if a.error is not None else scored_under(a, treatment) for a in arms]
            elif treatment.name == "score_without":
                arms = [leave_out(a, self.names(treatment)) for a in arms]
        return arms

    def accuracy(self, treatments: Sequence[Intervention]) -> float:
        """Mean validation accuracy under all of these treatments together, 0..1; nan where an arm failed."""
        return float(np.mean([a.accuracy for a in self.results(treatments)]))


def called_with(spec: ArmSpec, treatment: Intervention) -> ArmSpec:
    """The arm with one argument of its call exchanged, and its length stretched as that asks; unchanged for other treatments."""
    if not is_arguments(treatment):
        return spec
    argv = list(spec.argv)
    place, factor = treatment.settings["place"], treatment.settings["factor"]
    assert isinstance(place, int) and isinstance(factor, int)
    argv[place] = str(treatment.settings["value"])
    return replace(spec, argv=argv, epochs=spec.epochs * factor)


def _merge(diagnosis: Diagnosis, settled: Sequence[Judged]) -> tuple[Judged, ...]:
    by_code = {j.check.code: j for j in settled}
    return tuple(by_code.get(j.check.code, j) for j in diagnosis.judged)
