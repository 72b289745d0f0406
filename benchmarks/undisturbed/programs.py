"""The programs that are run bare and recorded: those of the other benches, cut to small sets of images, and their variants."""

from __future__ import annotations

import csv
import json
import math
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent
# Most images of a class, by split, in the small copies of the sets.
SIZES = {
    "clothing_mini": {"train": 4, "val": 3, "test": 2},
    "hymenoptera_256": {"train": 10, "val": 8},
    "cifar10n_mini": {"train": 8, "val": 5},
    "sign_digits_mini": {"train": 5, "val": 3},
}
COMPILED = "$model = torch.compile($model)"
FRESH = 8  # every so many programs start as anybody would start them


@dataclass(frozen=True)
class Program:
    """``python COMMAND`` in a folder that ``write`` fills. ``variant``: what site/sitecustomize.py changes in torch."""

    kind: str
    name: str
    command: tuple[str, ...]
    write: Callable[[Path], None]
    variant: str = ""
    ranks: int = 1
    fresh: bool = False  # in an interpreter of its own; else in a fork of one that has imported torch


def programs(data: Path, cases: Path | None, keep: Path) -> list[Program]:
    """All programs, kinds taking turns, so that a part of them holds some of each."""
    sets = small_sets(data, keep / "sets")
    workers, mixed = "workers=2", "autocast=bfloat16"
    kinds = [
        quickest(strangers(sets, twins=False), 70), quickest(strangers(sets, twins=True), 50),
        quickest(strangers(sets, twins=True, variant="workers=1"), 12),
        quickest(strangers(sets, twins=False, variant=workers), 12),
        quickest(strangers(sets, twins=True, variant=mixed), 12), quickest(campaign(sets, keep), 36),
        quickest(campaign(sets, keep, variant=workers), 10), quickest(campaign(sets, keep, variant=mixed), 10),
        quickest(campaign(sets, keep, compiled=True), 6) if shutil.which("cc") else [], spread(fault_bench(sets), 20),
        spread(ranks(sets), 20), list(public_cases(cases, keep)) if cases else [],
    ]  # fmt: skip
    # Of each kind so that all end together.
    placed = [((i + 0.5) / len(kind), n, p) for n, kind in enumerate(kinds) for i, p in enumerate(kind)]
    ordered = [p for _, _, p in sorted(placed, key=lambda x: x[:2])]
    return [replace(p, fresh=p.ranks > 1 or "compile" in p.kind or i % FRESH == 0) for i, p in enumerate(ordered)]


def quickest(every: Iterable[Program], count: int) -> list[Program]:
    """Those that took least of the processor when other benches ran them, in an order that mixes them."""
    known = seconds()
    found = sorted(every, key=lambda p: known.get(p.name, math.inf))[:count]
    return random.Random(0).sample(found, len(found))


@cache
def seconds() -> dict[str, float]:
    """Name of a program -> processor seconds of its bare run at full size."""
    found: dict[str, float] = {}
    for bench in ("strangers", "campaign"):
        file = BENCHMARKS / "results" / f"{bench}.jsonl"
        for row in map(json.loads, file.read_text(encoding="utf-8").splitlines() if file.exists() else ()):
            if row["label"] in ("bare", "twin") and isinstance(row.get("seconds"), (int, float)):
                found[f"{row['name']} twin" if row["label"] == "twin" else row["name"]] = row["seconds"]
    return found


