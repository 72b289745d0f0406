"""Mistakes that a script's source alone shows beyond doubt: file, line, and what to write instead.

Only patterns that mean the same in every program are looked for. Where the program ran, what was seen at its seams has the last
word: ``preflight.py`` drops a place that is contradicted there.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from valgap.edits.script import LOOPS, Script, last_name

GRAPH_KEPT = "graph_kept"  # costs memory and no accuracy: no cause of the catalogue
SCHEDULE_FIRST = "schedule_before_step"  # costs the first rate of the schedule
CLEARS = ("zero_grad", "zero_", "grad")
MODES = ("Dropout", "dropout", "BatchNorm", "models.", "timm.", "_pretrained")  # where eval mode makes a difference


@dataclass(frozen=True)
class Place:
    """One line that is wrong for certain."""

    cause: str  # name of the catalogue's cause, or one of the two above
    file: Path
    line: int
    text: str  # the line as it is
    told: str  # what is wrong, in a sentence
    remedy: str  # what to write


def certain_places(files: Sequence[Path]) -> tuple[Place, ...]:
    """What is wrong for certain in a program's files, in their order; files that are no Python are left out."""
    scripts: list[tuple[Path, Script]] = []
    for file in files:
        try:
            scripts.append((file, Script(file.read_text(encoding="utf-8"))))
        except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
            continue
    clears = any(_clears(script) for _, script in scripts)
    found: list[Place] = []
    for file, script in scripts:
        for word, look in LOOKS:
            if word not in script.source:
                continue
            for node, cause, told, remedy in look(script):
                if cause == "accumulated_gradients" and clears:
                    continue
                text = script.source.splitlines()[node.lineno - 1].strip()
                found.append(Place(cause, file, node.lineno, text, told, remedy))
    return tuple(sorted(found, key=lambda p: (files.index(p.file), p.line)))


Hit = tuple["ast.expr | ast.stmt", str, str, str]


def squashed(script: Script) -> Iterator[Hit]:
    """A softmax whose result goes straight into cross-entropy. (A log-softmax there changes nothing, and is left alone.)"""
    told = "softmax goes into cross_entropy, which applies log-softmax itself"
    remedy = "hand the raw logits to cross_entropy; apply softmax for showing only"
    losses = _cross_entropies(script)
    for call in script.calls():
        if not call.args or not _is_cross_entropy(call, losses):
            continue
        given = call.args[0]
        if isinstance(given, ast.Name):
            given = _only_value(script, call, given.id) or given
        if _is_softmax(given):
            yield given, "squashed_logits", told, remedy


def never_cleared(script: Script) -> Iterator[Hit]:
    """A loop with ``backward`` and the step of an optimizer of torch, in a program that never clears a gradient."""
    optimizers = {n for n in script.optimizers() if _made_here(script, n)}
    for loop in ast.walk(script.tree):
        if not isinstance(loop, ast.For) or _inner_loop_with(script, loop, "backward"):
            continue
        steps = [c for c in script.methods("step", loop) if ast.unparse(c.func).removesuffix(".step") in optimizers]
        if steps and script.methods("backward", loop):
            name = ast.unparse(steps[0].func).removesuffix(".step")
            told = "gradients are never cleared: each step goes along the sum of all that came before"
            yield steps[0], "accumulated_gradients", told, f"{name}.zero_grad() before loss.backward()"


def step_outside(script: Script) -> Iterator[Hit]:
    """A step once an epoch, while the batches' gradients are cleared inside: all but the last batch's are thrown away."""
    optimizers = {n for n in script.optimizers() if _made_here(script, n)}
    for loop in ast.walk(script.tree):
        if not isinstance(loop, ast.For) or not script.methods("backward", loop) or _inner_loop_with(script, loop, "backward"):
            continue
        around = next((n for n in script.above(loop) if isinstance(n, (*LOOPS, ast.FunctionDef))), None)
        if not isinstance(around, ast.For) or script.methods("step", loop):
            continue
        for name in optimizers:
            cleared = any(ast.unparse(c.func) == f"{name}.zero_grad" for c in script.methods("zero_grad", loop))
            outside = [c for c in script.methods("step", around) if ast.unparse(c.func) == f"{name}.step"]
            if cleared and len(outside) == 1 and script.begin(outside[0]) > script.end(loop):
                told = "the optimizer steps once an epoch: the gradients of all batches but the last are thrown away"
                yield outside[0], "wrong_step_count", told, f"{name}.step() inside the loop over batches, after backward()"


def never_eval(script: Script) -> Iterator[Hit]:
    """A validation loop in a program that never puts a model into eval mode."""
    if (
        not any(word in script.source for word in MODES)
        or script.methods("eval")
        or any(c.args or c.keywords for c in script.methods("train"))
    ):
        return
    for loop, model in script.walks(training=False):
        if isinstance(loop, ast.For) and script.walks(training=True):
            told = "no model is ever put into eval mode: Dropout and BatchNorm work on validation as in training"
            yield loop, "train_mode_at_validation", told, f"{model}.eval() before this loop, {model}.train() before training"


