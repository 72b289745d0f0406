"""Commands about the installation itself: doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from valgap.cli.app import DONE, FOUND, app

MARKS = {"ok": "ok", "note": "-", "missing": "MISSING"}


@app.command()
def doctor(quick: Annotated[bool, typer.Option("--quick", help="Do not measure speed.")] = False) -> None:
    """Show what valgap finds here: versions, devices, weights, caches, sandbox, extras, speed of each engine.

    Exit status 1 where something is missing that valgap cannot do without.

    Examples:  valgap doctor     valgap doctor --quick
    """
    from valgap.doctor import facts

    missing = False
    for fact in facts(speed=not quick):
        print(f"{MARKS[fact.state]:<8}{fact.name:<34}{fact.text}", flush=True)
        missing |= fact.state == "missing"
    raise typer.Exit(FOUND if missing else DONE)