def spread(every: Iterable[Program], count: int) -> list[Program]:
    """So many, evenly over all."""
    found = list(every)
    return [found[i * len(found) // count] for i in range(min(count, len(found)))]


def small_sets(source: Path, folder: Path) -> Path:
    """Links to a few images of each class, made once; the lists beside them name these only."""
    if (folder / "done").exists():
        return folder
    for name, most in SIZES.items():
        kept = set()
        for split, images in most.items():
            for group in sorted(f for f in (source / name / split).iterdir() if f.is_dir()):
                place = folder / name / split / group.name
                place.mkdir(parents=True, exist_ok=True)
                for file in sorted(group.iterdir())[:images]:
                    (place / file.name).symlink_to(file.resolve())
                    kept.add(f"{split}/{group.name}/{file.name}")
        for table in (source / name).glob("*.csv"):
            with table.open(newline="") as stream:
                header, *rows = csv.reader(stream)
            with (folder / name / table.name).open("w", newline="") as stream:
                csv.writer(stream).writerows([header, *(r for r in rows if kept & set(r))])
    (folder / "done").touch()
    return folder


def _text(file: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(text, encoding="utf-8") and None


def _nothing(_: Path) -> None:
    """The program lies elsewhere."""


def strangers(sets: Path, twins: bool, variant: str = "") -> Iterator[Program]:
    """Programs of others, or their sound twins."""
    from strangers import strangers as every

    for one in every():
        if twins and not one.stages:
            continue
        name = f"{one.name}{' twin' if twins else ''}"
        yield Program(_kind("stranger", variant), name, ("prog.py",), _text("prog.py", one.text(twins, sets)), variant)


def _kind(name: str, variant: str) -> str:
    return f"{name}, {variant}" if variant else name


def campaign(sets: Path, keep: Path, variant: str = "", compiled: bool = False) -> Iterator[Program]:
    """Generated programs; ``compiled``: the model goes through torch.compile."""
    from campaign.data import prepare
    from campaign.draft import NotHereError
    from campaign.harness import arguments
    from campaign.plan import programs as every

    folder = keep / "campaign"
    prepare(sets, folder / "data")
    for one in random.Random("undisturbed").sample(found := every(), len(found)):
        kind = _kind("campaign", variant)
        if compiled:
            kind = "campaign, torch.compile"
            if one.base.setup.network not in ("cnn", "sequential"):
                continue
            try:
                one.draft.after("after_net", COMPILED)
            except NotHereError:
                continue
        file = Path(str(one.base.style.words["file"]))
        command = tuple(arguments(one, file, folder))
        yield Program(kind, one.name, command, _text(file.name, one.draft.text(one.base.seed)), variant)


def fault_bench(sets: Path) -> Iterator[Program]:
    """Programs of three styles with faults planted by hand, and healthy ones."""
    from fault_cases import FAULTY, HEALTHY

    script = str(BENCHMARKS / "fault_programs.py")
    for case in (*FAULTY, *HEALTHY):
        yield Program("fault bench", case.name, (script, *case.arguments(str(sets / case.data))), _nothing)


def ranks(sets: Path) -> Iterator[Program]:
    """Two gloo processes."""
    from rank_program import NAMES

    script = str(BENCHMARKS / "rank_program.py")
    for name in NAMES:
        for kind in ("faulty", "sound"):
            command = (script, str(sets / "cifar10n_mini"), name, kind, "--epochs", "2")
            yield Program("2 gloo ranks", f"{name} {kind}", command, _nothing, ranks=2)


def public_cases(cases: Path, keep: Path) -> Iterator[Program]:
    """Programs after public reports, each with its twin; their own script makes their data, of the small sets."""
    folder = keep / "cases"
    if not (folder / "data").exists():
        shutil.copytree(cases, folder / "cases", dirs_exist_ok=True)
        shutil.copytree(keep / "sets", folder / "data.part", symlinks=True, dirs_exist_ok=True)
        (folder / "data.part").rename(folder / "data")
    made = folder / "made"
    if not made.exists():
        subprocess.run([sys.executable, str(folder / "cases" / "prepare.py"), str(made)], check=True)
    for truth in json.loads((cases / "truth.json").read_text()):
        for kind in ("faulty", "sound"):
            text = (cases / truth["name"] / f"{kind}.py").read_text(encoding="utf-8")
            arguments = truth["arguments"].replace("{D}", str(made)).split()
            yield Program("public report", f"{truth['name']} {kind}", (f"{kind}.py", *arguments), _text(f"{kind}.py", text))
