"""Commands that make and show records: run, report, compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from valgap.cli.app import FOUND, app
from valgap.cli.console import PAGE, holds_verdicts, page_of, reruns_bar, say, write_new
from valgap.errors import ValgapError


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="SCRIPT [ARGS]...", show_default=False)] = None,
    module: Annotated[str | None, typer.Option("-m", metavar="MODULE", help="Run a module, as python -m does.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/DATE-TIME-NAME.")] = None,
    closing: Annotated[
        float, typer.Option(min=0.0, max=10.0, help="Closing measurements: at most this share of the script's time.")
    ] = 0.2,
    live: Annotated[bool, typer.Option("--live", help="Warn while it runs, as soon as a cause shows.")] = False,
    stop_on: Annotated[
        str, typer.Option("--stop-on", metavar="suspected", help="End the script after the first such warning; status 5.")
    ] = "",
) -> None:
    """Run SCRIPT unmodified, record it, and print the findings that need no re-run.

    The exit status is the script's; 2 where it ended well and nothing could be recorded, 5 where --stop-on ended it.
    valgap's own lines go to standard error, warnings also to RUN/live.jsonl. All that follows SCRIPT or -m MODULE is the
    program's.

    \b
    Examples:
      valgap run train.py --epochs 20
      valgap run --out runs/a -m package.train --lr 0.1
      valgap run --live train.py
      valgap run --stop-on suspected train.py
    """
    from valgap.cli import launch
    from valgap.seams.hosting.live import SUSPICION

    given = list(arguments or [])
    if stop_on not in ("", SUSPICION):
        raise ValgapError(f"--stop-on takes {SUSPICION}")
    if module is None and not given:
        raise ValgapError("no script given: valgap run SCRIPT [ARGS], or valgap run -m MODULE [ARGS]")
    if module is None:
        launch.run(launch.Call(given[0], None, given[1:], out, closing, live or bool(stop_on), bool(stop_on)))
    launch.run(launch.Call(None, module, given, out, closing, live or bool(stop_on), bool(stop_on)))


@app.command()
def report(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN")],
    open_page: Annotated[bool, typer.Option("--open", help="Write RUN/report.html and open it in the browser.")] = False,
) -> None:
    """Print a summary of a run's record: data, model and every pass. With --open, show its page.

    The page holds the last diagnosis's verdicts where re-runs were made, else what the record alone says.

    Examples:  valgap report runs/last     valgap report runs/last --open
    """
    from rich.console import Console

    from valgap.diagnosis import diagnose as diagnose_run
    from valgap.record.reader import read_record
    from valgap.report.record_view import show_record

    if not open_page:
        show_record(read_record(run_directory), Console())
        return
    import webbrowser

    page = run_directory / PAGE
    if not holds_verdicts(page):
        write_new(page, page_of(diagnose_run(run_directory, say=say)))

    print(page.resolve())
    if not webbrowser.open(page.resolve().as_uri()):
        say("no browser could be started: open that file yourself")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="GOOD")],
    second: Annotated[Path, typer.Argument(metavar="BAD")],
    budget: Annotated[str, typer.Option(help="Time for the proof by re-runs, such as 10m; 0: none.")] = "0",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Hold two runs side by side: the first step and quantity in which they part, what explains it, and what it costs.

    Runs that differ in nothing, or in nothing but rounding or another seed, are told to be so. The exit status is 0 for
    these, and 1 where the programs, their data or their settings part in substance.

    With a budget, the whole of GOOD's program, and one piece of it after another (a changed place of the source, an argument, a
    setting), are put into BAD's in re-runs of several seeds; nothing of yours is changed.

    Examples:  valgap compare runs/last-week runs/last     valgap compare runs/a runs/b --budget 10m --json
    """
    from rich.console import Console

    from valgap.comparison.result import compare as compare_runs
    from valgap.experiments.plan import parse_budget
    from valgap.record.reader import read_record
    from valgap.report.compare_view import comparison_to_json, show_comparison

    good, bad = read_record(first), read_record(second)
    comparison = compare_runs(good, bad)
    seconds = parse_budget(budget, bad.seconds)
    if seconds:
        from valgap.comparison.proof import prove

        with reruns_bar() as progress:
            comparison = prove(comparison, good, bad, seconds, progress)
    if as_json:
        print(json.dumps(comparison_to_json(comparison), indent=1))
    else:
        show_comparison(comparison, Console())
    if comparison.verdict == "parted":
        raise typer.Exit(FOUND)
