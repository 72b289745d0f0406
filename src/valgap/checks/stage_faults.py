"""A stage that is worse than its reference is a finding, whatever the fault is called. No check; those of the stages share it."""

from __future__ import annotations

from valgap.types import Case, Clear, Finding, NotApplicable, Stage


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


def of_kind(case: Case, stages: tuple[Stage, ...], kind: str, remedy: str, otherwise: str) -> Finding | Clear | NotApplicable:
    """The most costly of these stages' faults, where it is of this kind; ``otherwise`` says what then is not the case."""
    told = [(outcome(case, stage), stage) for stage in stages]
    faults = [
        o for o, stage in told if isinstance(o, Finding) and case.stages is not None and case.stages.compared(stage).kind == kind
    ]
    if faults:
        worst = max(faults, key=lambda f: f.severity_points)
        return Finding(worst.summary, worst.severity_points, worst.confidence, worst.evidence, remedy)
    unknown = [o for o, _ in told if isinstance(o, NotApplicable)]
    if len(unknown) == len(told):
        return unknown[0]
    return Clear(otherwise)
