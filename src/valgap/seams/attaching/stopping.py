"""Whether the program bears that a loader ends here: its loop does, a bare ``next(iterator)`` would fail.

Looked up at the instruction that the program has reached; its code is not run.
"""

from __future__ import annotations

import ast
import dis
import linecache
import sys
import types
from functools import lru_cache

from valgap.seams.looking.frames import program_frames

LOOPS = frozenset(dis.opmap[n] for n in ("FOR_ITER", "SEND", "YIELD_FROM", "GET_YIELD_FROM_ITER") if n in dis.opmap)
ENDING = ("StopIteration", "Exception", "BaseException", "")


def may_end_here() -> bool:
    """Whether StopIteration is expected by whoever asks for the next batch."""
    frame = next(program_frames(), None)
    if frame is None or frame.f_code.co_code[frame.f_lasti] in LOOPS:
        return True
    if "site-packages" in frame.f_code.co_filename or frame.f_code.co_filename.startswith(sys.base_prefix):
        return True  # a library's loop knows loaders that end
    return frame.f_lineno not in _bare_calls(frame.f_code)


@lru_cache(maxsize=256)
def _bare_calls(code: types.CodeType) -> frozenset[int]:
    """The lines of a function's file on which ``next`` is called with nothing to take its end."""
    try:
        tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    except (SyntaxError, ValueError, RecursionError):
        return frozenset()
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "next" and len(node.args) == 1:
            found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("next", "__next__"):
            found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(_takes_end(h) for h in node.handlers):
            last = max(s.end_lineno or s.lineno for s in node.body)
            found.difference_update(range(node.body[0].lineno, last + 1))
    return frozenset(found)


def _takes_end(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any((ast.unparse(kind) if kind is not None else "") in ENDING for kind in kinds)
