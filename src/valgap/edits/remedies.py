"""The edits of a script that remove a cause. Each returns the new source, or None where the place is not beyond doubt."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence

from valgap.edits.script import OPTIMIZERS, Script, last_name

Facts = Mapping[str, object]
RANDOM = ("Random", "ColorJitter", "AutoAugment", "RandAugment", "TrivialAugment", "AugMix")


def validate_in_eval_mode(script: Script, facts: Facts) -> str | None:
    """``model.eval()`` before the validation loop, and ``model.train()`` before the training loop if it is not there."""
    found = script.walks(training=False)
    if _mode_is_computed(script):
        return None
    changes = []
    for loop, model in found:
        place = script.outermost(loop)
        if not _mode_before(script, place, model, "eval"):
            changes.append(script.before(place, f"{model}.eval()"))
    for loop, model in script.walks(training=True):
        around = next((n for n in script.above(loop) if isinstance(n, ast.For | ast.While)), script.scope(loop))
        if not [c for c in script.methods("train", around) if ast.unparse(c.func).removesuffix(".train") == model]:
            changes.append(script.before(script.outermost(loop), f"{model}.train()"))
    return _changed(script, changes) if found else None


def train_in_train_mode(script: Script, facts: Facts) -> str | None:
    """``model.train()`` before the training loop."""
    if not script.walks(training=False) or _mode_is_computed(script):
        return None  # one loop may serve both phases
    changes = [
        script.before(script.outermost(loop), f"{model}.train()")
        for loop, model in script.walks(training=True)
        if not _mode_before(script, script.outermost(loop), model, "train")
    ]
    return _changed(script, changes)


def hold_frozen_batchnorm(script: Script, facts: Facts) -> str | None:
    """The frozen BatchNorm layers in eval mode after every ``model.train()``, and before a loop that one does not lead to."""
    if not any(
        isinstance(n, ast.Import) and any(a.name == "torch" and not a.asname for a in n.names) for n in ast.walk(script.tree)
    ):
        return None
    calls = [c for c in script.methods("train") if [ast.unparse(a) for a in c.args] != ["False"]]
    lone = {c: ast.unparse(c.func.value) for c in calls if _is_lone(script, c) and isinstance(c.func, ast.Attribute)}
    changes, scopes, covered = [], set(), set()
    for loop, model in script.walks(training=True):
        scope = script.scope(loop)
        scopes.add(scope)
        inside = set(script.methods("train", scope))
        leading = [c for c in calls if c in inside and script.begin(c) < script.begin(loop)]
        # The last word before the loop: one on a part of the model, or under a condition, says nothing of the whole.
        if lone.get(max(leading, key=script.begin)) != model if leading else not lone:
            changes.append(script.before(script.outermost(loop), *_hold(model)))
            covered |= {c for c in leading if lone.get(c, "").startswith(f"{model}.")}
    changes += [script.after(script.statement(c), *_hold(model)) for c, model in lone.items() if c not in covered]
    if any(c not in lone and script.scope(c) not in scopes for c in calls):
        return None
    return _changed(script, changes)


def _is_lone(script: Script, call: ast.Call) -> bool:
    statement = script.statement(call)
    return isinstance(statement, ast.Expr) and statement.value is call


def _hold(model: str) -> tuple[str, ...]:
    return (
        f"for module in {model}.modules():  # frozen BatchNorm layers keep the statistics of their weights",
        "    if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.weight is not None:",
        "        module.train(module.weight.requires_grad)",
    )


def clear_gradients(script: Script, facts: Facts) -> str | None:
    """``optimizer.zero_grad()`` before the backward pass of the training loop."""
    changes = []
    for loop, _ in script.walks(training=True):
        stepped = {ast.unparse(c.func.value) for c in script.methods("step", loop) if isinstance(c.func, ast.Attribute)}
        names = sorted(stepped & script.optimizers())
        backward = [script.statement(c) for c in script.methods("backward", loop)]
        if len(names) != 1 or len(backward) != 1:
            return None
        changes.append(script.before(backward[0], f"{names[0]}.zero_grad()"))
    return _changed(script, changes)


def shuffle_training(script: Script, facts: Facts) -> str | None:
    """``shuffle=True`` in the loader of the training loop."""
    loaders = {
        ast.unparse(n.targets[0]): n.value
        for n in ast.walk(script.tree)
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call) and last_name(n.value.func) == "DataLoader"
    }
    used = [
        loader
        for loop, _ in script.walks(training=True)
        if isinstance(loop, ast.For)
        for name, loader in loaders.items()
        if name in {ast.unparse(n) for n in ast.walk(loop.iter) if isinstance(n, ast.expr)}
    ]
    if len(used) != 1:
        return None
    given = {k.arg: k.value for k in used[0].keywords}
    if given.keys() & {"sampler", "batch_sampler", None}:
        return None
    if "shuffle" in given:
        return script.changed((script.begin(given["shuffle"]), script.end(given["shuffle"]), "True"))
    end = script.end(used[0]) - 1
    comma = "" if script.data[:end].rstrip().endswith(b",") else ", "
    return script.changed((end, end, f"{comma}shuffle=True"))


def normalize_alike(script: Script, facts: Facts) -> str | None:
    """Training's Normalize in the validation transform; with ``mean`` and ``std`` in the facts, those everywhere."""
    mean, std = facts.get("mean"), facts.get("std")
    composed = [c for c in script.calls() if last_name(c.func) == "Compose" and c.args and isinstance(c.args[0], ast.List)]
    steps = {c: [e for e in c.args[0].elts if _is_normalize(script, e)] for c in composed if isinstance(c.args[0], ast.List)}
    if isinstance(mean, Sequence) and isinstance(std, Sequence):
        new = f"({_numbers(mean)}, {_numbers(std)})"
        calls = [c for c in script.calls() if last_name(c.func) == "Normalize"]
        return _changed(script, [(script.end(c.func), script.end(c), new) for c in calls])
    augmented = [c for c in composed if _is_random(c)]
    plain = [c for c in composed if not _is_random(c)]
    if len(augmented) != 1 or len(plain) != 1 or len(steps[augmented[0]]) != 1 or len(steps[plain[0]]) > 1:
        return None
    good = script.text(steps[augmented[0]][0])
    if steps[plain[0]]:
        old = steps[plain[0]][0]
        return script.changed((script.begin(old), script.end(old), good)) if script.text(old) != good else None
    listed = plain[0].args[0]
    assert isinstance(listed, ast.List)
    if not listed.elts:
        return None
    last = listed.elts[-1]
    lone = listed.lineno != last.lineno and script.data[script.starts[last.lineno - 1] : script.begin(last)].strip() == b""
    before = script.data[script.starts[last.lineno - 1] : script.begin(last)].decode() if lone else ""
    return script.changed((script.end(last), script.end(last), f",\n{before}{good}" if lone else f", {good}"))


