"""Attempts to get out of the sandbox, and what came of each; writes results/sandbox.md. ``make bench-sandbox``.

The attempts and what lies outside are those of tests/experiments/escapes. Each system is this one with some guards left out.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.experiments.escapes.asked import SYSTEMS, Asked
from tests.experiments.escapes.attempt import LED, Attempt
from tests.experiments.escapes.program import ATTEMPTS
from valgap.experiments.kernel.landlock import version

TABLE = Path(__file__).resolve().parent / "results" / "sandbox.md"
HEAD = """# The sandbox

Made by `make bench-sandbox` on Linux {kernel} ({machine}, Landlock {landlock}) as {user}. Each attempt is made in a sandboxed
process; then files, servers, a process, a terminal, queues and shared memory outside are looked at. *Refused*: nothing of them
changed, and the program was told by an ordinary error. *Led*: nothing of them changed, and the program goes on in its own copy.
*Not held*: the guard is missing on that system, re-runs there say so, and the attempt is not made. **Out**: something changed,
or the attempt went through.

"""


def main() -> None:
    """Make every attempt on every system; write the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    came = {system: on(system) for system in SYSTEMS}
    lines = [
        f"| attempt | guard | {' | '.join(SYSTEMS)} |",
        f"|---|---|{'---|' * len(SYSTEMS)}",
        *(f"| {a.tries} | {a.guard or 'overlay'} | {' | '.join(came[s][a.name] for s in SYSTEMS)} |" for a in ATTEMPTS),
    ]
    sums = [
        f"{sum(c == what for one in came.values() for c in one.values())} {what}"
        for what in ("refused", "led", "not held", "**out**")
    ]
    facts = {"kernel": platform.release(), "machine": platform.machine(), "landlock": version(), "user": who()}
    TABLE.write_text(HEAD.format(**facts) + ", ".join(sums) + ".\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


def who() -> str:
    """Whether root has asked: its rights are others."""
    import os

    return "root" if os.geteuid() == 0 else "a user without rights"


def on(system: str) -> dict[str, str]:
    """What came of each attempt on one system."""
    with tempfile.TemporaryDirectory() as folder:
        asked = Asked(Path(folder), SYSTEMS[system])
        try:
            return {a.name: outcome(asked, a) for a in ATTEMPTS}
        finally:
            asked.close()


def outcome(asked: Asked, attempt: Attempt) -> str:
    """In a word of the table."""
    if attempt.guard and not asked.guards[attempt.guard]:
        return "not held"
    came, changed = asked.make(attempt)
    told = bool(came["error"])
    if changed or came["status"] or told == (attempt.comes == LED):
        print(f"{attempt.name}: {came} {changed}", file=sys.stderr)
        return "**out**"
    return "refused" if told else "led"


if __name__ == "__main__":
    main()
