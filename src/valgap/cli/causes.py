"""Commands that name causes: diagnose, check, explain."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from valgap.cli.app import CHECK_CRASHED, DONE, FOUND, app
from valgap.cli.console import (
    codes,
    images_bar,
    page_beside,
    page_of,
    quick_imports,
    reruns_bar,
    say,
    write_new,
    yield_while_waiting,
)
from valgap.errors import ValgapError

JUnitFile = Annotated[
    Path | None, typer.Option("--junit", help="Also write JUnit XML (a test case for each check) to this file.")
]
SarifFile = Annotated[Path | None, typer.Option("--sarif", help="Also write SARIF 2.1.0 (a result for each image) to this file.")]


@app.command()
def diagnose(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a log of another program.")],
    budget: Annotated[str, typer.Option(help="Time for re-runs, such as 10m, or 1x (as the script took); 0: none.")] = "0",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page to this file.")] = None,
    junit: JUnitFile = None,
    sarif: SarifFile = None,
    details: Annotated[bool, typer.Option("--details", help="All evidence, and what was ruled out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="A line for each finding, nothing else.")] = False,
    select: Annotated[str, typer.Option(help="Only these codes, separated by commas (PRE or PRE201).")] = "",
    ignore: Annotated[str, typer.Option(help="Not these codes.")] = "",
    fail_on: Annotated[str | None, typer.Option(help="confirmed or suspected: exit 1 when there is one.")] = None,
    rebuild: Annotated[
        bool, typer.Option(help="Rebuild the program, without training, for measurements that did not fit after the run.")
    ] = True,
) -> None:
    """Name the causes of a bad validation result from a run's record.

    With a budget, each suspected cause is removed, alone, in re-runs of the recorded program; its files are not touched.
    Of a mere log (CSV, JSONL, trainer_state.json, TensorBoard events) it says what the curves show; they never name a cause.

    Examples:  valgap diagnose runs/last --budget 10m     valgap diagnose runs/last --json --fail-on suspected
    """
    with quick_imports():
        from rich.console import Console

        from valgap.diagnosis import diagnose as diagnose_run
        from valgap.record.foreign import is_log
        from valgap.report.as_json import diagnosis_to_json
        from valgap.report.terminal import show_briefly, show_details, show_diagnosis

    if fail_on not in (None, "confirmed", "suspected"):
        raise ValgapError(f"--fail-on takes confirmed or suspected, not {fail_on!r}")
    if is_log(run_directory):
        raise typer.Exit(_diagnose_log(run_directory, budget, as_json, html or junit or sarif))
    with reruns_bar() as progress:
        diagnosis = diagnose_run(
            run_directory, budget=budget, select=codes(select), ignore=codes(ignore), rebuild=rebuild, progress=progress, say=say
        )
    _write_files(diagnosis, html, junit, sarif, fail_on)
    if as_json:
        print(json.dumps(diagnosis_to_json(diagnosis), indent=1))
    else:
        show = show_briefly if quiet else show_details if details else show_diagnosis
        show(diagnosis, Console())
        if html is None and not quiet:
            page_beside(run_directory, diagnosis)
    raise typer.Exit(_status(diagnosis, fail_on))


def _diagnose_log(path: Path, budget: str, as_json: bool, file: Path | None) -> int:
    """Say what the curves of a log show; returns the exit status."""
    from valgap import symptoms
    from valgap.record.foreign import read_log

    if budget != "0" or file is not None:
        raise ValgapError(
            f"{path} is a log of curves: there is nothing to run again and no report; record the program with valgap run"
        )
    log = read_log(path)
    if as_json:
        print(json.dumps(symptoms.as_json(log), indent=1))
    else:
        print("\n".join(symptoms.as_lines(log)))
    return DONE


@app.command()
def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder, CSV file, zip, .tar shards, Parquet, or an address.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page to this file.")] = None,
    junit: JUnitFile = None,
    sarif: SarifFile = None,
    details: Annotated[bool, typer.Option("--details", help="All evidence, and what was ruled out.")] = False,
    select: Annotated[str, typer.Option(help="Only these codes, separated by commas (DAT1 or DAT104).")] = "",
    ignore: Annotated[str, typer.Option(help="Not these codes.")] = "",
    fail_on: Annotated[str | None, typer.Option(help="confirmed or suspected: exit 1 when there is one.")] = None,
    lists: Annotated[Path | None, typer.Option(help="Folder for the whole lists of findings that concern very many.")] = None,
) -> None:
    """Check images before any training: labels, leaks, shift, copies, damage, balance. Files are only read.

    A folder with train/ and val/, or class folders; a CSV file with the columns path, label and (if there is one) split; a zip
    file, WebDataset shards, Parquet files; or an address such as s3://bucket/photos. Odd and damaged files are reported, never
    fatal. A check that was stopped goes on where it was.

    Examples:  valgap check photos/     valgap check photos/ --junit valgap.xml --fail-on suspected     valgap check list.csv
    """
    yield_while_waiting()
    with quick_imports():
        from rich.console import Console

        from valgap.diagnosis import check as check_data
        from valgap.report.as_json import diagnosis_to_json
        from valgap.report.lists import LISTED, shortened
        from valgap.report.terminal import show_details, show_diagnosis

    if fail_on not in (None, "confirmed", "suspected"):
        raise ValgapError(f"--fail-on takes confirmed or suspected, not {fail_on!r}")
    with images_bar() as (progress, begin):
        place = data if "://" in data else os.fspath(Path(data))
        diagnosis = check_data(place, select=codes(select), ignore=codes(ignore), progress=progress, say=begin)
    _write_files(diagnosis, html, junit, sarif, fail_on)
    diagnosis, whole = shortened(diagnosis, lists or _list_folder(data))
    for code, (file, count) in whole.items():
        say(f"{code} concerns {count:,}: the first {LISTED:,} are listed, all of them in {file}")
    if as_json:
        print(json.dumps(diagnosis_to_json(diagnosis, whole), indent=1))
    else:
        (show_details if details else show_diagnosis)(diagnosis, Console())
    raise typer.Exit(_status(diagnosis, fail_on))


def _list_folder(data: str) -> Path:
    """Where the whole lists of a data set go: a folder of the cache, named after it."""
    from valgap.engine.store import LISTS, cache_folder

    name = hashlib.blake2b(os.path.abspath(data).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()  # noqa: PTH100
    return cache_folder() / LISTS / name


def _write_files(diagnosis: Any, html: Path | None, junit: Path | None, sarif: Path | None, fail_on: str | None) -> None:
    """Write the reports that were asked for, each to its file."""
    from valgap.report.as_junit import diagnosis_to_junit
    from valgap.report.as_sarif import diagnosis_to_sarif

    if html is not None:
        write_new(html, page_of(diagnosis))
        say(f"report written to {html}")
    if junit is not None:
        write_new(junit, diagnosis_to_junit(diagnosis, fail_on or "suspected"), "<?xml")
        say(f"JUnit XML written to {junit}")
    if sarif is not None:
        write_new(sarif, json.dumps(diagnosis_to_sarif(diagnosis, Path.cwd()), indent=1), '{\n "$schema"')
        say(f"SARIF written to {sarif}")


def _status(diagnosis: Any, fail_on: str | None) -> int:
    from valgap.report.standing import FAILING, standing

    if diagnosis.crashed:
        return CHECK_CRASHED
    return FOUND if fail_on is not None and any(standing(j) in FAILING[fail_on] for j in diagnosis.judged) else DONE


@app.command()
def explain(code: Annotated[str | None, typer.Argument(metavar="CODE")] = None) -> None:
    """Explain a cause by its code or name; without one, list them all.

    Examples:  valgap explain MOD302     valgap explain batchnorm_drift
    """
    from valgap.checks import CATALOGUE

    if code is None:
        for check in CATALOGUE:
            print(f"{check.code}  {check.name}")
        return
    for check in CATALOGUE:
        if code.lower() in (check.code.lower(), check.name):
            print(f"{check.code} {check.name}\n\n{check.doc.strip()}")
            return
    raise ValgapError(f"no cause is called {code!r}: `valgap explain` lists all codes")
