"""The settings of a run, in words: what was called, on what, with which data, model and optimizer."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from valgap.types import DatasetInfo, LoaderInfo, ModelInfo, RunRecord, Setting


def settings_of(run: RunRecord) -> tuple[Setting, ...]:
    """Every setting that the record holds, in groups."""
    return (*_program(run), *_data(run), *_models(run), *_optimizers(run))


def _program(run: RunRecord) -> Iterator[Setting]:
    header = run.header
    argv = header.get("argv")
    if isinstance(argv, list):
        yield Setting("program", "command", shlex.join(str(a) for a in argv))
    for name in ("cwd", "python", "platform", "torch_seed", "threads", "cuda"):
        if header.get(name) is not None:
            yield Setting("program", name.replace("_", " "), str(header[name]))
    yield Setting("program", "took", f"{run.seconds:.1f} s, {len(run.passes)} passes, exit status {run.exit_status}")
    for group, key in (("packages", "packages"), ("environment", "environment"), ("version control", "git")):
        found = header.get(key)
        if isinstance(found, dict):
            yield from (Setting(group, str(k), str(v)) for k, v in found.items() if v is not None)


def _data(run: RunRecord) -> Iterator[Setting]:
    roles: dict[int, list[str]] = {}
    for one in run.passes:
        known = roles.setdefault(one.dataset, [])
        if one.phase not in known:
            known.append(one.phase)
    for data in run.datasets.values():
        group = f"data: {', '.join(roles.get(data.id, ['not used']))}"
        yield from (Setting(group, name, value) for name, value in _dataset(data))
        for loader in run.loaders.values():
            if loader.dataset == data.id:
                yield Setting(group, "loader", _loader(loader))


def _dataset(data: DatasetInfo) -> Iterator[tuple[str, str]]:
    kind = data.kind if data.kind == data.source else f"{data.kind} of {data.source}"
    yield "data set", f"{kind}, {data.size} samples"
    if data.root:
        yield "folder", data.root
    if data.class_to_idx:
        yield "classes", ", ".join(f"{i} {name}" for name, i in sorted(data.class_to_idx.items(), key=lambda p: p[1])[:200])
    for number, step in enumerate(data.transform or (), 1):
        yield f"transform, step {number}", step.text


def _loader(loader: LoaderInfo) -> str:
    order = {True: "shuffled", False: "in order", None: "order unknown"}[loader.shuffled]
    last = ", last incomplete batch dropped" if loader.drop_last else ""
    return f"batches of {loader.batch_size}, {order} ({loader.sampler}), {loader.num_workers} workers{last}"


def _models(run: RunRecord) -> Iterator[Setting]:
    for model in run.models.values():
        group = f"model: {model.kind}"
        yield Setting(group, "parameters", _parameters(model))
        if model.pretrained is not None:
            yield Setting(group, "weights", "pretrained" if model.pretrained else "not pretrained")
        if model.expected_mean is not None and model.expected_std is not None:
            mean, std = (", ".join(f"{v:.3f}" for v in values) for values in (model.expected_mean, model.expected_std))
            yield Setting(group, "its weights expect", f"mean {mean}; std {std}")
        if model.dropout:
            yield Setting(group, "dropout", ", ".join(f"{p:g}" for p in model.dropout))


def _parameters(model: ModelInfo) -> str:
    total = int(model.numel[model.is_parameter].sum())
    free = int(model.numel[model.is_parameter & model.requires_grad].sum())
    return f"{total:,}, of which {free:,} trainable{'' if model.trained else '; never trained'}"


def _optimizers(run: RunRecord) -> Iterator[Setting]:
    for optimizer in run.optimizers.values():
        for number, (group, tensors) in enumerate(zip(optimizer.groups, optimizer.num_parameters, strict=False)):
            named = ", ".join(f"{k} {v}" for k, v in group.items() if v is not None and v is not False)
            yield Setting(f"optimizer: {optimizer.kind}", f"group {number} ({tensors} tensors)", named)
