"""A setting of the optimizer has a value that nobody means, and the training stays behind.

What it looks for
    Adam's epsilon of 1e-2 or more, a first beta above the second one or of .99 and more, a second beta below .8; SGD's momentum
    that is no larger than a weight decay is, or of .995 and more, and a dampening of .5 and more. It is told where a linear
    probe on the run's own features is ahead of the run.

Why it hurts validation
    A large epsilon outweighs the gradients that it is added to, so that steps shrink to nearly nothing; momentum that is too
    small or too large makes steps a tenth or hundreds of times as long as the rate was chosen for.

What else looks like this
    The values are right for a few recipes (Adam with an epsilon of .1 for one old network): there the training
    does not stay behind. A rate that is too low (TRN402) and plain SGD (TRN411) look alike; settings given in the wrong order, by
    position, are the usual way to this one.

Remedy
    Name each setting: `AdamW(params, lr=..., weight_decay=...)`, `SGD(params, lr=..., momentum=0.9, weight_decay=...)`.

Source
    Kingma and Ba 2015 (Adam: epsilon 1e-8, betas .9 and .999); Sutskever et al. 2013 (momentum .9 to .99).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from valgap.checks.shared.progress import NO_TORCH_OPTIMIZER, shortfall
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, OptimizerInfo

ADAPTIVE = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax")
USUAL_EPS, LARGE_EPS = 1e-8, 1e-2
USUAL_BETAS, SLOW_BETA, SHORT_BETA = (0.9, 0.999), 0.99, 0.8
# Weight decays lie below the first; a momentum of the second is an average over two hundred steps.
USUAL_MOMENTUM, LIKE_A_DECAY, LONG_MOMENTUM = 0.9, 0.05, 0.995
DAMPED = 0.5
NOTABLE_POINTS = 5.0
SURE, HINT = 0.85, 0.4


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Values of the optimizers' groups, and what a probe is ahead of the run."""
    run = case.run
    if run.own_updates:
        return NotApplicable(NO_TORCH_OPTIMIZER)
    if not run.optimizers or not run.of_phase("train"):
        return NotApplicable("an optimizer that stepped")
    odd = {name: (value, usual) for one in run.optimizers.values() for name, value, usual in unusual(one)}
    if not odd:
        return Clear("the optimizer's settings are usual ones")
    facts = [Evidence(f"the optimizer's {name}", value, usual) for name, (value, usual) in odd.items()]
    gap = shortfall(run)
    if gap is not None:
        facts.append(gap.evidence())
        if gap.low <= 0 or 100 * gap.value < NOTABLE_POINTS:
            return Clear("unusual settings of the optimizer, but the training does not stay behind", tuple(facts))
    told = " and ".join(f"{name} {value:g} where {usual:g} is usual" for name, (value, usual) in odd.items())
    kind = next(iter(run.optimizers.values())).kind
    return Finding(
        summary=f"{kind} runs with {told}",
        severity_points=100 * gap.value if gap is not None else 0.0,
        confidence=SURE if gap is not None else HINT,
        evidence=tuple(facts),
        remedy="give each setting of the optimizer by its name, and leave those out that you do not mean to change",
    )


def unusual(one: OptimizerInfo) -> list[tuple[str, float, float]]:
    """(setting, its value, a usual value) of what nobody means, the first group first."""
    found: list[tuple[str, float, float]] = []
    for group in one.groups:
        if one.kind in ADAPTIVE:
            found += _of_adaptive(group)
        elif one.kind == "SGD":
            momentum, dampening = _number(group, "momentum"), _number(group, "dampening")
            if momentum is not None and (0 < momentum < LIKE_A_DECAY or momentum < 0 or momentum >= LONG_MOMENTUM):
                found.append(("momentum", momentum, USUAL_MOMENTUM))
            if momentum and dampening is not None and dampening >= DAMPED:
                found.append(("dampening", dampening, 0.0))
    return found


def _of_adaptive(group: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    eps, first, second = (_number(group, name) for name in ("eps", "beta1", "beta2"))
    found = []
    if eps is not None and eps >= LARGE_EPS:
        found.append(("eps", eps, USUAL_EPS))
    if first is not None and second is not None:
        if first >= SLOW_BETA or first > second:
            found.append(("beta1", first, USUAL_BETAS[0]))
        if second < SHORT_BETA:
            found.append(("beta2", second, USUAL_BETAS[1]))
    return found


def _number(group: Mapping[str, Any], name: str) -> float | None:
    value = group.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def treat(case: Case, finding: Finding) -> Intervention:
    """The same optimizer with usual values of these settings."""
    values = {name: usual for one in case.run.optimizers.values() for name, _, usual in unusual(one)}
    return Intervention("optimizer_settings", {"values": values, "phase": "train"})


CHECK = Check(
    code="TRN421",
    name="unusual_settings",
    stage="update",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
)
