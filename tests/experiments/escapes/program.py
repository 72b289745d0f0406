"""The sandboxed program: enters, and makes each attempt that it is asked for in a fork of its own.

Run as ``python -m tests.experiments.escapes.program STAGE.json [WITHOUT...]``: WITHOUT are guards that are left out, as where a
system lacks them. Tells a line of JSON: first its guards, then what came of each attempt.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.experiments.escapes.attempt import Attempt
from tests.experiments.escapes.files import FILES
from tests.experiments.escapes.native import NATIVE
from tests.experiments.escapes.networks import NETWORKS
from tests.experiments.escapes.processes import PROCESSES
from valgap.experiments.kernel import filter, landlock, namespaces, supervisor
from valgap.experiments.sandbox import Sandbox

ATTEMPTS = (*FILES, *NATIVE, *PROCESSES, *NETWORKS)
LIMIT_S = 15
LEFT_OUT: dict[str, Callable[[], None]] = {
    "namespaces": lambda: setattr(namespaces, "enter", lambda folders: namespaces.NONE),
    "rights": lambda: setattr(namespaces, "enter", lambda folders: namespaces.entered(folders, user=True)),
    "landlock": lambda: setattr(landlock, "version", lambda: 0),
    "landlock-1": lambda: setattr(landlock, "version", lambda: 1),
    "supervisor": lambda: setattr(supervisor, "begin", lambda: False),
    "filter": lambda: setattr(filter, "refuse", lambda held: False),
}


def made(attempt: Attempt, stage: Any) -> str:
    """What comes of it: "" where it goes through, else the error that told of its refusal."""
    try:
        attempt.function(stage)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return ""


def in_fork(attempt: Attempt, stage: Any) -> dict[str, Any]:
    """The outcome, and how the process that tried has ended."""
    mine, other = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.alarm(LIMIT_S)
        os.write(other, made(attempt, stage).encode()[:4000])
        os._exit(0)
    os.close(other)
    with os.fdopen(mine, "rb") as told:
        error = told.read().decode()
    _, status = os.waitpid(child, 0)
    return {"name": attempt.name, "error": error, "status": os.waitstatus_to_exitcode(status)}


def main() -> None:
    stage = SimpleNamespace(**json.loads(Path(sys.argv[1]).read_text()))
    without = sys.argv[2:]
    for name in without:
        LEFT_OUT.get(name, int)()
    if not without:  # whose attempts alone use libraries: each is a fork, and light ones are quick
        import h5py  # noqa: F401
        import torch

        torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1, 1))
    known = {a.name: a for a in ATTEMPTS}
    scratch = Path(stage.scratch)
    if without == ["everything"]:
        print("{}", flush=True)
        for line in sys.stdin:
            print(json.dumps(in_fork(known[line.strip()], stage)), flush=True)
        return
    sandbox = Sandbox(scratch, (Path(tempfile.gettempdir()),))
    print(json.dumps(asdict(sandbox.enter())), flush=True)
    for number, line in enumerate(sys.stdin):
        # A world of its own for each: what another wrote there is not seen.
        sandbox.overlay.world = os.path.join(scratch, f"world{number}", "world")
        os.makedirs(sandbox.overlay.world)
        print(json.dumps(in_fork(known[line.strip()], stage)), flush=True)


if __name__ == "__main__":
    main()
