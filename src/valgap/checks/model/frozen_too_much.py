"""The frozen features are too far from these images.

What it looks for
    A frozen pretrained backbone whose *earlier* layers carry more about these classes than its last one: a linear probe on
    the averaged output of a layer at about 70 % of the depth against one on the features that the head sees.

Why it hurts validation
    The last layers are specialised in the classes of the pretraining data. On images of another kind (signs, scans, charts)
    they throw away what the earlier layers still saw, and a head on top cannot get it back.

What else looks like this
    Too low an input resolution (PRE205) and wrong normalisation (PRE201) spoil all layers. A head that is not trained to its
    end (TRN402, TRN403) lies below the probe on its own features.

Remedy
    Unfreeze the last stage with a tenth of the head's rate, or put the head on an earlier layer.

Source
    Yosinski et al. 2014 (transferability of layers); Evci et al. 2022 (Head2Toe).
"""

from __future__ import annotations

from valgap.checks.shared.progress import backbone_trained, numbers_of, paired_error, train_rescored
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, RunRecord

# Where more of the network than this is trained, it can adapt. A new head is a few thousandths of it.
TRAINED_SHARE = 0.2
# Paired probes. On photographs of things (clothing, ants and bees) the earlier layer is worse; on hand signs it is better by 5
# to 18 points, 2 to 4 standard errors at 100 images.
Z_SURE, Z_LIKELY = 3.5, 2.5
NOTABLE = 0.04
# At 64 instead of 224 px the last layer of a sound network is worse than an earlier one on clothing as well.
SMALL_INPUTS, HINT = 0.45, 0.4


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the probes on an earlier and on the last layer of a frozen network."""
    run = case.run
    numbers = numbers_of(run)
    trained = backbone_trained(run)
    if "probe_middle" not in numbers or run.trained_model is None:
        return NotApplicable("probes on two layers of the network (closing measurements)")
    if trained > TRAINED_SHARE:
        return Clear("most of the network is trained")
    middle, last = numbers["probe_middle"], numbers["probe_final"]
    error = paired_error(numbers, "probe_middle_se", int(numbers["probe_n"]))
    if "probe_initial" in numbers and numbers["probe_initial"] > last:
        return NotApplicable("features that moving BatchNorm statistics did not spoil")
    n = int(numbers["probe_n"])
    facts = (
        Evidence(
            "val accuracy of a linear probe, earlier layer against last",
            middle,
            last,
            "",
            n,
            middle - 1.96 * error,
            middle + 1.96 * error,
        ),
        Evidence("share of the network's numbers that is trained", trained),
        Evidence("train accuracy re-scored like validation", train_rescored(run)),
    )
    z = (middle - last) / max(error, 1e-6)
    if z < Z_LIKELY or middle - last < NOTABLE:
        return Clear("the last frozen layer carries as much about these classes as an earlier one", facts)
    return Finding(
        summary=f"an earlier layer of the frozen network gives {middle:.1%}, its last one {last:.1%}",
        severity_points=100 * (middle - last),
        confidence=HINT if small_inputs(run) else 0.85 if z >= Z_SURE else 0.65,
        evidence=facts,
        remedy="unfreeze the last stage at a tenth of the head's rate, or put the head on an earlier layer",
    )


def small_inputs(run: RunRecord) -> bool:
    """Whether the images are much smaller than the weights expect: the last layers suffer from that alone."""
    model, last = run.trained_model, run.last_validation
    if model is None or model.expected_size is None or last is None or last.inputs is None:
        return False
    return max(last.inputs.shape[-2:]) < SMALL_INPUTS * max(model.expected_size[-2:])


def treat(case: Case, finding: Finding) -> Intervention:
    """The last stage joins the optimizer at a tenth of the rate."""
    return Intervention("unfreeze_last", {"share": 0.3, "factor": 0.1, "phase": "train"})


CHECK = Check(
    code="MOD305",
    name="frozen_too_much",
    stage="update",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="what the trained layers make of the features",
)
