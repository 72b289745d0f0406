"""A Diagnosis as JUnit XML: each check is a test case, which every CI system shows.

Source: https://github.com/testmoapp/junitxml (what the common readers agree on; there is no standard).
"""

from __future__ import annotations

from collections.abc import Collection
from xml.etree import ElementTree

from valgap.report.standing import FAILING, standing
from valgap.report.words import evidence_line
from valgap.types import Clear, Crashed, Diagnosis, Finding, Judged, NotApplicable
from valgap.visible import visible

MAX_SUBJECTS = 100


def diagnosis_to_junit(diagnosis: Diagnosis, fail_on: str = "suspected") -> str:
    """The XML text: a finding at or above ``fail_on`` fails, others pass, a crash is an error, the unjudged are skipped.

    Raises KeyError where ``fail_on`` is neither "confirmed" nor "suspected".
    """
    cases = [_case(judged, FAILING[fail_on]) for judged in diagnosis.judged]
    count = {tag: sum(case.find(tag) is not None for case in cases) for tag in ("failure", "error", "skipped")}
    counts = {
        "name": "valgap",
        "tests": str(len(cases)),
        "failures": str(count["failure"]),
        "errors": str(count["error"]),
        "skipped": str(count["skipped"]),
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {**counts, "name": visible(diagnosis.run.path) or "valgap"})
    suite.extend(cases)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(judged: Judged, failing: Collection[str]) -> ElementTree.Element:
    check, outcome = judged.check, judged.outcome
    case = ElementTree.Element("testcase", {"classname": f"valgap.{check.code[:3]}", "name": f"{check.code} {check.name}"})
    found = standing(judged)
    if isinstance(outcome, Finding):
        body = _body(judged, outcome)
        if found in failing:
            _add(case, "failure", body, message=outcome.summary, type=found)
        else:
            _add(case, "system-out", f"{found}: {outcome.summary}\n{body}")
    elif isinstance(outcome, NotApplicable):
        _add(case, "skipped", "", message=f"needs {outcome.missing}")
    elif isinstance(outcome, Crashed):
        last = outcome.traceback.strip().splitlines()[-1:] or ["crashed"]
        _add(case, "error", outcome.traceback, message=last[0], type="crashed")
    elif isinstance(outcome, Clear):
        _add(case, "system-out", outcome.summary)
    return case


def _add(case: ElementTree.Element, tag: str, text: str, **attributes: str) -> None:
    part = ElementTree.SubElement(case, tag, {name: visible(value) for name, value in attributes.items()})
    part.text = visible(text, keep="\n\t") or None


def _body(judged: Judged, finding: Finding) -> str:
    lines = [evidence_line(e) for e in finding.evidence]
    if judged.reason:
        lines.append(f"{judged.verdict}: {judged.reason}")
    lines.append(f"remedy: {finding.remedy}")
    # A line break inside a file's name must not look like the next name.
    lines += [f"concerns: {visible(subject)}" for subject in finding.subjects[:MAX_SUBJECTS]]
    more = len(finding.subjects) - MAX_SUBJECTS
    return "\n".join([*lines, f"and {more} more"] if more > 0 else lines)
