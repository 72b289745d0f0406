"""From causes to a patch of the user's own script: edits with file and line, and a unified diff."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from valgap.edits.remedies import EDITS, Facts
from valgap.edits.script import Script

MAX_FILES = 40
MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Edit:
    """One place that is changed."""

    cause: str  # name of the cause
    file: Path
    line: int  # in the file as it is now, from 1
    old: str
    new: str


@dataclass(frozen=True)
class Patch:
    """The files of a program as they are, and with every edit that is beyond doubt."""

    before: dict[Path, str]
    after: dict[Path, str]  # changed files only
    edits: tuple[Edit, ...]
    left: tuple[str, ...]  # causes whose place was not found beyond doubt

    def diff(self, root: Path) -> str:
        """A unified diff for ``patch -p1`` in ``root``; empty without edits."""
        out: list[str] = []
        for file, text in self.after.items():
            name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix()
            old, new = (t.splitlines(keepends=True) for t in (self.before[file], text))
            out += [
                line if line.endswith("\n") else f"{line}\n" for line in difflib.unified_diff(old, new, f"a/{name}", f"b/{name}")
            ]
        return "".join(out)


def make_patch(files: Sequence[Path], causes: Sequence[tuple[str, Facts]]) -> Patch:
    """The edits that remove these causes (by name, with facts) from a program's files, its main file first."""
    before: dict[Path, str] = {}
    for file in files:
        try:
            before[file] = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
    now, edits, left = dict(before), [], []
    for name, facts in causes:
        found = _first(now, name, facts)
        if found is None:
            left.append(name)
            continue
        file, text = found
        edits += _edits(name, file, before[file], now[file], text)
        now[file] = text
    return Patch(before, {f: t for f, t in now.items() if t != before[f]}, tuple(edits), tuple(left))


def _first(files: dict[Path, str], name: str, facts: Facts) -> tuple[Path, str] | None:
    """The first file in which the edit finds its place, with its new text."""
    edit = EDITS.get(name)
    if edit is None:
        return None
    for file, text in files.items():
        try:
            new = edit(Script(text), facts)
        except (SyntaxError, ValueError, RecursionError):
            continue
        if new is not None and new != text:
            return file, new
    return None


def _edits(cause: str, file: Path, original: str, old: str, new: str) -> list[Edit]:
    """What changed, with lines of the file as it was before any edit."""
    a, b, first = old.splitlines(), new.splitlines(), original.splitlines()
    # Line i of `old` stands at line place[i] of the original.
    place = {
        j2 + k: j1 + k for j1, j2, n in difflib.SequenceMatcher(None, first, a, False).get_matching_blocks() for k in range(n)
    }
    out = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, a, b, False).get_opcodes():
        if tag != "equal":
            line = next((place[i] for i in range(i1, len(a)) if i in place), len(first))
            out.append(Edit(cause, file, line + 1, "\n".join(a[i1:i2]), "\n".join(b[j1:j2])))
    return out


def program_files(main: Path) -> list[Path]:
    """The main file, then the modules beside it that it imports, directly or through each other."""
    found, waiting = [main], [main]
    while waiting and len(found) < MAX_FILES:
        file = waiting.pop(0)
        try:
            text = file.read_text(encoding="utf-8") if file.stat().st_size <= MAX_BYTES else ""
            tree = ast.parse(text)
        except (OSError, ValueError, SyntaxError, RecursionError):
            continue
        for module in _imported(tree):
            for candidate in (main.parent / f"{module}.py", file.parent / f"{module}.py"):
                if candidate.is_file() and candidate not in found:
                    found.append(candidate)
                    waiting.append(candidate)
    return found


def _imported(tree: ast.Module) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [a.name.replace(".", "/") for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").replace(".", "/")
            names += [base, *(f"{base}/{a.name}".lstrip("/") for a in node.names)]
    return [n for n in names if n]
