"""valgap: why is my validation accuracy low? Records a training script and names the causes.

Importing this package imports neither torch nor anything heavy: a recorded script must be able to set
its environment before torch loads.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from valgap.diagnosis import diagnose
    from valgap.record.reader import read_record
    from valgap.seams.hosting.watch import watch
    from valgap.training import load, train

__version__ = "0.2.0"
__all__ = ["__version__", "diagnose", "load", "read_record", "train", "watch"]


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext valgap` in a notebook: the cell magic ``%%valgap``."""
    from valgap.notebook import add_magic

    add_magic(shell)


def __getattr__(name: str) -> Any:
    if name == "watch":
        from valgap.seams.hosting.watch import watch

        if "IPython" in sys.modules:  # elsewhere nothing is imported before the program has set its environment
            from valgap.notebook import register

            register()
        return watch
    if name == "diagnose":
        from valgap.diagnosis import diagnose
        from valgap.notebook import register

        register()
        return diagnose
    if name in ("load", "train"):
        from valgap import training

        return getattr(training, name)
    if name == "read_record":
        from valgap.notebook import register
        from valgap.record.reader import read_record

        register()
        return read_record
    raise AttributeError(f"module 'valgap' has no attribute {name!r}")
