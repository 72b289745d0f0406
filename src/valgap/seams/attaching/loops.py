"""In which turn of which counted loops the program is: what says how many epochs a training was given.

A loop is found in the source of the frames that are at work, by the line that each has reached: a ``for`` over ``range``, or over
what another function makes of one (``tqdm(range(n))``). Its bounds are looked up, never computed by the program's code: names,
attributes and items of plain objects, and sums of them. What cannot be looked up is left out.
"""

from __future__ import annotations

import ast
import dis
import inspect
import linecache
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from valgap.seams.looking.frames import locals_of, program_frames

FOR = dis.opmap["FOR_ITER"]
LOAD_NAME, LOAD_GLOBAL = dis.opmap["LOAD_NAME"], dis.opmap["LOAD_GLOBAL"]
GLOBAL_SHIFT = 1 if sys.version_info >= (3, 11) else 0  # since then the lowest bit says something else
MAX_LINES = 20_000
MAX_LOOPS = 6
# Before Python 3.13 looking at a function's variables would change what it has kept of them by these.
KEEP = frozenset(("locals", "vars", "dir", "eval", "exec"))
OPERATIONS: Mapping[type[ast.operator], Callable[[int, int], int | None]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b if b else None,
}


class Loops:
    """Finds the counted loops around this moment; remembers the sources that it has read."""

    def __init__(self) -> None:
        self._of_code: dict[types.CodeType, list[ast.For]] = {}

    def turns(self) -> list[tuple[int, int]]:
        """(turn from 0, number of turns) of each loop that is at work, innermost first."""
        found: list[tuple[int, int]] = []
        for frame in program_frames():
            if not _has_loop(frame.f_code) or _keeps_variables(frame.f_code):
                continue
            around = [loop for loop in self._loops(frame) if loop.body[0].lineno <= frame.f_lineno <= (loop.end_lineno or 0)]
            around = [loop for loop in around if _belongs(loop, frame)]
            if not around:
                continue
            here = locals_of(frame)
            for loop in sorted(around, key=lambda node: -node.lineno):
                turn = _turn(loop, here, frame.f_globals)
                if turn is not None and len(found) < MAX_LOOPS:
                    found.append(turn)
        return found

    def _loops(self, frame: types.FrameType) -> list[ast.For]:
        code = frame.f_code
        if code not in self._of_code:
            self._of_code[code] = _loops_of(code, linecache.getlines(code.co_filename, frame.f_globals))
        return self._of_code[code]


def _loops_of(code: types.CodeType, lines: list[str]) -> list[ast.For]:
    """The counted loops in the source of a function, or of a module; the lines of its nodes are those of the file."""
    first = max(1, code.co_firstlineno) if code.co_flags & inspect.CO_OPTIMIZED else 1
    last = _last_line(code) if first > 1 else len(lines)
    if not any("range" in line for line in lines[first - 1 : last]) or last - first >= MAX_LINES:
        return []
    tree = _parsed(lines[first - 1 : last], first)
    if tree is None and first > 1:  # it ends after the last line that does something
        try:
            tree = _parsed(inspect.getblock(lines[first - 1 :]), first)
        except (SyntaxError, IndexError):
            return []
    if tree is None:
        return []
    return [n for n in _statements(tree) if isinstance(n, ast.For) and _range_of(n.iter) is not None]


