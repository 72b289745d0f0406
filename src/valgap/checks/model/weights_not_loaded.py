"""Pretrained weights are absent, or were silently skipped.

What it looks for
    `load_state_dict` calls before training in which most keys did not fit (possible only with `strict=False`), and
    BatchNorm layers that still have the statistics of a new layer (mean 0, variance 1, exactly) at the first training
    step. Frozen layers that are new are a fault whatever was meant: nobody trains a head on random features. Also a load that
    left a good part of the network as it was made, where that part is frozen, or belongs to a published network.

Why it hurts validation
    A network that begins at random needs thousands of times more images than fine-tuning.

What else looks like this
    Training from scratch on purpose, with every layer trainable and enough images: that is a choice. A head that does not
    fit (another number of classes) is normal. What is loaded after the training (the best epoch, another model for a
    test) says nothing of how it began. A module of one's own around given weights (a neck, a decoder) is new on purpose while
    it is trained.

Remedy
    Load the weights with `strict=True` after taking prefixes such as `module.` off the keys, and look at the missing
    keys.

Source
    Efficient-AI-Backbones issue 202; torchvision and timm documentation of pretrained weights.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from valgap.checks.shared.freezing import frozen_share, holding, share
from valgap.types import Case, Check, Clear, Evidence, Finding, Intervention, ModelInfo, NotApplicable, RunRecord, WeightsLoaded

# A load counts as skipped when fewer than this share of its keys exist in the module; a backbone with another head
# fits to more than 95 %.
FITTING_SHARE = 0.5
# From scratch on purpose is only doubted below so many training images.
FEW_IMAGES = 5_000
UNMEASURED_POINTS = 15.0
# A load that leaves out more of the module's keys than a head has, while layers inside are new, is a load of a part.
PART_MISSING, PART_FRESH = 0.1, 0.05
# All that the untrained part garbles may be lost.
MOST_POINTS = 90.0


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Look at what was loaded and at whether the network is new."""
    outcome = _detect(case)
    gives = case.stages.compared("forward").published if isinstance(outcome, Finding) and case.stages is not None else None
    if not isinstance(outcome, Finding) or gives is None or gives.value <= 0:
        return outcome
    told = "cost: val accuracy of a probe on a published network's features of the same tensors, beyond the program's"
    cost = Evidence(told, gives.value, 0.0, "points", None, gives.low, gives.high)
    facts = tuple(e for e in outcome.evidence if not e.assumed)
    return replace(outcome, severity_points=gives.value, most_points=0.0, evidence=(*facts, cost))


def _detect(case: Case) -> Finding | Clear | NotApplicable:
    model = case.run.trained_model
    train = case.run.last_train
    if model is None or train is None:
        return NotApplicable("a training pass")
    early = [w for w in case.run.weights_loaded if w.before_training and began_before(case.run, w)]
    skipped = next((w for w in early if _skipped(w)), None)
    facts = (
        Evidence("BatchNorm layers that are new at the first step", model.fresh_batchnorm, 0.0),
        Evidence("share of the model's keys that one load filled", model.loaded_fraction, 1.0),
    )
    later = [w for w in early if not _skipped(w) and w.given]
    if skipped is not None and not later and not _clearly_given(model):
        return _finding("load_state_dict skipped nearly all of the given weights", 0.95, facts, skipped)
    part = next((w for w in reversed(early) if _in_part(w, model)), None)
    if part is not None and early[-1] is part:
        frozen = _new_and_frozen(model)
        told = f"load_state_dict left {part.missing} of {part.missing + part.matched} tensors of the network as they were made"
        sure = 0.95 if frozen else 0.9 if model.expected_whole else 0.4
        return replace(_finding(told + (", and they do not learn" if frozen else ""), sure, facts, part), most_points=MOST_POINTS)
    if np.isnan(model.fresh_batchnorm):
        if model.pretrained is True:
            return Clear("weights were loaded before training", facts)
        return NotApplicable("BatchNorm layers, or a load_state_dict call, to tell new weights from given ones")
    if model.fresh_batchnorm < FITTING_SHARE:
        return Clear("the network began with given weights", facts)
    if frozen_share(model) > FITTING_SHARE and _trained_before(case.run, model):
        return Clear("the program trained these layers itself, before it froze them", facts)
    if frozen_share(model) > FITTING_SHARE:
        return _finding("most layers are frozen although their weights are new (random)", 0.95, facts, None)
    if model.expected_size is not None and held_in_eval(case.run):
        return _finding("BatchNorm is held in eval mode although its statistics are new, as are the weights", 0.8, facts, None)
    images = len(np.unique(train.samples.sample)) if (train.samples.sample >= 0).any() else len(train.samples)
    evidence = (*facts, Evidence("training images", images, None, "images"))
    if images >= FEW_IMAGES:
        return Clear("the network began at random, with every layer trainable and many images", evidence)
    return _finding(f"the network began at random and has {images} images to learn from", 0.4, evidence, None)


