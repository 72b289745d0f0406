"""The account of what was confirmed: a line a cause, whose sums by stage are the lines of the stages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from valgap.experiments.full_length import at_full_length
from valgap.experiments.joint import Confirmed, Experiment, Joint
from valgap.experiments.scoring import misleads_probe
from valgap.types import STAGE_WORDS, STAGES, Diagnosis, Effect, Finding, LedgerLine, Measured, StageShare

UNEXPLAINED = "unexplained"
CONFIDENCE = "overconfidence"
SUSPECTED = 0.5


@dataclass(frozen=True)
class Account:
    """Lines by cause, and what they come to by stage."""

    lines: tuple[LedgerLine, ...] = ()
    shares: tuple[StageShare, ...] = ()


def account(
    diagnosis: Diagnosis, lab: Experiment, confirmed: Sequence[Confirmed], screened: Sequence[StageShare] = ()
) -> Account:
    """Lines that lead from the run's validation accuracy to what is attainable; their points are rounded so that they sum.

    Lines of kind ``measurement`` come first and lead from what the script reports to that accuracy. Beside the sum stand
    stages whose reference does worse (``screened``), and the part of the loss that is confidence.
    """
    if diagnosis.validation is None:
        return Account()
    joint = Joint(lab, confirmed)
    effects = [(c, joint.share([c.name])) for c in confirmed]
    lines = [_line(c, effect, not joint.complete) for c, effect in effects if effect is not None]
    beside = [*(_gain(s) for s in screened if s.told == "gain"), *confidence_lines(diagnosis)]
    reach = None if any(misleads_probe(c.treatment) for c in confirmed) else attainable(diagnosis)
    if reach is not None:
        explained = round(100 * diagnosis.validation.value, 1) + sum(line.points for line in lines)
        rest = round(round(100 * reach, 1) - explained, 1)
        probe = f"the {reach:.1%} that a linear probe on the run's features reaches"
        note = f"up to {probe}" if rest > 0 else f"the remedies reach no less than {probe}"
        lines.append(LedgerLine(UNEXPLAINED, max(0.0, rest), note=note, kind="rest"))
    return Account((*measurement_lines(diagnosis), *lines, *beside), (*_by_stage(joint, confirmed), *screened))


def _by_stage(joint: Joint, confirmed: Sequence[Confirmed]) -> list[StageShare]:
    """What the causes of each stage come to."""
    found = []
    for stage in STAGES:
        names = [c.name for c in confirmed if c.stage == stage]
        share = joint.share(names) if names else None
        if share is not None:
            found.append(StageShare(stage, Measured(share.value, share.low, share.high), share.nats, "cost"))
    return found


def measurement_lines(diagnosis: Diagnosis) -> list[LedgerLine]:
    """What the script's own report of its accuracy adds or takes away, apart from anything that the model does."""
    lines = []
    for judged in diagnosis.findings:
        finding, check = judged.outcome, judged.check
        if check.name != "miscomputed_metric" or not isinstance(finding, Finding) or finding.confidence < SUSPECTED:
            continue
        points = round(finding.severity_points, 1)
        # Printed otherwise, the model's answers and so its loss are the same.
        same = Measured(0.0, 0.0, 0.0)
        lines.append(LedgerLine(check.name, points, note=finding.summary, kind="measurement", stage=check.stage, nats=same))
    return lines


def confidence_lines(diagnosis: Diagnosis) -> list[LedgerLine]:
    """The part of the loss that one temperature takes off, where there is one: it costs no point."""
    parts = diagnosis.loss
    if parts is None or parts.confidence.low <= 0:
        return []
    note = f"one temperature takes it off the loss of the run as it is; the other {parts.discrimination:.2f} nats it leaves"
    return [LedgerLine(CONFIDENCE, 0.0, 0.0, 0.0, note, "confidence", "loss", parts.confidence)]


def _gain(share: StageShare) -> LedgerLine:
    p = share.points
    note = "the program does better here than the plain way"
    name, stage = STAGE_WORDS[share.stage], share.stage
    return LedgerLine(name, round(p.value, 1), round(p.low, 1), round(p.high, 1), note, "gain", stage, share.nats)


def _line(cause: Confirmed, effect: Effect, alone: bool) -> LedgerLine:
    value, low, high = round(effect.value, 1), round(effect.low, 1), round(effect.high, 1)
    whole, whole_nats = at_full_length(effect)
    notes = ["alone: joint re-runs are missing"] if alone else []
    if whole is not None:
        notes.append(f"in {effect.trained:.0%} of the training; in all of it {whole.low:+.0f} .. {whole.high:+.0f}")
    line = LedgerLine(cause.name, value, low, high, "; ".join(notes), stage=cause.stage, nats=effect.nats, alone=alone)
    return replace(line, whole=whole, whole_nats=whole_nats)


def attainable(diagnosis: Diagnosis) -> float | None:
    """Validation accuracy that the probe on this run's features reaches, 0..1; None where it was not measured."""
    numbers = diagnosis.run.closing.numbers if diagnosis.run.closing is not None else {}
    reached = [numbers[k] for k in ("probe_initial", "probe_final") if k in numbers and not math.isnan(numbers[k])]
    return max(reached) if reached else None
