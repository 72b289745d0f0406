"""Whether a training, and a validation of the same model, were seen whole. Otherwise nobody can say that nothing is broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from valgap.record.identities import model_key
from valgap.record.merging import Part
from valgap.types import RunRecord


def whole(record: RunRecord, parts: Sequence[Part]) -> RunRecord:
    """The record with what was not seen of the program, a sentence each, and with the ranks that stopped.

    ``parts`` are its processes; the first one is the program's own.
    """
    stopped = record.stopped
    silent = [p for p in parts if p.rank is not None and p.record.stopped]
    if silent and (stopped is None or len(silent) < sum(p.rank is not None for p in parts)):
        ranks = ", ".join(str(p.rank) for p in silent)
        one = len(silent) == 1
        stopped = f"{'rank' if one else 'ranks'} {ranks} {'was killed or is' if one else 'were killed or are'} still running"
        failed = [f"rank {p.rank}: {p.error}" for p in parts if p.error and p.rank is not None]
        failed += [str(p.error) for p in parts if p.error]
        stopped += f" ({failed[0].splitlines()[0][:200]})" if failed else ""
    unseen = [*record.unseen, *_missing_ranks(parts), *_what_was_not_seen(record, parts)]
    if stopped is not None:
        unseen.append("the record has no end" if record.exit_status is None else "the record is not whole")
    if record.exit_status:
        unseen.append(f"the program ended with status {record.exit_status}")
    return replace(record, stopped=stopped, unseen=tuple(unseen))


def _missing_ranks(parts: Sequence[Part]) -> list[str]:
    ranks = {p.rank for p in parts if p.rank is not None}
    size = max((int(p.told.get("world_size", 1)) for p in parts if p.rank is not None), default=0)
    missing = [str(r) for r in range(size) if r not in ranks]
    return [f"of {size} ranks, {', '.join(missing[:8])} left no record here"] if missing else []


def _what_was_not_seen(record: RunRecord, parts: Sequence[Part]) -> list[str]:
    train, validations = record.of_phase("train"), record.of_phase("validation")
    elsewhere = next((str(p.told["unseen"]) for p in parts if p.told.get("unseen")), "")
    hint = f"; `{elsewhere}` was started and not recorded" if elsewhere else ""
    if not train and not validations and record.optimizers:
        held = sum(sum(o.num_parameters) for o in record.optimizers.values())
        return [
            f"what the optimizer trains ({held} tensors) belongs to no module that was called: plain tensors are not followed"
        ]
    if not train and not validations:
        return [f"neither a training nor a validation was seen{hint}"]
    if not train:
        return [f"no training was seen: it ran in another process, or without gradients{hint}"]
    if not validations:
        return [f"no validation was seen{hint}"]
    models = record.models
    trained = {model_key(models[p.model]) for p in train if p.model in models}
    if not any(p.model in models and model_key(models[p.model]) in trained for p in validations):
        return ["the model that was validated was not seen training"]
    return []
