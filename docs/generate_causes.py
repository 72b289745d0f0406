"""Writes docs/causes/: a page for each cause, an index and all thresholds, from the checks' own source; names them in mkdocs.yml.

Usage: python docs/generate_causes.py [--check]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import thresholds

from valgap.checks import CATALOGUE
from valgap.types import Check

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).with_name("causes")
SITE = ROOT / "mkdocs.yml"
BEGIN, END = "      # causes, written by docs/generate_causes.py\n", "      # end of causes\n"
CHECKS = ROOT / "src" / "valgap" / "checks"
# Title -> (beginning of the codes, folder).
FAMILIES = {
    "Data and labels": ("DAT", CHECKS / "data"),
    "Preprocessing": ("PRE", CHECKS / "preprocessing"),
    "Model and fine-tuning": ("MOD", CHECKS / "model"),
    "Training": ("TRN", CHECKS / "training"),
    "Evaluation": ("EVA", CHECKS / "evaluation"),
    "Stages": ("STG", CHECKS / "stage"),
}
SHARED = {
    "What several families ask of a record": ("", CHECKS / "shared"),
    "References of the stages": ("", ROOT / "src" / "valgap" / "reference"),
}


def page(check: Check) -> str:
    """One cause as Markdown: its docstring, and whether re-runs can prove it."""
    title, *lines = check.doc.strip().splitlines()
    parts = [f"# {check.code} {check.name}\n\n{title}\n"]
    for line in lines:
        parts.append(f"{linked(line.strip(), check)}\n" if line.startswith(" ") else f"\n## {line}\n\n" if line else "\n")
    if check.treat is None:
        proof = "No intervention removes this cause from a program, so it is judged on evidence alone."
    else:
        command = f"valgap diagnose RUN --budget 10m --select {check.code}"
        proof = f"`{command}` runs the program again without this cause, where it can."
    parts.append(f"\n## Proof\n\n{proof}\n\n---\n\n`valgap explain {check.code}` prints this page. [All causes](index.md)\n")
    return re.sub(r"\n{3,}", "\n\n", "".join(parts))


def linked(text: str, own: Check) -> str:
    """The text with the codes of other causes as links."""
    codes = {c.code for c in CATALOGUE} - {own.code}
    return re.sub(r"\b[A-Z]{3}\d{3}\b", lambda m: f"[{m[0]}]({m[0]}.md)" if m[0] in codes else m[0], text)


def index() -> str:
    """All causes by family, each with its first line."""
    parts = ["# Causes\n\nMade by `make docs` from the checks' docstrings; `valgap explain CODE` prints the same.\n"]
    for title, (family, _) in FAMILIES.items():
        parts.append(f"\n## {title}\n\n| code | name | what is wrong |\n|---|---|---|\n")
        for check in CATALOGUE:
            if check.code.startswith(family):
                first = check.doc.strip().splitlines()[0].replace("|", "\\|")
                parts.append(f"| [{check.code}]({check.code}.md) | {check.name} | {first} |\n")
    parts.append("\n[All thresholds](thresholds.md), and what they were calibrated on.\n")
    return "".join(parts)


def pages() -> dict[Path, str]:
    """Every generated file with its text."""
    return {
        FOLDER / "index.md": index(),
        FOLDER / "thresholds.md": thresholds.page(FAMILIES | SHARED),
        **{FOLDER / f"{c.code}.md": page(c) for c in CATALOGUE},
        SITE: site(SITE.read_text()),
    }


def site(text: str) -> str:
    """The site's configuration with all causes in its navigation."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    names = "      - causes/thresholds.md\n" + "".join(f"      - causes/{c.code}.md\n" for c in CATALOGUE)
    return f"{head}{BEGIN}{names}{END}{tail}"


def stale() -> list[str]:
    """Files that differ from what would be written, and pages of causes that are none any more."""
    wanted = pages()
    found = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    found += [path for path in FOLDER.glob("*.md") if path not in wanted]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def write() -> None:
    """Write all that is out of date."""
    wanted = pages()
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.md"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        path.write_text(text)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(f"out of date: {', '.join(stale())}; run `make docs`" if stale() else 0)
    write()
