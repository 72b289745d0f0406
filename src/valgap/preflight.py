"""A program before it costs hours: run once in the sandbox, cut short, judged by what so little can tell, and projected."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from valgap.checks.shared.seen_part import given_epochs
from valgap.diagnosis import diagnose, suspected
from valgap.edits.certain import GRAPH_KEPT, SCHEDULE_FIRST, Place, certain_places
from valgap.edits.patch import make_patch, program_files
from valgap.errors import NothingRecordedError, RecordError
from valgap.experiments.preflight import Rehearsal, rehearse
from valgap.fix.program import facts_of
from valgap.record.reader import read_record
from valgap.stages import SUSPECTED
from valgap.types import (
    Clear,
    Diagnosis,
    Finding,
    Judged,
    Preflight,
    Projection,
    RunRecord,
    ScriptEnd,
    SourcePlace,
)

STEPS, IMAGES, BUDGET_S = 32, 512, 60.0
# Smaller files are logs and tables.
LARGE_FILE = 64 << 10


def preflight(
    program: Sequence[str],
    record: Path,
    *,
    steps: int = STEPS,
    images: int = IMAGES,
    budget_s: float = BUDGET_S,
    progress: Callable[[str], None] = lambda text: None,
) -> Preflight:
    """What can be said of a training program from a few steps of it, one shortened validation and the end of its first epoch.

    Args:
        program: SCRIPT and its arguments, or "-m", MODULE and its arguments. It runs in the sandbox: nothing that it writes
            stays, and it has no network.
        record: the run directory.
        steps: optimizer steps of each training loader.
        images: of each validation.
        budget_s: seconds beyond the program's own start.
        progress: told where things are, a few times a second.

    Raises:
        KeyboardInterrupt: it was interrupted; the record can be read.
    """
    end = rehearse(program, record, steps, images, budget_s, progress)
    if end.interrupted:
        raise KeyboardInterrupt
    progress("judging what was seen")
    diagnosis, unjudged, run = None, end.problem or "", None
    begun = time.monotonic()
    try:
        run = read_record(record)
        diagnosis = diagnose(record) if run.passes else None
    except (NothingRecordedError, RecordError) as nothing:
        unjudged = str(nothing)
    if diagnosis is not None and not diagnosis.run.of_phase("train") and not suspected(diagnosis):
        diagnosis, unjudged = None, unjudged or "no training was seen"
    start = run.shortened.start_s if run is not None and run.shortened is not None else 0.0
    return Preflight(
        record=str(record),
        end=_end(end, run),
        diagnosis=diagnosis,
        unjudged="" if diagnosis is not None else unjudged or "no pass of a model over data was seen",
        projection=projected(run) if run is not None and run.passes else None,
        places=_places(program, run, diagnosis),
        seconds=end.seconds + time.monotonic() - begun - (start if not math.isnan(start) else 0.0),
        unguarded=end.guards.missing() if end.guards is not None else (),
    )


def _end(end: Rehearsal, run: RunRecord | None) -> ScriptEnd:
    cut = run.shortened if run is not None else None
    file, line = end.place if end.place is not None and end.failed else (None, None)
    text = None
    if file is not None and line is not None:
        lines = Path(file).read_text(errors="replace").splitlines() if Path(file).is_file() else []
        text = lines[line - 1].strip() if 0 < line <= len(lines) else None
    after_cut = cut is not None and any(map(cut.cut, cut.passes))
    ended_by = "failure" if end.failed or cut is None else cut.ended_by
    return ScriptEnd(end.status, ended_by, end.error if end.failed else None, file, line, text, end.tail, after_cut)


# -- what the whole takes ---------------------------------------------------------------------


def projected(run: RunRecord) -> Projection:
    """Time, memory and disk of the whole training, from its first epoch."""
    cut = run.shortened
    given = given_epochs(run)
    trained = run.of_phase("train")
    own = cut is not None and cut.ended_by == "itself"
    epochs = given[0] if given is not None else len(trained) if own and trained else None
    told = (
        given[1] if given is not None else "its own end" if own else "neither a counted loop, nor its output or arguments tell it"
    )
    steps, each, epoch_s = _first_epoch(run)
    start = cut.start_s if cut is not None else float("nan")
    whole = start + epochs * epoch_s if epochs is not None and epoch_s is not None and not math.isnan(start) else None
    peak = run.header.get("peak_memory_bytes")
    disk, each_epoch, free = _disk(run, epochs)
    return Projection(
        epochs=epochs,
        epochs_from=told,
        steps_per_epoch=steps,
        seconds_per_step=each,
        seconds_per_epoch=epoch_s,
        seconds=whole,
        memory_bytes=peak if isinstance(peak, int) else None,
        gpu_bytes=cut.gpu_bytes if cut is not None else None,
        disk_bytes=disk,
        disk_each_epoch=each_epoch,
        free_bytes=free,
    )


def _first_epoch(run: RunRecord) -> tuple[int | None, float | None, float | None]:
    """(training batches, seconds of one, seconds of the epoch with its validation) of the first epoch."""
    cut = run.shortened
    if cut is None:
        return None, None, None
    steps, train_s, rest_s, each = 0, 0.0, 0.0, None
    for one in run.passes:
        walk = cut.passes.get(one.index)
        if one.phase == "train" and one.epoch > 0:
            break
        took = one.seconds
        if walk is not None and walk.given < walk.whole:
            took = walk.whole * walk.batch_s
        elif walk is None or walk.whole < 0:
            took = one.seconds if one.phase != "train" else float("nan")
        if one.phase != "train":
            rest_s += 0.0 if math.isnan(took) else took
            continue
        if math.isnan(took) or walk is None:
            return None, None, None
        steps, train_s, each = steps + walk.whole, train_s + took, took / max(1, walk.whole)
    if not steps:
        return None, None, None
    after = cut.epoch_s if not math.isnan(cut.epoch_s) and cut.ended_by == "epoch" else 0.0
    return steps, each, train_s + rest_s + after


def _disk(run: RunRecord, epochs: int | None) -> tuple[int | None, bool, int | None]:
    """(bytes of what the whole training writes, whether each epoch leaves files of its own, bytes that are free there)."""
    cut = run.shortened
    if cut is None:
        return None, False, None
    once = [f for f in cut.files if f.size < LARGE_FILE or not _of_an_epoch(f.path)]
    each = [f for f in cut.files if f not in once]
    total = sum(f.size for f in once) + (epochs or 1) * sum(f.size for f in each)
    free = None
    if cut.files:
        place = Path(cut.files[0].path).parent
        while not place.exists() and place != place.parent:
            place = place.parent
        free = shutil.disk_usage(place).free
    return total, bool(each), free


def _of_an_epoch(path: str) -> bool:
    """Whether a file's name holds the number of the first epoch, counted from 0 or 1."""
    return any(int(n) in (0, 1) for n in re.findall(r"(?<![\d.])\d+(?![\d.]*\d)", Path(path).stem))


