"""A stage that is worse than its reference is a finding, whatever the fault is called. No check; those of the stages share it."""

from __future__ import annotations

from valgap.types import Case, Clear, Finding, Intervention, NotApplicable, Stage, Untreatable


def outcome(case: Case, stage: Stage) -> Finding | Clear | NotApplicable:
    """What the comparison of a stage with its reference says."""
    if case.stages is None:
        return NotApplicable("the comparison with the reference of this stage")
    found = case.stages.compared(stage)
    if found.verdict == "unknown":
        return NotApplicable(found.missing or "what the reference of this stage is compared with")
    if found.verdict != "at fault":
        return Clear(found.summary, found.evidence)
    points = found.points.value if found.points is not None else 0.0
    return Finding(found.summary, points, found.confidence, found.evidence, found.remedy)


def treatment(case: Case, stage: Stage) -> Intervention | Untreatable:
    """What puts the reference in the stage's place, as the comparison gave it."""
    found = case.stages.compared(stage) if case.stages is not None else None
    if found is None or found.treatment is None:
        return Untreatable("which files and samples the reference of this stage would take is not known here")
    return found.treatment
