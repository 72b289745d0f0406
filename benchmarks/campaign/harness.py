"""Runs a program: without valgap for the truth, and under it for the answer. A row of JSON each."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

from campaign.data import spoilt
from campaign.draft import Draft
from campaign.plan import Program
from campaign.stages_of_codes import STAGE
from valgap import confidence

Row = dict[str, Any]
PROBE = {
    "imports": "from campaign import truth as campaign_truth",
    "pass": "campaign_truth.begin()",
    "probe": "campaign_truth.add($vout, $vy)",
}
SECOND_SEED_S = 12.0
SURE = 0.5
OF_STAGES = ("stage", "points", "nats", "verdict", "confidence", "proved", "causes")


def write(draft: Draft, folder: Path, seed: int, probed: bool) -> Path:
    """The program in that folder; with the probe for the truth or without."""
    draft_text = draft.text(seed)
    if probed:
        held = dict(draft.slots)
        for slot, text in PROBE.items():
            draft.after(slot, text)
        draft_text = draft.text(seed)
        draft.slots = held
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / draft.base.style.words["file"]
    file.write_text(draft_text, encoding="utf-8")
    return file


def data_of(program: Program, keep: Path) -> Path:
    """The data set of a program; made where its fault is in the files."""
    name = program.base.setup.data
    if program.draft.files is None:
        return keep / "data" / name
    kind, dose = program.draft.files
    folder = keep / "sets" / program.name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "weights").exists():
        (folder / "weights").symlink_to(keep / "data" / "weights")
    spoilt(keep / "data" / name, folder / name, kind, dose, int(program.name, 16))
    return folder / name


def arguments(program: Program, file: Path, keep: Path) -> list[str]:
    """`FILE ARGUMENTS` of the program."""
    text = program.base.style.words["args"].replace("$epochs", str(program.base.setup.epochs))
    return [str(file), *(a.replace("{D}", str(data_of(program, keep))) for a in text.split())]


def printed(program: Program, text: str) -> float | None:
    """The validation accuracy (0..1) that the program printed last."""
    pattern, factor = program.base.style.words["shows"].rsplit(" | ", 1)
    found = re.findall(pattern, text)
    return float(found[-1]) * float(factor) / 100 if found else None


def timed(command: list[str], where: Path) -> tuple[int, str, str, float]:
    """Exit status, output, errors and seconds of the processor of `python COMMAND`, in a fork that has imported torch."""
    from threads import run

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    status, out, err, _ = run(command, "warm", where)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return status, out, err, round(seconds, 1)


def bare(program: Program, seed: int, keep: Path) -> Row:
    """The truth about one program and seed: accuracy and mean loss of its last pass over validation."""
    where = Path(tempfile.mkdtemp())
    try:
        os.environ["CAMPAIGN_TRUTH"] = str(where / "truth.json")
        file = write(program.draft, where / "program", program.base.seed + seed, probed=True)
        status, out, err, seconds = timed(arguments(program, file, keep), where)
        row: Row = {"label": "bare", "name": program.name, "seed": seed, "status": status, "seconds": seconds}
        if (where / "truth.json").exists():
            row |= json.loads((where / "truth.json").read_text())
        row["printed"] = printed(program, out)
        return row | ({"error": last_line(err)} if status else {})
    finally:
        shutil.rmtree(where)


def asked(program: Program, label: str, keep: Path, budget: str = "") -> Row:
    """What valgap says of a program: its record is made and judged, with re-runs where there is a budget."""
    where = Path(tempfile.mkdtemp())
    try:
        file = write(program.draft, where / "program", program.base.seed, probed=False)
        record = where / "record"
        command = ["-m", "valgap", "run", "--out", str(record), *arguments(program, file, keep)]
        status, out, err, record_s = timed(command, where)
        row: Row = {"label": label, "name": program.name, "status": status, "printed": printed(program, out)}
        more = ["--budget", budget] if budget else []
        _, out, complaint, diagnose_s = timed(["-m", "valgap", "diagnose", str(record), "--json", *more], where)
        row["seconds"] = {"record": record_s, "diagnose": diagnose_s}
        row["map"] = list(confidence.MAP)  # of confidences, see campaign_fit.py
        try:
            return row | answer(json.loads(out))
        except json.JSONDecodeError:
            return row | {"findings": [], "top": None, "stages": None, "error": last_line(complaint) or last_line(err)}
    finally:
        shutil.rmtree(where)


def last_line(text: str) -> str:
    """What a failure says in the end, without the places that it went through."""
    return next((line.strip()[-300:] for line in reversed(text.splitlines()) if line.strip()), "")


def answer(said: Row) -> Row:
    """What a row keeps of `valgap diagnose --json`."""
    findings = [finding(f) for f in said["findings"]]
    val = (said.get("accuracy") or {}).get("val") or {}
    return {
        "top": findings[0] if findings else None,
        "findings": [f for f in findings if (f["confidence"] or 0) >= SURE],
        "stages": [{k: s.get(k) for k in OF_STAGES} for s in said["stages"]] if said.get("stages") is not None else None,
        "val": val.get("value"),
    }


def finding(f: Row) -> Row:
    """Code, stage, confidence and points of a finding; the stage by its code where it does not tell one."""
    return {
        "code": f["code"],
        "stage": f.get("stage") or STAGE.get(f["code"]),
        "confidence": f["confidence"],
        "points": f.get("severity_points"),
    }
