"""The reference of the loss in the running program: what training descends on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from valgap.seams.acting.act import Act
from valgap.seams.looking.batches import as_class_index, find_images, logit_heads, read_batch
from valgap.seams.looking.mixing import Source, mixed_of, source_of


class _GradientInstead(Act):
    """In training the gradient at the logits of the open batch is what ``wanted`` says; no value changes.

    Args:
        classes: columns of the logits.
        gathered: backward passes before a step, over which the mean is taken.
    """

    def __init__(self, classes: int, gathered: int, phase: str) -> None:
        super().__init__(phase)
        self.classes, self.gathered = int(classes), int(gathered)
        self._backward = False
        self._hook: Any = None  # of the model call that may go on in a call of a part

    def rows(self) -> int:
        """Images of the open batch; 0 where nothing is known of them."""
        raise NotImplementedError

    def wanted(self, logits: torch.Tensor) -> torch.Tensor:
        """(N, C) float32: the gradient at these logits of the open batch."""
        raise NotImplementedError

    def returned(self, output: Any, whole: bool) -> None:
        if whole:
            self._hook = None  # that of the call before stays where it is
        rows = self.rows() if torch.is_grad_enabled() else 0
        if not rows:
            return
        heads = logit_heads(output, rows).values()
        logits = next((h for h in heads if h.requires_grad and h.ndim == 2 and h.shape[1] == self.classes), None)
        if logits is None:
            return
        if self._hook is not None:
            self._hook.remove()  # a later part made the logits
        wanted = self.wanted(logits.detach())
        used: list[bool] = []

        def instead(gradient: torch.Tensor | None) -> torch.Tensor | None:
            if not self._backward or gradient is None:
                return None  # the program asks for a gradient of its own (of its inputs, say), or the loss came by another way
            self.acted += 1
            used.append(True)
            return (wanted * (self.loss_scale / self.gathered if len(used) == 1 else 0.0)).to(gradient)

        self._hook = logits.register_hook(instead)
        # Before the recorder's own hook, so that it sees what was put there: torch calls them in the order of their insertion.
        hooks: Any = logits._backward_hooks
        for key in [k for k in hooks if k != self._hook.id]:
            hooks[key] = hooks.pop(key)

    def before_backward(self, first_since_step: bool, optimizers: Collection[torch.optim.Optimizer]) -> None:
        self._backward = True

    def after_backward(self, model: nn.Module | None) -> None:
        self._backward = False


class ReferenceLoss(_GradientInstead):
    """The gradient at the logits is that of the mean cross-entropy, whatever the program makes of them.

    Args:
        targets: by data set, the class of each position; -1 where it is not known, and the sample then has no loss.
        classes: columns of the logits.
        gathered: backward passes before a step, over which the mean is taken.
    """

    by_position = True

    def __init__(self, targets: Mapping[str, Sequence[int]], classes: int, gathered: int = 1, phase: str = "train") -> None:
        super().__init__(classes, gathered, phase)
        self.targets = {int(k): torch.from_numpy(np.asarray(v, np.int64)) for k, v in targets.items()}

    def rows(self) -> int:
        if self.drawn is None or self.drawn[0] not in self.targets:
            return 0
        positions = self.drawn[1]
        return len(positions) if all(0 <= p < len(self.targets[self.drawn[0]]) for p in positions) else 0

    def wanted(self, logits: torch.Tensor) -> torch.Tensor:
        assert self.drawn is not None
        known = self.targets[self.drawn[0]][torch.tensor(self.drawn[1])]
        return mean_cross_entropy_gradient(logits, known.to(logits.device))


class MixedTargets(_GradientInstead):
    """The loss asks of each image for the classes that it is mixed of, as much as there is of each: their mean cross-entropy.

    What an image is mixed of is read off its pixels and those of the batch that the loader gave; of a row that is no mix of two
    of these, nothing is asked.
    """

    def __init__(self, classes: int, gathered: int = 1, phase: str = "train") -> None:
        super().__init__(classes, gathered, phase)
        self._given: tuple[Source, torch.Tensor] | None = None  # of the batch that the loader gave last, with its classes
        self._asked: torch.Tensor | None = None  # (N, C) for the images at the model

    def batch(self, batch: Any) -> Any:
        loaded, images = read_batch(None, None, batch), find_images(batch)
        source = source_of(images) if images is not None else None
        known = [t for t in (as_class_index(t, loaded.size) for t in loaded.targets.values()) if t is not None]
        usable = bool(known) and bool(((known[0] >= 0) & (known[0] < self.classes)).all())
        self._given = (source, known[0].cpu()) if source is not None and usable else None
        return batch

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        self._asked = None
        mixed = mixed_of(self._given[0], images) if self._given is not None else None
        if self._given is not None and mixed is not None:
            parts, shares = mixed
            asked = torch.zeros(len(parts), self.classes, dtype=shares.dtype)
            self._asked = asked.scatter_add(1, self._given[1][parts], shares)
        return images

    def rows(self) -> int:
        return len(self._asked) if self._asked is not None else 0

    def wanted(self, logits: torch.Tensor) -> torch.Tensor:
        assert self._asked is not None
        asked = self._asked.to(logits.device)
        known = torch.isfinite(asked).all(1)
        wanted = (logits.float().softmax(1) - asked.nan_to_num().float()) / known.sum().clamp_min(1)
        return torch.where(known[:, None], wanted, torch.zeros_like(wanted))


def mean_cross_entropy_gradient(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(N, C) float32: (p - y) / N over the samples whose target is one of the columns; the others have none."""
    known = (target >= 0) & (target < logits.shape[1])
    hot = torch.nn.functional.one_hot(target.clamp(0, logits.shape[1] - 1), logits.shape[1]).float()
    wanted = (logits.float().softmax(1) - hot) / known.sum().clamp_min(1)
    return torch.where(known[:, None], wanted, torch.zeros_like(wanted))
