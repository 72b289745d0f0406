"""A stage that is worse than its reference is a finding, whatever the fault is called. No check; those of the stages share it."""

from __future__ import annotations

from dataclasses import replace

from valgap.types import Case, Clear, Finding, Intervention, NotApplicable, Stage, Untreatable

MOST_POINTS = 100.0


def outcome(case: Case, stage: Stage) -> Finding | Clear | NotApplicable:
    """What the comparison of a stage with its reference says."""
    if case.stages is None:
        return NotApplicable("the comparison with the reference of this stage")
    found = case.stages.compared(stage)
    if found.verdict == "unknown":
        return NotApplicable(found.missing or "what the reference of this stage is compared with")
    if found.verdict != "at fault":
        return Clear(found.summary, found.evidence)
    if found.points is None:  # seen for certain or not, nothing says what it costs
        return Finding(found.summary, 0.0, found.confidence, found.evidence, found.remedy, most_points=MOST_POINTS)
    return Finding(found.summary, found.points.value, found.confidence, found.evidence, found.remedy)


def of_kind(case: Case, stages: tuple[Stage, ...], kind: str, remedy: str, otherwise: str) -> Finding | Clear | NotApplicable:
    """The most costly of these stages' faults, where it is of this kind; ``otherwise`` says what then is not the case."""
    told = [(outcome(case, stage), stage) for stage in stages]
    faults = [
        o for o, stage in told if isinstance(o, Finding) and case.stages is not None and case.stages.compared(stage).kind == kind
    ]
    if faults:
        worst = max(faults, key=lambda f: f.severity_points)
        return replace(worst, remedy=remedy)
    unknown = [o for o, _ in told if isinstance(o, NotApplicable)]
    if len(unknown) == len(told):
        return unknown[0]
    return Clear(otherwise)


def of_pairing(case: Case) -> Stage | None:
    """The stage of wrong labels that the files themselves do not have; None where they may have them."""
    return "pair" if case.stages is not None and case.stages.compared("pair").verdict == "at fault" else None


def of_folders(case: Case) -> Stage | None:
    """The stage of labels of other classes although each is that of its file's folder; None where that is not known."""
    return "files" if case.stages is not None and case.stages.compared("pair").verdict == "sound" else None


def treatment(case: Case, stage: Stage) -> Intervention | Untreatable:
    """What puts the reference in the stage's place, as the comparison gave it."""
    found = case.stages.compared(stage) if case.stages is not None else None
    if found is None or found.treatment is None:
        return Untreatable("which files and samples the reference of this stage would take is not known here")
    return found.treatment


def treatment_of_kind(case: Case, stages: tuple[Stage, ...], kind: str) -> Intervention | Untreatable:
    """The same for the most costly of these stages that is at fault in this way."""
    found = [(s, case.stages.compared(s)) for s in stages] if case.stages is not None else []
    faults = [
        (c.points.value if c.points is not None else 0.0, s) for s, c in found if c.verdict == "at fault" and c.kind == kind
    ]
    return treatment(case, max(faults)[1] if faults else stages[0])
