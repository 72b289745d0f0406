"""False alarms on healthy programs that end early, and what is still found in faulty ones; writes results/short_runs.md.

    python benchmarks/short_runs.py [--healthy 240] [--keep FOLDER] [--half tuning|held-out]

Programs are drawn at random (benchmarks/short_programs.py); a hash of a program's kind puts it into the tuning or the held-out
half. No data are needed.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import os
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from short_programs import Program, prepare, run

from valgap import watch
from valgap.checks import CATALOGUE
from valgap.diagnosis import judge, order, suspected
from valgap.record.reader import read_record
from valgap.types import Case, Diagnosis, Finding, Judged

RESULTS = Path(__file__).parent / "results" / "short_runs.md"
HALVES = ("tuning", "held-out")
CLOSING = 40.0  # programs take a fraction of a second; the closing measurements are to be whole
SCHEDULES = (
    "none", "step", "multi", "cosine", "cosine_own", "onecycle", "onecycle_own", "warmup", "warmup_cosine", "lambda_warmup",
    "exponential", "poly", "restarts", "plateau",
)  # fmt: skip
OPTIMIZERS = (
    ("sgd", 0.05),
    ("sgd", 0.01),
    ("plain_sgd", 0.1),
    ("adam", 1e-3),
    ("adamw", 1e-4),
    ("adamw", 5e-5),
    ("rmsprop", 1e-3),
)
# True of the run although it is short: what is said of it is not that it is short, or is its very name.
ALLOWED = {"EVA507": "the validation set itself is that small"}


def healthy(number: int) -> Program:
    """The program of this number: a sound recipe, cut short in one way or several."""
    draw = random.Random(number)
    schedule = draw.choice(SCHEDULES)
    per = draw.choice(("epoch", "batch"))
    if schedule in ("onecycle_own", "lambda_warmup", "onecycle"):
        per = "batch"
    if schedule == "exponential":
        per = "epoch"
    optimizer, rate = draw.choice(OPTIMIZERS)
    network = draw.choice(("bn", "bn", "plain", "group", "dropout"))
    start = draw.choice(("scratch", "scratch", "pretrained", "frozen"))
    classes = draw.choice((2, 2, 5, 10, 10, 100, 1000))
    batch = draw.choice((4, 8, 16, 32, 64, 128))
    steps = draw.choice((0, 0, 1, 2, 3, 6, 10))
    images = draw.choice((24, 60, 200, 400))
    accumulate = draw.choice((1, 1, 1, 4))
    kind = f"{schedule}-{per}-{optimizer}{rate:g}-{network}-{start}-{classes}"
    p = Program(
        kind, number, classes, images, draw.choice((4, 12, 40, 80, 200)), batch, draw.choice((1, 1, 2, 3)), steps,
        draw.choice((0, 0, 1, 2)), draw.random() < 0.5, draw.random() < 0.5, network, start, optimizer, rate,
        schedule=schedule, per=per, accumulate=accumulate, loss=draw.choice(("plain", "plain", "plain", "smooth", "mixup")),
        validates=draw.choice(("each", "each", "last", "before", "test", "fresh_test")),
        scaler=draw.random() < 0.1 and optimizer != "rmsprop",
    )  # fmt: skip
    if draw.random() < 0.15:
        p = replace(p, average=draw.choice((0.99, 0.9999)), validates=draw.choice(("each", "average", "last")))
        if p.validates == "average":  # which of the two an average is, a slow one or a short run, only the recipe can tell
            p = replace(p, schedule="cosine", per="epoch", kind=kind.replace(schedule, "cosine", 1))
    if classes == 2 and draw.random() < 0.5:
        p = replace(p, loss="binary")
    if optimizer == "sgd" and batch < 16 and start == "scratch" and rate > 0.01:
        p = replace(p, rate=0.01 * 2)
    if "sgd" in optimizer and start == "pretrained":  # given layers want a tenth of what new ones do
        p = replace(p, rate=0.1 * rate)
    return p


def faulty() -> list[tuple[Program, tuple[str, ...]]]:
    """Programs whose fault shows in so little, each with the codes that name it."""
    few, some = {"images": 96, "epochs": 1}, {"images": 160, "epochs": 3}
    found: list[tuple[Program, tuple[str, ...]]] = []

    def add(name: str, codes: str, **fields: object) -> None:
        for seed in range(3):
            p = Program(f"{name}-{seed}", seed, **fields)  # type: ignore[arg-type]
            found.append((p, tuple(codes.split("|"))))

    add("diverging sgd", "TRN401|TRN409|TRN410", rate=30.0, fault="rate", network="plain", **few)
    add("diverging sgd bn", "TRN401|TRN409", rate=100.0, fault="rate", **few)
    add("diverging adam", "TRN401|TRN409", optimizer="adam", rate=1.0, fault="rate", network="group", **few)
    add("diverging 1000", "TRN401|TRN409|TRN410", rate=20.0, fault="rate", classes=1000, images=48, batch=8)
    add("hot epochs", "TRN401|MOD304|TRN409", optimizer="adam", rate=0.5, fault="rate", images=320, epochs=4)
    add("steps per batch", "TRN414", schedule="step1", per="batch", fault="schedule", **some)
    add("step7 per batch", "TRN414", schedule="step7", per="batch", fault="schedule", images=480, epochs=3, start="pretrained")
    add("onecycle per epoch", "TRN414", schedule="onecycle_steps", per="epoch", fault="schedule", **some)
    add("cosine per epoch", "TRN414", schedule="cosine_steps", per="epoch", fault="schedule", images=176, epochs=3)
    add("nan", "TRN409", fault="nan", images=48)
    add("missing head", "MOD303", fault="missing_head", **few)
    add("softmax", "MOD306", fault="softmax", **few)
    add("softmax of two", "MOD306", fault="softmax", classes=2, **some)
    add("relu", "MOD306", fault="relu", **few)
    add("sigmoid", "MOD306", fault="sigmoid", classes=2, loss="binary", images=480, epochs=3, optimizer="adam", rate=3e-3)
    add("never step", "TRN413|MOD303", fault="never_step", images=320)
    add("two steps", "TRN413", fault="two_steps", **few)
    add("no zero", "TRN407", fault="no_zero", **few)
    add("unshuffled", "TRN408", fault="unshuffled", **few)
    add("unnormalized", "PRE201|PRE202", fault="unnormalized", **few)
    add("range255", "PRE202|PRE201", fault="range255", **few)
    add("dark", "DAT106", fault="dark", images=320, val_images=200, sorted_val=False)
    add("scrambled", "PRE208", fault="scrambled", **few)
    add("shifted", "DAT102", fault="shifted", named=True, **few)
    add("train as val", "EVA508", fault="val_is_train", **few)
    add("steps on val", "TRN412", fault="steps_on_val", **some)
    add("train mode", "EVA501", fault="train_mode", **few)
    add("eval training", "EVA502", fault="eval_training", **some)
    add("outputs", "MOD307", outputs=1000, named=True, fault="outputs", **few)
    add("batches of two", "MOD308", batch=2, rate=0.005, fault="tiny", images=48, start="pretrained")
    add("random frozen", "MOD301", fault="random_frozen", images=160, epochs=2)
    add("slow average", "MOD311", average=0.9999, validates="average", fault="average", start="pretrained", images=480, epochs=3)
    return found


def half(p: Program) -> str:
    """Which half a program belongs to."""
    return HALVES[hashlib.sha256(p.kind.encode()).digest()[0] % 2]


def recorded(p: Program, folder: Path) -> Path:
    """The record of a program, made unless an earlier call made it."""
    out = folder / hashlib.sha256(repr(p).encode()).hexdigest()[:16]
    if not (out / "whole").exists():
        prepare(p)
        with watch(out, closing=CLOSING):
            run(p)
        (out / "whole").touch()
    return out


def answers(p: Program, folder: Path) -> list[Judged]:
    """The suspicions on a program's record, first things first."""
    record = read_record(recorded(p, folder))
    judged = order(judge(Case(record), CATALOGUE))
    crashed = [j for j in judged if "traceback" in j.outcome.__dataclass_fields__]
    assert not crashed, crashed[0].outcome
    return suspected(Diagnosis(record, tuple(judged), None, None, None))


