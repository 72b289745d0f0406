"""Mixed training images: of each, the loss asks for the classes that it is mixed of, as much as there is of each.

What an image was mixed of is read off its pixels and those of the batch that the loader gave, what was asked for it off the
gradient at the logits (``seams/looking/mixing.py``). Neither files nor a network are needed for that.

Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"; Yun et al. 2019, "CutMix".
"""

from __future__ import annotations

from dataclasses import astuple

import numpy as np

from valgap.types import Compared, Evidence, Intervention, MixStats, RunRecord, Untreatable

FEW = 20  # mixed images that say enough
FEW_UNEVEN = 6  # of which one part is clearly larger: of sound ones hardly any is asked for the smaller one
# Shares above which what is asked for is another thing than what was mixed: of it, for classes that are in no part; of the
# images, with the smaller part's class asked for more, and with one class asked for alone.
ELSEWHERE, REVERSED, SINGLE = 0.12, 0.5, 0.6
SURE, SINGLE_CONFIDENCE = 0.95, 0.75
TO_LOSS = (
    "give the loss both classes of a mixed image, each with the share that its image has: "
    "lam * loss(out, y) + (1 - lam) * loss(out, y[index]), with the index and lam that mixed the images"
)
TO_PAIR = "mix the targets as the images are mixed: both classes, each with the share of its image"


def compare_loss(run: RunRecord) -> Compared | None:
    """Whether the loss asks for other shares, or other classes, than were mixed; None where no mixed images were seen."""
    mix = seen(run)
    if mix is None:
        return None
    smoothing = max((p.loss.label_smoothing for p in run.of_phase("train") if p.loss is not None), default=0.0)
    elsewhere = mix.neither / mix.images
    facts: tuple[Evidence, ...] = (
        Evidence(
            "of what the loss asks of mixed images, for classes that are in none of their parts",
            elsewhere,
            0.0,
            "",
            round(mix.images),
        ),
    )
    if mix.uneven >= FEW_UNEVEN:
        share = mix.reversed / mix.uneven
        facts = (*facts, Evidence("mixed images whose smaller part is asked for more", share, 0.0, "", round(mix.uneven)))
        if share > REVERSED:
            told = (
                f"the shares of mixed targets are exchanged: in {share:.0%} of images the smaller part's class is asked for more"
            )
            return Compared("at fault", told, None, None, SURE, facts, TO_LOSS, treatment=treatment(run))
    if elsewhere > ELSEWHERE + smoothing:
        told = (
            f"images and targets are mixed of different samples: {elsewhere:.0%} of what is asked for is in no part of the image"
        )
        return Compared("at fault", told, None, None, SURE, facts, TO_LOSS, treatment=treatment(run))
    return Compared("sound", "the loss asks for the classes that mixed images are made of", evidence=facts)


def compare_pair(run: RunRecord) -> Compared | None:
    """Whether images are mixed and their targets are not; None where no such images were seen, and where both are."""
    mix = seen(run)
    if mix is None or mix.large < FEW or mix.single / mix.large <= SINGLE or mix.reversed > REVERSED * mix.uneven:
        return None
    if mix.neither > ELSEWHERE * mix.images:
        return None
    share = mix.single / mix.large
    facts = (Evidence("mixed images for which one class alone is asked", share, 0.0, "", round(mix.large)),)
    told = f"training images are mixed of two, and their targets are not: of {share:.0%} one class alone is asked for"
    return Compared("at fault", told, None, None, SINGLE_CONFIDENCE, facts, TO_PAIR, treatment=treatment(run))


def seen(run: RunRecord) -> MixStats | None:
    """All mixed images of the training passes together; None where they are few."""
    own = [astuple(p.mix) for p in run.of_phase("train") if p.mix is not None]
    mix = MixStats(*np.sum(own, axis=0).tolist()) if own else None
    return mix if mix is not None and mix.images >= FEW else None


def treatment(run: RunRecord) -> Intervention | Untreatable:
    """The targets that the mixed images call for."""
    passes = [p for p in run.of_phase("train") if p.mix is not None]
    classes = passes[-1].loss.num_outputs if passes and passes[-1].loss is not None else -1
    if classes < 2 and run.trained_model is not None:
        classes = run.trained_model.num_outputs
    if classes < 2:
        return Untreatable("the logits that the loss is of are not known")
    steps = sum(p.optimizer_steps for p in passes)
    gathered = max(1, round(sum(p.backwards for p in passes) / steps)) if steps else 1
    return Intervention("mixed_targets", {"classes": int(classes), "gathered": gathered})
