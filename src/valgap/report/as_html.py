"""A Diagnosis as one self-contained HTML page: no script, no network, everything escaped.

The page's policy allows the one style sheet by its hash and pictures inside the page; nothing else can load or run.
"""

from __future__ import annotations

import base64
import hashlib
import math
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from valgap.report.charts import bar, calibration_chart, line_chart
from valgap.report.standing import LIKELY
from valgap.report.words import number_text
from valgap.types import STAGE_WORDS, Clear, Crashed, Diagnosis, Exhibits, Finding, Judged, NotApplicable

MAX_SUBJECTS = 1_000


def diagnosis_to_html(diagnosis: Diagnosis, exhibits: Exhibits) -> str:
    """The page as text; works from disk, in light and dark, printed, on a phone and with a screen reader."""
    environment = Environment(
        loader=PackageLoader("valgap.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters.update(percent=percent, points=points, text=number_text, short=short, sentence=sentence)
    sheet = environment.get_template("report.css").render()
    findings = [(j, j.outcome) for j in diagnosis.judged if isinstance(j.outcome, Finding)]
    groups: dict[str, list[Any]] = {
        "likely": [pair for pair in findings if pair[1].confidence >= LIKELY],
        "hints": [pair for pair in findings if pair[1].confidence < LIKELY],
        "clear": [(j, j.outcome) for j in diagnosis.judged if isinstance(j.outcome, Clear)],
        "open": [(j, j.outcome) for j in diagnosis.judged if isinstance(j.outcome, NotApplicable)],
        "crashed": [(j, j.outcome) for j in diagnosis.judged if isinstance(j.outcome, Crashed)],
    }
    page = environment.get_template("report.html").render(
        diagnosis=diagnosis,
        run=diagnosis.run,
        exhibits=exhibits,
        sheet=Markup(sheet),  # ours, not the user's
        sheet_hash=base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode(),
        statement=statement(diagnosis),
        tried=[bars_of(j, _effects_span(diagnosis)) for j in diagnosis.findings if j.effect is not None],
        line_chart=line_chart,
        calibration_chart=calibration_chart,
        bar=bar,
        heat=heat,
        stage_words=STAGE_WORDS,
        max_subjects=MAX_SUBJECTS,
        **groups,
    )
    # Names of files that are no UTF-8 hold halves of characters, which no file can be written with.
    return page.encode("utf-8", "backslashreplace").decode()


def statement(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """The rows of the ledger as a waterfall: each begins where the one before ended."""
    val = diagnosis.validation
    if val is None or not diagnosis.ledger:
        return []
    verdicts = {j.check.name: j for j in diagnosis.findings}
    start = round(100 * val.value, 1)
    marks, running = [100 * val.low, 100 * val.high], start
    for line in diagnosis.ledger:
        marks += [running, running + line.points]
        if line.low is not None and line.high is not None:
            marks += [running + line.low, running + line.high]
        running += line.points
    span = (max(0.0, min(marks) - 3.0), min(100.0, max(marks) + 1.0))
    base = bar(span[0], start, 100 * val.low, 100 * val.high, span, "base")
    interval = f"{100 * val.low:.1f} .. {100 * val.high:.1f}"
    first = {"name": "reached by this run", "points": f"{start:.1f} %", "interval": interval, "told": f"{val.n} images"}
    rows: list[dict[str, Any]] = [{**first, "bar": base, "code": "", "total": True}]
    running = start
    # What no re-run has shown is not counted as reached.
    confirmed = any(j.verdict == "confirmed" for j in verdicts.values())
    reached = not confirmed
    for line in diagnosis.ledger:
        judged = verdicts.get(line.name)
        if judged is None and not reached and len(rows) > 1:
            rows.append(_reached(running, span))
            reached = True
        known = line.low is not None and line.high is not None
        low, high = (running + (line.low or 0.0), running + (line.high or 0.0)) if known else (None, None)
        kind = "rest" if judged is None else "up" if line.points >= 0 else "down"
        rows.append(
            {
                "name": line.name,
                "points": points(line.points),
                "interval": "" if line.low is None or line.high is None else f"{line.low:+.1f} .. {line.high:+.1f}",
                "told": " ".join(t for t in (judged.verdict if judged is not None else "", line.note) if t),
                "bar": bar(running, running + line.points, low, high, span, kind),
                "code": judged.check.code if judged is not None else "",
                "total": False,
            }
        )
        running += line.points
    if not reached and len(rows) > 1:
        rows.append(_reached(running, span))
    return rows


def _reached(value: float, span: tuple[float, float]) -> dict[str, Any]:
    drawn = bar(span[0], value, None, None, span, "base")
    name = "reached with every confirmed remedy"
    return {"name": name, "points": f"{value:.1f} %", "interval": "", "told": "", "bar": drawn, "code": "", "total": True}


def _effects_span(diagnosis: Diagnosis) -> tuple[float, float]:
    ends = [v for j in diagnosis.findings if j.effect is not None for v in (j.effect.low, j.effect.high, 0.0)]
    return (min(ends) - 1.0, max(ends) + 1.0) if ends else (0.0, 1.0)


def bars_of(judged: Judged, span: tuple[float, float]) -> dict[str, Any]:
    """A tried cause as a row: its effect with interval on an axis that all tried causes share."""
    effect = judged.effect
    assert effect is not None
    kind = "up" if judged.verdict == "confirmed" and effect.value >= 0 else "down" if judged.verdict == "confirmed" else "rest"
    return {"judged": judged, "effect": effect, "bar": bar(0.0, effect.value, effect.low, effect.high, span, kind)}


def heat(count: int, total: int) -> str:
    """The class of a cell of the confusion matrix by its share of the row."""
    share = count / total if total else 0.0
    return f"h{min(5, math.ceil(5 * share))}" if count else "h0"


def percent(value: float | None) -> str:
    """A fraction as percent with one decimal."""
    return "unknown" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def short(path: str) -> str:
    """The end of a path: its folder and file, at most 80 characters."""
    end = "/".join(path.replace("\\", "/").split("/")[-2:])
    return end if len(end) <= 80 else f"…{end[-79:]}"


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def points(value: float) -> str:
    """Points with sign and one decimal."""
    return f"{value:+.1f}"
