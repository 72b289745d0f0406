"""Commands that act on findings: review, fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from valgap.cli.app import app
from valgap.cli.console import codes, reruns_bar, say


@app.command()
def review(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN")],
    select: Annotated[str, typer.Option(help="Only what these codes suspect, separated by commas.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 0,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the browser.")] = True,
) -> None:
    """Go through the suspect images by keyboard, one by one or many in a grid: keep, relabel, drop, not sure.

    Images are never touched. Beside each suspect stand the nearest sure images of its given and of its likely class. A page that
    only this machine can reach. Decisions go to RUN/decisions.csv at once; valgap fix uses them.

    Examples:  valgap review runs/last     valgap review runs/last --select DAT104
    """
    from valgap.diagnosis import diagnose as diagnose_run
    from valgap.review import Decisions, ReviewServer, suspects_of
    from valgap.review.decisions import FILE
    from valgap.review.neighbours import with_neighbours
    from valgap.review.suspects import is_likely, labels_of

    decisions = Decisions(run_directory / FILE)
    diagnosis = diagnose_run(run_directory, say=say)
    suspects = suspects_of(diagnosis, codes(select))
    if not suspects:
        say("no finding of this run is about image files that are still there: nothing to review")
        return
    if not any(is_likely(j) for j in diagnosis.findings if j.check.code in {s.cause for s in suspects}):
        say("no finding of this run is about its images; these labels are the least certain ones, and most may be right")
    suspects = with_neighbours(suspects, diagnosis.images)
    known = diagnosis.images.rows.paths if diagnosis.images is not None else ()
    server = ReviewServer(suspects, labels_of(diagnosis.run), decisions, port, known)
    print(f"{len(suspects)} suspect images, {len(decisions)} decided so far; Ctrl-C ends\n{server.address}", flush=True)
    if open_page:
        import webbrowser

        webbrowser.open(server.address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        counts = [
            f"{sum(d.kind == kind for d in decisions.current().values())} {kind}"
            for kind in ("keep", "relabel", "drop", "unsure")
        ]
        say(f"{', '.join(counts)}; written to {decisions.file}")
    finally:
        server.server_close()


@app.command()
def fix(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN")],
    out: Annotated[Path, typer.Option(help="A new folder for everything that is made.")],
    budget: Annotated[
        str, typer.Option(help="Time to prove the causes; re-runs of an earlier diagnosis are used again.")
    ] = "10m",
    suspected: Annotated[bool, typer.Option("--suspected", help="Also what is likely, but not proved.")] = False,
    links: Annotated[bool, typer.Option("--links", help="Also a clean folder of links to the images.")] = False,
    retrain: Annotated[bool, typer.Option("--retrain/--no-retrain", help="Train the fixed program.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Apply the remedies: a manifest of the images, edits of the script, a retraining, before and after.

    Decisions of `valgap review` count. Your files stay as they are: the edits are in DIR/fix.patch, for you to apply.

    Example:  valgap fix runs/last --out fixed --budget 10m
    """
    from rich.console import Console

    from valgap.fix import fix as fix_run
    from valgap.report.fix_view import fix_to_json, show_fix

    with reruns_bar() as progress:
        result = fix_run(
            run_directory, out, budget=budget, suspected=suspected, links=links, retrain=retrain, progress=progress, say=say
        )
    if as_json:
        print(json.dumps(fix_to_json(result), indent=1))
    else:
        show_fix(result, Console())
