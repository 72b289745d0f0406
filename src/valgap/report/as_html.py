"""A Diagnosis as one self-contained HTML page: no script, no network, everything escaped.

The page's policy allows the one style sheet by its hash and pictures inside the page; nothing else can load or run.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from valgap.report.charts import bar, calibration_chart, line_chart
from valgap.report.standing import LIKELY
from valgap.report.words import loss_parts_text, loss_text, number_text
from valgap.types import STAGE_WORDS, Clear, Crashed, Diagnosis, Exhibits, Finding, Judged, LedgerLine, NotApplicable
from valgap.visible import visible

MAX_SUBJECTS = 1_000
REACHED = "reached with every confirmed remedy"
# Kinds of ledger lines that stand beside the sum: nobody would give a gain up, and confidence costs no point.
BESIDE = ("gain", "confidence")


def diagnosis_to_html(diagnosis: Diagnosis, exhibits: Exhibits) -> str:
    """The page as text; works from disk, in light and dark, printed, on a phone and with a screen reader."""
    environment = Environment(
        loader=PackageLoader("valgap.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    environment.filters.update(
        percent=percent,
        points=points,
        text=number_text,
        loss=loss_text,
        loss_parts=loss_parts_text,
        short=short,
        sentence=sentence,
    )
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
    # Names of files that are no UTF-8 hold halves of characters, which no file can be written with; charts put theirs in by hand.
    return page.encode("utf-8", "backslashreplace").decode()


def _shown(value: Any) -> Any:
    """What a template puts into the page: of text, nothing that could turn it around or move a cursor; ours stays as it is."""
    return visible(value, keep="\n\t") if type(value) is str else value


def statement(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """The rows of the ledger as a waterfall: each begins where the one before ended."""
    val = diagnosis.validation
    if val is None or not diagnosis.ledger:
        return []
    judged = {j.check.name: j for j in diagnosis.findings}
    printed, causes, rest = (
        [x for x in diagnosis.ledger if (x.kind == "measurement", x.kind == "cause" and x.name in judged) == kind]
        for kind in ((True, False), (False, True), (False, False))
    )
    start = round(100 * val.value, 1)
    told = start - sum(line.points for line in printed)
    placed, running = [], told
    for line in (*printed, *causes, *rest):
        placed.append((line, running))
        running += line.points if line.kind not in BESIDE else 0.0
    span = _span([100 * val.low, 100 * val.high], placed)
    rows = [_row(line, judged.get(line.name), at, span) for line, at in placed]
    run = {**_total("reached by this run", start, span, (100 * val.low, 100 * val.high)), "told": f"{val.n} images"}
    first = [_total("as the script reports it", told, span)] if printed else []
    reached = [_total(REACHED, diagnosis.reached, span)] if diagnosis.reached is not None else []
    upto = len(printed), len(printed) + len(causes)
    return [*first, *rows[: upto[0]], run, *rows[upto[0] : upto[1]], *reached, *rows[upto[1] :]]


def _span(marks: list[float], placed: Sequence[tuple[LedgerLine, float]]) -> tuple[float, float]:
    """The ends of the axis that all bars share."""
    marks = [*marks, *(at + v for line, at in placed for v in (0.0, line.points, line.low, line.high) if v is not None)]
    return max(0.0, min(marks) - 3.0), min(100.0, max(marks) + 1.0)


def _row(line: LedgerLine, judged: Judged | None, at: float, span: tuple[float, float]) -> dict[str, Any]:
    """A line of the ledger whose bar begins at ``at``."""
    low, high = (at + line.low, at + line.high) if line.low is not None and line.high is not None else (None, None)
    kind = "rest" if judged is None and line.kind != "gain" else "up" if line.points >= 0 else "down"
    verdict = judged.verdict if judged is not None and line.kind == "cause" else ""
    return {
        "name": line.name,
        "points": points(line.points),
        "loss": loss_text(line.nats) if line.kind != "measurement" else "",
        "interval": "" if low is None or high is None else f"{line.low:+.1f} .. {line.high:+.1f}",
        "told": " ".join(t for t in (verdict, line.note) if t),
        "bar": bar(at, at + line.points, low, high, span, kind),
        "code": judged.check.code if judged is not None else "",
        "total": False,
    }


def _total(
    name: str, value: float, span: tuple[float, float], ends: tuple[float | None, float | None] = (None, None)
) -> dict[str, Any]:
    low, high = ends
    interval = f"{low:.1f} .. {high:.1f}" if low is not None and high is not None else ""
    row = {"name": name, "points": f"{value:.1f} %", "interval": interval, "told": "", "loss": "", "code": "", "total": True}
    return {**row, "bar": bar(span[0], value, low, high, span, "base")}


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
