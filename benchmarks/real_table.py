"""results/real.md from the rows of the shelf: what was seen of sound runs, what was said of them, planted faults, cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from real_scripts import COMMON, SCRIPTS, Script

SUSPECTED = 0.5
Row = dict[str, Any]
HEAD = (
    "# Other people's scripts, untouched",
    "",
    "`make bench-real DATA=FOLDER SCRIPTS=FOLDER` ([how](../../docs/real_scripts.md)). Small stand-ins for the data, seeded",
    "random weights for pretrained ones, so accuracies are low; what counts is whether valgap sees what happened.",
    "`equal`: the accuracy in valgap's JSON has the same digits as the script's own last printed one. `model`: the module that",
    "learned has as many parameters as the script's model. A suspicion is a finding at .5 and above; beside each stands how",
    "we read it.",
    "",
)


def latest(rows: Sequence[Row]) -> dict[tuple[str, ...], Row]:
    """The last row of each key; what the bare run gave stands in that of the recorded one as well."""
    last = {tuple(r[k] for k in ("label", "script", "start", "fault", "kind")): dict(r) for r in rows}
    for key, row in last.items():
        bare = last.get((*key[:4], "bare"))
        if key[4] == "seen" and bare is not None:
            row |= {"bare_status": bare["status"], "differs": bare["differs"], "bare_differs": bare.get("bare_differs")}
    return last


def equal(script: Script, row: Row) -> bool | None:
    """Whether valgap's accuracy and the script's are the same to the last printed digit; None where the script prints none."""
    shown, value = row.get("printed"), (row.get("accuracy") or {}).get("value")
    if shown is None:
        return None
    if value is None or value != value:
        return False
    decimals = len(shown.partition(".")[2])
    own = 100 * value if script.percent else value
    if script.floor:
        return math.floor(own + 1e-6) == float(shown)
    return bool(abs(own - float(shown)) <= 0.5 * 10.0**-decimals + 2e-6 * (100 if script.percent else 1))


def right_model(script: Script, row: Row) -> bool | None:
    """Whether the model of the last validation has the parameters of the script's own; None without a record."""
    facts = row.get("facts")
    if not facts:
        return None
    trained = [m["parameters"] for m in facts["models"] if m["trained"]]
    return script.model[1] in trained


def known(script: Script, row: Row) -> str:
    """Whether class names and image files are known."""
    facts = row.get("facts")
    if not facts:
        return "-"
    classes = max((d["classes"] for d in facts["datasets"]), default=0)
    words = [f"{classes} classes" if classes else "no class names"]
    if script.paths:
        words.append("files" if facts["files"] else "no files")
    return ", ".join(words)


def closing(row: Row) -> str:
    """Which closing measurements were made."""
    made = ((row.get("facts") or {}).get("closing") or {}).get("rescored")
    return ", ".join(made) if made else "none"


def suspicions(row: Row) -> list[dict[str, Any]]:
    """The findings that valgap bets on, in its order."""
    return [f for f in row.get("findings", []) if f["confidence"] >= SUSPECTED]


def read(script: Script, code: str) -> str:
    """Our reading of a finding of the sound run."""
    return script.readings.get(code) or COMMON.get(code, "not read yet")


def said(script: Script, row: Row) -> str:
    """The suspicions with our reading."""
    if "findings" not in row:
        return f"refused: {row.get('refused', row.get('unread', ''))[:90]}".replace("|", "/").replace("\n", " ")
    return (
        "; ".join(
            f"{f['code']} .{round(100 * min(f['confidence'], 0.99)):02d} {read(script, f['code'])}" for f in suspicions(row)
        )
        or "none"
    )


def tick(value: bool | None) -> str:
    """yes, no or -."""
    return "-" if value is None else "yes" if value else "**no**"


def exit_status(row: Row) -> str:
    """Whether the program ended as it does without valgap."""
    if row.get("bare_status") is None:
        return f"{row['status']}, no bare run yet"
    return "as bare" if row["status"] == row["bare_status"] else f"**{row['status']}**, bare {row['bare_status']}"


