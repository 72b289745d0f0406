"""Too few images, proved by fewer: more of them cannot be had, but what half of them costs can be tried.

Accuracy as a function of the number of images is a power law that flattens (Hestness 2017), so that twice the images give back
less than what half of them costs. The arms make as many steps as the program does, on half of the images of every class, another
half in every seed. The effect is told as a cost, and stands in no account: no re-run has shown the gain.
"""

from __future__ import annotations

from dataclasses import replace

from valgap.types import Check, Effect, Intervention, Measured

HALF = Intervention("draw_half")
CHECKS = ("too_few_images",)


def is_halved(treatment: Intervention) -> bool:
    """Whether it takes away half of the training images."""
    return treatment.name == HALF.name


def can_be_halved(check: Check) -> bool:
    """Whether it claims that more images would help."""
    return check.name in CHECKS


def of_seed(treatment: Intervention, seed: int) -> Intervention:
    """The treatment in the arm of this seed: each leaves out another half."""
    return Intervention(HALF.name, {"draw": seed}) if is_halved(treatment) else treatment


def as_cost(effect: Effect) -> Effect:
    """What the images that were left out are worth: the effect the other way round."""
    nats = effect.nats
    turned = Measured(-nats.value, -nats.high, -nats.low) if nats is not None else None
    return replace(effect, value=-effect.value, low=-effect.high, high=-effect.low, nats=turned)


def told(reason: str) -> str:
    """The reason of a verdict, with what was tried."""
    return f"half of the training images in as many steps: {reason}; twice as many would give back less than half of them costs"