def take_out_softmax(script: Script, facts: Facts) -> str | None:
    """The one softmax between the network and the loss taken out."""
    sites: list[tuple[int, int, str]] = []
    for call in script.calls():
        name = last_name(call.func)
        if name in ("Softmax", "LogSoftmax") and isinstance(call.func, ast.Attribute):
            sites.append((script.begin(call), script.end(call), f"{script.text(call.func.value)}.Identity()"))
        if name not in ("softmax", "sigmoid") or not isinstance(call.func, ast.Attribute):
            continue
        owner = script.text(call.func.value)
        inner = (
            script.text(call.args[0]) if owner in ("F", "torch", "functional", "nn.functional", "torch.nn.functional") else owner
        )
        function = script.scope(call)
        in_forward = isinstance(function, ast.FunctionDef) and function.name == "forward"
        in_loss = isinstance(script.parent[call], ast.Call) and any(
            word in ast.unparse(script.parent[call].func).lower()  # type: ignore[attr-defined]
            for word in ("cross_entropy", "criterion", "loss")
        )
        if in_forward or in_loss:
            sites.append((script.begin(call), script.end(call), inner))
    return script.changed(*sites) if len(sites) == 1 else None


def scale_rate(script: Script, facts: Facts) -> str | None:
    """The literal learning rate of the one optimizer times ``factor``."""
    factor = facts.get("factor")
    made = [c for c in script.calls() if last_name(c.func) in OPTIMIZERS]
    if len(made) != 1 or not isinstance(factor, float | int):
        return None
    rate = next((k.value for k in made[0].keywords if k.arg == "lr"), made[0].args[1] if len(made[0].args) > 1 else None)
    if not isinstance(rate, ast.Constant) or not isinstance(rate.value, float | int):
        return None
    return script.changed((script.begin(rate), script.end(rate), f"{rate.value * factor:.6g}"))


