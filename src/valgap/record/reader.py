"""Reads a run directory, whole or cut off anywhere, as a RunRecord."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from valgap.errors import RecordError
from valgap.record.encoding import EVENTS_FILE, SCHEMA, decode
from valgap.record.known_samples import renamed_samples, with_class_folders, with_new_ids
from valgap.record.location import part_files
from valgap.record.merging import Part, merge
from valgap.record.phases import PassFacts, infer_phases
from valgap.record.printed import Spoken, numbers_of
from valgap.record.whole import whole
from valgap.types import (
    Closing,
    DatasetInfo,
    GradientStats,
    InputStats,
    KeptInputs,
    LoaderInfo,
    LossStats,
    ModelInfo,
    ModeStats,
    OptimizerInfo,
    Pass,
    PrintedNumber,
    Provenance,
    RunRecord,
    SampleTable,
    ScheduleState,
    SeenInputs,
    StateSnapshot,
    StepTable,
    TransformStep,
    Twin,
    WeightsLoaded,
)

# A model's weights count as given when at least this share of its keys came out of one load_state_dict.
LOADED_SHARE = 0.5


def read_record(path: Path | str) -> RunRecord:
    """The record in a run directory.

    Raises:
        RecordError: there is none, or none that this version reads.
    """
    folder = Path(path)
    first = folder / EVENTS_FILE
    others = [f for f in part_files(folder) if _has_header(f)]
    if not first.is_file() and others:
        first = others.pop(0)  # the first process never wrote anything
    parts = [_part(folder, first)]
    for part in (_part(folder, file) for file in others):
        if _belongs(part, parts):
            parts.append(part)
    with _edited_is_said(folder):
        alone = len(parts) == 1 and parts[0].rank is None
        return whole(parts[0].record if alone else merge(parts), parts)


def _part(folder: Path, file: Path) -> Part:
    events, damaged = _read_events(folder, file)
    return _Assembler(folder, events, damaged).part("" if file.name == EVENTS_FILE else file.stem)


def _has_header(file: Path) -> bool:
    """Whether a part has more than half of its first line: a process may be killed while it writes that."""
    with file.open("rb") as stream:
        return stream.readline().endswith(b"\n")


def _belongs(part: Part, parts: Sequence[Part]) -> bool:
    """Whether a process is of the same job: started with the first, or by one of its processes."""
    job, root = parts[0].told.get("job"), part.told.get("root")
    if root is not None:
        return root in {p.told.get("pid") for p in parts}
    return job is not None and part.told.get("job") == job


def _read_events(folder: Path, file: Path) -> tuple[list[dict[str, Any]], str | None]:
    if not file.is_file():
        what = "no such folder" if not folder.exists() else f"it has no {EVENTS_FILE}"
        raise RecordError(f"{folder} is no run directory ({what}): give the folder that `valgap run` printed")
    events: list[dict[str, Any]] = []
    damaged = None
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                event = json.loads(line)
                if not line.endswith(b"\n") or not isinstance(event, dict):
                    raise ValueError("cut off")
            except (ValueError, RecursionError):
                damaged = f"line {number} is cut off or damaged; what follows it is left out"
                break
            if not events:
                _check_header(folder, event)
            events.append(event)
    if not events:
        raise RecordError(f"{file} holds no header: this is no record of valgap")
    return events, damaged


def _check_header(folder: Path, event: Mapping[str, Any]) -> None:
    if event.get("t") != "header" or not isinstance(event.get("schema"), int):
        raise RecordError(f"{folder / EVENTS_FILE} does not begin with a header: this is no record of valgap")
    if event["schema"] > SCHEMA:
        raise RecordError(
            f"{folder} was written with record schema {event['schema']}, this valgap reads up to {SCHEMA}: update valgap"
        )


@contextmanager
def _edited_is_said(folder: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise RecordError(
            f"{folder / EVENTS_FILE} is not as valgap writes it ({type(error).__name__}: {error}); was it edited by hand?"
        ) from error


class _Assembler:
    """Puts the events of one record together."""

    def __init__(self, folder: Path, events: list[dict[str, Any]], damaged: str | None) -> None:
        self.folder = folder
        self.damaged = damaged
        self.events = events
        self.by_kind: dict[str, list[dict[str, Any]]] = {}
        self.positions: dict[int, int] = {}  # a pass's number in the record -> its position
        try:
            for event in events:
                self.by_kind.setdefault(str(event.get("t")), []).append(decode(event))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RecordError(f"{folder / EVENTS_FILE} holds a damaged array ({error}): it cannot be read") from error

    def of(self, kind: str) -> list[dict[str, Any]]:
        return self.by_kind.get(kind, [])

    def build(self) -> RunRecord:
        with _edited_is_said(self.folder):
            return self._build()

    def part(self, name: str) -> Part:
        """The record with what it says of its process."""
        record = self.build()
        with _edited_is_said(self.folder):
            return self._part(name, record)

    def _part(self, name: str, record: RunRecord) -> Part:
        told = {k: v for kind in ("header", "rank") for e in self.of(kind) for k, v in e.items() if k not in ("t", "at")}
        started = float(told["started"])
        begins = {int(e["pass"]): started + float(e["at"]) for e in self.of("pass_begin")}
        ends = self.of("end")
        children = self.of("children")
        told["unseen"] = str(children[-1]["unseen"]) if children else ""
        return Part(
            name=name,
            record=record,
            begins=[begins.get(number, started) for number in self.positions],
            told=told,
            wrappings=[{k: v for k, v in e.items() if k not in ("t", "at")} for e in self.of("wrapping")],
            counts={self.positions[int(e["pass"])]: e for e in self.of("rank_pass") if int(e["pass"]) in self.positions},
            error=ends[-1].get("error") if ends else None,
        )

    def _build(self) -> RunRecord:
        header = {k: v for part in (self.of("header"), self.of("environment")) for e in part for k, v in e.items()}
        self.renamed = renamed_samples(self.of("renamed"))
        names = self._names()
        passes = self._passes()
        datasets = {e["id"]: _dataset(e, self.renamed.get(e["id"], {})) for e in self.of("dataset")}
        ends = self.of("end")
        end = ends[-1] if ends else {}
        stopped = self.of("stopped")
        reason = self.damaged
        if stopped:
            reason = f"recording stopped early: {stopped[-1].get('reason')}"
        elif not ends and reason is None:
            reason = "the program was killed or is still running: the record has no end"
        return RunRecord(
            path=str(self.folder),
            schema=int(header["schema"]),
            header=header,
            sample_names=names,
            datasets=with_class_folders(datasets, passes, names),
            loaders={e["id"]: LoaderInfo(**_only(LoaderInfo, e)) for e in self.of("loader")},
            models={e["id"]: self._model(e) for e in self.of("model")},
            optimizers={e["id"]: _optimizer(e) for e in self.of("optimizer")},
            passes=passes,
            states=tuple(StateSnapshot(int(e["model"]), str(e["moment"]), e["sums"], e["norms"]) for e in self.of("state")),
            weights_loaded=tuple(
                WeightsLoaded(**{**_only(WeightsLoaded, e), "examples": tuple(e["examples"])}) for e in self.of("weights_loaded")
            ),
            schedules=tuple(
                ScheduleState(int(e["pass"]), int(e["optimizer"]), str(e["kind"]), int(e["steps"]), dict(e["settings"]))
                for e in self.of("schedule")
            ),
            printed=self._printed(),
            closing=self._closing(),
            recorder_errors=tuple(str(e["text"]) for e in self.of("recorder_error")),
            exit_status=end.get("exit_status"),
            stopped=reason,
            seconds=float(end["seconds"]) if "seconds" in end else max(float(e.get("at", 0.0)) for e in self.events),
            provenance={e["dataset"]: Provenance(**_only(Provenance, e)) for e in self.of("provenance")},
            kept=tuple(self._kept(e, passes) for e in self.of("kept") if int(e["pass"]) in self.positions),
            seen=tuple(self._seen(e) for e in self.of("seen") if int(e["pass"]) in self.positions),
        )

    def _seen(self, event: dict[str, Any]) -> SeenInputs:
        return SeenInputs(self.positions[int(event["pass"])], *_small_images(event))

    def _kept(self, event: dict[str, Any], passes: Sequence[Pass]) -> KeptInputs:
        position = self.positions[int(event["pass"])]
        sample = with_new_ids(np.asarray(event["sample"]), self.renamed.get(passes[position].dataset, {}))
        images, low, high = _small_images(event)
        if sample.shape != images.shape[:1]:
            raise ValueError(f"{len(sample)} samples have {len(images)} images")
        return KeptInputs(position, sample, images, low, high)

    def _names(self) -> tuple[str, ...]:
        names: list[str] = []
        for event in self.of("names"):
            text = np.asarray(event["text"], np.uint8).tobytes().decode("utf-8", "surrogateescape")
            names += [n.replace("\\n", "\n").replace("\\\\", "\\") for n in text.split("\n")]
        return tuple(names)

    def _printed(self) -> tuple[PrintedNumber, ...]:
        begun = sorted(self.positions)  # passes that came to nothing have no position: the one before them counts
        return numbers_of(
            Spoken(
                line=str(e["line"]),
                after_pass=bisect_right(begun, int(e["after_pass"])) - 1,
                running=bool(e.get("running", False)),
            )
            for e in self.of("printed")
        )

    def _model(self, event: dict[str, Any]) -> ModelInfo:
        # A module that is made after the training, and loads weights for a test, says nothing of how this one began.
        learning = [int(e["pass"]) for e in self.of("pass_end") if e["model"] == event["id"] and (e["backwards"] or e["steps"])]
        first = min(learning, default=1 << 60)
        loads = [e for e in self.of("weights_loaded") if e["before_training"] and int(e.get("after_pass", -1)) < first]
        loaded = max((e["matched"] / max(1, e.get("expected", e["given"])) for e in loads), default=float("nan"))
        fresh = float(event["fresh_batchnorm"])
        pretrained: bool | None = None
        if loaded >= LOADED_SHARE or fresh < LOADED_SHARE:
            pretrained = True
        elif fresh >= LOADED_SHARE or loaded < LOADED_SHARE:
            pretrained = False
        fields = _only(ModelInfo, event)
        for name in (
            "tensor_names",
            "layer_kind",
            "expected_mean",
            "expected_std",
            "expected_size",
            "dropout",
            "layer_groups",
            "strays",
        ):
            if name in fields:
                fields[name] = tuple(fields[name]) if fields[name] is not None else None
        return ModelInfo(**{**fields, "pretrained": pretrained, "loaded_fraction": loaded})

    def _passes(self) -> tuple[Pass, ...]:
        parts: dict[int, list[dict[str, Any]]] = {}
        for event in sorted([*self.of("part"), *self.of("pass_end")], key=lambda e: (e["pass"], e["part"])):
            parts.setdefault(int(event["pass"]), []).append(event)
        ended = {int(e["pass"]) for e in self.of("pass_end")}
        states = {int(e["pass"]): i for i, e in enumerate(self.of("state")) if e["moment"] == "pass"}
        numbers = sorted(parts)
        self.positions = {number: position for position, number in enumerate(numbers)}
        tables = [_join(SampleTable, [p["samples"] for p in parts[n]]) for n in numbers]
        last = [parts[n][-1] for n in numbers]
        tables = [
            replace(t, sample=with_new_ids(t.sample, self.renamed.get(e["dataset"], {})))
            for t, e in zip(tables, last, strict=True)
        ]
        streams = {int(e["id"]) for e in self.of("dataset") if int(e["size"]) < 0}
        phases = infer_phases(
            [
                PassFacts(
                    backwards=e["backwards"],
                    steps=e["steps"],
                    dataset=e["dataset"],
                    model=e["model"],
                    num_batches=e["num_batches"],
                    complete=bool(e["complete"]),
                    sample=table.sample,
                    stream=int(e["dataset"]) in streams,
                    labelled=bool((table.target >= 0).any()),
                )
                for e, table in zip(last, tables, strict=True)
            ]
        )
        loops = {int(e["pass"]): tuple((int(k), int(n)) for k, n in e.get("loops", ())) for e in self.of("pass_begin")}
        out: list[Pass] = []
        epoch = 0
        for position, (number, event) in enumerate(zip(numbers, last, strict=True)):
            out.append(
                Pass(
                    index=position,
                    phase=phases[position],
                    epoch=epoch,
                    loader=event["loader"],
                    dataset=event["dataset"],
                    model=event["model"],
                    complete=bool(event["complete"]) and number in ended,
                    seconds=float(event["seconds"]),
                    num_batches=event["num_batches"],
                    backwards=event["backwards"],
                    optimizer_steps=event["steps"],
                    zero_grads=event["zero_grads"],
                    batch_sizes=np.concatenate([p["batch_sizes"] for p in parts[number]]),
                    samples=tables[position],
                    inputs=_inputs(event["inputs"]),
                    loss=LossStats(**event["loss"]) if event["loss"] else None,
                    steps=_join(StepTable, [p["step_table"] for p in parts[number]]),
                    modes=ModeStats(**event["modes"]),
                    state=states.get(number, -1),
                    gradient=GradientStats(**event["gradient"]) if event.get("gradient") else None,
                    loops=loops.get(number, ()),
                )
            )
            epoch += phases[position] == "train"
        return tuple(out)

    def _closing(self) -> Closing | None:
        if not self.of("closing_begin"):
            return None
        twins = self.of("twins")
        return Closing(
            rescores={e["name"]: SampleTable(**e["samples"]) for e in self.of("rescore")},
            numbers={k: float(v) for e in self.of("numbers") for k, v in e["values"].items()},
            twins=tuple(Twin(*row) for row in twins[-1]["twins"]) if twins else None,
            skipped={e["name"]: e["reason"] for e in self.of("skipped")},
            seconds=sum(float(e["seconds"]) for e in self.of("closing_end")),
            cut=tuple(n for e in self.of("closing_end") for n in e.get("cut", ())) if self.of("closing_end") else ("closing",),
            planned=max(int(e.get("planned", 0)) for e in self.of("closing_begin")),
        )


def _small_images(event: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """(images (n, C, h, w) uint8, values of 0 and of 255 per channel, (C,) each)."""
    images, low, high = (np.asarray(event[k]) for k in ("images", "low", "high"))
    if images.ndim != 4 or images.dtype != np.uint8 or not (low.shape == high.shape == images.shape[1:2]):
        raise ValueError(f"no small images have the shape {images.shape}")
    return images, low.astype(np.float32), high.astype(np.float32)


def _only(kind: Any, event: dict[str, Any]) -> dict[str, Any]:
    return {name: event[name] for name in kind.__dataclass_fields__ if name in event}


def _join(kind: Any, parts: list[dict[str, Any]]) -> Any:
    """One table out of its parts; matrices with fewer columns are widened with nan."""
    columns: dict[str, Any] = {}
    for name in kind.__dataclass_fields__:
        if any(name not in p for p in parts):
            continue  # written before this column was: its default stands
        arrays = [np.asarray(p[name]) for p in parts]
        if arrays[0].ndim == 2:
            width = max(a.shape[1] for a in arrays)
            arrays = [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=np.nan) for a in arrays]
        columns[name] = np.concatenate(arrays)
    return kind(**columns)


def _dataset(event: dict[str, Any], renamed: Mapping[int, int]) -> DatasetInfo:
    learnt = event["sample"] is not None and any(i in renamed for i in np.asarray(event["sample"])[:1].tolist())
    if event["sample"] is not None:
        event = {**event, "sample": with_new_ids(event["sample"], renamed)}
    steps = event["transform"]
    transform = None
    if steps is not None:
        transform = tuple(TransformStep(**{**s, "mean": _tuple(s["mean"]), "std": _tuple(s["std"])}) for s in steps)
    return DatasetInfo(**{**_only(DatasetInfo, event), "transform": transform, "learnt": learnt})


def _tuple(value: Any) -> tuple[float, ...] | None:
    return None if value is None else tuple(float(v) for v in value)


def _optimizer(event: dict[str, Any]) -> OptimizerInfo:
    return OptimizerInfo(event["id"], event["kind"], tuple(event["groups"]), tuple(event["num_parameters"]))


def _inputs(event: dict[str, Any] | None) -> InputStats | None:
    if event is None:
        return None
    shapes = tuple(tuple(s) for s in event["shapes"])
    return InputStats(**{**event, "shape": tuple(event["shape"]), "shapes": shapes})
