"""The command line of valgap, whose re-runs are forked too: run as ``python -m tests.experiments.forked_arms ARGUMENTS...``."""

import subprocess

from tests.processes import ForkedPopen
from valgap.cli import main

if __name__ == "__main__":
    subprocess.Popen = ForkedPopen  # type: ignore[misc, assignment]
    main()
