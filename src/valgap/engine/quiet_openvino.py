"""OpenVINO, imported so that it reports to nobody.

By itself it sends usage data to Google Analytics as it is imported, and writes an identifier into the home folder. Without the
package `openvino_telemetry` it uses a stub of its own; for the time of its import that package is not there.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

REPORTS = "openvino_telemetry"
# What looks for that package; the second one is otherwise imported by the first conversion.
ASKING = ("openvino.tools.ovc", "openvino.tools.ovc.convert_impl")


def quiet_openvino() -> Any:
    """The module ``openvino``. Raises ImportError where it is not installed."""
    if any(name not in sys.modules for name in ASKING):
        known = sys.modules.get(REPORTS)
        sys.modules[REPORTS] = None  # type: ignore[assignment]
        try:
            for name in ASKING:
                importlib.import_module(name)
        finally:
            del sys.modules[REPORTS]
            if known is not None:
                sys.modules[REPORTS] = known
    return importlib.import_module("openvino")