def same_numbers(row: Row) -> str:
    """Whether what was printed is what the bare run printed."""
    if "differs" not in row:
        return "-"
    if not row["differs"]:
        return "yes"
    return "own runs differ" if row.get("bare_differs") else "**no**"


def sound(rows: dict[tuple[str, ...], Row], label: str) -> list[str]:
    """The table of sound runs of one valgap."""
    lines = [
        f"## Sound runs: {label}", "",
        "| script | start | exit status | numbers | accuracy printed | equal | model | known | closing | suspicions |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for script in SCRIPTS:
        for start in ("python", *script.starts):
            row = rows.get((label, script.name, start, "", "seen"))
            if row is None:
                continue
            status = exit_status(row)
            lines.append(
                f"| {script.name} | {start} | {status} | {same_numbers(row)} | {row.get('printed') or '-'} |"
                f" {tick(equal(script, row))} |"
                f" {tick(right_model(script, row))} | {known(script, row)} | {closing(row)} | {said(script, row)} |"
            )
    return [*lines, ""]


def planted(rows: dict[tuple[str, ...], Row], labels: Sequence[str]) -> list[str]:
    """What was named first where a fault was planted."""
    lines = [
        "## Planted faults",
        "",
        "| script | fault | expected | " + " | ".join(f"named, {x}" for x in labels) + " |",
        "|---|---|---|" + "---|" * len(labels),
    ]
    for script in SCRIPTS:
        for fault in script.faults:
            cells = []
            for label in labels:
                row = rows.get((label, script.name, "python", fault.name, "seen"))
                cells.append("-" if row is None else first_named(row, fault.codes))
            if any(c != "-" for c in cells):
                lines.append(f"| {script.name} | {fault.name} | {', '.join(fault.codes)} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def first_named(row: Row, codes: Sequence[str]) -> str:
    """The suspicions in order, the expected one in bold."""
    named = [f["code"] for f in suspicions(row)]
    if not named:
        return "nothing" if "findings" in row else "refused"
    return ", ".join(f"**{c}**" if c in codes else c for c in named[:3])


def summary(rows: dict[tuple[str, ...], Row], labels: Sequence[str]) -> list[str]:
    """The counts that the issue asks for."""
    lines = ["| | " + " | ".join(labels) + " |", "|---|" + "---|" * len(labels)]
    counted: dict[str, list[str]] = {}
    for label in labels:
        runs = [(s, r) for s in SCRIPTS for st in ("python", *s.starts) if (r := rows.get((label, s.name, st, "", "seen")))]
        told = [equal(s, r) for s, r in runs]
        comparable = [e for e in told if e is not None]
        false = [f for s, r in runs for f in suspicions(r) if not read(s, f["code"]).startswith("true")]
        found = [
            any(first["code"] in f.codes for first in suspicions(r)[:1])
            for s in SCRIPTS for f in s.faults if (r := rows.get((label, s.name, "python", f.name, "seen")))
        ]  # fmt: skip
        ratios = [ratio for s in SCRIPTS if (ratio := overhead(s, rows, label)) is not None]
        same = [ratio for s in SCRIPTS if (ratio := beside(s, rows, label)) is not None]
        counted.setdefault("scripts seen (starts)", []).append(f"{len({s.name for s, _ in runs})} ({len(runs)})")
        counted.setdefault("exit status as bare", []).append(
            f"{sum(exit_status(r) == 'as bare' for _, r in runs)} of {sum(r.get('bare_status') is not None for _, r in runs)}"
        )
        counted.setdefault("numbers as bare, where the script's own runs agree", []).append(
            f"{sum(same_numbers(r) == 'yes' for _, r in runs)} of {sum(same_numbers(r) in ('yes', '**no**') for _, r in runs)}"
        )
        counted.setdefault("accuracy equal to the last digit", []).append(f"{sum(comparable)} of {len(comparable)}")
        models = [m for s, r in runs if (m := right_model(s, r)) is not None]
        counted.setdefault("model right", []).append(f"{sum(models)} of {len(models)}")
        counted.setdefault("false suspicions on sound runs", []).append(str(len(false)))
        counted.setdefault("runs with a false suspicion", []).append(
            str(sum(any(not read(s, f["code"]).startswith("true") for f in suspicions(r)) for s, r in runs))
        )
        counted.setdefault("planted fault named first", []).append(f"{sum(found)} of {len(found)}")
        again = [r["control"] for s in SCRIPTS if (r := rows.get((label, s.name, "python", "", "rerun"))) and r.get("control")]
        tried = [c for c in again if "cannot be tried" not in str(c["error"])]
        counted.setdefault("control in the sandbox reproduces", []).append(
            f"{sum(bool(c.get('same')) and not c['error'] for c in tried)} of {len(tried)}"
        )
        counted.setdefault("the same answers to every image there", []).append(
            f"{sum(bool(c.get('same_images')) and c['same_answers'] == c['images_recorded'] for c in tried)} of {len(tried)}"
        )
        counted.setdefault("processor time with the recorder's, of bare; median (range)", []).append(
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f} .. {max(ratios):.3f}, {len(ratios)} scripts)" if ratios else "-"
        )
        counted.setdefault("the same, of the rest of its own process", []).append(
            f"{statistics.median(same):.3f} ({min(same):.3f} .. {max(same):.3f})" if same else "-"
        )
    lines += [f"| {name} | " + " | ".join(values) + " |" for name, values in counted.items()]
    return [*lines, ""]


