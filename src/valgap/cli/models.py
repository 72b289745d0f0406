"""Commands that make and use models: train, predict, export, cache, demo."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valgap.cli.app import app
from valgap.cli.console import quick_imports, say, yield_while_waiting
from valgap.errors import ValgapError
from valgap.visible import visible

if TYPE_CHECKING:
    from valgap.seams.hosting.session import Session


@app.command()
def train(
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="Folder with train/ and val/, or class folders.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/DATE-TIME-train.")] = None,
    backbone: Annotated[
        str,
        typer.Option(
            help="Any timm or torchvision name (efficientnet_lite0 is bundled), or auto: the best of those that are here."
        ),
    ] = "resnet50",
    weights: Annotated[str, typer.Option(help="default (downloaded on first use), none, or a file.")] = "default",
    unfreeze: Annotated[
        str | None, typer.Option(help="What learns: head, last (stage), last2 (stages), all, or auto (tried on held-out train).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Default: as many as make 100 steps (all layers: 200).")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="Pixels; default: what the weights expect.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    preset: Annotated[str, typer.Option(help="recipe, or reference: the settings in circulation.")] = "recipe",
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; the options above go before it.")] = None,
    time_limit: Annotated[str | None, typer.Option(help="Such as 10m: the best that can be had in it.")] = None,
    test: Annotated[Path | None, typer.Option(help="Class folders that are scored once, at the end.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with a training that was cut off.")] = None,
    log: Annotated[str, typer.Option(help="The curve for a logger as well: tensorboard, mlflow, wandb (comma between).")] = "",
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read images, where all layers learn; default: as many as pay.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train a classifier properly on a folder of images, recorded like any other program.

    Examples:  valgap train photos/     valgap train photos/ --backbone efficientnet_lite0 --time-limit 5m

    valgap train --resume runs/last     after it was killed: the same result as without

    torchrun --nproc-per-node 4 -m valgap train photos/ --unfreeze all     one model on four GPUs
    """
    yield_while_waiting()
    with quick_imports():
        from rich.console import Console

        from valgap.experiments.plan import parse_budget
        from valgap.recipe import Recipe, read_config
        from valgap.recipe import preset as named_preset
        from valgap.record.location import new_run_directory
        from valgap.training import train as train_folder
        from valgap.training.ranks import joined

    recipe = named_preset(preset) if config is None else read_config(config, named_preset(preset))
    changes = {k: v for k, v in {"unfreeze": unfreeze, "epochs": epochs, "batch_size": batch_size}.items() if v is not None}
    recipe = Recipe.changed(recipe, changes)
    limit = parse_budget(time_limit) if time_limit is not None else None
    with joined() as ranks:
        folder = ranks.same(lambda: resume or (out if out is not None else new_run_directory("train")))
        with _recorded(folder, resume is not None) if ranks.first else nullcontext() as session:
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
                log=[name.strip() for name in log.split(",") if name.strip()],
                console=Console(),
                aside=session.aside if session is not None else nullcontext,
            )
    if session is not None:
        say(f"recorded in {session.writer.path}; use it with: valgap predict {folder} IMAGES")


@contextmanager
def _recorded(folder: Path, resumed: bool) -> Iterator[Session]:
    """A recording of what happens inside; of several processes that train together, the first one's."""
    from valgap.record.location import discard
    from valgap.seams.hosting.session import Session
    from valgap.types import TRAINED

    session = Session(folder if not resumed else _next_record(folder), sys.argv, TRAINED, None)
    session.start()
    try:
        yield session
    except BaseException as error:
        session.finish(1, f"{type(error).__name__}: {error}")
        session.close(0.0, 0.0)
        if isinstance(error, ValgapError):
            discard(session.writer.path)
        raise
    session.close(session.finish(0), 0.0)


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
    none: Annotated[
        bool,
        typer.Option("--none-of-these", help="Say so where an image is like none that training showed (1 of 20 that is, too)."),
    ] = False,
) -> None:
    """Classify images with a model that `valgap train` made: path, class and probability, one line each.

    Examples:  valgap predict runs/last photo.jpg more_photos/     valgap predict runs/last photos/ --csv > answers.csv

    valgap predict runs/last photos/ --none-of-these     a third column that says "none of these" where nothing fits
    """
    import csv

    yield_while_waiting()
    with quick_imports():
        from valgap.training import load

    classifier = load(run_directory)
    if tta and not classifier.flip:
        say("--tta has no effect: this training did not find that mirrored images keep their class")
    predictions = classifier.predict(classifier.files(images), tta=tta, none_of_these=none)
    if as_csv:
        shown = visible if sys.stdout.isatty() else str
        if isinstance(sys.stdout, io.TextIOWrapper):  # into a file names go as the file system has them, to the byte
            sys.stdout.reconfigure(errors="surrogateescape")
        table = csv.writer(sys.stdout)
        more = ["nearness", "none of these"] if none else []
        table.writerow(["path", "class", "probability", *map(shown, classifier.classes), "problem", *more])
        for one in predictions:
            shares = [f"{one.probabilities[c]:.6f}" if one.probabilities else "" for c in classifier.classes]
            line = [shown(str(one.path)), shown(one.label), f"{one.probability:.6f}", *shares, shown(one.problem or "")]
            near = f"{one.nearness:.6f}" if one.nearness is not None else ""
            table.writerow(line + [near, "yes" if one.unlike else ""] * none)
        return
    for one in predictions:
        unlike = "\tnone of these" if one.unlike else ""
        print(f"{visible(str(one.path))}\t{visible(one.label)}\t{one.probability:.4f}{unlike}")


@app.command()
def export(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN")],
    format: Annotated[str, typer.Option(help="onnx, torchscript or safetensors.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="File to write; default RUN/model.SUFFIX.")] = None,
) -> None:
    """Write a trained model for use elsewhere: pixels in, probabilities out, with the preprocessing inside or beside it.

    Examples:  valgap export runs/last --format onnx     valgap export runs/last --format torchscript --out model.pt
    """
    with quick_imports():
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
