"""Findings that concern very many images: the first of them in the report, all of them in a file."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from valgap.types import Diagnosis, Finding

# Subjects of a finding that a report lists; they come in the order of the finding, in rankings the most suspect first.
LISTED = 5_000
COLUMNS = ("subject", "score", "given", "likely", "seen")


def shortened(diagnosis: Diagnosis, folder: Path) -> tuple[Diagnosis, dict[str, tuple[Path, int]]]:
    """(the diagnosis with LISTED subjects at most a finding, file and number of subjects by the code of each cut one).

    Files are CODE.csv below ``folder``, made only where something is cut; what an earlier call wrote there is replaced.
    """
    files: dict[str, tuple[Path, int]] = {}
    judged = []
    for one in diagnosis.judged:
        finding = one.outcome
        if isinstance(finding, Finding) and len(finding.subjects) > LISTED:
            file = folder / f"{one.check.code}.csv"
            _write(file, finding)
            files[one.check.code] = (file, len(finding.subjects))
            one = replace(one, outcome=replace(finding, subjects=finding.subjects[:LISTED]))
        judged.append(one)
    return replace(diagnosis, judged=tuple(judged)) if files else diagnosis, files


def _write(file: Path, finding: Finding) -> None:
    said = {r.path: (f"{r.score:.6g}", r.given, r.likely, r.seen) for r in finding.ranking}
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as target:
        rows = csv.writer(target)
        rows.writerow(COLUMNS)
        rows.writerows((subject, *said.get(subject, ("", "", "", ""))) for subject in finding.subjects)
