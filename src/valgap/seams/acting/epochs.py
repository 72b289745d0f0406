"""How long a shortened program runs: so many training passes, each with the validation that follows it."""

from __future__ import annotations


class StopProgram(SystemExit):
    """Ends a shortened program at the start of an epoch that is not wanted; to the program it is a plain exit."""


class Epochs:
    """Ends the program after so many training passes (0: never), where the next one would begin.

    A walk over training data that learns nothing is none: programs score the training data too, before or after validation.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.made = 0  # training passes that have begun to learn
        self._learning = False  # whether the walk under way has learnt
        self._validated = False  # whether validation came after the last one that has

    def begins(self, phase: str) -> None:
        """A walk over data of this phase. Raises StopProgram."""
        self._learning = False
        self._validated |= phase == "validation"
        if phase == "train" and self.most and self.made >= self.most and self._validated:
            raise StopProgram(0)

    def learns(self) -> None:
        """Gradients are computed on training data."""
        if not self._learning:
            self.made += 1
        self._learning, self._validated = True, False
