"""Arguments and exit status only. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from valgap import __version__
from valgap.errors import NothingRecordedError, ValgapError

PAGE = "report.html"
DONE, FOUND, WRONG_USE, CHECK_CRASHED = 0, 1, 2, 3
EXAMPLES = """
Examples:

  valgap run train.py --epochs 20        record your own script, unmodified, and name the causes

  valgap diagnose runs/last --budget 10m prove the causes by re-runs of your script, each with one of them removed

  valgap train photos/                   train properly on a folder with train/ and val/

  valgap check photos/                   look at the images alone: wrong labels, leaks, shift, damage

  valgap explain MOD302                  what a cause means and how to mend it
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


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="SCRIPT [ARGS]...", show_default=False)] = None,
    module: Annotated[str | None, typer.Option("-m", metavar="MODULE", help="Run a module, as python -m does.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/DATE-TIME-NAME.")] = None,
    closing: Annotated[
        float, typer.Option(min=0.0, max=10.0, help="Closing measurements: at most this share of the script's time.")
    ] = 0.2,
) -> None:
    """Run SCRIPT unmodified, record it, and print the findings that need no re-run.

    The exit status is the script's. valgap's own lines go to standard error.

    Examples:  valgap run train.py --epochs 20     valgap run --out runs/a -m package.train --lr 0.1
    """
    from valgap.record.location import new_run_directory
    from valgap.seams import host
    from valgap.seams.session import Session

    given = list(arguments or [])
    if module is None and not given:
        raise ValgapError("no script given: valgap run SCRIPT [ARGS], or valgap run -m MODULE [ARGS]")
    target = host.module_target(module, given) if module is not None else host.script_target(given[0], given[1:])
    name = module if module is not None else given[0]
    folder = out if out is not None else new_run_directory(Path(name).stem if module is None else module)
    session = Session(folder, target.argv, name, module)
    status, error = host.execute(target, session)
    seconds = session.finish(status, error)
    session.close(seconds, closing if status == 0 else 0.0, _say)
    if session.writer.stopped:
        _say(f"the record stops early: {session.writer.stopped}")
    raise typer.Exit(_after_run(folder, status, session.problem))


def _after_run(folder: Path, status: int, problem: str | None) -> int:
    """Print what the record says; returns the exit status (the script's, or 2 where nothing could be recorded)."""
    from rich.console import Console

    from valgap.diagnosis import diagnose as diagnose_run
    from valgap.report.terminal import show_diagnosis

    if status != 0:
        _say(f"the script ended with status {status}; what it did until then is recorded in {folder}")
    if problem is not None:
        _say(problem)
        return status or WRONG_USE
    try:
        diagnosis = diagnose_run(folder, images=0)  # that takes time of its own: `valgap diagnose`
    except NothingRecordedError as nothing:
        _say(str(nothing))
        return status or WRONG_USE
    show_diagnosis(diagnosis, Console(stderr=True))
    _say(f"recorded in {folder}")
    return status


