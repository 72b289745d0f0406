"""Writes docs/causes.md from the checks' own docstrings. Usage: python docs/generate_causes.py [--check]"""

from __future__ import annotations

import sys
from pathlib import Path

from valgap.checks import CATALOGUE

PAGE = Path(__file__).with_name("causes.md")


def page() -> str:
    """The whole page as Markdown."""
    parts = ["# Causes\n\nMade by `make docs` from the checks' docstrings; `valgap explain CODE` prints the same.\n"]
    for check in CATALOGUE:
        title, *lines = check.doc.strip().splitlines()
        parts.append(f"\n## {check.code} {check.name}\n\n{title}\n")
        parts += [f"{line.strip()}\n" if line.startswith(" ") else f"\n**{line}**\n\n" if line else "" for line in lines]
    return "".join(parts)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text() != page() and "docs/causes.md is out of date: run `make docs`")
    PAGE.write_text(page())
