"""What a program has scored by scikit-learn: the classes it takes for true, and its answers, as arrays after a pass.

numpy's comparisons cannot be heard; most scripts that score arrays call ``sklearn.metrics``, or a library that does. All of its
scores of classes go through one function, which their own module looks up at each call.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from valgap.seams.attaching.hooks import Seams

MODULE, FUNCTION = "sklearn.metrics._classification", "_check_targets"
# A record keeps so many calls, and so many numbers of them in all.
MOST_CALLS, MOST_NUMBERS = 200, 2_000_000


class Scores:
    """Hooks the scores of scikit-learn once they have been imported. No import is watched for it."""

    def __init__(self, seams: Seams) -> None:
        self._seams, self._module = seams, None
        self._calls = self._numbers = 0
        self._last = b""

    def attach(self) -> None:
        """Hook them, if they are there by now and are not hooked."""
        module: Any = sys.modules.get(MODULE)
        if module is None or self._module is module or not hasattr(module, FUNCTION):
            return
        self._module = module
        self._seams.patch(module, FUNCTION, self._make_check)
        self._seams.when_detached(self._forget)

    def _forget(self) -> None:
        self._module = None

    def _make_check(self, original: Any) -> Any:
        def check_targets(true: Any, predicted: Any, *args: Any, **kwargs: Any) -> Any:
            self._seen(true, predicted)
            return original(true, predicted, *args, **kwargs)

        return check_targets

    def _seen(self, true: Any, predicted: Any) -> None:
        first, second = classes_of(true), classes_of(predicted)
        if first is None or second is None or len(first) != len(second):
            return
        told = first.tobytes() + second.tobytes()
        if told == self._last or self._calls >= MOST_CALLS or self._numbers + 2 * len(first) > MOST_NUMBERS:
            return  # several scores of the same answers
        self._last = told
        self._calls += 1
        self._numbers += 2 * len(first)
        self._seams.tell("scored", first, second)


def classes_of(values: Any) -> npt.NDArray[np.int32] | None:
    """(N,) the classes as whole numbers; None for anything else (names, scores, several labels of an image)."""
    try:
        array = np.asarray(values)
    except Exception:  # whatever a stranger's object raises: the program's own call will say it
        return None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iuf":
        return None
    whole = array.astype(np.int32) if np.isfinite(array).all() and np.abs(array).max() < 1 << 30 else None
    return whole if whole is not None and (whole == array).all() else None
