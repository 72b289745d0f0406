"""The program's own files of two runs, as unified diffs."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping

from valgap.types import RunRecord, SourceDifference, SourceFile

MAX_LINES = 400


def source_differences(first: RunRecord, second: RunRecord) -> tuple[SourceDifference, ...]:
    """What differs in the files that both records hold, or one of them alone; the scripts are one file, whatever their names."""
    a, b = (_by_name(run) for run in (first, second))
    found = []
    for name in [*a, *(n for n in b if n not in a)]:
        x, y = a.get(name), b.get(name)
        if x is not None and y is not None and x.digest == y.digest:
            continue
        found.append(_difference(x, y))
    return tuple(found)


def _by_name(run: RunRecord) -> Mapping[str, SourceFile]:
    """The script under an empty name, the other files by their paths below its folder."""
    return {"" if s.entry else s.path: s for s in run.sources}


def _difference(x: SourceFile | None, y: SourceFile | None) -> SourceDifference:
    path = " -> ".join(dict.fromkeys(s.path for s in (x, y) if s is not None))
    texts = [s.text if s is not None else "" for s in (x, y)]
    if texts[0] is None or texts[1] is None:
        return SourceDifference(path, (), False)
    names = [s.path if s is not None else "not there" for s in (x, y)]
    lines = list(difflib.unified_diff(texts[0].splitlines(), texts[1].splitlines(), names[0], names[1], n=1, lineterm=""))
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], f"({len(lines) - MAX_LINES} more lines)"]
    return SourceDifference(path, tuple(lines), bool(x and y) and same_code(texts[0], texts[1]))


def same_code(a: str, b: str) -> bool:
    """Whether only comments, layout and docstrings differ."""
    try:
        trees = [ast.parse(text) for text in (a, b)]
    except (SyntaxError, ValueError, RecursionError):
        return False
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                head = node.body[0] if node.body else None
                if isinstance(head, ast.Expr) and isinstance(head.value, ast.Constant) and isinstance(head.value.value, str):
                    node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(trees[0]) == ast.dump(trees[1])
