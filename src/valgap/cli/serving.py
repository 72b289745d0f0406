"""The command for coding agents: mcp."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from valgap.cli.app import app
from valgap.errors import ConfigError


@app.command()
def mcp(
    root: Annotated[
        list[Path] | None, typer.Option("--root", help="A folder that the agent may name paths in; may be given again.")
    ] = None,
) -> None:
    """Serve coding agents: eight tools over standard input and output (Model Context Protocol).

    Answers are short: verdict, evidence, what to call next. Paths outside the roots (default: the working directory) are refused.
    What the agent asks to run is run as you. Needs `pip install 'valgap[mcp]'`.

    Examples:  valgap mcp     valgap mcp --root ~/project --root /data/runs     claude mcp add valgap -- valgap mcp
    """
    try:
        from valgap.agents.server import serve
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("mcp", "anyio", "mcp_types"):
            raise
        raise ConfigError("`valgap mcp` needs the Model Context Protocol's SDK: pip install 'valgap[mcp]'") from missing
    from valgap.agents.roots import Roots

    serve(Roots(root or [Path.cwd()]))
