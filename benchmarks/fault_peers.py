"""What readers of training logs say of the cases of benchmarks/faults.py; writes results/fault_peers.md.

python benchmarks/fault_peers.py RUNS_FOLDER --python PEERS_PYTHON [--ours]

RUNS_FOLDER is the folder ``runs`` in that of ``faults.py DATA --keep FOLDER``; PEERS_PYTHON the Python in whose environment
the tools are installed (``make bench-fault-peers`` makes one). Every recorded case becomes a log as its program could have
written it: one row a batch with the loss, and where the record has them the learning rate, the gradient's norm and the
update ratio; the last row of an epoch holds the epoch's accuracy and those of validation. The same with one row an epoch is
tried too, but most of the tools keep silent below 20 or 30 rows. Losses and accuracies are the true ones of the record, also
where a program prints a wrong one. Each tool reads it through its own command line or API, with its defaults.

Whether an answer is right is looked up in ``MEANING``: an alarm stands for every cause of the catalogue that the tool's own
text for it gives, or that plainly belongs to it. What a tool says about the log itself (too few evaluations) is shown, and
counts neither for nor against it.

Not here: torchdiag and torch-audit. They look at a living model, its optimizer and its batches while it trains. A record
holds neither gradients nor activations nor a loop to hook into, so there is nothing they could be applied to.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_cases import FAULTY, HEALTHY, Case
from faults import answer, is_recorded, safe

from valgap.record.reader import read_record
from valgap.types import Pass, RunRecord

RESULTS = Path(__file__).parent / "results" / "fault_peers.md"
OURS = "valgap"
INTRODUCTION = (
    "Made by `make bench-fault-peers RUNS=FOLDER/runs`, where FOLDER holds the records that",
    "`python benchmarks/faults.py DATA --keep FOLDER` made. The tools read logs, so each case is given to them as a log with a",
    "row for every batch (loss, learning rate, sampled gradient norm and update ratio) and the validation at each epoch's end.",
    "They know the curves and nothing else; valgap's own answers, which stand in [faults.md](faults.md), come from a record that",
    "holds far more. The programs are short (most have 3 or 4 epochs of 5 batches, the longest 240 batches), and most checks of",
    "these tools want 20 rows, 30, or 4 evaluations: that alone explains a part of the silence. An answer is right if the causes",
    "that `MEANING` in benchmarks/fault_peers.py gives for it hold a planted one; the first answer is the gravest.",
    "`MEANING` was written before the answers were seen, with one exception: a wrong value range no longer counts for a spike of",
    "the training loss, which faults of the validation data alone had been given by chance.",
)

# -- the logs -------------------------------------------------------------------------------------

Row = dict[str, float]


@dataclass(frozen=True)
class Log:
    """One case as the two files that the tools read: a CSV, and a trainer_state.json."""

    table: Path
    state: Path


def epochs(record: RunRecord) -> Iterator[tuple[Pass, Pass | None]]:
    """Each training pass with the first validation after it.

    A program that makes steps on its validation data has no validation pass; the second data set is taken for it. Of several
    trainings on different data (folds) only the last counts: one log of all would leap where the next begins.
    """
    trained, validated = record.of_phase("train"), record.of_phase("validation")
    if not validated:
        validated = tuple(p for p in trained if p.dataset != trained[0].dataset)
        trained = tuple(p for p in trained if p.dataset == trained[0].dataset)
    trained = tuple(p for p in trained if p.dataset == trained[-1].dataset)
    ends = [p.index for p in trained[1:]] + [len(record.passes)]
    for training, end in zip(trained, ends, strict=True):
        yield training, next((p for p in validated if training.index < p.index < end), None)


def rows_per_batch(record: RunRecord) -> list[Row]:
    """One row a batch; the last of an epoch holds the figures of the epoch as well."""
    rows: list[Row] = []
    for epoch, (training, validation) in enumerate(epochs(record), 1):
        rows += [{"step": len(rows) + 1 + i, "epoch": epoch, **of_batch(training, i)} for i in range(training.num_batches)]
        rows[-1] |= of_epoch(training, validation)
    return rows


def rows_per_epoch(record: RunRecord) -> list[Row]:
    """One row an epoch, as a program has them that prints its averages."""
    rows: list[Row] = []
    for epoch, (training, validation) in enumerate(epochs(record), 1):
        last = of_batch(training, training.num_batches - 1)
        rate = {"lr": last["lr"]} if "lr" in last else {}
        rows.append({"step": epoch, "epoch": epoch, "train_loss": training.samples.mean_loss, **rate})
        rows[-1] |= of_epoch(training, validation)
    return rows


def of_batch(training: Pass, batch: int) -> Row:
    """Loss of one batch and what its last step measured; the mean loss of its samples where no step was made."""
    steps, total = training.steps, training.num_batches
    if len(steps) < total:
        return {"train_loss": float(training.samples.loss[training.samples.batch == batch].mean())}
    step = (batch + 1) * len(steps) // total - 1
    row = {"train_loss": float(steps.loss[step]), "lr": float(steps.learning_rate[step, 0])}
    if steps.nonfinite_grad[step] >= 0:  # it was sampled
        row["grad_norm"] = float(steps.grad_norm[step])
    if math.isfinite(steps.update_ratio[step]):
        row["update_ratio"] = float(steps.update_ratio[step])
    return row


def of_epoch(training: Pass, validation: Pass | None) -> Row:
    """Accuracies of an epoch, and the loss of its validation."""
    row = {"train_acc": training.samples.accuracy}
    if validation is not None and validation.samples.labelled.any():
        row |= {"val_loss": validation.samples.mean_loss, "val_acc": validation.samples.accuracy}
    return row


def write_log(rows: Sequence[Row], folder: Path) -> Log:
    """Both files, in a folder of their own."""
    folder.mkdir(parents=True)
    log = Log(folder / "metrics.csv", folder / "trainer_state.json")
    names = list(dict.fromkeys(name for row in rows for name in row))
    with log.table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    log.state.write_text(json.dumps(trainer_state(rows)), "utf-8")
    return log


def trainer_state(rows: Sequence[Row]) -> dict[str, Any]:
    """The same as the Trainer of transformers writes it: entries of training and of evaluation apart."""
    train_names = {"train_loss": "loss", "lr": "learning_rate", "grad_norm": "grad_norm", "update_ratio": "update_ratio"}
    val_names = {"val_loss": "eval_loss", "val_acc": "eval_accuracy"}
    history = []
    for row in rows:
        place = {"step": row["step"], "epoch": row["epoch"]}
        history.append(place | {new: row[name] for name, new in train_names.items() if name in row})
        if "val_loss" in row:
            history.append(place | {new: row[name] for name, new in val_names.items()})
    end = rows[-1]
    return {
        "epoch": end["epoch"],
        "num_train_epochs": end["epoch"],
        "global_step": end["step"],
        "max_steps": end["step"],
        "log_history": history,
    }


# -- the tools ------------------------------------------------------------------------------------

GRAVITY = {"critical": 0, "error": 0, "warning": 1, "info": 2}
TABLE, STATE = "{table}", "{state}"  # stand for the files of a log
GRADSNITCH = (
    "import gradsnitch, json, sys; "
    "print(json.dumps({'findings': [{'name': f.name, 'severity': f.severity} for f in gradsnitch.lint_csv(sys.argv[1])]}))"
)


@dataclass(frozen=True)
class Peer:
    """A tool, how it is called, and which field of its findings names the alarm."""

    name: str
    call: tuple[str, ...]  # the program, which lies beside that Python, and its arguments
    alarm: str


PEERS = (
    Peer("losslint", ("losslint", "check", TABLE, "--format", "json"), "check"),
    Peer("trainspotter", ("trainspotter", "analyze", TABLE, "--output", "json"), "title"),
    Peer("gradsnitch", ("python", "-c", GRADSNITCH, TABLE), "name"),
    Peer("runmedic", ("runmedic", "diagnose", TABLE, "--json"), "check"),
    Peer("finetune-doctor", ("finetune-doctor", "diagnose", STATE, "--format", "json"), "title"),
)

# What an alarm can mean. Families first, since the tools share them.
NOT_FINITE = ("TRN409", "TRN401", "TRN410", "PRE202")
UNSTABLE = ("TRN401", "TRN409", "TRN410", "TRN414", "TRN408", "MOD304", "DAT108")
RATE_HIGH = ("TRN401", "TRN410", "MOD304", "TRN414")
RATE_LOW = ("TRN402", "TRN411", "TRN414", "MOD303")
NOT_LEARNING = (
    *RATE_LOW, "TRN413", "TRN407", "MOD301", "MOD305", "MOD306", "DAT113", "DAT104", "PRE201", "PRE202", "PRE208",
)  # fmt: skip
OVERFITTING = ("TRN404", "TRN405", "PRE206", "DAT107", "DAT109", "EVA505", "EVA506")
VAL_BELOW_TRAIN = ("DAT101", "EVA508", "EVA504", "MOD309", "PRE207")
SCHEDULE = ("TRN414", "TRN402")
NOTHING: tuple[str, ...] = ()

MEANING: dict[str, dict[str, tuple[str, ...]]] = {
    "losslint": {
        "nan_inf": NOT_FINITE,
        "divergence": UNSTABLE,
        "loss_spike": UNSTABLE,
        "overfit_onset": OVERFITTING,
        "stagnation": NOT_LEARNING,
        "step_backtrack": NOTHING,
        "parse": NOTHING,
    },
    "trainspotter": {
        "Diverged (non-finite values)": NOT_FINITE,
        "Diverged (sustained growth)": UNSTABLE,
        "Loss spike": UNSTABLE,
        "Gradient-norm explosion": UNSTABLE,
        "Gradient clipping likely saturated": RATE_HIGH,
        "No LR warmup detected": RATE_HIGH,
        "LR increased after its peak": SCHEDULE,
        "LR discontinuity": SCHEDULE,
        "Plateau": NOT_LEARNING,
        "Overfitting onset": (*OVERFITTING, "DAT101"),
        "Eval metric too noisy to rank checkpoints": ("EVA507", "PRE204"),
        "Suspiciously low loss early (heuristic)": ("DAT101", "DAT109", "DAT110"),
        "Throughput regression": NOTHING,
    },
    "gradsnitch": {
        "Loss became NaN/Inf": NOT_FINITE,
        "Gradient norm exploded (inf)": NOT_FINITE,
        "Gradient-norm spike": UNSTABLE,
        "Train/val divergence (overfitting)": OVERFITTING,
        "Loss plateau (no early progress)": NOT_LEARNING,
        "Loss divergence (sustained rise)": UNSTABLE,
        "Vanishing gradients": NOT_LEARNING,
        "LR too high (update/weight ratio)": RATE_HIGH,
        "LR too low (update/weight ratio)": RATE_LOW,
        "Loss oscillation (growing amplitude)": UNSTABLE,
        "LR schedule collapsed early": SCHEDULE,
    },
    "runmedic": {
        "non_finite": NOT_FINITE,
        "divergence": UNSTABLE,
        "no_learning": NOT_LEARNING,
        "overfitting": OVERFITTING,
        "loss_spikes": UNSTABLE,
        "grad_spikes": UNSTABLE,
        "val_below_train": VAL_BELOW_TRAIN,
        "constant_lr_plateau": NOT_LEARNING,
    },
    "finetune-doctor": {
        "Overfitting": OVERFITTING,
        "Final checkpoint slightly worse": OVERFITTING,
        "Stopped improving early": NOT_LEARNING,
        "Eval loss and your metric disagree": ("EVA505",),
        "NaN loss": NOT_FINITE,
        "NaN gradients": NOT_FINITE,
        "Occasional overflowing gradients": NOT_FINITE,
        "Loss is exactly zero": ("DAT111", "DAT113"),
        "Not learning": NOT_LEARNING,
        "Training loss went up": (*UNSTABLE, *NOT_LEARNING),
        "Loss spikes": UNSTABLE,
        "Periodic loss spikes": ("TRN408", "EVA502", "DAT108"),
        "Loss jumps at every epoch boundary": ("TRN408", "EVA502", "DAT108"),
        "Gradient spikes": UNSTABLE,
        "Zero gradients": NOT_LEARNING,
        "Training at zero learning rate": SCHEDULE,
        "Eval loss below training loss": VAL_BELOW_TRAIN,
    },
}
# Said of the log, not of the training.
REMARKS = ("No evaluation", "Too few evaluations", "Run did not finish")


@dataclass(frozen=True)
class Said:
    """One thing that a tool said of a case."""

    alarm: str
    severity: str
    codes: tuple[str, ...]  # causes that it can mean

    @property
    def remark(self) -> bool:
        """Whether it is about the log."""
        return self.alarm in REMARKS

    def right(self, case: Case) -> bool:
        """Whether it can mean a cause that was planted."""
        return any(code in cause for code in self.codes for cause in case.causes)


def ask(peer: Peer, log: Log, python: Path) -> list[Said]:
    """What a tool says of a log, the gravest first."""
    program, *arguments = (
        part.format(table=log.table, state=log.state) if part in (TABLE, STATE) else part for part in peer.call
    )
    done = subprocess.run([python.parent / program, *arguments], capture_output=True, text=True, encoding="utf-8")
    try:
        reply = json.loads(done.stdout)
    except ValueError as error:
        raise SystemExit(f"{peer.name} did not answer to {log.table}: {done.stderr or done.stdout}") from error
    found = (reply[0] if isinstance(reply, list) else reply)["findings"]
    gravest: dict[str, str] = {}
    for finding in sorted(found, key=lambda f: GRAVITY[f["severity"].lower()]):
        gravest.setdefault(finding[peer.alarm], finding["severity"].lower())
    return [Said(alarm, severity, meaning(peer, alarm)) for alarm, severity in gravest.items()]


def meaning(peer: Peer, alarm: str) -> tuple[str, ...]:
    """Causes that an alarm can mean; an alarm that MEANING does not know is an error, not a wrong answer."""
    return NOTHING if alarm in REMARKS else MEANING[peer.name][alarm]


def versions(python: Path) -> dict[str, str]:
    """The installed version of each tool."""
    code = "import json, sys; from importlib.metadata import version; print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
    names = [peer.name for peer in PEERS]
    return dict(json.loads(subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True).stdout))


def ours(case: Case, runs: Path) -> list[Said]:
    """valgap's own suspicions, from the record alone."""
    named = answer(case, runs, "0", images=False)[0].named
    return [Said(code, "warning", (code,)) for code in named]


