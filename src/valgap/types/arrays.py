"""Array types and the words that stand for a phase and a verdict."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
Phase = Literal["train", "validation", "other"]
Verdict = Literal["confirmed", "refuted", "inconclusive", "untested"]
RestsOn = Literal["", "accuracy", "loss", "both"]  # the outcomes by which a cause was confirmed
