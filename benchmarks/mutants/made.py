"""The first mutants of a fixed order over all of the given files, one JSON line each. Run by the Python that has mutmut.

    python made.py SOURCE COUNT FILE...

mutmut's operators are taken as they are, without its trampolines: functions with decorators and the module's own lines are
mutated as well. Left out: mutants of texts (a string, an argument or a value that is one), of annotations and of decorators.
The order is that of a hash of file, function, operator and occurrence: it does not move when other code does.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.pragma_handling import IgnoredCode

TEXTS = (cst.SimpleString, cst.FormattedString, cst.ConcatenatedString)


class Mutant(NamedTuple):
    """One change of one node."""

    file: str
    function: str  # "" outside of all; Class.method
    operator: str
    occurrence: int  # of this operator in this function
    old: cst.CSTNode
    new: cst.CSTNode

    @property
    def order(self) -> str:
        """Where it stands among all."""
        return hashlib.sha256(f"{roomless(self.file)}:{self.function}:{self.operator}:{self.occurrence}".encode()).hexdigest()


def roomless(file: str) -> str:
    """The file by which a mutant is known: a check's room, `checks/ROOM/NAME.py`, is none of its name."""
    parts = file.split("/")
    return "/".join([*parts[:2], parts[-1]]) if parts[1] == "checks" and parts[-1] != "__init__.py" else file


class Visitor(MutationVisitor):
    """mutmut's, which also tells the function and the operator of each mutation."""

    def __init__(self, file: str) -> None:
        self._named: dict[int, str] = {}
        operators = [(kind, self._telling(operator)) for kind, operator in mutators.mutation_operators]
        super().__init__(operators, IgnoredCode(set(), set(), set()))
        self._file, self._within, self._counts = file, list[str](), Counter[tuple[str, str]]()
        self.mutants: list[Mutant] = []

    def _telling(self, operator: Callable[[Any], Iterable[cst.CSTNode]]) -> Callable[[Any], Iterable[cst.CSTNode]]:
        def told(node: cst.CSTNode) -> Iterable[cst.CSTNode]:
            for new in operator(node):
                name = operator.__name__.removeprefix("operator_")
                function = ".".join(self._within)
                mutant = Mutant(self._file, function, name, self._counts[function, name], node, new)
                self._counts[function, name] += 1
                if not of_text(mutant):
                    self.mutants.append(mutant)
                yield new

        return told

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, (cst.FunctionDef, cst.ClassDef)):
            self._within.append(node.name.value)
        return super().on_visit(node)

    def on_leave(self, original_node: cst.CSTNode) -> None:
        super().on_leave(original_node)
        if isinstance(original_node, (cst.FunctionDef, cst.ClassDef)):
            self._within.pop()

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        """A function is left out where its trampoline would not work: there are none here."""
        return not isinstance(node, cst.FunctionDef) and bool(super()._skip_node_and_children(node))


def of_text(mutant: Mutant) -> bool:
    """Whether only words change."""
    old, new = mutant.old, mutant.new
    if isinstance(old, cst.BaseString):
        return True
    if isinstance(old, cst.Call) and isinstance(new, cst.Call):
        return any(isinstance(arg.value, TEXTS) for arg in old.args if not any(arg is kept for kept in new.args))
    return isinstance(old, (cst.Assign, cst.AnnAssign)) and isinstance(old.value, TEXTS)


def mutants(file: str, source: str) -> tuple[MetadataWrapper, list[Mutant]]:
    """All of one file."""
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = Visitor(file)
    wrapper.visit(visitor)
    return wrapper, visitor.mutants


def row(mutant: Mutant, wrapper: MetadataWrapper) -> dict[str, Any]:
    """What is told of one: where it is, what it does, and its lines in place of those of the source."""
    module = wrapper.module
    where = wrapper.resolve(PositionProvider)[mutant.old]
    before = module.code.splitlines(keepends=True)
    after = module.deep_replace(mutant.old, mutant.new).code.splitlines(keepends=True)
    first = next((i for i, (a, b) in enumerate(zip(before, after)) if a != b), min(len(before), len(after)))  # noqa: B905
    most = min(len(before), len(after)) - first
    last = next((i for i in range(most) if before[-1 - i] != after[-1 - i]), most)
    return {
        "file": mutant.file, "known": roomless(mutant.file), "function": mutant.function, "operator": mutant.operator,
        "occurrence": mutant.occurrence,
        "old": module.code_for_node(mutant.old).strip(), "new": module.code_for_node(mutant.new).strip(),
        "line": where.start.line, "first": first, "last": len(before) - last, "lines": after[first : len(after) - last],
    }  # fmt: skip


def main(source: Path, count: int, files: list[str]) -> None:
    """Print the first COUNT; on standard error, how many there are."""
    found: list[tuple[str, Mutant, MetadataWrapper]] = []
    for file in files:
        wrapper, own = mutants(file, (source / file).read_text(encoding="utf-8"))
        found += [(mutant.order, mutant, wrapper) for mutant in own]
    found.sort(key=lambda one: one[0])
    print(len(found), file=sys.stderr)
    for _, mutant, wrapper in found[:count]:
        print(json.dumps(row(mutant, wrapper)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