# -- the tables -----------------------------------------------------------------------------------

Answers = dict[str, list[list[Said]]]  # of each tool, what it said of each case


def all_answers(logs: dict[Case, list[Row]], python: Path) -> Answers:
    """Write the logs and ask every tool about every case."""
    found: Answers = {peer.name: [] for peer in PEERS}
    with tempfile.TemporaryDirectory() as folder:
        for case, rows in logs.items():
            log = write_log(rows, Path(folder) / safe(case.name))
            for peer in PEERS:
                found[peer.name].append(ask(peer, log, python))
    return found


def summary(cases: Sequence[Case], answers: Answers, names: dict[str, str]) -> list[str]:
    """Rows of Markdown, one per tool."""
    lines = [
        "| tool | faulty: said anything | first answer right | any answer right | healthy: said anything | a warning or worse |",
        "|---|---|---|---|---|---|",
    ]
    for tool, everything in answers.items():
        heard = [(case, [s for s in said if not s.remark]) for case, said in zip(cases, everything, strict=True)]
        faulty, healthy = ([(c, s) for c, s in heard if bool(c.causes) == kind] for kind in (True, False))
        counts = [
            (sum(bool(said) for _, said in faulty), len(faulty)),
            (sum(bool(said) and said[0].right(case) for case, said in faulty), len(faulty)),
            (sum(any(s.right(case) for s in said) for case, said in faulty), len(faulty)),
            (sum(bool(said) for _, said in healthy), len(healthy)),
            (sum(any(GRAVITY[s.severity] < 2 for s in said) for _, said in healthy), len(healthy)),
        ]
        lines.append(f"| {names.get(tool, tool)} | {' | '.join(f'{n} of {total}' for n, total in counts)} |")
    return lines


