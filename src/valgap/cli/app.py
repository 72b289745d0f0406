"""The command line's frame: help, version, and errors as exit statuses.

Heavy modules are imported by the command that needs them.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Annotated, Any

import typer

from valgap import __version__
from valgap.cli.console import say
from valgap.errors import ValgapError

# typer's own copy of click in later versions, click itself in earlier ones.
USAGE_ERROR: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
DONE, FOUND, WRONG_USE, CHECK_CRASHED, SCRIPT_FAILED = 0, 1, 2, 3, 4
EXAMPLES = """

Examples:

\b
  valgap run train.py --epochs 20         record your own script, unmodified
  valgap preflight train.py --epochs 20   what is wrong, before it costs hours
  valgap run --live train.py              warn while it trains; valgap view runs/last
  valgap diagnose runs/last --budget 10m  prove each cause by a re-run without it
  valgap compare runs/good runs/last      where a bad run parts from a good one
  valgap train photos/                    train properly on a folder
  valgap check photos/                    wrong labels, leaks, shift, damage
  valgap explain MOD302                   what a cause means, how to mend it
"""

app = typer.Typer(
    name="valgap",
    help="Why is my validation accuracy low? Records a PyTorch training script and names the causes." + EXAMPLES,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        print(f"valgap {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; the one place where errors become exit statuses."""
    # Pillow's words on damaged images and on very large ones: what reads them says more, and names the file.
    warnings.filterwarnings("ignore", message=".*could be decompression bomb.*")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    command = typer.main.get_command(app)
    try:
        status = command.main(standalone_mode=False, prog_name="valgap")
    except ValgapError as error:
        say(str(error))
        status = WRONG_USE
    except typer.Exit as stop:
        status = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        say("interrupted")
        status = 130
    except USAGE_ERROR as error:
        error.show()
        status = WRONG_USE
    sys.exit(status if isinstance(status, int) else DONE)