@app.command()
def diagnose(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a log of another program.")],
    budget: Annotated[str, typer.Option(help="Time for re-runs, such as 10m; 0: from the record alone.")] = "0",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page to this file.")] = None,
    details: Annotated[bool, typer.Option("--details", help="All evidence, and what was ruled out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="A line for each finding, nothing else.")] = False,
    select: Annotated[str, typer.Option(help="Only these codes, separated by commas (PRE or PRE201).")] = "",
    ignore: Annotated[str, typer.Option(help="Not these codes.")] = "",
    fail_on: Annotated[str | None, typer.Option(help="confirmed or suspected: exit 1 when there is one.")] = None,
) -> None:
    """Name the causes of a bad validation result from a run's record.

    With a budget, each suspected cause is removed, alone, in re-runs of the recorded program; its files are not touched.
    Of a mere log (CSV, JSONL, trainer_state.json, TensorBoard events) it says what the curves show; they never name a cause.

    Examples:  valgap diagnose runs/last --budget 10m     valgap diagnose runs/last --json --fail-on suspected
    """
    from rich.console import Console

    from valgap.diagnosis import diagnose as diagnose_run
    from valgap.record.foreign import is_log
    from valgap.report.as_json import diagnosis_to_json
    from valgap.report.terminal import show_briefly, show_details, show_diagnosis

    if fail_on not in (None, "confirmed", "suspected"):
        raise ValgapError(f"--fail-on takes confirmed or suspected, not {fail_on!r}")
    if is_log(run_directory):
        raise typer.Exit(_diagnose_log(run_directory, budget, as_json, html))
    with _progress() as progress:
        diagnosis = diagnose_run(run_directory, budget=budget, select=_codes(select), ignore=_codes(ignore), progress=progress)
    if html is not None:
        _write_new(html, _page(diagnosis))
        _say(f"report written to {html}")
    if as_json:
        print(json.dumps(diagnosis_to_json(diagnosis), indent=1))
    else:
        show = show_briefly if quiet else show_details if details else show_diagnosis
        show(diagnosis, Console())
        if html is None and not quiet:
            _page_beside(run_directory, diagnosis)
    raise typer.Exit(_status(diagnosis, fail_on))


def _diagnose_log(path: Path, budget: str, as_json: bool, html: Path | None) -> int:
    """Say what the curves of a log show; returns the exit status."""
    from valgap import symptoms
    from valgap.record.foreign import read_log

    if budget != "0" or html is not None:
        raise ValgapError(
            f"{path} is a log of curves: there is nothing to run again and no page; record the program with valgap run"
        )
    log = read_log(path)
    if as_json:
        print(json.dumps(symptoms.as_json(log), indent=1))
    else:
        print("\n".join(symptoms.as_lines(log)))
    return DONE


@app.command()
def check(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with train/ and val/, class folders, or a CSV file.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page to this file.")] = None,
    details: Annotated[bool, typer.Option("--details", help="All evidence, and what was ruled out.")] = False,
    select: Annotated[str, typer.Option(help="Only these codes, separated by commas (DAT1 or DAT104).")] = "",
    ignore: Annotated[str, typer.Option(help="Not these codes.")] = "",
    fail_on: Annotated[str | None, typer.Option(help="confirmed or suspected: exit 1 when there is one.")] = None,
) -> None:
    """Check images before any training: labels, leaks, shift, copies, damage, balance. Files are only read.

    A CSV file has the columns path, label and (if there is one) split. Odd and damaged files are reported, never fatal.

    Examples:  valgap check photos/     valgap check photos/ --json --fail-on suspected     valgap check list.csv
    """
    from rich.console import Console

    from valgap.diagnosis import check as check_data
    from valgap.report.as_json import diagnosis_to_json
    from valgap.report.terminal import show_details, show_diagnosis

    if fail_on not in (None, "confirmed", "suspected"):
        raise ValgapError(f"--fail-on takes confirmed or suspected, not {fail_on!r}")
    with _images_bar() as progress:
        diagnosis = check_data(data, select=_codes(select), ignore=_codes(ignore), progress=progress)
    if html is not None:
        _write_new(html, _page(diagnosis))
        _say(f"report written to {html}")
    if as_json:
        print(json.dumps(diagnosis_to_json(diagnosis), indent=1))
    else:
        (show_details if details else show_diagnosis)(diagnosis, Console())
    raise typer.Exit(_status(diagnosis, fail_on))


def _status(diagnosis: Any, fail_on: str | None) -> int:
    from valgap.diagnosis import suspected

    if diagnosis.crashed:
        return CHECK_CRASHED
    found = suspected(diagnosis)
    if fail_on == "confirmed":
        found = [j for j in found if j.verdict == "confirmed"]
    return FOUND if fail_on is not None and found else DONE


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
    if not _holds_verdicts(page):
        _write_new(page, _page(diagnose_run(run_directory)))

    print(page.resolve())
    if not webbrowser.open(page.resolve().as_uri()):
        _say("no browser could be started: open that file yourself")


def _holds_verdicts(page: Path) -> bool:
    """Whether the page is there and tells of re-runs: a look at the record alone must not replace it."""
    return page.is_file() and 'name="valgap-reruns"' in page.read_text(encoding="utf-8", errors="replace")


def _page_beside(run_directory: Path, diagnosis: Any) -> None:
    """Write RUN/report.html and say so; a page with more proof stays, and a folder that cannot be written to is left alone."""
    page = run_directory / PAGE
    if diagnosis.experiments is None and _holds_verdicts(page):
        return
    try:
        _write_new(page, _page(diagnosis))
        _say(f"page: {page} (valgap report {run_directory} --open)")
    except ValgapError as reason:
        _say(str(reason))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN")],
    second: Annotated[Path, typer.Argument(metavar="RUN")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Compare two runs: what differs in settings, data and result, and whether the result differs beyond chance.

    Example:  valgap compare runs/20261124-130043-train runs/last
    """
    from rich.console import Console

    from valgap.exhibits.comparison import compare as compare_runs
    from valgap.record.reader import read_record
    from valgap.report.compare_view import comparison_to_json, show_comparison

    comparison = compare_runs(read_record(first), read_record(second))
    if as_json:
        print(json.dumps(comparison_to_json(comparison), indent=1))
    else:
        show_comparison(comparison, Console())


@app.command()
def review(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN")],
    select: Annotated[str, typer.Option(help="Only what these codes suspect, separated by commas.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 0,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the browser.")] = True,
) -> None:
    """Go through the suspect images by keyboard: keep, relabel, drop, not sure. Images are never touched.

    A page that only this machine can reach. Decisions go to RUN/decisions.csv at once; valgap fix uses them.

    Examples:  valgap review runs/last     valgap review runs/last --select DAT104
    """
    from valgap.diagnosis import diagnose as diagnose_run
    from valgap.review import Decisions, ReviewServer, suspects_of
    from valgap.review.decisions import FILE
    from valgap.review.suspects import labels_of

    decisions = Decisions(run_directory / FILE)
    diagnosis = diagnose_run(run_directory)
    suspects = suspects_of(diagnosis, _codes(select))
    if not suspects:
        _say("no finding of this run is about image files that are still there: nothing to review")
        return
    server = ReviewServer(suspects, labels_of(diagnosis.run), decisions, port)
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
        _say(f"{', '.join(counts)}; written to {decisions.file}")
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
) -> None:
    """Apply the remedies: a manifest of the images, edits of the script, a retraining, before and after.

    Decisions of `valgap review` count. Your files stay as they are: the edits are in DIR/fix.patch, for you to apply.

    Example:  valgap fix runs/last --out fixed --budget 10m
    """
    from rich.console import Console

    from valgap.fix import fix as fix_run
    from valgap.report.fix_view import show_fix

    with _progress() as progress:
        result = fix_run(
            run_directory, out, budget=budget, suspected=suspected, links=links, retrain=retrain, progress=progress, say=_say
        )
    show_fix(result, Console())


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


@app.command()
def train(
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="Folder with train/ and val/, or class folders.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/DATE-TIME-train.")] = None,
    backbone: Annotated[str, typer.Option(help="Any timm or torchvision name; efficientnet_lite0 is bundled.")] = "resnet50",
    weights: Annotated[str, typer.Option(help="default (downloaded on first use), none, or a file.")] = "default",
    unfreeze: Annotated[str | None, typer.Option(help="What learns: head, last, all, or auto (tried on held-out train).")] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Default: about 300 steps.")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="Pixels; default: what the weights expect.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    preset: Annotated[str, typer.Option(help="recipe, or reference: the settings in circulation.")] = "recipe",
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; the options above go before it.")] = None,
    time_limit: Annotated[str | None, typer.Option(help="Such as 10m: the best that can be had in it.")] = None,
    test: Annotated[Path | None, typer.Option(help="Class folders that are scored once, at the end.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with a training that was cut off.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images, where all layers learn.")] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train a classifier properly on a folder of images, recorded like any other program.

    Examples:  valgap train photos/     valgap train photos/ --backbone efficientnet_lite0 --time-limit 5m

    valgap train --resume runs/last     after it was killed: the same result as without
    """
    from rich.console import Console

    from valgap.experiments.plan import parse_budget
    from valgap.recipe import Recipe, read_config
    from valgap.recipe import preset as named_preset
    from valgap.record.location import discard, new_run_directory
    from valgap.seams.session import Session
    from valgap.training import train as train_folder

    recipe = named_preset(preset) if config is None else read_config(config, named_preset(preset))
    changes = {k: v for k, v in {"unfreeze": unfreeze, "epochs": epochs, "batch_size": batch_size}.items() if v is not None}
    recipe = Recipe.changed(recipe, changes)
    limit = parse_budget(time_limit) if time_limit is not None else None
    folder = resume or (out if out is not None else new_run_directory("train"))
    session = Session(folder if resume is None else _next_record(folder), sys.argv, "valgap train", None)
    session.start()
    try:
        train_folder(
            data,
            folder,
            backbone=backbone,
            weights=weights,
            recipe=recipe,
            size=size,
            seed=seed,
            workers=workers,
            time_limit_s=limit,
            test=test,
            resume=resume is not None,
            console=Console(),
            aside=session.aside,
        )
    except BaseException as error:
        session.finish(1, f"{type(error).__name__}: {error}")
        session.close(0.0, 0.0)
        if isinstance(error, ValgapError):
            discard(session.writer.path)
        raise
    session.close(session.finish(0), 0.0)
    _say(f"recorded in {session.writer.path}; use it with: valgap predict {folder} IMAGES")


def _next_record(run: Path) -> Path:
    """Where the record of a resumed training goes: the record of its first part is never overwritten."""
    from valgap.errors import RecordError

    if not run.is_dir():
        raise RecordError(f"{run} is no run directory: give the one of the training that was cut off")
    numbers = [int(p.name.removeprefix("resumed-")) for p in run.glob("resumed-*") if p.name.removeprefix("resumed-").isdigit()]
    return run / f"resumed-{max(numbers, default=0) + 1}"


@app.command()
def predict(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Files or folders.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="A table with the probability of every class.")] = False,
    tta: Annotated[
        bool, typer.Option("--tta", help="Mean over the image and its mirror, where training found flips harmless.")
    ] = False,
) -> None:
    """Classify images with a model that `valgap train` made: path, class and probability, one line each.

    Examples:  valgap predict runs/last photo.jpg more_photos/     valgap predict runs/last photos/ --csv > answers.csv
    """
    import csv

    from valgap.training import load

    classifier = load(run_directory)
    if tta and not classifier.flip:
        _say("--tta has no effect: this training did not find that mirrored images keep their class")
    predictions = classifier.predict(classifier.files(images), tta=tta)
    if as_csv:
        table = csv.writer(sys.stdout)
        table.writerow(["path", "class", "probability", *classifier.classes, "problem"])
        for one in predictions:
            shares = [f"{one.probabilities[c]:.6f}" if one.probabilities else "" for c in classifier.classes]
            table.writerow([one.path, one.label, f"{one.probability:.6f}", *shares, one.problem or ""])
        return
    for one in predictions:
        print(f"{one.path}\t{one.label}\t{one.probability:.4f}")


@app.command()
def export(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN")],
    format: Annotated[str, typer.Option(help="onnx, torchscript or safetensors.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="File to write; default RUN/model.SUFFIX.")] = None,
) -> None:
    """Write a trained model for use elsewhere: pixels in, probabilities out, with the preprocessing inside or beside it.

    Examples:  valgap export runs/last --format onnx     valgap export runs/last --format torchscript --out model.pt
    """
    from valgap.training.export import export as export_model

    done = export_model(run_directory, format, out)
    print(f"{done.path}: {done.about}")


@app.command()
def cache(clear: Annotated[bool, typer.Option("--clear", help="Delete all of it.")] = False) -> None:
    """Show what valgap keeps of images it has seen (features, measurements), or delete it. It is made again when needed.

    VALGAP_CACHE names another folder, VALGAP_CACHE_GB another bound.

    Examples:  valgap cache     valgap cache --clear
    """
    from valgap.engine.store import FeatureStore

    store = FeatureStore()
    if clear:
        print(f"{store.clear() / 1e6:.1f} MB deleted in {store.folder}")
        return
    usage = store.usage()
    for one in usage:
        print(f"{one.bytes / 1e6:10.1f} MB  {one.rows:7d} images  used {one.age_s / 86400:5.1f} days ago  {one.about}")
    for name, size in store.others().items():
        print(f"{size / 1e6:10.1f} MB  {name}")
    total = sum(u.bytes for u in usage)
    print(f"features: {total / 1e6:.1f} MB of at most {store.limit_bytes / 1e6:.0f} MB, in {store.folder}")


@app.command()
def demo() -> None:
    """Record and diagnose the tutorial's usual ResNet script on real sensor images, offline, in minutes."""
    from valgap.demo import run_demo

    raise typer.Exit(run_demo())


def _page(diagnosis: Any) -> str:
    """The HTML page of a diagnosis."""
    from valgap.exhibits import gather
    from valgap.fix import code_of_remedies
    from valgap.report.as_html import diagnosis_to_html

    return diagnosis_to_html(diagnosis, gather(diagnosis, code_of_remedies(diagnosis)))


@contextmanager
def _progress() -> Iterator[Callable[[int, int, float], None]]:
    """A progress bar for re-runs on standard error; nothing is shown before the first has finished."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("re-runs"), BarColumn(), MofNCompleteColumn(), TextColumn("about {task.fields[left]} left")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, visible=False, left="")

        def show(done: int, total: int, left: float) -> None:
            bar.update(task, completed=done, total=total, visible=True, left=f"{left / 60:.0f} min {left % 60:.0f} s")

        yield show


@contextmanager
def _images_bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar over image files on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _codes(text: str) -> list[str]:
    return [c.strip() for c in text.split(",") if c.strip()]


def _write_new(path: Path, text: str) -> None:
    if path.exists() and not path.read_text(errors="replace").startswith("<!doctype html>"):
        raise ValgapError(f"{path} exists and is no report of valgap: choose another file, nothing is overwritten")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValgapError(f"cannot write {path}: {error.strerror}") from error


def _say(text: str) -> None:
    print(f"valgap: {text}", file=sys.stderr)


def main() -> None:
    """Run the command line; the one place where errors become exit statuses."""
    command = typer.main.get_command(app)
    try:
        status = command.main(standalone_mode=False, prog_name="valgap")
    except ValgapError as error:
        _say(str(error))
        status = WRONG_USE
    except click.exceptions.Exit as stop:
        status = stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        status = 130
    except click.ClickException as error:
        error.show()
        status = WRONG_USE
    sys.exit(status if isinstance(status, int) else DONE)


if __name__ == "__main__":
    main()