def overhead(script: Script, rows: dict[tuple[str, ...], Row], label: str) -> float | None:
    """A bare run's processor seconds with those that the recorder took of a recorded one, over the bare run's alone.

    The recorder's are taken by the clock of its thread inside the very process: on a busy machine two whole runs differ by more.
    """
    bare = rows.get((label, script.name, "python", "", "bare"))
    own = [(r["fault"], r["recorder_s"]) for (where, name, *_), r in rows.items()
           if (where, name) == (label, script.name) and r["start"] == "python" and "recorder_s" in r]  # fmt: skip
    spent = [s for fault, s in own if not fault] or [s for _, s in own]
    return 1 + statistics.median(spent) / bare["cpu_s"] if bare and spent else None


def beside(script: Script, rows: dict[tuple[str, ...], Row], label: str) -> float | None:
    """The recorder's processor seconds and those of the rest of its own process, over these: both on an equally busy machine."""
    own = [(r["fault"], r["cpu_s"], r["recorder_s"]) for (where, name, *_), r in rows.items()
           if (where, name) == (label, script.name) and r["start"] == "python" and "recorder_s" in r]  # fmt: skip
    ratios = [c / (c - s) for fault, c, s in own if not fault] or [c / (c - s) for _, c, s in own]
    return statistics.median(ratios) if ratios else None


def whole(script: str, rows: dict[tuple[str, ...], Row], label: str) -> float | None:
    """Processor seconds of a whole recorded run up to the script's end, less the start-up of `valgap run`, against bare."""
    row, start = (rows.get((label, name, "python", "", "cpu")) for name in (script, "start-up"))
    if row is None or start is None or script == "start-up":
        return None
    return float((row["cpu_s"] - (start["cpu_s"] - start["bare_cpu_s"])) / row["bare_cpu_s"])


