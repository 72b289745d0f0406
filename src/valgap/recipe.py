"""The known-good recipe: each number with its source. Expected: clothing_mini, EfficientNet-Lite0: val 83 % by the probe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Settings of `valgap train` in its first form."""

    # Inverse L2 strengths of the probe, swept by cross-validation on train. Kornblith et al. 2019, "Do better ImageNet
    # models transfer better?", section A.4: logistic regression with L2, swept logarithmically.
    probe_inverse_l2: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    probe_folds: int = 5
    # The tutorial's Adam takes 1e-3 from a random head; a head that begins at the probe's optimum needs a tenth of it
    # (Kumar et al. 2022, "Fine-tuning can distort pretrained features", LP-FT: small rates after the probe).
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5  # as in the reference script
    # Loshchilov and Hutter 2017, "SGDR": one cosine to zero.
    schedule: str = "cosine"


RECIPE = Recipe()
