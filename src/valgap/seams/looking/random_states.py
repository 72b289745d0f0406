"""The random states of a program: what is done between its last line and its exit handlers draws none of its numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Puts the random states of Python, numpy and torch back, of those that have been imported.

    Libraries draw as well: rich takes 24 bits of Python's own state as it is imported.
    """
    own, np, torch = (sys.modules.get(name) for name in ("random", "numpy.random", "torch"))
    python = own.getstate() if own is not None else None
    numpy = np.get_state() if np is not None else None
    cpu = torch.get_rng_state() if torch is not None else None
    cuda = torch.cuda.get_rng_state_all() if torch is not None and torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        if own is not None:
            own.setstate(python)
        if np is not None:
            np.set_state(numpy)
        if torch is not None:
            torch.set_rng_state(cpu)
            if cuda is not None:
                torch.cuda.set_rng_state_all(cuda)
