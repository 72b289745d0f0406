"""The copy of the package that is mutated, its statements, and the functions in memory that a mutant is put in place of."""

from __future__ import annotations

import ast
import functools
import gc
import hashlib
import os
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2] / "src"
PARTS = ("checks", "stats", "experiments", "seams")
Row = dict[str, Any]


def files() -> list[str]:
    """The mutated files, as `valgap/stats.py`."""
    found = [p.relative_to(SOURCE) for part in PARTS for p in (SOURCE / "valgap").glob(f"{part}*/**/*.py")]
    found += [p.relative_to(SOURCE) for part in PARTS for p in (SOURCE / "valgap").glob(f"{part}.py")]
    return sorted(p.as_posix() for p in found)


def lines_of(file: str) -> list[str]:
    """The lines of a file as it is."""
    return (SOURCE / file).read_text(encoding="utf-8").splitlines(keepends=True)


def mutated(made: Row) -> str:
    """The text of the file with the mutant in it."""
    lines = lines_of(made["file"])
    return "".join([*lines[: made["first"]], *made["lines"], *lines[made["last"] :]])


def name_of(made: Row) -> str:
    """FILE:FUNCTION:OPERATOR:OCCURRENCE."""
    return f"{made['known'].removeprefix('valgap/')}:{made['function']}:{made['operator']}:{made['occurrence']}"


def mark_of(made: Row) -> str:
    """Of what is mutated: the function's text (the module's own lines without one) and the mutant's lines."""
    node = outermost(made["file"], made["line"])
    text = lines_of(made["file"])
    own = text[node.lineno - 1 : node.end_lineno] if node is not None else text[made["first"] : made["last"]]
    return hashlib.sha256("".join([*own, "\0", *made["lines"]]).encode()).hexdigest()[:12]


@functools.cache
def tree(file: str) -> ast.Module:
    """Parsed."""
    return ast.parse("".join(lines_of(file)))


def outermost(file: str, line: int) -> ast.FunctionDef | None:
    """The function or method, not inside of another one, that holds a line."""

    def inside(body: list[ast.stmt]) -> ast.FunctionDef | None:
        for node in body:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            if first <= line <= (node.end_lineno or 0):
                if isinstance(node, ast.FunctionDef):
                    return node
                inner = [s for name in ("body", "orelse", "handlers", "finalbody") for s in getattr(node, name, ())]
                return inside(inner)
        return None

    return inside(tree(file).body)


def span(file: str, line: int) -> range:
    """The lines of the innermost statement that holds a line; of `if`, `for`, `def`... those of its head."""
    best = range(line, line + 1)
    for node in ast.walk(tree(file)):
        if isinstance(node, (ast.stmt, ast.excepthandler)) and node.lineno <= line <= (node.end_lineno or 0):
            body = getattr(node, "body", None)
            end = min(body[0].lineno, (node.end_lineno or 0) + 1) if body else (node.end_lineno or 0) + 1
            if line < max(end, node.lineno + 1):
                best = range(node.lineno, max(end, node.lineno + 1))
    return best


class Overlay:
    """A copy of the sources, first on the path of all processes; one file at a time is mutated in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(SOURCE, root, ignore=shutil.ignore_patterns("*.egg-info"))
        self._seconds = 2_000_000_000  # a time of its own for each text: compiled files go by it

    def path(self, file: str) -> Path:
        """Of a file in it."""
        return self.root / file

    def put(self, file: str, text: str) -> None:
        """Write one file."""
        self.path(file).write_text(text, encoding="utf-8")
        self._seconds += 1
        os.utime(self.path(file), (self._seconds, self._seconds))

    def restore(self, file: str) -> None:
        """Write the file as it was."""
        self.put(file, "".join(lines_of(file)))


def in_place(made: Row, path: Path, functions: dict[tuple[str, str, int], list[types.FunctionType]]) -> bool:
    """Whether the mutant could be put into the functions that are there; what is not in a function's body could not."""
    node = outermost(made["file"], made["line"])
    if node is None or made["line"] < node.body[0].lineno:
        return False
    old = {
        (c.co_qualname, c.co_firstlineno): c
        for c in _codes(compile("".join(lines_of(made["file"])), str(path), "exec", dont_inherit=True))
    }
    new = {(c.co_qualname, c.co_firstlineno): c for c in _codes(compile(mutated(made), str(path), "exec", dont_inherit=True))}
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    keys = [key for key in old if key[1] == first and key[0].rpartition(".")[2] == node.name]
    held = [f for key in keys for f in functions.get((str(path), *key), ())]
    if len(keys) != 1 or keys[0] not in new or not held:
        return False
    if any(f.__code__.co_freevars != new[keys[0]].co_freevars for f in held):
        return False
    for function in held:
        function.__code__ = new[keys[0]]
    return True


def functions_in_memory(root: Path) -> dict[tuple[str, str, int], list[types.FunctionType]]:
    """All functions of the copy, by file, name and line."""
    found: dict[tuple[str, str, int], list[types.FunctionType]] = {}
    for thing in gc.get_objects():
        if isinstance(thing, types.FunctionType) and thing.__code__.co_filename.startswith(str(root)):
            code = thing.__code__
            found.setdefault((code.co_filename, code.co_qualname, code.co_firstlineno), []).append(thing)
    return found


def caches_in_memory() -> list[Any]:
    """The functions of valgap that keep what they have answered: what came before a mutant is to be forgotten."""
    return [
        thing
        for thing in gc.get_objects()
        if isinstance(thing, functools._lru_cache_wrapper) and str(getattr(thing, "__module__", "")).startswith("valgap")
    ]


def forget_modules() -> None:
    """Have valgap and the tests imported anew."""
    for name in [n for n in sys.modules if n.partition(".")[0] in ("valgap", "tests")]:
        del sys.modules[name]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