# -- the source -------------------------------------------------------------------------------


def _places(program: Sequence[str], run: RunRecord | None, diagnosis: Diagnosis | None) -> tuple[SourcePlace, ...]:
    """What the source shows for certain and nothing seen at the seams contradicts."""
    main = Path(program[0]) if program[0] != "-m" else None
    if main is None or not main.is_file():
        return ()
    by_name = {j.check.name: j for j in diagnosis.judged} if diagnosis is not None else {}
    files = program_files(main.resolve())
    found = [p for place in certain_places(files) if (p := _place(place, by_name)) is not None]
    return (*found, *_edits(files, diagnosis, {p.cause for p in found}))


def _edits(files: Sequence[Path], diagnosis: Diagnosis | None, known: set[str]) -> list[SourcePlace]:
    """The edits of other suspected causes whose place in the source is beyond doubt."""
    others = [j for j in suspected(diagnosis) if j.check.name not in known] if diagnosis is not None else []
    if diagnosis is None or not others:
        return []
    patch = make_patch(files, [(j.check.name, facts_of(diagnosis.run, j)) for j in others])
    by_name = {j.check.name: j for j in others}
    found = []
    for edit in patch.edits:
        one = by_name[edit.cause]
        assert isinstance(one.outcome, Finding)
        told, where = one.outcome.summary, str(edit.file)
        found.append(SourcePlace(edit.cause, one.check.code, where, edit.line, edit.old.strip(), told, edit.new.strip(), True))
    return found


def _place(place: Place, judged: dict[str, Judged]) -> SourcePlace | None:
    one = judged.get(place.cause)
    outcome = one.outcome if one is not None else None
    if isinstance(outcome, Clear):
        return None  # it ran, and did no such thing
    confirmed = isinstance(outcome, Finding) and outcome.confidence >= SUSPECTED
    code = one.check.code if one is not None and place.cause not in (GRAPH_KEPT, SCHEDULE_FIRST) else None
    return SourcePlace(place.cause, code, str(place.file), place.line, place.text, place.told, place.remedy, confirmed)
