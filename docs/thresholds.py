"""All thresholds of the checks and of the references of the stages, by family, with what is said of them beside the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "valgap"
INTRODUCTION = """# Thresholds

Made by `make docs` from the constants of the checks and of the references of the stages, with the comment that stands beside
each: what it is, and what it was calibrated on. A constant without a word is told by its name. What findings of a given
confidence came to on programs that nobody had tuned on: [the campaign](../campaign.md).
"""


def page(families: dict[str, tuple[str, Path]]) -> str:
    """The page; ``families``: heading -> (what it is, folder)."""
    parts = [INTRODUCTION]
    for title, (_, folder) in families.items():
        rows = [row for file in sorted(folder.glob("*.py")) for row in _rows(file)]
        if rows:
            parts.append(f"\n## {title}\n\n| of | constant | value | what |\n|---|---|---|---|\n")
            parts += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows]
    return "".join(parts)


def _rows(file: Path) -> Iterator[tuple[str, str, str, str]]:
    """(file, names, values, comment) of each assignment of numbers to constants at the top of a module."""
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if not isinstance(node, ast.Assign) or node.end_lineno != node.lineno or not _numbers(node.value):
            continue
        names = ast.unparse(node.targets[0]).strip("()")
        if names.replace(", ", "").replace("_", "").isupper():
            yield file.stem, f"`{names}`", f"`{ast.unparse(node.value).strip('()')}`", _comment(lines, node.lineno - 1)


def _numbers(node: ast.expr) -> bool:
    values = node.elts if isinstance(node, ast.Tuple) else [node]
    allowed = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
    whole = [inner for value in values for inner in ast.walk(value)]
    constants = [n.value for n in whole if isinstance(n, ast.Constant)]
    return all(isinstance(n, allowed) for n in whole) and all(isinstance(v, (int, float)) for v in constants) and bool(constants)


def _comment(lines: list[str], place: int) -> str:
    """What stands behind the constant, or right above it."""
    _, sign, behind = lines[place].partition("  # ")
    if sign:
        return behind
    above: list[str] = []
    while place and lines[place - 1].startswith("#"):
        place -= 1
        above.insert(0, lines[place].lstrip("# "))
    return " ".join(above)
