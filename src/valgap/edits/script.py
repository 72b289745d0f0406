"""What a training script is made of, as far as edits need it: its model, its loops over data, its optimizers and transforms."""

from __future__ import annotations

import ast
from collections.abc import Iterator

MODEL_METHODS = {"train", "eval", "parameters", "state_dict", "named_parameters", "zero_grad", "load_state_dict"}
OPTIMIZERS = {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adamax", "Adadelta", "LBFGS"}
LOOPS = (ast.For, ast.AsyncFor, ast.While)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Module)


class Script:
    """One source file, parsed. Positions are offsets into ``data``, the source as UTF-8."""

    def __init__(self, source: str) -> None:
        """Raises SyntaxError where it is no Python."""
        self.source = source
        self.data = source.encode()
        self.tree = ast.parse(source)
        self.starts = [0]
        for line in self.data.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.parent: dict[ast.AST, ast.AST] = {c: p for p in ast.walk(self.tree) for c in ast.iter_child_nodes(p)}

    # -- places -------------------------------------------------------------------------------

    def begin(self, node: ast.expr | ast.stmt) -> int:
        """Where the node begins."""
        return self.starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt) -> int:
        """Where the node ends."""
        return self.starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)

    def text(self, node: ast.expr | ast.stmt) -> str:
        """The node's source."""
        return self.data[self.begin(node) : self.end(node)].decode()

    def statement(self, node: ast.AST) -> ast.stmt:
        """The statement that holds the node."""
        while not isinstance(node, ast.stmt):
            node = self.parent[node]
        return node

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """What encloses the node, from the inside out."""
        while node in self.parent:
            node = self.parent[node]
            yield node

    def scope(self, node: ast.AST) -> ast.AST:
        """The function (or the module) around the node."""
        return next((n for n in self.above(node) if isinstance(n, SCOPES)), self.tree)

    def indent(self, node: ast.stmt) -> str | None:
        """The white space before a statement; None where something else stands before it in its line."""
        before = self.data[self.starts[node.lineno - 1] : self.begin(node)].decode()
        return before if not before.strip() else None

    # -- changes ------------------------------------------------------------------------------

    def changed(self, *changes: tuple[int, int, str]) -> str | None:
        """The source with (begin, end, new text) put in; None where the result is no Python any more."""
        data = self.data
        for begin, end, text in sorted(changes, key=lambda c: c[:2], reverse=True):
            data = data[:begin] + text.encode() + data[end:]
        source = data.decode()
        try:
            ast.parse(source)
        except SyntaxError:
            return None
        return source

    def before(self, node: ast.stmt, *lines: str) -> tuple[int, int, str] | None:
        """A change that puts lines before a statement."""
        indent = self.indent(node)
        if indent is None:
            return None
        place = self.starts[self._first_line(node) - 1]
        return place, place, "".join(f"{indent}{line}\n" for line in lines)

    def after(self, node: ast.stmt, *lines: str) -> tuple[int, int, str] | None:
        """A change that puts lines after a statement that has its lines for itself."""
        indent = self.indent(node)
        last = node.end_lineno or node.lineno
        rest = self.data[self.end(node) : self.starts[last]].decode().strip()
        if indent is None or (rest and not rest.startswith("#")):
            return None
        new = "" if self.data[: self.starts[last]].endswith(b"\n") else "\n"
        return self.starts[last], self.starts[last], new + "".join(f"{indent}{line}\n" for line in lines)

    @staticmethod
    def _first_line(node: ast.stmt) -> int:
        decorators = getattr(node, "decorator_list", [])
        return int(min([node.lineno, *(d.lineno for d in decorators)]))

    # -- meaning ------------------------------------------------------------------------------

    def calls(self, within: ast.AST | None = None) -> Iterator[ast.Call]:
        """Every call."""
        return (n for n in ast.walk(within or self.tree) if isinstance(n, ast.Call))

    def methods(self, name: str, within: ast.AST | None = None) -> list[ast.Call]:
        """Calls ``X.name(...)``."""
        return [c for c in self.calls(within) if isinstance(c.func, ast.Attribute) and c.func.attr == name]

    def models(self) -> set[str]:
        """Names (or dotted names) on which a model's methods are called."""
        found = {
            ast.unparse(c.func.value)
            for c in self.calls()
            if isinstance(c.func, ast.Attribute)
            and c.func.attr in MODEL_METHODS
            and isinstance(c.func.value, ast.Name | ast.Attribute)
        }
        return found - self.optimizers()

    def optimizers(self) -> set[str]:
        """Names that an optimizer is assigned to, or that look like one."""
        made = {
            ast.unparse(n.targets[0])
            for n in ast.walk(self.tree)
            if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call) and last_name(n.value.func) in OPTIMIZERS
        }
        stepped = {ast.unparse(c.func.value) for c in self.methods("step") if isinstance(c.func, ast.Attribute)}
        return made | {s for s in stepped if "opt" in s.lower()}

    def walks(self, training: bool) -> list[tuple[ast.stmt, str]]:
        """(loop, model) of each loop over data that calls a model and trains, or does not train, on it."""
        models = self.models()
        found: list[tuple[ast.stmt, str]] = []
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.For | ast.comprehension):
                continue
            body = node if isinstance(node, ast.For) else self.parent[node]
            called = {ast.unparse(c.func) for c in self.calls(body)} & models
            inner = isinstance(node, ast.For) and any(
                isinstance(n, ast.For) and n is not node and {ast.unparse(c.func) for c in self.calls(n)} & models
                for n in ast.walk(node)
            )
            if len(called) == 1 and not inner and bool(self.methods("backward", body)) is training:
                found.append((self.statement(node), called.pop()))
        return found

    def outermost(self, loop: ast.stmt) -> ast.stmt:
        """The loop, or the ``with torch.no_grad()`` around it."""
        chosen = loop
        for node in self.above(loop):
            if not isinstance(node, ast.With):
                break
            chosen = node
        return chosen


def last_name(node: ast.expr) -> str:
    """The last part of a dotted name: ``Compose`` of ``transforms.Compose``."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