def _parsed(block: list[str], first: int) -> ast.Module | None:
    """Lines of a file from ``first`` on as a tree with the file's numbers; an indented function is a block of its own."""
    text = "".join(block)
    inside = first > 1 and text[:1].isspace()
    try:
        return ast.parse("\n" * (first - 2) + "if True:\n" + text if inside else "\n" * (first - 1) + text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements below a node; expressions hold none, and are most of a tree."""
    for place in ("body", "orelse", "finalbody", "handlers", "cases"):
        for below in getattr(node, place, ()):
            yield below
            yield from _statements(below)


def _last_line(code: types.CodeType) -> int:
    """The last line on which a function, or one inside it, does something. To look for its end by tokens takes far longer."""
    own = max((line for _, _, line in code.co_lines() if line), default=code.co_firstlineno)
    return max([own, *(_last_line(inner) for inner in code.co_consts if isinstance(inner, types.CodeType))])


@lru_cache(maxsize=1024)
def _has_loop(code: types.CodeType) -> bool:
    """Whether a function, but for those inside it, can have a loop: most have none, and to read a source takes time."""
    return FOR in code.co_code[::2]


@lru_cache(maxsize=1024)
def _keeps_variables(code: types.CodeType) -> bool:
    """Whether a function may have kept its variables in a dictionary; ``model.eval()`` is no such thing."""
    if KEEP.isdisjoint(code.co_names):
        return False
    high = 0  # of an operand that takes more than a byte
    for operation, low in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        operand = high | low
        high = operand << 8 if operation == dis.EXTENDED_ARG else 0
        place = operand if operation == LOAD_NAME else operand >> GLOBAL_SHIFT if operation == LOAD_GLOBAL else -1
        if 0 <= place < len(code.co_names) and code.co_names[place] in KEEP:
            return True
    return False


def _belongs(loop: ast.For, frame: types.FrameType) -> bool:
    """Whether the loop is of this frame's function, and not around its definition."""
    return loop.lineno >= frame.f_code.co_firstlineno


def _range_of(node: ast.expr) -> ast.expr | None:
    """The call of ``range`` that is iterated over, or a name that may stand for one; None for other loops."""
    if isinstance(node, ast.Name):
        return node
    if not isinstance(node, ast.Call) or not node.args:
        return None
    name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if name in ("range", "trange"):
        return node
    return _range_of(node.args[0]) if name not in ("enumerate", "zip", "reversed") else None


def _turn(loop: ast.For, here: Mapping[str, Any], around: Mapping[str, Any]) -> tuple[int, int] | None:
    source = _range_of(loop.iter)
    value = here.get(loop.target.id, around.get(loop.target.id)) if isinstance(loop.target, ast.Name) else None
    if isinstance(source, ast.Call):
        bounds = [_looked_up(a, here, around) for a in source.args]
        counted = (
            range(*bounds) if 1 <= len(bounds) <= 3 and all(type(b) is int for b in bounds) and 0 not in bounds[2:] else None
        )
    else:
        given = _looked_up(source, here, around) if source is not None else None
        counted = given if isinstance(given, range) else _own(given, "iterable")  # a progress bar's
    if not isinstance(counted, range) or type(value) is not int or value not in counted:
        return None
    return counted.index(value), len(counted)


def _looked_up(node: ast.expr, here: Mapping[str, Any], around: Mapping[str, Any]) -> Any:
    """What an expression stands for, without running any code of the program; None where it cannot be told."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return here.get(node.id, around.get(node.id))
    if isinstance(node, ast.Attribute):
        return _own(_looked_up(node.value, here, around), node.attr)
    if isinstance(node, ast.Subscript):
        holder, key = _looked_up(node.value, here, around), _looked_up(node.slice, here, around)
        return holder.get(key) if type(holder) is dict and isinstance(key, (str, int)) else None
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        left, right = (_looked_up(side, here, around) for side in (node.left, node.right))
        return OPERATIONS[type(node.op)](left, right) if type(left) is int and type(right) is int else None
    return None


def _own(holder: Any, name: str) -> Any:
    """An attribute that an object, its class or a module simply holds."""
    try:
        held: Any = object.__getattribute__(holder, "__dict__")
    except AttributeError:
        held = {}
    if name in held:
        return held[name]
    places = (vars(kind).get(name) for kind in (holder.__mro__ if isinstance(holder, type) else type(holder).__mro__))
    return next((v for v in places if type(v) is int), None)
