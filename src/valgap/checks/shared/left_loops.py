"""Which condition leaves the program's loops, by its source. No check; those of the end of a training share it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from valgap.types import RunRecord

# What programs call the state of an early stopping.
STATE = re.compile(r"stop|patien|wait|improv|best|worse|plateau|bad_epoch", re.IGNORECASE)


def stops_by_measure(run: RunRecord) -> bool:
    """Whether some loop of the program is left on a condition of an early stopping, and not at a turn that was set beforehand."""
    for file in run.sources:
        if file.text is None or not STATE.search(file.text):
            continue
        try:
            tree = ast.parse(file.text)
        except (SyntaxError, ValueError, RecursionError):  # a notebook's cell, say
            continue
        if any(_on_state(test, loop) for loop in ast.walk(tree) if isinstance(loop, ast.For) for test in _leaving(loop.body)):
            return True
    return False


def _on_state(test: ast.expr, loop: ast.For) -> bool:
    names = {n.id for n in ast.walk(test) if isinstance(n, ast.Name)}
    turns = {n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)}
    return not names & turns and STATE.search(ast.unparse(test)) is not None


def _leaving(body: list[ast.stmt]) -> Iterator[ast.expr]:
    """The conditions under which the loop with this body is left by a statement of its own."""
    for statement in body:
        if isinstance(statement, ast.If):
            if any(isinstance(s, (ast.Break, ast.Return)) for s in statement.body):
                yield statement.test
            yield from _leaving(statement.body)
            yield from _leaving(statement.orelse)
        elif isinstance(statement, (ast.With, ast.Try)):
            yield from _leaving(statement.body)
