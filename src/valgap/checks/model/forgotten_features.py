"""The pretrained features were destroyed while the network was fine-tuned.

What it looks for
    A linear probe on the features as they were before training and as they are at the end, on the same images. The finished
    network must also lie below what the probe reaches on the first features: otherwise what was forgotten was not needed.

Why it hurts validation
    A rate that suits a new head is far too hot for pretrained layers; and while the head is still random, its gradients are
    noise. A few such steps erase what millions of images had taught, and a small data set cannot teach it again.

What else looks like this
    Moving BatchNorm statistics in frozen layers (MOD302) spoil features without moving a weight. A network without pretrained
    weights (MOD301) has nothing to forget: its first features are no better than its last.

Remedy
    Train the head alone first, then unfreeze with a tenth of the head's rate or less (or freeze the backbone for good).

Source
    Kumar et al. 2022 (LP-FT); McCloskey and Cohen 1989; Transformers-Tutorials issue 297.
"""

from __future__ import annotations

from valgap.checks.model import tiny_batch_batchnorm
from valgap.checks.shared.progress import numbers_of, paired_error, update_ratio
from valgap.checks.shared.seen_part import optimizer_steps
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable

# Paired probes on the same images. In benchmarks/results/faults.md sound fine-tuning gains or stays within 2 standard errors.
Z_SURE, Z_LIKELY = 4.0, 2.5
# The finished network may not be better than what the first features give, less this.
MARGIN = 0.02
# All updates in one direction would have moved the weights by so much of their size: features cannot be forgotten by less.
LEAST_WAY = 0.005
# Statistics of batches of two or three images spoil features as well, and are named as the cause then. A short fine-tuning stays
# behind a probe on the first features as well, whatever else is wrong with it: of strangers' programs that were told so at less
# than four standard errors, none had forgotten anything.
HINT = 0.4


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Compare the probes on the first and the last features, and the run with both."""
    run = case.run
    numbers = numbers_of(run)
    if "probe_start" not in numbers:
        return NotApplicable("probes on the features before and after training (closing measurements of a trained backbone)")
    before, after, n = numbers["probe_start"], numbers["probe_end"], int(numbers["probe_start_n"])
    error = paired_error(numbers, "probe_start_se", n)
    table = run.closing.rescores.get("val_eval") if run.closing is not None else None
    reached = table.accuracy if table is not None else after
    interval = after - 1.96 * error, after + 1.96 * error
    facts = (
        Evidence("val accuracy of a linear probe, last features against first", after, before, "", n, *interval),
        Evidence("val accuracy of the run itself", reached, before, "", n),
        Evidence("size of an update over that of the weights (median)", update_ratio(run.of_phase("train")), "below 0.01"),
    )
    model = run.trained_model
    if model is not None and model.pretrained is False:
        return Clear("the network began at random: there was nothing to forget", facts)
    way = update_ratio(run.of_phase("train")) * optimizer_steps(run)
    if way < LEAST_WAY:
        return Clear("the weights hardly moved: what makes features worse is no step of the training", facts)
    z = (before - after) / max(error, 1e-6)
    if z < Z_LIKELY or reached > before - MARGIN:
        return Clear("the features are not worse than before training, or the run does without them", facts)
    lost = 100 * min(before - reached, before - after)  # what the head has not learnt yet was not forgotten
    likely = 0.9 if z >= Z_SURE else HINT
    return Finding(
        summary=f"a probe reaches {before:.1%} on the features before training and {after:.1%} on those after it",
        severity_points=max(0.0, lost),
        confidence=HINT if isinstance(tiny_batch_batchnorm.detect(case), Finding) else likely,
        evidence=facts,
        remedy="train the new head alone first; then unfreeze with a tenth of its rate or less, or keep the backbone frozen",
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """Everything but the last layer stays as it was at the start."""
    return Intervention("freeze_backbone", {"phase": "train"})


CHECK = Check(
    code="MOD304",
    name="forgotten_features",
    stage="update",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    by_features=True,
    needs_whole_run="what the features are worth in the end",
)
