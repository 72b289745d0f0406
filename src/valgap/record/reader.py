"""Reads a run directory, whole or cut off anywhere, as a RunRecord."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from valgap.errors import RecordError
from valgap.record.bodies import dataset_of, fields_of, inputs_of, joined, model_of, optimizer_of, shortened_of, small_images
from valgap.record.encoding import EVENTS_FILE, decode
from valgap.record.events import edited_is_said, ended_in, ended_passes, has_header, read_events
from valgap.record.known_samples import renamed_samples, with_class_folders, with_new_ids
from valgap.record.location import part_files
from valgap.record.merging import Part, merge
from valgap.record.named import check_named
from valgap.record.phases import PassFacts, infer_phases
from valgap.record.printed import Spoken, numbers_of
from valgap.record.reloaded import with_reloaded
from valgap.record.whole import whole
from valgap.types import (
    QUANTITIES,
    Closing,
    GradientStats,
    KeptInputs,
    KeptRows,
    LoaderInfo,
    LossStats,
    MixStats,
    ModelInfo,
    ModeStats,
    OwnAnswers,
    Pass,
    PrintedNumber,
    Provenance,
    RunRecord,
    SampleTable,
    ScheduleState,
    Scored,
    SeenInputs,
    Shortened,
    SourceFile,
    StateSnapshot,
    StepTable,
    TracedBatches,
    Twin,
    WeightsLoaded,
)
from valgap.types.kinds import check_kinds

# These draw all that there is.
WHOLE_SAMPLERS = ("RandomSampler", "SequentialSampler")
# Reads the file of one process: its events, and what is damaged.
_Events = Callable[[Path, Path], tuple[list[dict[str, Any]], str | None]]


def read_record(path: Path | str) -> RunRecord:
    """The record in a run directory.

    Raises:
        RecordError: there is none, or none that this version reads.
    """
    folder = Path(path)
    first, others = _files(folder)
    return _of_parts(folder, _parts(folder, first, others, read_events))


def read_running(path: Path | str) -> RunRecord:
    """The record of a program that still runs, as far as its passes have ended; of the first one, what is there of it.

    Half a pass is no small one: a validation in the order of its classes shows some of them only. It is told cut short.

    Raises:
        RecordError: there is none, or none that this version reads.
    """
    folder = Path(path)
    first, others = _files(folder)
    events = {file: read_events(folder, file) for file in (first, *others)}
    with edited_is_said(folder):
        counts = {
            file: len(ended_in(read)) for file, (read, _) in events.items() if any(e.get("t") == "pass_begin" for e in read)
        }
        # Of a pass that some ranks have not ended, the others hold a part of the samples.
        least = min((n for file, n in counts.items() if not file.stem.startswith("child-")), default=None)
        for file, (read, damaged) in events.items():
            events[file] = ended_passes(read, None if file.stem.startswith("child-") else least), damaged
    record = _of_parts(folder, _parts(folder, first, others, lambda _, file: events[file]))
    return replace(record, stopped=None, unseen=(), shortened=Shortened(0, 0, 0.0, ended_by="running"))


def _files(folder: Path) -> tuple[Path, list[Path]]:
    """(the file of the first process, those of the others)."""
    first = folder / EVENTS_FILE
    others = [f for f in part_files(folder) if has_header(f)]
    if not first.is_file() and others:
        first = others.pop(0)  # the first process never wrote anything
    return first, others


def _parts(folder: Path, first: Path, others: Sequence[Path], events_of: _Events) -> list[Part]:
    parts = [_part(folder, first, events_of)]
    for part in (_part(folder, file, events_of) for file in others):
        if _belongs(part, parts):
            parts.append(part)
    return parts


def _of_parts(folder: Path, parts: Sequence[Part]) -> RunRecord:
    with edited_is_said(folder):
        alone = len(parts) == 1 and parts[0].rank is None
        return whole(with_reloaded(parts[0].record if alone else merge(parts)), parts)


def _part(folder: Path, file: Path, events_of: _Events) -> Part:
    events, damaged = events_of(folder, file)
    return _Assembler(folder, events, damaged).part("" if file.name == EVENTS_FILE else file.stem)


def _belongs(part: Part, parts: Sequence[Part]) -> bool:
    """Whether a process is of the same job: started with the first, or by one of its processes."""
    job, root = parts[0].told.get("job"), part.told.get("root")
    if root is not None:
        return root in {p.told.get("pid") for p in parts}
    return job is not None and part.told.get("job") == job


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
        with edited_is_said(self.folder):
            record = self._build()
            check_kinds(record)
            check_named(record)
            return replace(record, datasets=with_class_folders(record.datasets, record.passes, record.sample_names))

    def part(self, name: str) -> Part:
        """The record with what it says of its process."""
        record = self.build()
        with edited_is_said(self.folder):
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
        datasets = {e["id"]: dataset_of(e, self.renamed.get(e["id"], {})) for e in self.of("dataset")}
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
            datasets=datasets,
            loaders={e["id"]: LoaderInfo(**fields_of(LoaderInfo, e)) for e in self.of("loader")},
            models={e["id"]: self._model(e) for e in self.of("model")},
            optimizers={e["id"]: optimizer_of(e) for e in self.of("optimizer")},
            passes=passes,
            states=tuple(StateSnapshot(int(e["model"]), str(e["moment"]), e["sums"], e["norms"]) for e in self.of("state")),
            weights_loaded=tuple(
                WeightsLoaded(**{**fields_of(WeightsLoaded, e), "examples": tuple(e["examples"])})
                for e in self.of("weights_loaded")
            ),
            schedules=tuple(
                ScheduleState(int(e["pass"]), int(e["optimizer"]), str(e["kind"]), int(e["steps"]), dict(e["settings"]))
                for e in self.of("schedule")
            ),
            printed=self._printed(),
            scored=self._scored(),
            closing=self._closing(),
            recorder_errors=tuple(str(e["text"]) for e in self.of("recorder_error")),
            exit_status=end.get("exit_status"),
            stopped=reason,
            seconds=float(end["seconds"]) if "seconds" in end else max(float(e.get("at", 0.0)) for e in self.events),
            provenance={e["dataset"]: Provenance(**fields_of(Provenance, e)) for e in self.of("provenance")},
            kept=tuple(self._kept(e, passes) for e in self.of("kept") if int(e["pass"]) in self.positions),
            rows=tuple(self._rows(e, passes) for e in self.of("rows") if int(e["pass"]) in self.positions),
            seen=tuple(self._seen(e) for e in self.of("seen") if int(e["pass"]) in self.positions),
            shortened=shortened_of(self.of("shortened"), self.of("cut"), self.positions),
            traced=tuple(self._traced(e) for e in self.of("traced") if int(e["pass"]) in self.positions),
            sources=tuple(SourceFile(**fields_of(SourceFile, e)) for e in self.of("source")),
        )

    def _seen(self, event: dict[str, Any]) -> SeenInputs:
        return SeenInputs(self.positions[int(event["pass"])], *small_images(event))

    def _kept(self, event: dict[str, Any], passes: Sequence[Pass]) -> KeptInputs:
        position = self.positions[int(event["pass"])]
        sample = with_new_ids(np.asarray(event["sample"]), self.renamed.get(passes[position].dataset, {}))
        images, low, high = small_images(event)
        if sample.shape != images.shape[:1]:
            raise ValueError(f"{len(sample)} samples have {len(images)} images")
        return KeptInputs(position, sample, images, low, high)

    def _rows(self, event: dict[str, Any], passes: Sequence[Pass]) -> KeptRows:
        position = self.positions[int(event["pass"])]
        sample = with_new_ids(np.asarray(event["sample"]), self.renamed.get(passes[position].dataset, {}))
        values = np.asarray(event["values"])
        if values.ndim != 2 or sample.shape != values.shape[:1]:
            raise ValueError(f"{len(sample)} samples have rows of shape {values.shape}")
        return KeptRows(position, sample, values, int(event["width"]), bool(event["made"]))

    def _traced(self, event: dict[str, Any]) -> TracedBatches:
        columns = {k: np.asarray(v) for k, v in fields_of(TracedBatches, event).items()}
        known = columns["quantity"] < len(QUANTITIES)  # a later version may take more
        if any(len(v) != len(known) for v in columns.values()) or columns["few"].ndim != 2:
            raise ValueError("the columns of traced batches differ in length")
        return TracedBatches(self.positions[int(event["pass"])], **{k: v[known] for k, v in columns.items()})

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

    def _scored(self) -> tuple[Scored, ...]:
        begun = sorted(self.positions)
        found = []
        for event in self.of("scored"):
            true, predicted = (np.asarray(event[k], np.int64) for k in ("true", "predicted"))
            if true.ndim != 1 or true.shape != predicted.shape:
                raise ValueError(f"no answers are scored as {true.shape} against {predicted.shape}")
            found.append(Scored(true, predicted, bisect_right(begun, int(event["after_pass"])) - 1))
        return tuple(found)

    def _model(self, event: dict[str, Any]) -> ModelInfo:
        # A module that is made after the training, and loads weights for a test, says nothing of how this one began.
        learning = [int(e["pass"]) for e in self.of("pass_end") if e["model"] == event["id"] and (e["backwards"] or e["steps"])]
        first = min(learning, default=1 << 60)
        loads = [e for e in self.of("weights_loaded") if e["before_training"] and int(e.get("after_pass", -1)) < first]
        loaded = max((e["matched"] / max(1, e.get("expected", e["given"])) for e in loads), default=float("nan"))
        return model_of(event, loaded)

    def _passes(self) -> tuple[Pass, ...]:
        parts: dict[int, list[dict[str, Any]]] = {}
        for event in sorted([*self.of("part"), *self.of("pass_end")], key=lambda e: (e["pass"], e["part"])):
            parts.setdefault(int(event["pass"]), []).append(event)
        ended = {int(e["pass"]) for e in self.of("pass_end")}
        states = {int(e["pass"]): i for i, e in enumerate(self.of("state")) if e["moment"] == "pass"}
        numbers = sorted(parts)
        self.positions = {number: position for position, number in enumerate(numbers)}
        tables = [joined(SampleTable, [p["samples"] for p in parts[n]]) for n in numbers]
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
                    outputs=int(e.get("outputs", 0)),
                    classes=1 + int(table.target.max(initial=-1)),
                    all_of=self._all_of(e, n),
                )
                for n, e, table in zip(numbers, last, tables, strict=True)
            ],
            unseen_steps=bool(self.of("optimizer")),
        )
        loops = {int(e["pass"]): tuple((int(k), int(n)) for k, n in e.get("loops", ())) for e in self.of("pass_begin")}
        began = {int(e["pass"]): float(e.get("at", -1.0)) for e in self.of("pass_begin")}
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
                    inputs=inputs_of(event["inputs"]),
                    loss=LossStats(**event["loss"]) if event["loss"] else None,
                    steps=joined(StepTable, [p["step_table"] for p in parts[number]]),
                    modes=ModeStats(**event["modes"]),
                    state=states.get(number, -1),
                    gradient=GradientStats(**event["gradient"]) if event.get("gradient") else None,
                    mix=MixStats(**event["mix"]) if event.get("mix") else None,
                    own=OwnAnswers(**event["own"]) if event.get("own") else None,
                    spent={str(k): float(s) for k, s in (event.get("spent") or {}).items()},
                    loops=loops.get(number, ()),
                    began=began.get(number, -1.0),
                )
            )
            epoch += phases[position] == "train"
        return tuple(out)

    def _all_of(self, event: dict[str, Any], number: int) -> Any:
        """Ids of all samples that a pass would have drawn which was cut short on purpose; None where that is not known."""
        cut = next((e for e in self.of("cut") if int(e["pass"]) == number), None)
        loader = next((e for e in self.of("loader") if e["id"] == event["loader"]), {})
        if cut is None or cut["given"] >= cut["whole"] or loader.get("sampler") not in WHOLE_SAMPLERS:
            return None
        held = next((e for e in self.of("dataset") if e["id"] == event["dataset"]), {}).get("sample")
        return with_new_ids(np.asarray(held), self.renamed.get(event["dataset"], {})) if held is not None else None

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
