"""The command that follows a run: view."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from valgap.cli.app import app

EVERY_S = 1.0


@app.command()
def view(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN")],
    page: Annotated[bool, typer.Option("--page", "--html", help="Serve a page that updates itself, here only.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Print it once and end.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0: any free one.")] = 0,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the browser.")] = True,
) -> None:
    """Follow a running or finished run: curves with intervals, throughput, where time goes, warnings, and its state.

    The terminal is drawn anew as the record grows, until the run ends; Ctrl-C ends it before. Warnings are those of
    `valgap run --live`.

    Examples:  valgap view runs/last     valgap view runs/last --page     valgap view runs/last --once
    """
    from rich.console import Console

    from valgap.live.view import Watched
    from valgap.report.live_view import live_view

    if page:
        _serve(run_directory, port, open_page)
        return
    watched, console = Watched(run_directory), Console()
    now = watched.now()
    if once or now.state != "running" or not console.is_terminal:
        console.print(live_view(now), highlight=False)
        return
    from rich.live import Live

    with Live(live_view(now), console=console, auto_refresh=False) as shown:
        while now.state == "running":
            time.sleep(EVERY_S)
            now = watched.now()
            shown.update(live_view(now), refresh=True)


def _serve(run_directory: Path, port: int, open_page: bool) -> None:
    from valgap.live.server import ViewServer
    from valgap.live.view import Watched

    Watched(run_directory).now()  # what is no record is refused here
    server = ViewServer(run_directory, port)
    print(f"{server.address}\nCtrl-C ends", flush=True)
    if open_page:
        import webbrowser

        webbrowser.open(server.address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
