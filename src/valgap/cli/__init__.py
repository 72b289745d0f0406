"""Arguments and exit status only. `valgap run` starts by hand (launch.py), before any library; the rest is typer's (app.py)."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    from valgap.cli import launch

    call = launch.read(sys.argv[1:])
    if call is not None:
        launch.run(call)
    from valgap.cli import commands

    commands.main()


def __getattr__(name: str) -> Any:
    """``app``, all commands: only here, since a recorded script must not find typer and its kin imported."""
    if name != "app":
        raise AttributeError(f"module 'valgap.cli' has no attribute {name!r}")
    from valgap.cli import commands

    globals()["app"] = commands.app
    return commands.app
