"""Which findings are tried, in which order, as which arms, and what the time budget leaves out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from valgap.experiments.arm import RESULT_FILE, SPEC_FILE, ArmSpec
from valgap.experiments.halved import HALF, can_be_halved, is_halved
from valgap.experiments.placebo import has_placebo
from valgap.experiments.plan import SEEDS, Length, Need, least_budget, needed_length
from valgap.experiments.scoring import PLAIN, is_arguments, is_evaluation, is_rescore, is_score
from valgap.experiments.seen_again import SEE_AGAIN, can_be_seen_again
from valgap.types import TRAINED, Case, CaseStages, Diagnosis, Finding, Intervention, Judged, RunRecord, Untreatable

SUSPECTED = 0.5
EVAL_MODE = Intervention("eval_mode", {"phase": "validation"})
# What a training that ended too soon is given, where it has no argument for that.
LONGER = Intervention("train_longer", {"phase": "train", "times": 3})
TOO_SHORT = ("too_few_epochs", "stopped_too_early")
EARLY_END = "early"
# By the kind of what is wrong in the forward pass, where eval mode would change nothing.
FORWARD = {"": PLAIN, "altered": Intervention("keep_loaded")}
TRIED_AS_STAGE = "not tried by itself: its stage is tried as a whole, under another finding"
NO_TREATMENT = "not tried: no change to the running program removes this cause, so that it is judged on evidence alone"


def too_small(run: RunRecord, arms: int, start_s: float | None = None, late: str = "") -> str:
    """Why a cause was not tried, with the budget that would do; ``late``: what takes a whole training to show."""
    minutes = math.ceil(least_budget(run, arms, start_s, bool(late)) / 60)
    if late:
        return f"not tried: only re-runs of the whole training show {late}; --budget {minutes}m would do for them"
    return f"not tried: the time budget is too small; --budget {minutes}m would do for the likeliest cause"


@dataclass(frozen=True)
class Suspect:
    """A finding with the intervention that would remove it."""

    judged: Judged
    finding: Finding
    treatment: Intervention
    by_stage: bool = False  # its whole stage is done in the plain way: that this changes nothing does not rule the cause out

    @property
    def expected(self) -> float:
        """Sign of the effect: -1 where validation is too good, and where what is tried makes it worse."""
        return -1.0 if self.finding.severity_points < 0 or is_halved(self.treatment) else 1.0

    @property
    def late(self) -> str:
        """What takes a whole training to show its effect, in words; empty where a few epochs show it, or recorded weights."""
        trains = not is_evaluation(self.treatment) and self.treatment != SEE_AGAIN
        return self.judged.check.whole_training if trains else ""

    @property
    def early(self) -> bool:
        """Whether arms of its own, in which a few epochs suffice, show its effect."""
        return not self.late and _has_arms(self.treatment)


class NotRepeatableError(Exception):
    """The recorded program cannot be run again; the message says why."""


def sort_out(diagnosis: Diagnosis, stages: CaseStages | None = None) -> tuple[list[Suspect], list[Judged]]:
    """(suspects that can be tried, likeliest and costliest first; findings whose verdict is settled without a re-run)."""
    suspects: list[Suspect] = []
    settled: list[Judged] = []
    case = Case(diagnosis.run, stages=stages)
    by_stage: list[Suspect] = []
    for judged in diagnosis.findings:
        finding = judged.outcome
        treat = judged.check.treat
        if not isinstance(finding, Finding) or finding.confidence < SUSPECTED:
            continue
        treatment = treat(case, finding) if treat is not None else None
        if judged.check.stage == "choose" and _ends_early(judged, treatment, stages):
            suspects.append(Suspect(judged, finding, LONGER))
            continue
        forward = _of_forward(stages) if treatment == EVAL_MODE else None
        if forward is not None:
            by_stage.append(Suspect(replace(judged, tried=forward), finding, forward, by_stage=True))
            continue
        if isinstance(treatment, Intervention):
            suspects.append(Suspect(replace(judged, tried=treatment), finding, treatment))
            continue
        whole = stages.reference(judged.check.stage) if stages is not None and judged.check.stage is not None else None
        if isinstance(whole, Intervention):
            by_stage.append(Suspect(replace(judged, tried=whole), finding, whole, by_stage=True))
        elif treatment is None and can_be_seen_again(judged.check, finding):
            suspects.append(Suspect(judged, finding, SEE_AGAIN))
        elif treatment is None and can_be_halved(judged.check):
            suspects.append(Suspect(judged, finding, HALF))
        elif treatment is None:
            settled.append(replace(judged, reason=judged.reason or NO_TREATMENT))
        else:
            settled.append(replace(judged, verdict="inconclusive", reason=f"cannot be tried: {treatment.reason}"))
    tried = [s.treatment for s in suspects]
    for suspect in sorted(by_stage, key=_weight):
        if suspect.treatment in tried:
            settled.append(replace(suspect.judged, reason=TRIED_AS_STAGE))
        else:
            tried.append(suspect.treatment)
            suspects.append(suspect)
    suspects.sort(key=_weight)
    return suspects, settled


def _ends_early(judged: Judged, treatment: object, stages: CaseStages | None) -> bool:
    """Whether longer training is the remedy, and no argument of the program makes it longer."""
    if judged.check.name in TOO_SHORT:
        return isinstance(treatment, Untreatable)
    return stages is not None and stages.compared("choose").kind == EARLY_END and judged.check.code.startswith("STG")


def _of_forward(stages: CaseStages | None) -> Intervention | None:
    """What is tried of a fault of the forward pass where validation ran in eval mode as it was; None where it did not."""
    if stages is None or isinstance(stages.reference("forward"), Intervention):
        return None
    found = stages.compared("forward")
    return FORWARD.get(found.kind) if found.verdict == "at fault" else None


def _weight(suspect: Suspect) -> float:
    """The likeliest and costliest have the least."""
    return -abs(suspect.finding.severity_points) * suspect.finding.confidence


def base_spec(run: RunRecord, treatments: Sequence[Intervention] = ()) -> ArmSpec:
    """The recorded program as an arm without change. Raises NotRepeatableError.

    A treatment may name data sets that validate although the program trained on them.
    """
    header = run.header
    if run.shortened is not None:
        raise NotRepeatableError("cannot be tried: the record is of a preflight, which is no whole training")
    own = next((r for r in run.ranks if not r.name), None)
    if len(run.group) > 1 or (own is not None and not own.passes):
        many = f"{len(run.group)} processes" if len(run.group) > 1 else "a process of its own"
        raise NotRepeatableError(f"cannot be tried: the program trained in {many}, and re-runs repeat the first process only")
    script, module, argv, cwd = (header.get(k) for k in ("script", "module", "argv", "cwd"))
    if script in ("watch", TRAINED) or not isinstance(argv, list) or not isinstance(cwd, str):
        raise NotRepeatableError("cannot be tried: only programs recorded by `valgap run` can be run again")
    if not Path(cwd).is_dir() or (not module and not (Path(cwd) / str(script)).is_file()):
        raise NotRepeatableError(f"cannot be tried: {script} is no longer there (looked in {cwd})")
    named = {int(i) for t in treatments for i in _numbers(t.settings.get("datasets"))}
    validation = {p.dataset if p.loader >= 0 else -1 for p in run.of_phase("validation")} | named
    train = {p.dataset if p.loader >= 0 else -1 for p in run.of_phase("train")} - named
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


def fit(
    run: RunRecord, suspects: Sequence[Suspect], budget_s: float, start_s: float | None = None
) -> tuple[list[Suspect], Length | None, list[Judged]]:
    """(those that are tried, how long the arms are, those that the budget leaves out); ``start_s`` as in ``choose_length``.

    Causes that show late need long arms, which may leave no time for others: what weighs more in all is tried.
    """
    possible = [s for s in suspects if not s.late or needed_length(run, need_of([s]), budget_s, start_s) is not None]
    found = _fitting(run, possible, budget_s, start_s)
    if any(s.late for s in possible):
        quick = _fitting(run, [s for s in suspects if not s.late], budget_s, start_s)
        found = max(found, quick, key=lambda one: -sum(map(_weight, one[0])))
    chosen, length = found
    likeliest = next((s for s in suspects if s not in chosen and not s.late), None)
    reason = too_small(run, number_of_arms([likeliest]), start_s) if likeliest is not None else ""
    left_out = [s for s in suspects if s not in chosen]
    told = [too_small(run, number_of_arms([s]), start_s, s.late) if s.late else reason for s in left_out]
    return chosen, length, [replace(s.judged, reason=why) for s, why in zip(left_out, told, strict=True)]


def _fitting(
    run: RunRecord, suspects: Sequence[Suspect], budget_s: float, start_s: float | None
) -> tuple[list[Suspect], Length | None]:
    """The most of the suspects, the first of them, whose arms fit, and how long these are."""
    chosen = list(suspects)
    while chosen:
        length = needed_length(run, need_of(chosen), budget_s, start_s)
        if length is not None:
            return chosen, length
        last = next((s for s in reversed(chosen) if not is_score(s.treatment)), None)
        if last is None:
            break
        chosen.remove(last)
    return [], None


def like_before(folder: Path, base: ArmSpec, length: Length, total: int, late: bool = False) -> Length:
    """The length of control arms that an earlier call finished, unless the new budget allows arms twice as long.

    ``late``: as long as what comes late needs, at least.
    """
    best = length
    for file in sorted(folder.glob(f"*/{SPEC_FILE}")):
        spec = ArmSpec.from_json(json.loads(file.read_text()))
        same = replace(spec, epochs=0, fraction=1.0, seed=0, closing=0.0, rescore=[], answers_only=False) == base
        if not same or spec.fraction != length.fraction or not (file.parent / "record" / RESULT_FILE).is_file():
            continue
        old, new = spec.epochs or total, length.epochs or total
        if old <= new < 2 * old and (best is length or spec.epochs > best.epochs):
            known = replace(length, epochs=spec.epochs, as_recorded=length.as_recorded and spec.epochs == length.epochs)
            best = known if known.short < old and (not late or known.long_enough(total)) else best
    return best


def number_of_arms(suspects: Sequence[Suspect]) -> int:
    """Control and treatments in all seeds; joint treatments as if the two costliest are confirmed."""
    return need_of(suspects).arms


def need_of(suspects: Sequence[Suspect]) -> Need:
    """The arms of ``number_of_arms``, by the length that they need."""
    times = {True: 0, False: 0}
    for s in suspects:
        times[bool(s.late)] += (_times(s.treatment) if _has_arms(s.treatment) else 0) + has_placebo(s.treatment)
    programs = sum(_times(s.treatment) for s in suspects if _has_arms(s.treatment))
    joint = 1 if len(suspects) >= 2 and programs >= 2 else 0
    late = any(s.late for s in suspects)
    times[late] += joint
    return Need(SEEDS * (1 + times[True]), SEEDS * times[False], late)


def _has_arms(treatment: Intervention) -> bool:
    """Whether arms of its own show its effect: neither a score of the control's nor of its finished model."""
    return not is_score(treatment) and not is_rescore(treatment)


def _times(treatment: Intervention) -> int:
    """How many times as long as the program's own an arm under it is."""
    times = treatment.settings.get("times" if treatment == LONGER else "factor" if is_arguments(treatment) else "", 1)
    return times if isinstance(times, int) else 1