def reruns(rows: dict[tuple[str, ...], Row], labels: Sequence[str]) -> list[str]:
    """What the sandbox's control came to."""
    lines = [
        "## Once more in the sandbox",
        "",
        "`measured there`: the closing measurements that did not fit after the run, made in the rebuilt program. `control`: the",
        "program as it is, its last validation beside the recorded one. `same`: answers right or wrong as before, of the images.",
        "Where not all are the same, what valgap itself says of it (fidelity) stands beside the verdict.",
        "",
        "| script | measured there | control | recorded | same | reproduces |",
        "|---|---|---|---|---|---|",
    ]
    for script in SCRIPTS:
        for label in labels:
            row = rows.get((label, script.name, "python", "", "rerun"))
            if row is not None:
                lines.append(f"| {script.name} | {completed(row)} | {control(row)} |")
    return [*lines, ""] if len(lines) > 8 else []


def completed(row: Row) -> str:
    """Which measurements there are now, or why there are no more."""
    made = row.get("completed")
    if made is None:
        return "-"
    if made["why_not"]:
        return _cell(f"no: {made['why_not']}")
    return ", ".join(made["made"]) if made["cut"] else "nothing was left out"


def control(row: Row) -> str:
    """Accuracy, the recorded one, equal answers, and whether that is the record again."""
    made = row.get("control")
    if made is None or made["error"]:
        why = (row.get("told") or "no answer")[-160:] if made is None else str(made["error"])
        return f"{_cell(why)} | - | - | {'-' if made is not None and 'cannot be tried' in why else '**no**'}"
    same = f"{made['same_answers']} of {made['images_recorded']}" if made["same_images"] else "other images"
    whole = made["same_images"] and made["same_answers"] == made["images_recorded"]
    told = "" if whole else f", valgap: {_cell(made['told'])}"
    return f"{made['accuracy']:.4f} | {made['recorded']:.4f} | {same} | {tick(bool(made['same']))}{told}"


def _cell(text: str) -> str:
    """In a cell of a table."""
    return " ".join(text.replace("|", "/").split())[:200]


def cost(rows: dict[tuple[str, ...], Row], labels: Sequence[str]) -> list[str]:
    """Processor seconds."""
    lines = [
        "## Processor seconds, without start-up and closing measurements",
        "",
        "`recorder`: taken inside the process by the clock of its thread, over a bare run of its own time (`ratio`), and over",
        "the rest of its own process (`beside`), which ran on as busy a machine. Both hold the import of torch.",
        "`whole run`: up to the script's end, less the start-up of `valgap run` (an almost empty program's), against a bare run",
        "made in turn; on a busy machine that is rough.",
        "",
        "| script | valgap | bare | recorder | ratio | beside | whole run, ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for label in labels:
        for script in SCRIPTS:
            ratio, rough = overhead(script, rows, label), whole(script.name, rows, label)
            if ratio is None and rough is None:
                continue
            bare = rows.get((label, script.name, "python", "", "bare"), {}).get("cpu_s", "-")
            spent = "-" if ratio is None else f"{(ratio - 1) * bare:.2f}"
            cells = ["-" if x is None else f"{x:.3f}" for x in (ratio, beside(script, rows, label), rough)]
            lines.append(f"| {script.name} | {label} | {bare} | {spent} | {' | '.join(cells)} |")
    return [*lines, ""] if len(lines) > 9 else []


def provenance(rows: dict[tuple[str, ...], Row]) -> list[str]:
    """Where each script is from."""
    digests = {r["script"]: r["digest"] for r in rows.values() if r.get("digest") and not r["fault"]}
    lines = ["## The scripts", "", "| script | repository | commit | file | sha256 |", "|---|---|---|---|---|"]
    lines += [
        f"| {s.name} | {s.address} | {s.commit} | {s.path.lstrip('@')} | {digests.get(s.name, '-')[:16]} |" for s in SCRIPTS
    ]
    return [*lines, ""]


def table(rows: list[Row]) -> str:
    """The whole page."""
    last = latest(rows)
    labels = list(dict.fromkeys(r["label"] for r in rows))
    lines = [*HEAD, *summary(last, labels)]
    for label in reversed(labels):
        lines += sound(last, label)
    lines += [*planted(last, labels), *cost(last, labels), *reruns(last, labels), *provenance(last)]
    return "\n".join(lines)