def began_before(run: RunRecord, load: WeightsLoaded) -> bool:
    """Whether the load happened before the first training pass; a module that is new after the training loads for a test."""
    first = next((p.index for p in run.passes if p.phase == "train"), None)
    return first is None or load.after_pass < first


def held_in_eval(run: RunRecord) -> bool:
    """Whether no training pass lets BatchNorm see a batch: it keeps the statistics that it began with."""
    passes = run.of_phase("train")
    return all(p.modes.batchnorm_layers > 0 and p.modes.batchnorm_training == 0 for p in passes)


def _skipped(load: WeightsLoaded) -> bool:
    return load.given > 0 and load.matched < FITTING_SHARE * load.given


def _in_part(load: WeightsLoaded, model: ModelInfo) -> bool:
    """Whether the load filled a part of the module, and layers beyond a head are new: BatchNorm, or what nothing was put into."""
    if not load.given or load.missing < PART_MISSING * (load.missing + load.matched):
        return False
    new = (model.newness == 1) & model.is_parameter if len(model.newness) else np.zeros(0, bool)
    return bool(model.fresh_batchnorm >= PART_FRESH) or float(new.sum()) >= PART_MISSING * max(1, int(model.is_parameter.sum()))


def _new_and_frozen(model: ModelInfo) -> bool:
    """Whether parameters that are as they were made do not learn."""
    if not len(model.newness):
        return False
    own = model.is_parameter & (model.newness == 1)
    # Before any step was seen (gradients gathered over more batches than there were, a run that goes on) nobody's are known.
    learns = model.requires_grad & (model.in_optimizer | ~model.in_optimizer.any())
    return bool((~learns[own]).mean() > FITTING_SHARE) if own.any() else False


def _clearly_given(model: ModelInfo) -> bool:
    return bool(model.fresh_batchnorm < FITTING_SHARE)


def _trained_before(run: RunRecord, model: ModelInfo) -> bool:
    """Whether most of what is frozen moved in this run: in a task before."""
    held = holding(run)
    frozen = model.is_parameter & ~model.requires_grad
    return held is not None and len(held.moved) == len(frozen) and share(model, held.moved & frozen, frozen) > FITTING_SHARE


def _finding(summary: str, confidence: float, facts: tuple[Evidence, ...], load: WeightsLoaded | None) -> Finding:
    if load is not None:
        facts = (Evidence("keys of the file that the model has", load.matched, load.given, "keys"), *facts)
    return Finding(
        summary=summary,
        severity_points=UNMEASURED_POINTS,
        confidence=confidence,
        evidence=(*facts, Evidence("cost (no re-run): assumed", UNMEASURED_POINTS, 0.0, "points")),
        remedy="load the pretrained weights with strict=True, after removing prefixes from the keys; check what is missing",
        subjects=load.examples if load is not None else (),
    )


def treat(case: Case, finding: Finding) -> Intervention:
    """The skipped weights fitted to the network; where none were given, published ones, if they are on this machine."""
    return Intervention("load_weights", {"phase": "both"})


CHECK = Check(code="MOD301", name="weights_not_loaded", stage="forward", detect=detect, doc=__doc__ or "", treat=treat)
