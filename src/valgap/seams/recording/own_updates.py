"""Steps that no torch optimizer makes: the program changes its parameters itself between two backward passes.

`p -= rate * p.grad`, `p.data.add_`, `p.data = ...` and the optimizers of other libraries all end in other numbers in the same
parameters. A few numbers of a few parameters are kept at each backward and compared at the next look, on their device;
what the comparison says is read when the pass is written.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from valgap.seams.looking.tracked import TrackedModel

OWN_UPDATE = "own update"
WATCHED = 3
KEPT_NUMBERS = 256


@dataclass
class _Watched:
    parameter: torch.Tensor
    version: int
    pointer: int
    numbers: torch.Tensor

    def changed(self) -> bool | torch.Tensor:
        """Whether its numbers differ; a 0-d tensor on its device where the numbers themselves must tell."""
        if self.parameter._version != self.version or self.parameter.data_ptr() != self.pointer:
            return True
        return (_few(self.parameter) != self.numbers).any()


class OwnUpdates:
    """Watches the parameters of one model at a time, from a backward to the next look."""

    def __init__(self) -> None:
        self._watched: list[_Watched] = []
        self._model: TrackedModel | None = None

    def watch(self, model: TrackedModel) -> None:
        """A backward of this model begins."""
        learning = [t for _, t, is_parameter, _ in model.tensors if is_parameter and t.requires_grad and t.numel()]
        # The head learns if anything does; the other is there in case that it does not.
        chosen = [*learning[-2:], *learning[:1]][:WATCHED]
        self._watched = [_Watched(p, p._version, p.data_ptr(), _few(p).clone()) for p in chosen]
        self._model = model

    def forget(self) -> None:
        """A torch optimizer has stepped: it accounts for the change."""
        self._watched, self._model = [], None

    def look(self) -> tuple[TrackedModel, bool | torch.Tensor, torch.Tensor] | None:
        """(model, whether it changed since the backward, a parameter to watch the gradient of); None if nothing is watched."""
        if self._model is None or not self._watched:
            return None
        told = [w.changed() for w in self._watched]
        changed: bool | torch.Tensor = any(t is True for t in told)
        if not changed:
            device = self._watched[0].parameter.device
            changed = torch.stack([t.to(device, non_blocking=True) for t in told if isinstance(t, torch.Tensor)]).any()
        model, parameter = self._model, self._watched[0].parameter
        self.forget()
        return model, changed, parameter


def _few(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.detach().reshape(-1)[:KEPT_NUMBERS]
