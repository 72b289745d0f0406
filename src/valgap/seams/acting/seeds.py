"""Another seed for a re-run: what is drawn from its first loader on is moved; data splits and first weights stay as recorded."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

SEED_STRIDE = 1_000_003
Patch = Callable[[Any, str, Callable[[Any], Any]], None]


class Seeds:
    """The moved random numbers of one arm; ``number`` 0 leaves them alone."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._begun = False
        self._generators: set[int] = set()

    def begin(self, loader: Any) -> None:
        """A loader begins, or a program without any: at first all random numbers are moved, then those of each loader's own."""
        if not self.number:
            return
        move = self.number * SEED_STRIDE
        if not self._begun:
            self._begun = True
            torch.random.manual_seed(torch.initial_seed() % 2**32)
            np.random.seed((int(np.random.get_state()[1][0]) + move) % 2**32)  # type: ignore[index]
            random.seed(random.getrandbits(32) + move)
        samplers = (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
        for generator in (getattr(s, "generator", None) for s in samplers):
            if isinstance(generator, torch.Generator) and id(generator) not in self._generators:
                self._generators.add(id(generator))
                generator.manual_seed(generator.initial_seed() + move)

    def attach(self, patch: Patch) -> None:
        """Seeds that the program sets later are moved as well."""

        def moved(original: Any) -> Any:
            def seed(value: Any = None, *args: Any, **kwargs: Any) -> Any:
                if self._begun and isinstance(value, (int, np.integer)):
                    value = (int(value) + self.number * SEED_STRIDE) % 2**32
                return original(value, *args, **kwargs)

            return seed

        for owner, name in ((torch, "manual_seed"), (torch.random, "manual_seed"), (np.random, "seed"), (random, "seed")):
            patch(owner, name, moved)