def schedule_first(script: Script) -> Iterator[Hit]:
    """A schedule that is stepped at the beginning of the epoch, before the loop in which the optimizer steps."""
    schedules = {
        ast.unparse(n.targets[0])
        for n in ast.walk(script.tree)
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call) and "lr_scheduler." in ast.unparse(n.value.func)
    }
    for loop in ast.walk(script.tree):
        if not isinstance(loop, ast.For):
            continue
        calls = [c for c in script.methods("step", loop) if ast.unparse(c.func).removesuffix(".step") in schedules]
        lone = [c for c in calls if not c.args and script.parent.get(script.statement(c)) is loop]
        batches = [s for s in loop.body if isinstance(s, ast.For) and script.methods("step", s) and script.methods("backward", s)]
        if len(calls) == len(lone) == len(batches) == 1 and script.begin(lone[0]) < script.begin(batches[0]):
            name = ast.unparse(lone[0].func)
            told = "the schedule steps before the optimizer does: the first rate of the schedule is never used"
            yield lone[0], SCHEDULE_FIRST, told, f"{name}() after the loop over batches"


def graph_kept(script: Script) -> Iterator[Hit]:
    """A sum of loss tensors that keeps each batch's graph: ``total += loss`` beside ``loss.backward()``."""
    for node in ast.walk(script.tree):
        if not isinstance(node, ast.AugAssign) or not isinstance(node.op, ast.Add) or not isinstance(node.target, ast.Name):
            continue
        loop = next((n for n in script.above(node) if isinstance(n, ast.For)), None)
        loss = _bare_loss(node.value)
        if loop is None or loss is None or loss == node.target.id:
            continue
        scope = script.scope(node)
        learns = {ast.unparse(c.func) for c in script.methods("backward", loop)}
        starts = [
            n for n in ast.walk(scope)
            if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == node.target.id and isinstance(n.value, ast.Constant)
        ]  # fmt: skip
        begun = [n for n in starts if n not in ast.walk(loop)]
        summed = {ast.unparse(c.func) for c in script.methods("backward", script.tree)}
        if (
            f"{loss}.backward" in learns
            and begun
            and f"{node.target.id}.backward" not in summed
            and _is_tensor(script, node, loss)
        ):
            told = "the sum keeps the graph of every batch: memory grows until the epoch ends"
            yield node, GRAPH_KEPT, told, f"{node.target.id} += {loss}.item()"


# With a word that the source must hold: most files of a program train nothing, and to go through their trees takes time.
LOOKS: tuple[tuple[str, Callable[[Script], Iterator[Hit]]], ...] = (
    ("oftmax", squashed),
    (".backward(", never_cleared),
    (".backward(", step_outside),
    (".backward(", never_eval),
    ("lr_scheduler.", schedule_first),
    (".backward(", graph_kept),
)


def _clears(script: Script) -> bool:
    """Whether anything in the source may clear gradients, or compute them in another way."""
    names = {n.attr for n in ast.walk(script.tree) if isinstance(n, ast.Attribute)}
    names |= {n.value for n in ast.walk(script.tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return bool(names & set(CLEARS)) or any(n for n in names if "zero_grad" in n)


def _made_here(script: Script, name: str) -> bool:
    return any(
        isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == name and isinstance(n.value, ast.Call)
        for n in ast.walk(script.tree)
    )


def _inner_loop_with(script: Script, loop: ast.For, method: str) -> bool:
    return any(isinstance(n, LOOPS) and n is not loop and script.methods(method, n) for n in ast.walk(loop))


def _cross_entropies(script: Script) -> set[str]:
    """Names that only ``CrossEntropyLoss(...)`` is assigned to."""
    made: dict[str, list[bool]] = {}
    for node in ast.walk(script.tree):
        if isinstance(node, ast.Assign):
            own = isinstance(node.value, ast.Call) and last_name(node.value.func) == "CrossEntropyLoss"
            for target in node.targets:
                if isinstance(target, ast.Name | ast.Attribute):
                    made.setdefault(ast.unparse(target), []).append(own)
    return {name for name, own in made.items() if all(own)}


def _is_cross_entropy(call: ast.Call, losses: set[str]) -> bool:
    """Whether the call is of ``cross_entropy``, or of one of these losses."""
    if last_name(call.func) == "cross_entropy":
        return True
    if isinstance(call.func, ast.Call):
        return last_name(call.func.func) == "CrossEntropyLoss"
    return isinstance(call.func, ast.Name | ast.Attribute) and ast.unparse(call.func) in losses


def _is_softmax(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Call):
        return last_name(node.func.func) == "Softmax"
    return last_name(node.func) == "softmax"


def _only_value(script: Script, call: ast.Call, name: str) -> ast.expr | None:
    """What was assigned last to the name in the block of the call, where nothing in between can change it."""
    statement = script.statement(call)
    block = next(
        (b for f in ("body", "orelse") if isinstance(b := getattr(script.parent[statement], f, None), list) and statement in b),
        [],
    )
    for before in reversed(block[: block.index(statement)] if statement in block else []):
        stored = [n for n in ast.walk(before) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)]
        if stored:
            plain = isinstance(before, ast.Assign) and len(before.targets) == 1 and isinstance(before.targets[0], ast.Name)
            return before.value if plain and isinstance(before, ast.Assign) else None
    return None


def _bare_loss(value: ast.expr) -> str | None:
    """The name of a loss that is added as it is, or times a number of images; None for anything else."""
    if isinstance(value, ast.Name):
        return value.id
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult) and isinstance(value.left, ast.Name):
        return value.left.id
    return None


def _is_tensor(script: Script, node: ast.stmt, loss: str) -> bool:
    """Whether the name still holds the tensor: it is not made a number, nor assigned a second time, in this block."""
    loop = next(n for n in script.above(node) if isinstance(n, ast.For))
    stores = [n for n in ast.walk(loop) if isinstance(n, ast.Name) and n.id == loss and isinstance(n.ctx, ast.Store)]
    kept = isinstance(script.parent[node], ast.With) and "no_grad" in ast.unparse(script.parent[node])
    return len(stores) == 1 and not kept
