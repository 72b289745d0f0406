"""Rows that a program takes from its own tensors by their numbers: ``x[index]``, ``x[i]``, ``x[i : i + 32]``.

A loop without a loader says so which samples its batch is made of, whatever it does to them before the model is given them.
What a loader's data set takes, or a model inside its call, is not told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from valgap.seams.attaching.listener import transformed

if TYPE_CHECKING:
    from valgap.seams.attaching.hooks import Seams

KINDS = frozenset((int, slice, list, torch.Tensor, np.ndarray))


def attach_gathers(seams: Seams) -> None:
    """Hook the indexing of tensors that may hold images, or features."""

    def tell(tensor: Any, index: Any, taken: Any) -> None:
        if not seams.outside or tensor.ndim < 2 or tensor.requires_grad:
            return
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() or transformed():
            return
        try:
            seams.listener.gathered(tensor, index, taken)
        except Exception as error:
            seams.listener.failed("gathered", error)

    def make_getitem(original: Any) -> Any:
        def getitem(tensor: Any, index: Any) -> Any:
            taken = original(tensor, index)
            if type(index) in KINDS:
                tell(tensor, index, taken)
            return taken

        return getitem

    def make_index_select(original: Any) -> Any:
        def index_select(tensor: Any, dim: Any, index: Any) -> Any:
            taken = original(tensor, dim, index)
            if dim == 0:
                tell(tensor, index, taken)
            return taken

        return index_select

    seams.patch(torch.Tensor, "__getitem__", make_getitem)
    seams.patch(torch.Tensor, "index_select", make_index_select)
