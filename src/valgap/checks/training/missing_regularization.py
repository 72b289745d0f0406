"""Nothing holds the network back from memorising its training images.

What it looks for
    No weight decay in any group, no Dropout, no label smoothing, and training images that are the same in every epoch;
    together with a gap between re-scored training images and validation.

Why it hurts validation
    Of all functions that fit the training images, nothing prefers the simple ones.

What else looks like this
    Only augmentation missing (PRE206). A gap in spite of regularisation points at the data: shift (DAT106), too few images
    (DAT107), wrong labels (DAT104).

Remedy
    Weight decay of 1e-4 to 5e-4 (1e-2 for AdamW), a random crop and flip; Dropout 0.2 before the head; stop at the best
    epoch.

Source
    Krogh and Hertz 1992 (weight decay); Srivastava et al. 2014 (Dropout).
"""

from __future__ import annotations

from valgap.checks.preprocessing.missing_augmentation import TRAINED_SHARE, cost, least_gap, same_images, varied_on_disk
from valgap.checks.shared.progress import NO_TORCH_OPTIMIZER, backbone_trained, overfit_gap, overfits
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, NotApplicable, RunRecord


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """List what holds the network back, and look at the gap."""
    run = case.run
    if run.own_updates:
        return NotApplicable(NO_TORCH_OPTIMIZER)
    if not run.optimizers or run.last_train is None:
        return NotApplicable("an optimizer that stepped")
    present = [*regularizers(run), *(["augmentation on disk"] if varied_on_disk(case) else [])]
    fact = Evidence("what holds the network back", ", ".join(present) or "nothing", "weight decay, augmentation or Dropout")
    if present:
        return Clear(f"there is {', '.join(present)}", (fact,))
    gap = overfit_gap(run)
    if gap is None:
        return NotApplicable("training images re-scored like validation (closing measurements)")
    facts = (fact, *gap.evidence(), Evidence("share of the network's numbers that is trained", backbone_trained(run)))
    if not overfits(run, gap, least_gap(run)):
        return Clear("nothing holds the network back, but there is no large gap to validation", facts)
    points = cost(gap) + 1.0  # it holds the missing augmentation within it
    return Finding(
        summary=f"no weight decay, Dropout, smoothing or augmentation, and a gap of {100 * gap.value:.0f} points to validation",
        severity_points=points,
        confidence=0.65 if backbone_trained(run) >= TRAINED_SHARE else 0.35,
        evidence=(*facts, Evidence("cost (no re-run): assumed", points, 0.0, "points")),
        remedy="add weight decay (1e-4; 1e-2 with AdamW), a random crop and flip, and stop at the best epoch",
    )


def regularizers(run: RunRecord) -> list[str]:
    """The means of regularisation that the record shows, by name."""
    found = []
    if any(float(g.get("weight_decay") or 0.0) > 0 for o in run.optimizers.values() for g in o.groups):
        found.append("weight decay")
    model = run.trained_model
    if model is not None and model.dropout:
        found.append("Dropout")
    last = run.last_train
    if last is not None and last.loss is not None and last.loss.label_smoothing > 0:
        found.append("label smoothing")
    same = same_images(run)
    info = run.datasets.get(last.dataset) if last is not None else None
    random = info is not None and info.transform is not None and any(s.random for s in info.transform)
    if random or (same is not None and same < 0.99):
        found.append("augmentation")
    return found


def treat(case: Case, finding: Finding) -> Intervention:
    """Weight decay in every group."""
    kinds = {o.kind for o in case.run.optimizers.values()}
    decay = 5e-2 if "AdamW" in kinds else 1e-3
    return Intervention("optimizer_settings", {"values": {"weight_decay": decay}, "phase": "train"})


CHECK = Check(
    code="TRN405",
    name="missing_regularization",
    stage="update",
    detect=detect,
    doc=__doc__ or "",
    treat=treat,
    needs_whole_run="how far training and validation part in the end",
)