def main() -> None:
    """Record, judge, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healthy", type=int, default=240)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--half", choices=HALVES, action="append")
    parser.add_argument("--part", default="0/1", help="only every n-th program, for several processes")
    parser.add_argument("--record-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    halves = args.half or list(HALVES)
    part, parts = (int(v) for v in args.part.split("/"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        programs = [p for p in map(healthy, range(args.healthy)) if half(p) in halves]
        planted = [(p, c) for p, c in faulty() if half(p) in halves]
        if args.record_only:
            for p in [*programs, *(p for p, _ in planted)][part::parts]:
                try:
                    recorded(p, folder)
                except AssertionError as error:
                    print(p, error)
            return
        report(programs, planted, folder)


def report(programs: list[Program], planted: list[tuple[Program, tuple[str, ...]]], folder: Path) -> None:
    """Print the alarms and the misses, and write the page."""
    alarms: dict[str, collections.Counter[str]] = {h: collections.Counter() for h in HALVES}
    counts, alarmed, hits, total = (collections.Counter() for _ in range(4))
    missed = []
    for p in programs:
        counts[half(p)] += 1
        found = [j for j in answers(p, folder) if j.check.code not in ALLOWED]
        alarmed[half(p)] += bool(found)
        for j in found:
            assert isinstance(j.outcome, Finding)
            alarms[half(p)][j.check.code] += 1
            if half(p) == "tuning" or os.environ.get("SHOW"):
                print(f"{j.check.code} {j.outcome.confidence:.2f} {j.outcome.summary} <- {p}")
    for p, codes in planted:
        found = answers(p, folder)
        hit = any(j.check.code in codes for j in found[:3])
        hits[half(p)] += hit
        total[half(p)] += 1
        if not hit:
            missed.append(
                f"{p.kind} ({half(p)}): {'/'.join(codes)}, named: {', '.join(j.check.code for j in found) or 'nothing'}"
            )
    lines = ["# Short runs", "", "Made by `python benchmarks/short_runs.py`.", ""]
    lines += [
        "| half | healthy | with a false alarm | alarms by code | faulty | named in the first three |",
        "|---|---|---|---|---|---|",
    ]
    for h in HALVES:
        by_code = ", ".join(f"{c} {n}" for c, n in alarms[h].most_common()) or "none"
        lines.append(f"| {h} | {counts[h]} | {alarmed[h]} | {by_code} | {total[h]} | {hits[h]} |")
    lines += ["", f"Not counted: {'; '.join(f'{c} ({why})' for c, why in ALLOWED.items())}.", "", "Missed:", ""]
    lines += [f"- {m}" for m in missed]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
