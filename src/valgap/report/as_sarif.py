"""A Diagnosis as SARIF 2.1.0, which code hosts show as alerts: rules are the checks, results the images they are about.

Source: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from valgap import __version__
from valgap.report.standing import standing
from valgap.report.words import evidence_line
from valgap.types import Clear, Crashed, Diagnosis, Finding, Judged, NotApplicable
from valgap.visible import visible

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
ROOT = "%SRCROOT%"
LEVELS = {"confirmed": "error", "suspected": "warning", "hint": "note"}
# Code hosts refuse files with more than some ten thousand results; the most suspect images come first.
MAX_RESULTS = 1_000
PAIR = " = "


def diagnosis_to_sarif(diagnosis: Diagnosis, root: Path) -> dict[str, Any]:
    """JSON-ready SARIF log; files below ``root`` (where the command runs) are named relative to it, as code hosts need.

    What was ruled out and what could not be judged is no result (readers would raise an alert for it) but a property.
    """
    rules = [_rule(judged) for judged in diagnosis.judged]
    places = {judged.check.code: i for i, judged in enumerate(diagnosis.judged)}
    files = _Files(diagnosis, root)
    results = [{**r, "ruleIndex": places[j.check.code]} for j in diagnosis.judged for r in _results(j, files)]
    crashes = [(j, j.outcome) for j in diagnosis.judged if isinstance(j.outcome, Crashed)]
    run = {
        "tool": {"driver": {"name": "valgap", "version": __version__, "semanticVersion": __version__, "rules": rules}},
        "originalUriBaseIds": {ROOT: {"uri": f"file://{_quoted(root).rstrip('/')}/"}},
        "invocations": [
            {
                "executionSuccessful": not crashes,
                "toolExecutionNotifications": [_notification(j, crash) for j, crash in crashes],
            }
        ],
        "results": results,
        "properties": {
            "run": visible(diagnosis.run.path),
            "ruledOut": {j.check.code: visible(j.outcome.summary) for j in diagnosis.judged if isinstance(j.outcome, Clear)},
            "notJudged": {
                j.check.code: visible(j.outcome.missing) for j in diagnosis.judged if isinstance(j.outcome, NotApplicable)
            },
            "refuted": {j.check.code: visible(j.reason) for j in diagnosis.judged if standing(j) == "refuted"},
        },
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(judged: Judged) -> dict[str, Any]:
    check = judged.check
    first, _, rest = check.doc.strip().partition("\n")
    return {
        "id": check.code,
        "name": check.name,
        "shortDescription": {"text": first},
        "fullDescription": {"text": first},
        "help": {"text": rest.strip() or first},
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": [check.code[:3]]},
    }


def _notification(judged: Judged, crash: Crashed) -> dict[str, Any]:
    return {
        "level": "error",
        "associatedRule": {"id": judged.check.code},
        "message": {"text": visible(crash.traceback, keep="\n\t")},
    }


def _results(judged: Judged, files: _Files) -> Iterator[dict[str, Any]]:
    """A result for each image of a finding; of a finding without images one for what was judged as a whole."""
    finding = judged.outcome
    level = LEVELS.get(standing(judged))
    if not isinstance(finding, Finding) or level is None:
        return
    said = {r.path: r for r in finding.ranking}
    images = [found for found in map(files.of, finding.subjects[:MAX_RESULTS]) if found]
    left = len(finding.subjects) - len(images) if images else 0
    about = [evidence_line(e) for e in finding.evidence]
    if judged.reason:
        about.append(f"{judged.verdict}: {judged.reason}")
    about.append(f"Remedy: {finding.remedy}")
    for names in images or [()]:
        lines = [f"{finding.summary}."]
        ranked = said.get(names[0]) if names else None
        if ranked is not None and ranked.given and ranked.likely:
            lines.append(f"Given {ranked.given}, likely {ranked.likely} (score {ranked.score:.2f}).")
        elif ranked is not None and ranked.given and ranked.seen:
            lines.append(f"Given {ranked.given}, looks like: {ranked.seen} (score {ranked.score:.2f}).")
        if len(names) > 1:
            lines.append(f"The same picture as {names[1]}.")
        if left:
            lines.append(f"{left} more are not listed.")
        if not names and finding.subjects:
            lines.append("Concerns: " + ", ".join(finding.subjects[:20]) + ".")
        yield {
            "ruleId": judged.check.code,
            "level": level,
            "rank": round(100 * finding.confidence, 1),
            "message": {"text": "\n".join(map(visible, [*lines, *about]))},
            "locations": [files.location(names[0]) if names else files.whole()],
            "relatedLocations": [files.location(n) for n in names[1:]],
            "partialFingerprints": {"valgap/v1": _fingerprint(judged.check.code, *names)},
            "properties": {"points": round(_points(judged, finding), 2), "verdict": judged.verdict},
        }


def _points(judged: Judged, finding: Finding) -> float:
    return judged.effect.value if judged.effect is not None else finding.severity_points


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


class _Files:
    """Names of a record as places of files."""

    def __init__(self, diagnosis: Diagnosis, root: Path) -> None:
        self.root = root
        self.base = Path(os.path.abspath(root / str(diagnosis.run.header.get("cwd", "."))))  # noqa: PTH100 (keeps links)
        self.names = frozenset(diagnosis.run.sample_names)
        self.script = str(diagnosis.run.header.get("script", "")) or diagnosis.run.path

    def of(self, subject: str) -> tuple[str, ...]:
        """The one or two images that a subject names, ``a = b`` for copies; empty where it names something else."""
        if subject in self.names:
            return (subject,)
        pieces = subject.split(PAIR)
        for i in range(1, len(pieces)):
            left, right = PAIR.join(pieces[:i]), PAIR.join(pieces[i:])
            if left in self.names and right in self.names:
                return left, right
        return ()

    def location(self, name: str) -> dict[str, Any]:
        """The place of a file that the record names."""
        return _location(self.base / name, self.root)

    def whole(self) -> dict[str, Any]:
        """What was judged as a whole: the script, else the folder of images or the run."""
        return _location(self.base / self.script, self.root)


def _location(path: Path, root: Path) -> dict[str, Any]:
    if path.is_relative_to(root):
        place = {"uri": _quoted(path.relative_to(root)), "uriBaseId": ROOT}
    else:
        place = {"uri": f"file://{_quoted(path)}"}
    # A picture has no lines, but GitHub's code scanning asks for a region.
    return {"physicalLocation": {"artifactLocation": place, "region": {"startLine": 1}}}


def _quoted(path: Path) -> str:
    """The path as part of an address: every byte that is not plain is encoded, so that any name comes back whole."""
    text = path.as_posix()
    with_drive = path.is_absolute() and not text.startswith("/")
    return quote(os.fsencode(f"/{text}" if with_drive else text))
