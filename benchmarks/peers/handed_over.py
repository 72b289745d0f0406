"""Hands a script's loaders and model to preflight-ml, which reads no scripts: ``handed_over.py SCRIPT ARGUMENTS...``

The script runs, unmodified, until its first backward pass. Prints a JSON list of the checks that failed: name, severity, message.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import torch
from preflight.runner import run_checks
from torch import nn
from torch.utils.data import DataLoader

PRINTED = os.dup(1)  # the script may print what it likes
made: list[Any] = []
model: list[nn.Module] = []


class Enough(BaseException):
    """The first gradients are asked for."""


def note_loader(self: Any, *args: Any, **named: Any) -> None:
    """Stands in for ``DataLoader.__init__``."""
    made.append(self)
    init(self, *args, **named)


def note_iterated(self: Any) -> Any:
    """Stands in for ``DataLoader.__iter__``: the last one that is read before the first backward pass is training's."""
    if self in made:
        made.remove(self)
        made.insert(0, self)
    return iterate(self)


def note_called(self: nn.Module, *args: Any, **named: Any) -> Any:
    """Stands in for ``Module.__call__``: the outermost one that makes logits of a batch of images is the model."""
    output = call(self, *args, **named)
    images = args and isinstance(args[0], torch.Tensor) and args[0].ndim == 4
    if images and isinstance(output, torch.Tensor) and output.ndim == 2 and output.requires_grad:
        model[:] = [self]  # a module within it has returned before
    return output


def stop(*_: Any, **__: Any) -> None:
    """Stands in for ``Tensor.backward``."""
    raise Enough


init, iterate, call, backward = DataLoader.__init__, DataLoader.__iter__, nn.Module.__call__, torch.Tensor.backward
DataLoader.__init__, DataLoader.__iter__, nn.Module.__call__ = note_loader, note_iterated, note_called
torch.Tensor.backward = stop
os.dup2(2, 1)
sys.argv = sys.argv[1:]
sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
ended = "before any backward pass"
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except Enough:
    ended = ""
DataLoader.__init__, DataLoader.__iter__, nn.Module.__call__, torch.Tensor.backward = init, iterate, call, backward
if not ended and not made:
    ended = "without a DataLoader"
if ended:
    os.write(PRINTED, json.dumps({"unasked": ended}).encode())
    sys.exit()
other = [one for one in made[1:] if one.dataset is not made[0].dataset]
found = run_checks(made[0], model[0] if model else None, nn.CrossEntropyLoss(), {"val_dataloader": other[0]} if other else {})
told = [{"name": f.name, "severity": str(f.severity.value), "message": f.message} for f in found if not f.passed]
os.write(PRINTED, json.dumps({"told": told}).encode())
