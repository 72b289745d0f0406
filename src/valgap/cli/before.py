"""The command that looks at a program before it trains for hours: preflight."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from valgap.cli.app import CHECK_CRASHED, DONE, FOUND, SCRIPT_FAILED, WRONG_USE, app
from valgap.cli.console import quick_imports, say
from valgap.errors import ValgapError


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def preflight(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="SCRIPT [ARGS]...", show_default=False)] = None,
    module: Annotated[str | None, typer.Option("-m", metavar="MODULE", help="Run a module, as python -m does.")] = None,
    budget: Annotated[str, typer.Option(help="Time beyond the script's own start, such as 60s or 3m.")] = "60s",
    steps: Annotated[int, typer.Option(min=4, help="Optimizer steps of each training loader at most.")] = 32,
    images: Annotated[int, typer.Option(min=32, help="Images of each validation at most.")] = 512,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/DATE-TIME-NAME.")] = None,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Keep the record.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    details: Annotated[bool, typer.Option("--details", help="All evidence, and what was ruled out.")] = False,
) -> None:
    """Run SCRIPT unmodified for a few steps and one shortened validation, and say what is wrong before it costs hours.

    It runs in a sandbox, without network: nothing is written but the record. The script is ended after its first epoch, so
    that its checkpoints and metrics have run once. What so short a run cannot tell (overfitting, schedules...) is listed.

    Exit status: 0 nothing suspected, 1 something suspected, 4 the script failed, 2 wrong use or nothing to judge,
    3 a check of valgap failed, 130 interrupted.

    Examples:  valgap preflight train.py --epochs 90 && sbatch job.sh     valgap preflight --budget 3m -m package.train
    """
    given = list(arguments or [])
    if module is None and not given:
        raise ValgapError("no script given: valgap preflight SCRIPT [ARGS], or valgap preflight -m MODULE [ARGS]")
    with quick_imports():
        from rich.console import Console

        from valgap.experiments.plan import parse_budget
        from valgap.preflight import preflight as look
        from valgap.record.location import new_run_directory
        from valgap.report.preflight_view import preflight_to_json, show_preflight
    seconds = parse_budget(budget)
    if seconds <= 0:
        raise ValgapError("--budget takes a time such as 60s or 3m: the script must run for some of it")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValgapError(f"{out} is there already: choose another --out, nothing is overwritten")
    program = ["-m", module, *given] if module is not None else given
    _must_be_there(program)
    record = out if out is not None else new_run_directory(Path(module or given[0]).stem)
    try:
        with status_line() as progress:
            found = look(program, record, steps=steps, images=images, budget_s=seconds, progress=progress)
    except KeyboardInterrupt:
        say(f"interrupted; what was seen until then is recorded in {record}")
        raise
    status = _status(found)
    if as_json:
        print(json.dumps(preflight_to_json(found, status), indent=1))
    else:
        show_preflight(found, Console(), details)
    if not keep:
        shutil.rmtree(record, ignore_errors=True)
    raise typer.Exit(status)


def _must_be_there(program: list[str]) -> None:
    """Raises ScriptError before a run directory is made."""
    from valgap.seams.hosting.host import module_target, script_target

    if program[0] == "-m":
        module_target(program[1], program[2:])
    else:
        script_target(program[0], program[1:])


def _status(found: object) -> int:
    from valgap.diagnosis import suspected
    from valgap.types import Preflight

    assert isinstance(found, Preflight)
    if found.end.ended_by == "failure":
        return SCRIPT_FAILED
    if found.diagnosis is None:
        return WRONG_USE
    if found.diagnosis.crashed:
        return CHECK_CRASHED
    return FOUND if suspected(found.diagnosis) else DONE


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """A line on standard error that says where things are; in a file, a line for each change."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("the script starts") as shown:
            yield lambda text: shown.update(text)
        return
    told: set[str] = set()

    def tell(text: str) -> None:
        what = text.partition(",")[0]
        if what not in told:
            told.add(what)
            say(what)

    yield tell
