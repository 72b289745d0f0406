"""Prints what the kernel of this machine would keep a re-run from, as JSON: ``python -m valgap.experiments.kernel``."""

from __future__ import annotations

import json
from dataclasses import asdict

from valgap.experiments.kernel.entering import enter

if __name__ == "__main__":
    print(json.dumps(asdict(enter([]))))
