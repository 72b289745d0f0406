"""The updates leave the network worse than its features allow, whatever the reason.

What it looks for
    The finished model against probes on its last features and on those before training, all asked about validation images.

Why it hurts validation
    The head does not make of the features what can be made of them, or training spoils them.

What else looks like this
    Early stops and strong augmentation leave a small distance, for which room is left. Rates, schedules, frozen layers and
    optimizers have names of their own (MOD303 to MOD305, TRN401 to TRN415).

Remedy
    See what moves in a step and how far; train the head alone on the frozen features, and compare.

Source
    Localisation by substitution: delta debugging (Zeller 1999), applied to the stages of a training program.
"""

from __future__ import annotations

from valgap.checks.loss_course import loss_course
from valgap.checks.seen_part import SETTLED_STEPS, few_steps
from valgap.checks.stage_faults import outcome
from valgap.types import Case, Check, Clear, Finding, NotApplicable


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of this stage; a training that was still under way is not at fault."""
    found = outcome(case, "update")
    if not isinstance(found, Finding):
        return found
    short, course = few_steps(case.run, SETTLED_STEPS), loss_course(case.run)
    if short is None and course is not None and course.still_falls():
        short = "a training that has come to its end: its loss still falls"
    return found if short is None else NotApplicable(short)


CHECK = Check(code="STG607", name="faulty_update", stage="update", detect=detect, doc=__doc__ or "")
