"""Ways to look at a batch: a change of its images and a mode of the model, and what the model then answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from valgap.seams.looking.batches import find_logits
from valgap.seams.looking.normalization import differs, normalization, renormalize
from valgap.seams.looking.tracked import TrackedModel

# Images for the comparison of train and eval mode, when the program evaluated in eval mode.
MODE_IMAGES = 64
# Enough to see ten points. All of them where the colours look swapped.
FLIPPED_IMAGES = 256
Mode = Literal["eval", "train", "dropout"]  # "dropout": all in eval mode but the Dropout layers


@dataclass
class View:
    """One way to look at each batch: a change of the images, and the mode of the model."""

    name: str
    change: Callable[[torch.Tensor], torch.Tensor]
    mode: Mode = "eval"
    max_images: int = 1 << 60


def unchanged(images: torch.Tensor) -> torch.Tensor:
    """The images themselves."""
    return images


def mode_at(walk: Any) -> Mode:
    """The mode of the model in which the program validated."""
    return "train" if walk.mode_rows and max(r[0] for r in walk.mode_rows) > 0.5 else "eval"


def validation_views(model: TrackedModel, loader: Any, walk: Any, train_loader: Any | None, train_walk: Any) -> list[View]:
    """The ways to look at validation images: as the program does, in train mode, normalised otherwise, colours swapped."""
    views = [View("val_eval", unchanged)]
    trained_in_eval = walk.mode_rows and max(r[0] for r in walk.mode_rows) > 0
    if model.batchnorms or model.dropouts:
        few = 1 << 60 if trained_in_eval else MODE_IMAGES
        views.append(View("val_train", unchanged, "train", few))
    own = normalization(loader)
    other = normalization(train_loader) if train_loader is not None else None
    if own is not None and other is not None and own != other:
        views.append(View("val_train_norm", renormalize(own, other)))
    expected = model.expected()
    if own is not None and expected is not None and differs(own, (expected.mean, expected.std)):
        views.append(View("val_weights_norm", renormalize(own, (expected.mean, expected.std))))
    # Means of many kinds of things are grey, and then say nothing of the order of channels; the answers do.
    swapped = train_walk is not None and _channels_look_swapped(walk, train_walk)
    if _coloured(walk):
        views.append(View("val_flipped_channels", lambda x: x.flip(1), max_images=1 << 60 if swapped else FLIPPED_IMAGES))
    return views


def forward(model: TrackedModel, images: torch.Tensor, mode: Mode) -> torch.Tensor | None:
    """The logits (N, C) of one call; in train mode the buffers are put back afterwards."""
    for root in model.roots():
        root.train(mode == "train")
    if mode == "dropout":
        for module in model.dropouts:
            module.train()
    kept = [(b, b.clone()) for r in model.roots() for b in r.buffers()] if mode == "train" else []
    try:
        output: Any = model.route(images) if model.route is not None else model.parts[0](images)
    finally:
        for buffer, value in kept:
            buffer.copy_(value)
    return find_logits(output, len(images), model.head)


def _channels_look_swapped(val: Any, train: Any) -> bool:
    a, b = val.inputs.result(), train.inputs.result()
    if a is None or b is None or len(a["mean"]) != 3 or len(b["mean"]) != 3:
        return False
    straight = float(np.abs(a["mean"] - b["mean"]).sum())
    return float(np.abs(a["mean"][::-1] - b["mean"]).sum()) < straight


def _coloured(walk: Any) -> bool:
    """Whether a pass was given images of three channels."""
    stats = walk.inputs.result()
    return stats is not None and len(stats["mean"]) == 3
