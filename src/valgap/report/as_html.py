"""A Diagnosis as one self-contained HTML page: no script, no network, everything escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from valgap.report.terminal import LIKELY, evidence_line
from valgap.types import Clear, Diagnosis, Finding, NotApplicable


def diagnosis_to_html(diagnosis: Diagnosis) -> str:
    """The page as text; works from disk, in light and dark, printed and on a phone."""
    environment = Environment(loader=PackageLoader("valgap.report"), autoescape=select_autoescape(default=True), trim_blocks=True)
    findings = [(j, j.outcome) for j in diagnosis.judged if isinstance(j.outcome, Finding)]
    groups: dict[str, list[Any]] = {
        "likely": [pair for pair in findings if pair[1].confidence >= LIKELY],
        "hints": [pair for pair in findings if pair[1].confidence < LIKELY],
        "clear": [(j, j.outcome) for j in diagnosis.judged if isinstance(j.outcome, Clear)],
        "open": [(j, j.outcome) for j in diagnosis.judged if isinstance(j.outcome, NotApplicable)],
    }
    return environment.get_template("report.html").render(
        diagnosis=diagnosis, run=diagnosis.run, evidence_line=evidence_line, **groups
    )