def table(cases: Sequence[Case], answers: Answers) -> list[str]:
    """Rows of Markdown, one per case: the answers of each tool, right ones bold, remarks on the log in brackets."""
    lines = [f"| case | planted | {' | '.join(answers)} |", f"|---|---|{'---|' * len(answers)}"]
    for place, case in enumerate(cases):
        planted = ", ".join("/".join(c) for c in case.causes) or "-"
        cells = [", ".join(in_short(s, case) for s in everything[place]) or "-" for everything in answers.values()]
        lines.append(f"| {case.name} | {planted} | {' | '.join(cells)} |")
    return lines


def in_short(said: Said, case: Case) -> str:
    """An answer as it stands in the table."""
    name = said.alarm.split(" (")[0].replace("_", " ")
    return f"({name})" if said.remark else f"**{name}**" if said.right(case) else name


def page(cases: Sequence[Case], per_batch: Answers, per_epoch: Answers, names: dict[str, str]) -> str:
    """The whole page."""
    total = len(FAULTY) + len(HEALTHY)
    part = [f"**Only {len(cases)} of {total} cases are recorded yet.**", ""] if len(cases) < total else []
    return "\n".join(
        [
            *("# What readers of logs say of the faults", "", *INTRODUCTION, "", *part),
            *("## A row for every batch", "", *summary(cases, per_batch, names), ""),
            *("## The same with one row an epoch", "", *summary(cases, per_epoch, names), ""),
            *("## Case by case, a row for every batch", ""),
            *("Right answers are bold; what is said of the log and not of the training stands in brackets.", ""),
            *(*table(cases, per_batch), ""),
        ]
    )


def main() -> None:
    """Write the logs, ask, count, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the recorded cases")
    parser.add_argument("--python", type=Path, required=True, help="the Python beside which the tools are installed")
    parser.add_argument("--ours", action="store_true", help="ask valgap as well, from the record alone")
    args = parser.parse_args()
    cases = [c for c in (*FAULTY, *HEALTHY) if is_recorded(args.runs / safe(c.name))]
    if not cases:
        raise SystemExit(f"{args.runs} holds no recorded case: run benchmarks/faults.py with --keep first")
    names = {name: f"{name} {version}" for name, version in versions(args.python).items()}
    records = {case: read_record(args.runs / safe(case.name)) for case in cases}
    per_batch = all_answers({case: rows_per_batch(record) for case, record in records.items()}, args.python)
    per_epoch = all_answers({case: rows_per_epoch(record) for case, record in records.items()}, args.python)
    if args.ours:
        per_batch[OURS] = [ours(case, args.runs) for case in cases]
    RESULTS.write_text(page(cases, per_batch, per_epoch, names), "utf-8")
    print("\n".join(summary(cases, per_batch, names)))


if __name__ == "__main__":
    main()
