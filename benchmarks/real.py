"""Other people's scripts, untouched: what valgap sees of them, says of them, and costs them.

python benchmarks/real.py DATA SCRIPTS [--only NAME ...] [--label now] [--source SRC] [--minutes 9] [--work FOLDER]

For every script of real_scripts.py: a recorded run and what is said of it (`seen`), the same with each planted fault
(`faults`) and each further start (`starts`), bare runs beside them (`bare`), processor time of whole runs in turn (`cpu`),
and the control in the sandbox (`rerun`). All in fresh copies of the same working folder. Rows go to results/real.jsonl as they
come, and those that are there are not run again; after so many minutes no further run is begun. results/real.md is made of all
rows. With --source another valgap is tried (an older checkout), under --label.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import inspect
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_data import environment, place, prepare
from real_scripts import SCRIPTS, START_UP, Fault, Script
from real_table import table

HERE = Path(__file__).resolve().parent
ROWS = HERE / "results" / "real.jsonl"
LONGEST_S = 300.0
RERUN_S = 1_500.0
REPEATS = 5  # of the start-up, which all others are compared with


def diagnosed(record: Path, images: bool) -> dict[str, Any]:
    """What the record holds and what is said of it, with or without a look at the image files, by the valgap of --source."""
    from valgap.diagnosis import diagnose
    from valgap.record.reader import read_record
    from valgap.report.as_json import diagnosis_to_json

    start = time.perf_counter()
    found: dict[str, Any] = {}
    try:
        r = read_record(record)
        found["facts"] = {
            "models": [
                {"kind": m.kind, "trained": bool(m.trained), "parameters": int(m.numel[m.is_parameter].sum())}
                for m in r.models.values()
            ],
            "datasets": [
                {"id": i, "kind": d.kind, "source": d.source, "size": d.size, "classes": len(d.class_to_idx or ())}
                for i, d in r.datasets.items()
            ],
            "files": sum(1 for n in r.sample_names if n.endswith((".jpg", ".png"))),
            "names": len(r.sample_names),
            "passes": [
                {
                    "phase": p.phase,
                    "n": len(p.samples),
                    "accuracy": float(p.samples.accuracy),
                    "dataset": p.dataset,
                    "model": p.model,
                }
                for p in r.passes
            ],
            "closing": None
            if r.closing is None
            else {"rescored": sorted(r.closing.rescores), "skipped": dict(r.closing.skipped)},
            "errors": list(r.recorder_errors),
            "stopped": r.stopped,
        }
    except Exception as error:
        found["unread"] = repr(error)
    try:
        # From the record alone: a program is rebuilt in its own environment, which this process does not have.
        alone = {"rebuild": False} if "rebuild" in inspect.signature(diagnose).parameters else {}
        body = diagnosis_to_json(diagnose(record, **alone) if images else diagnose(record, images=0, **alone))
    except Exception as error:
        found["refused"] = f"{type(error).__name__}: {error}"
        return found
    keys = ("code", "name", "confidence", "severity_points", "summary")
    found |= {"accuracy": body["accuracy"]["val"] or {}, "train_rescored": body["accuracy"]["train_rescored"]}
    found["findings"] = [{k: f[k] for k in keys} for f in body["findings"]]
    found["crashed"] = [c["code"] for c in body["crashed"]]
    found["not_applicable"] = [c["code"] for c in body["not_applicable"]]
    return found | {"diagnose_s": round(time.perf_counter() - start, 1)}


@dataclass
class Ran:
    """A finished process."""

    status: int
    text: str
    cpu_s: float
    wall_s: float


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def ended(
    command: Sequence[str], cwd: Path, env: dict[str, str], script: Script | None = None, longest: float = LONGEST_S
) -> Ran:
    """Run to the end, or to the Ctrl-C that a user would have pressed; output of both streams as one text."""
    stop, terminal = (script.stop_after, script.terminal) if script else (None, False)
    leader, follower = pty.openpty() if terminal else (None, subprocess.DEVNULL)
    if leader is not None:
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=cwd, env=env, stdin=follower, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    parts: list[bytes] = []

    def read() -> None:
        assert process.stdout is not None
        pressed = 0  # at so many matches: once more where the program goes on, since the first may meet a place that swallows it
        while part := process.stdout.read1(65536):  # type: ignore[attr-defined]
            parts.append(part)
            if not stop:
                continue
            found = len(re.findall(stop[0], b"".join(parts).decode(errors="replace")))
            if found >= max(stop[1], pressed + 1):
                pressed = found
                os.killpg(process.pid, signal.SIGINT)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    alarm = threading.Timer(longest, lambda: os.killpg(process.pid, signal.SIGKILL))
    alarm.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    alarm.cancel()
    reader.join(10)
    lingering = reader.is_alive()  # somebody still holds the output: a process lives on
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if leader is not None:
        os.close(leader)
        os.close(follower)
    text = b"".join(parts).decode(errors="replace") + ("\n[a process lived on]" if lingering else "")
    return Ran(process.returncode, text, usage.ru_utime + usage.ru_stime, seconds)


class Bench:
    """One valgap on the shelf."""

    def __init__(self, scripts: Path, work: Path, source: Path, label: str, images: bool = False) -> None:
        self.scripts, self.work, self.source, self.label = scripts, work, source, label
        self.images = images

    def without_places(self, text: str) -> str:
        """The text without this machine's folders."""
        for folder, name in (
            (self.work, "WORK"),
            (self.source, "VALGAP"),
            (self.scripts, "SCRIPTS"),
            (HERE.parent, "PROJECT"),
            (Path(sys.prefix), "PYTHON"),
            (Path(sys.base_prefix), "PYTHON"),
            # Packages may come from another environment than the interpreter's own.
            *((Path(p), "PACKAGES") for p in sys.path if p.endswith("site-packages")),
        ):
            text = text.replace(str(folder), name)
        return text

    def env(self, script: Script, base: Path, with_valgap: bool) -> dict[str, str]:
        """The same for the bare and the recorded run but for valgap's place."""
        path = [str(HERE / "real_site"), *([str(self.source)] if with_valgap else [])]
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE")}
        return {**kept, **environment(self.work, base), **script.environment, "PYTHONPATH": os.pathsep.join(path)}

    def fresh(self, script: Script, fault: Fault | None) -> Path:
        """A working folder as if nothing had been run."""
        base = self.work / "run" / re.sub(r"\W+", "-", script.name)
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        for layout in script.layouts:
            place(self.work, layout, base)
        if (self.work / "weights" / "metrics").is_dir() and script.name.startswith("transformers"):
            shutil.copytree(self.work / "weights" / "metrics", base, dirs_exist_ok=True)
        if fault is not None and fault.spoil is not None:
            fault.spoil(base)
        return base

    def target(self, script: Script, fault: Fault | None, base: Path) -> Path:
        """The program's file; a notebook's cells as one."""
        path = (fault and fault.path) or script.path
        if path == "@yolo":
            return Path(sys.executable).with_name("yolo")
        if path.startswith("@"):
            return HERE / path[1:]
        file = self.scripts / path
        if file.suffix != ".ipynb":
            return file
        cells = [c for c in json.loads(file.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        lines = "\n\n".join("".join(c["source"]) for c in cells).splitlines()
        if script.leave_out:
            lines = [line for line in lines if script.leave_out not in line]
        out = base / f"{file.stem}.py"
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return out

    def command(
        self, script: Script, start: str, fault: Fault | None, base: Path, record: Path | None, closing: str | None = None
    ) -> list[str]:
        """The whole command line, recorded or bare."""
        text = f"{script.arguments} {script.starts.get(start, '')} {fault.extra if fault else ''}"
        values = {"base": str(base), "weights": str(self.work / "weights"), "port": str(free_port())}
        own = [str(self.target(script, fault, base)), *(a.format(**values) for a in text.split())]
        if record is not None:
            own = ["-m", "valgap", "run", "--out", str(record), *(["--closing", closing] if closing else []), *own]
        if start == "torchrun":
            return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", values["port"], *own]
        return [sys.executable, *own]

    def record_of(self, script: Script, start: str, fault: Fault | None) -> Path:
        """Where the record of a run lies."""
        name = f"{script.name} {start} {fault.name if fault else ''}"
        return self.work / "records" / self.label / re.sub(r"\W+", "-", name)

    def judged_again(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of an earlier call with what is said of its record now; where images were looked at, they may be others now."""
        script = next(s for s in SCRIPTS if s.name == row["script"])
        fault = next((f for f in script.faults if f.name == row["fault"]), None)
        record = self.record_of(script, row["start"], fault)
        if self.images or (fault is not None and fault.images) or not record.is_dir():
            return row
        output = self.work / "outputs" / self.label / f"{record.name}-recorded.txt"
        text = output.read_text(encoding="utf-8") if output.exists() else ""
        return json.loads(json.dumps(row | {"printed": printed(script, text)} | diagnosed(record, self.images), default=str))

    def run(
        self,
        script: Script,
        start: str,
        fault: Fault | None,
        recorded: bool,
        closing: str | None = None,
        variables: dict[str, str] | None = None,
    ) -> tuple[Ran, Path]:
        """One run in a fresh folder; the record lies beside it."""
        base = self.fresh(script, fault)
        record = self.record_of(script, start, fault)
        if recorded:
            shutil.rmtree(record, ignore_errors=True)
            record.parent.mkdir(parents=True, exist_ok=True)
        ran = ended(
            self.command(script, start, fault, base, record if recorded else None, closing), base / script.cwd,
            {**self.env(script, base, recorded), **(variables or {})}, script,
        )  # fmt: skip
        out = self.work / "outputs" / self.label
        out.mkdir(parents=True, exist_ok=True)
        name = f"{record.name}-{'recorded' if recorded else 'bare'}{closing or ''}.txt"
        (out / name).write_text(ran.text, encoding="utf-8")
        return ran, record

    def kept_bare(self, script: Script, start: str, which: str) -> Path:
        """Where a bare run is kept."""
        chosen = repr((script.arguments, script.starts.get(start), script.layouts, script.cwd))
        digest = hashlib.sha256(chosen.encode()).hexdigest()[:8]
        return self.work / "bare" / re.sub(r"\W+", "-", f"{script.name} {start} {which} {digest}.json")

    def fresh_bare(self, script: Script, start: str) -> Ran:
        """A bare run; the first two are kept to compare with."""
        ran, _ = self.run(script, start, None, False)
        kept = next((k for which in ("", "again") if not (k := self.kept_bare(script, start, which)).exists()), None)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps([ran.status, ran.text, ran.cpu_s, ran.wall_s]), encoding="utf-8")
        return ran

    def bare(self, script: Script, start: str, which: str = "") -> Ran:
        """A bare run; made once, whatever valgap it is compared with."""
        kept = self.kept_bare(script, start, which)
        while not kept.exists():
            self.fresh_bare(script, start)
        return Ran(*json.loads(kept.read_text(encoding="utf-8")))

    def row(self, script: Script, start: str, fault: Fault | None) -> dict[str, Any]:
        """All that is measured of one start, or of one planted fault."""
        file = self.work / "cpu"
        file.unlink(missing_ok=True)
        ran, record = self.run(script, start, fault, True, None, {"SHELF_CPU": str(file)})
        row: dict[str, Any] = {"status": ran.status, "wall_s": round(ran.wall_s, 1), "warned": own_warnings(ran.text)}
        row["cpu_closing_s"] = round(ran.cpu_s, 2)
        if file.exists():  # at the script's end, and of that in the recorder
            row["cpu_s"], row["recorder_s"] = (round(float(x), 3) for x in file.read_text(encoding="utf-8").split())
        row |= {"printed": printed(script, ran.text), "said": said(ran.text)}
        base = self.work / "run" / re.sub(r"\W+", "-", script.name)
        row["digest"] = hashlib.sha256(self.target(script, fault, base).read_bytes()).hexdigest()
        return json.loads(json.dumps(row | diagnosed(record, self.images or bool(fault and fault.images)), default=str))

    def compared(self, script: Script, start: str, fault: Fault | None) -> dict[str, Any]:
        """A bare run against the output of the recorded one."""
        bare = self.bare(script, start)
        name = re.sub(r"\W+", "-", f"{script.name} {start} ")
        recorded = self.work / "outputs" / self.label / f"{name}-recorded.txt"
        own = recorded.read_text(encoding="utf-8") if recorded.exists() else ""  # that start could not be made
        row = {
            "status": bare.status,
            "wall_s": round(bare.wall_s, 1),
            "cpu_s": round(bare.cpu_s, 2),
            "printed": printed(script, bare.text),
        }
        row["differs"] = differing(bare.text, own)
        if row["differs"]:
            again = self.bare(script, start, "again").text
            if (where_runs_agree := differing_where_agreed(bare.text, again, own)) is not None:
                row["differs"] = where_runs_agree
            else:
                row["bare_differs"] = differing(bare.text, again)
        return row

    def rerun(self, script: Script, start: str, fault: Fault | None) -> dict[str, Any]:
        """The sandbox: what did not fit after the run is measured there, and the program runs once more as it is."""
        record = self.record_of(script, start, fault)
        if record.is_dir():  # of `seen`: in its folder as it was then
            base = self.fresh(script, fault)
            self.target(script, fault, base)
            shutil.rmtree(record / "experiments", ignore_errors=True)
        else:
            _, record = self.run(script, start, fault, True)
            base = self.work / "run" / re.sub(r"\W+", "-", script.name)
        command = [sys.executable, str(HERE / "real_control.py"), str(record)]
        told = ended(command, base / script.cwd, self.env(script, base, True), longest=RERUN_S)
        body = last_json(told.text)
        return {"status": told.status, "wall_s": round(told.wall_s, 1), **(body or {"told": told.text[-1500:]})}

    def cpu(self, script: Script, start: str, fault: Fault | None) -> dict[str, Any]:
        """Processor seconds of a bare run and of a recorded one up to the script's end; earlier pairs count too."""
        own = [r for r in rows_so_far() if (r["label"], r["script"], r["kind"]) == (self.label, script.name, "cpu")]
        pairs = list(own[-1]["pairs"]) if own else []
        for _ in range(REPEATS if script is START_UP else 1):
            file = self.work / "cpu"
            bare = self.fresh_bare(script, start).cpu_s
            file.unlink(missing_ok=True)
            ran, _ = self.run(script, start, None, True, "0", {"SHELF_CPU": str(file)})
            recorded = float(file.read_text(encoding="utf-8").split()[0]) if file.exists() else ran.cpu_s
            pairs.append([round(bare, 2), round(recorded, 2)])
        return {"bare_cpu_s": min(p[0] for p in pairs), "cpu_s": min(p[1] for p in pairs), "pairs": pairs}


AGREED = 0.7  # of its numbers, at least, two runs of a script with a seed have in common; the rest are times
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
TIMING = re.compile(
    r"(?:img/s|Data|data:|Rate)\W{0,6}[\d.]+(?:e[-+]\d+)?(?:\s*\(\s*[\d.]+(?:e[-+]\d+)?/?s?\))?|Step: \S+|Tot: \S+|^\d+\t"
    r"|(?:[Tt]ime|DT|runtime|samples_per_second|steps_per_second|took|dur|[Tt]otal)(?: \(seconds\))?\W{0,40}"
    r"\d+(?:\.\d+)?(?:\s*\(\s*\d+(?:\.\d+)?\))?"
    r"|\d+(?:\.\d+)?\s*(?:ms|us|s|sec|secs|seconds|min|minutes|m|h|hours|it/s|s/it|img/s|steps/s|samples/s|MB|GB)(?:/\w+)?\b"
    r"|\d+:\d\d(?::\d\d)?(?:[.,]\d+)?|\d{4}-\d\d-\d\d|\d\d/\d\d/\d{4}|20\d{6}[-_]\d{6}|0x[0-9a-f]+|\?it/s|\d+m \d+s"
)
BARS = re.compile(r"[\u2580-\u259f\u2500-\u257f]|\d+%\|| \[[=>.]+\]|it/s|s/it|examples/s|MB/s|ms/step|s/step|\[[0-9a-f:.]+\]:")
OURS = re.compile(r"^\s*valgap: |valgap: ")
SAID = re.compile(r"(?m)^(?:valgap: closing measurements|validation accuracy|valgap: )")


def told_by_script(text: str) -> list[str]:
    """The numbers of each line that the script itself printed, but for times, ports and progress bars."""
    if "KeyboardInterrupt" in text:  # where it was when Ctrl-C came is chance
        text = text.partition("Traceback (most recent call last)")[0]
    # valgap's own summary comes after the script's last line.
    lines = re.split(r"[\r\n]+", text)
    for i, line in enumerate(lines):
        if line.startswith(
            (
                "valgap: closing measurements",
                "valgap: the script ended",
                "validation accuracy ",
                "valgap: recorded in",
                "valgap: ",
            )
        ):
            lines = lines[:i]
            break
    kept = []
    for line in lines:
        if BARS.search(line) or "Warning" in line or "warn" in line or 'File "' in line:
            continue
        numbers = NUMBER.findall(TIMING.sub(" ", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line)))
        if numbers:
            kept.append(" ".join(numbers))
    return kept


def differing(bare: str, recorded: str) -> list[list[str]]:
    """Lines (their numbers) that only one of the two printed, the first of each; empty where all are equal."""
    a, b = sorted(told_by_script(bare)), sorted(told_by_script(recorded))
    only_a, only_b = list(a), []
    for line in b:
        try:
            only_a.remove(line)
        except ValueError:
            only_b.append(line)
    return [only_a[:5], only_b[:5]] if only_a or only_b else []


def differing_where_agreed(bare: str, again: str, recorded: str) -> list[list[str]] | None:
    """Lines whose numbers differ in the recorded run where two bare runs agree, so that what they take for time falls out.

    None where the bare runs print other lines or agree on too little.
    """
    lines = [[line.split() for line in told_by_script(text)] for text in (bare, again, recorded)]
    shapes = [[len(line) for line in one] for one in lines]
    if shapes[0] != shapes[1]:
        return None
    pairs = [(a, b) for x, y in zip(lines[0], lines[1], strict=True) for a, b in zip(x, y, strict=True)]
    if sum(a == b for a, b in pairs) < AGREED * len(pairs):
        return None
    if shapes[2] != shapes[0]:
        return differing(bare, recorded)
    wrong = [
        (" ".join(x), " ".join(z))
        for x, y, z in zip(*lines, strict=True)
        if any(a == b != c for a, b, c in zip(x, y, z, strict=True))
    ]
    return [[w[0] for w in wrong[:5]], [w[1] for w in wrong[:5]]] if wrong else []


def printed(script: Script, text: str) -> str | None:
    """The last validation accuracy that the script printed, as it stands there."""
    own = text.split("valgap: closing measurements")[0]
    found = re.findall(script.accuracy, re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", own))
    return found[-1] if found else None


def own_warnings(text: str) -> list[str]:
    """Warnings and tracebacks in the user's output that come from valgap's files."""
    return sorted(
        {line.strip()[:200] for line in text.splitlines() if re.search(r"/valgap/\S+\.py(:\d+: \w*Warning|\", line)", line)}
    )[:5]


def said(text: str) -> str:
    """What `valgap run` printed after the script's end."""
    found = SAID.search(text)
    return text[found.start() :][:1800] if found else text[-600:]


def last_json(text: str) -> Any:
    """The JSON object in that output."""
    for start in (m.start() for m in re.finditer(r"(?m)^\{", text)):
        with contextlib.suppress(ValueError):
            return json.JSONDecoder().raw_decode(text[start:])[0]
    return None


def rows_so_far() -> list[dict[str, Any]]:
    """The rows of the file, oldest first."""
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.exists() else []


def latest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last row of each kind of measurement, in the order of the first."""
    return list({tuple(r[k] for k in ("label", "script", "start", "fault", "kind")): r for r in rows}.values())


def jobs(only: Sequence[str], kinds: Sequence[str]) -> list[tuple[Script, str, Fault | None, str]]:
    """(script, start, fault, what is measured), the sound starts of every script first."""
    chosen = [s for o in only or [""] for s in SCRIPTS if o.lower() in f"{s.name} ".lower()]
    chosen = list({s.name: s for s in chosen}.values())  # in the order that was asked for
    listed: list[tuple[Script, str, Fault | None, str]] = []
    if "seen" in kinds:
        listed += [(s, "python", None, "seen") for s in chosen]
    if "faults" in kinds:
        listed += [(s, "python", f, "seen") for s in chosen for f in s.faults]
    if "starts" in kinds:
        listed += [(s, start, None, "seen") for s in chosen for start in s.starts]
    if "bare" in kinds:
        listed += [(s, start, None, "bare") for s in chosen for start in ("python", *(s.starts if "starts" in kinds else ()))]
    if "cpu" in kinds:
        listed += [(s, "python", None, "cpu") for s in (START_UP, *chosen)]
    if "rerun" in kinds:
        listed += [(s, "python", None, "rerun") for s in chosen]
    return listed


def main() -> None:
    """Run what is missing, for so many minutes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("scripts", type=Path, nargs="?")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--label", default="now")
    parser.add_argument("--source", type=Path, default=HERE.parent / "src")
    parser.add_argument("--work", type=Path, default=HERE.parent / ".bench-real")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--kinds", nargs="+", default=["seen", "faults", "starts", "bare", "cpu", "rerun"])
    parser.add_argument(
        "--images", action="store_true", help="diagnose with a look at the image files, as `valgap diagnose` does"
    )
    parser.add_argument("--again", action="store_true", help="run what is there once more; the last row counts")
    parser.add_argument("--judge", action="store_true", help="run nothing: judge the records of earlier calls once more")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore Ctrl-C
    if args.data is not None:
        sys.path.insert(0, str(args.source.resolve()))
        work = args.work.resolve()
        work.mkdir(parents=True, exist_ok=True)
        prepare(args.data.resolve(), work)
        bench = Bench(args.scripts.resolve(), work, args.source.resolve(), args.label, args.images)
        if args.judge:
            known = {f.name for s in SCRIPTS for f in s.faults} | {""}
            rows = [r if r["kind"] != "seen" or r["label"] != args.label or r["fault"] not in known else bench.judged_again(r)
                    for r in latest(rows_so_far())]  # fmt: skip
            ROWS.write_text("".join(bench.without_places(json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
            args.kinds = []
        done = {(r["label"], r["script"], r["start"], r["fault"], r["kind"]) for r in rows_so_far()}
        end = time.monotonic() + 60 * args.minutes
        for script, start, fault, kind in jobs(args.only, args.kinds):
            key = (args.label, script.name, start, fault.name if fault else "", kind)
            if (key in done and not args.again) or time.monotonic() > end:
                continue
            if not bench.target(script, fault, work).exists():
                print(f"{script.name}: no {bench.target(script, fault, work)}", flush=True)
                continue
            measure = {"seen": bench.row, "bare": bench.compared, "cpu": bench.cpu, "rerun": bench.rerun}[kind]
            row = (
                dict(zip(("label", "script", "start", "fault", "kind"), key, strict=True))
                | {"source": bench.source.parent.name}
                | measure(script, start, fault)
            )
            with ROWS.open("a", encoding="utf-8") as file:
                file.write(bench.without_places(json.dumps(row)) + "\n")
            print(brief(row), flush=True)
    ROWS.with_suffix(".md").write_text(table(rows_so_far()), encoding="utf-8")


def brief(row: dict[str, Any]) -> str:
    """A row in a line."""
    named = [f"{f['code']} {f['confidence']:.2f}" for f in row.get("findings", [])]
    value = (row.get("accuracy") or {}).get("value")
    rest = {
        k: row[k]
        for k in ("status", "printed", "cpu_s", "bare_cpu_s", "wall_s", "bare_wall_s", "differs", "completed", "control", "told")
        if k in row
    }
    refused = (row.get("refused") or "")[:300]
    return f"{row['kind']} {row['script']} | {row['start']} | {row['fault']}: {rest} value {value} {named} {refused}"


if __name__ == "__main__":
    main()