def one_class_map(script: Script, facts: Facts) -> str | None:
    """Validation's targets renamed to training's numbers (``mapping``), where both are ImageFolders.

    ``renamed_by``: "maps" where their class maps differ, "train" where the labels of training alone are changed afterwards.
    """
    mapping, by = facts.get("mapping"), facts.get("renamed_by", "maps")
    if not isinstance(mapping, Mapping) or not mapping or by == "val":
        return None  # what is done to validation's labels after that would undo it
    made = [
        n
        for n in ast.walk(script.tree)
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call) and last_name(n.value.func) == "ImageFolder"
    ]
    named = sorted((ast.unparse(n.targets[0]) for n in made), key=lambda name: "train" not in name.lower())
    if len(made) != 2 or "train" not in named[0].lower() or "train" in named[1].lower():
        return None
    train, val = named
    last = max(made, key=lambda n: n.lineno)
    if by == "maps":
        new = f"{train}.class_to_idx[{val}.classes[i]]"
        maps = [f"{val}.imgs, {val}.classes, {val}.class_to_idx = {val}.samples, {train}.classes, {train}.class_to_idx"]
    else:
        new = f"{{{', '.join(f'{k}: {v}' for k, v in mapping.items())}}}[i]"
        maps = [f"{val}.imgs = {val}.samples"]
    change = script.after(
        last,
        f"{val}.samples = [(path, {new}) for path, i in {val}.samples]",
        f"{val}.targets = [i for _, i in {val}.samples]",
        *maps,
    )
    return _changed(script, [change])


EDITS: Mapping[str, Callable[[Script, Facts], str | None]] = {
    "class_index_mismatch": one_class_map,
    "normalization_mismatch": normalize_alike,
    "batchnorm_drift": hold_frozen_batchnorm,
    "squashed_logits": take_out_softmax,
    "accumulated_gradients": clear_gradients,
    "unshuffled_training": shuffle_training,
    "train_mode_at_validation": validate_in_eval_mode,
    "training_on_validation": validate_in_eval_mode,
    "eval_mode_at_training": train_in_train_mode,
    "learning_rate_too_high": scale_rate,
    "learning_rate_too_low": scale_rate,
}


def _changed(script: Script, changes: Sequence[tuple[int, int, str] | None]) -> str | None:
    known = [c for c in changes if c is not None]
    if not known or len(known) < len(changes):
        return None
    return script.changed(*known)


def _mode_before(script: Script, place: ast.stmt, model: str, mode: str) -> bool:
    """Whether the model is put into a mode ("train" or "eval") before a statement, in the same block."""
    wanted = {f"{model}.{mode}()", f"{model}.train({mode == 'train'})"}
    for name in ("body", "orelse", "finalbody"):
        block = getattr(script.parent[place], name, None)
        if isinstance(block, list) and place in block:
            return any(ast.unparse(s) in wanted for s in block[: block.index(place)])
    return False


def _mode_is_computed(script: Script) -> bool:
    """Whether a mode is set by ``model.train(something)`` that is no constant: the program has its own way."""
    return any(c.args and not isinstance(c.args[0], ast.Constant) for c in script.methods("train"))


def _is_normalize(script: Script, step: ast.expr) -> bool:
    if isinstance(step, ast.Call):
        return last_name(step.func) == "Normalize"
    assigned = [
        n.value
        for n in ast.walk(script.tree)
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == ast.unparse(step) and isinstance(n.value, ast.Call)
    ]
    return any(isinstance(v, ast.Call) and last_name(v.func) == "Normalize" for v in assigned)


def _is_random(compose: ast.Call) -> bool:
    return any(isinstance(n, ast.Call) and last_name(n.func).startswith(RANDOM) for n in ast.walk(compose) if n is not compose)


def _numbers(values: Sequence[object]) -> str:
    return "[" + ", ".join(f"{float(v):.4g}" for v in values if isinstance(v, float | int)) + "]"
