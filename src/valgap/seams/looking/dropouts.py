"""Layers that leave out parts at random while training: Dropout, whole residual branches (stochastic depth), blocks."""

from __future__ import annotations

from typing import Any

from torch.nn.modules.dropout import _DropoutNd

# Huang et al. 2016 (stochastic depth), Ghiasi et al. 2018 (DropBlock): torchvision, timm, fastai and others name theirs so.
WORDS = ("drop", "stochastic")
NAMES = ("p", "drop_prob", "drop_rate", "drop_path")


def drop_probability(module: Any) -> float:
    """The share of what goes through a layer that it leaves out in train mode, 0..1; 0 for other layers."""
    if isinstance(module, _DropoutNd):
        return float(module.p)
    kind = type(module).__name__.lower()
    if not any(w in kind for w in WORDS) or module._parameters or module._modules:
        return 0.0
    found = (getattr(module, name, None) for name in NAMES)
    return next((float(v) for v in found if isinstance(v, (int, float)) and 0 < v <= 1), 0.0)
