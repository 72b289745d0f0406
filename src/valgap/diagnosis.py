"""The whole flow on one screen: record -> Case -> checks -> findings -> Diagnosis."""

from __future__ import annotations

import math
import os
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from valgap.allocator import freed_memory_kept
from valgap.checks import CATALOGUE
from valgap.checks.shared.seen_part import not_seen
from valgap.confidence import calibrated
from valgap.errors import NothingRecordedError, UnreachableError, ValgapError
from valgap.features import images_of_path, images_of_run, is_address
from valgap.features.draws import by_pictures
from valgap.features.feature_rows import with_feature_rows
from valgap.features.loop_files import with_loop_files
from valgap.gap import gap_parts
from valgap.record.known_samples import with_seen_labels
from valgap.record.reader import read_record
from valgap.reference import Stages, loss_parts
from valgap.stages import SUSPECTED, UNKNOWN_POINTS, account, settle
from valgap.stats import wilson_interval
from valgap.types import (
    Accuracy,
    Case,
    Check,
    Clear,
    Crashed,
    Diagnosis,
    Finding,
    Judged,
    NotApplicable,
    Pass,
    RunRecord,
    SampleTable,
)

if TYPE_CHECKING:
    from valgap.experiments.asked_again import Again

# A first look at so many images takes minutes on two cores; later ones come from the cache.
MAX_IMAGES = 20_000
# Of a run that was cut short on purpose: those that the model was shown, and a few more.
PREFLIGHT_IMAGES = 400
# What re-runs could not decide is no less likely than what they did not try.
VERDICT_PLACE = {"confirmed": 0, "untested": 1, "inconclusive": 1, "refuted": 2}


def diagnose(
    run: str | os.PathLike[str],
    *,
    budget: str | float = 0,
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    images: int = MAX_IMAGES,
    rebuild: bool = True,
    progress: Callable[[int, int, float], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Diagnosis:
    """Why a run's validation result is bad: every check's outcome, findings first, proved by re-runs if there is a budget.

    Args:
        run: a run directory, as `valgap run` or `watch` wrote it.
        budget: time for re-runs, such as "10m", "1x" (the program's own time, at least a minute) or seconds, that of a
            rebuild included; 0 judges from the record alone.
        select: codes (or their beginnings, such as "PRE") to judge; empty means all.
        ignore: codes (or beginnings) to leave out.
        images: the image files are looked at as well, where there are no more than this; 0 leaves them alone.
        rebuild: measurements that did not fit after the run are made now; its program is rebuilt in the sandbox for them, once
            and without training.
        progress: told after each re-run: done, of how many, seconds left.
        say: told, in a sentence, what takes seconds.

    Raises:
        RecordError: ``run`` is no readable record.
        NothingRecordedError: the record holds no training or no validation to judge.
        ValgapError: ``select`` or ``ignore`` names no known check, or ``budget`` is no time.
    """
    from valgap.experiments.plan import parse_budget

    if isinstance(budget, str):
        parse_budget(budget, 0.0)  # before a long record is read
    record = read_record(os.fspath(run))
    cut_short = record.shortened is not None
    images, rebuild = (min(images, PREFLIGHT_IMAGES), False) if cut_short else (images, rebuild)
    seconds = parse_budget(budget, record.seconds) if isinstance(budget, str) else float(budget)
    checks = choose_checks(CATALOGUE, select, ignore)
    _require_passes(record)
    if not record.of_phase("validation") and not cut_short:  # before minutes are spent on images
        _require_finding(record, judge(Case(record), checks))
    unmeasured, begun = "", time.monotonic()
    ask: Again | None = None
    if rebuild:
        from valgap.experiments.asked_again import Again
        from valgap.experiments.rebuild import INTERRUPTED, completed

        record, unmeasured = completed(record, say)
        ask = Again(record, say) if not unmeasured else None
        seconds = 0.0 if unmeasured == INTERRUPTED else seconds  # who stops it does not want re-runs either
    elif record.closing is not None and record.closing.cut and not cut_short:
        unmeasured = "some measurements did not fit after the run; valgap diagnose without --no-rebuild makes them"
    record = with_names(record) if images > 0 else with_seen_labels(record)
    taken = time.monotonic() - begun
    looked_at = images_of_run(record, images)
    record = by_pictures(record, looked_at)
    stages = Stages(record, looked_at, ask)
    with freed_memory_kept():
        judged = order(_as_told(settle(judge(Case(record, looked_at, stages), checks), stages)))
    diagnosis = Diagnosis(
        run=record,
        judged=tuple(judged),
        train_reported=_accuracy(record.last_train),
        train_rescored=_rescored(record),
        validation=_validation(record),
        images=looked_at,
        gap=gap_parts(record, looked_at) if not cut_short else (),
        stages=account(judged, stages),
        loss=loss_parts(record) if not cut_short else None,
        reported=_accuracy_of(record.last_train.samples if record.last_train is not None else None),
        rescored=_accuracy_of(record.closing.rescores.get("train_eval") if record.closing is not None else None),
        unseen=record.unseen or not_seen(record),
        unmeasured=unmeasured,
    )
    if seconds <= 0 or cut_short or (ask is not None and ask.interrupted):
        return diagnosis
    from valgap.experiments.prove import prove

    # Arms are shortened copies of the program: their images are those of the run, which were looked at already.
    proved = prove(diagnosis, max(1.0, seconds - taken), progress, lambda one: stages if one is record else Stages(one, None))
    lines = account(proved.judged, stages, proved.shares)
    return replace(proved, budget_s=seconds, judged=tuple(order(proved.judged)), stages=lines)


def with_names(record: RunRecord) -> RunRecord:
    """The record with labels and files of samples that no loader tells: by the loss, rows of features, a loop's arrays."""
    return with_loop_files(with_feature_rows(with_seen_labels(record)))


def judge_running(record: RunRecord) -> list[Judged]:
    """The outcomes for a program that still runs, by its record so far (``read_running``) and nothing else, findings first.

    Nothing is run and no image file is opened. Checks that rest on a whole training are not asked.

    Raises:
        NothingRecordedError: the record holds nothing to judge yet.
    """
    _require_passes(record)
    record = with_seen_labels(record)
    stages = Stages(record, None, None)
    return order(_as_told(settle(judge(Case(record, None, stages), CATALOGUE), stages)))


def check(
    data: str | os.PathLike[str],
    *,
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Diagnosis:
    """What is wrong with the images of a folder or list, before any training: the outcomes of the checks of data.

    Args:
        data: a folder with train/ and val/, one folder of class folders, a CSV file with columns path, label, split, a zip file,
            WebDataset shards (.tar) or Parquet files, or the address of any of these (s3://...).
        select: codes (or their beginnings) to judge; empty means all of the data family.
        ignore: codes (or beginnings) to leave out.
        progress: told of images looked at, of a large set of each further pass as well: done, of how many.
        say: told, in a sentence, what a large set is taken through.

    Raises:
        DataError: ``data`` holds no image, or a list that cannot be read.
        ValgapError: ``select`` or ``ignore`` names no check of the data family.
    """
    family = [c for c in CATALOGUE if c.code.startswith("DAT")]
    checks = choose_checks(family, select, ignore)
    images = images_of_path(data, progress, say)
    record = RunRecord.empty(os.fspath(data))
    judged = order(judge(Case(record, images), checks))
    # Reports open files and tell names apart by the record; the checks saw none.
    folder = Path.cwd() if is_address(os.fspath(data)) else Path(data) if Path(data).is_dir() else Path(data).parent
    shown = replace(record, header={"cwd": str(folder.absolute())}, sample_names=images.rows.names)
    return Diagnosis(shown, tuple(judged), None, None, None, images=images)


def choose_checks(catalogue: Sequence[Check], select: Collection[str], ignore: Collection[str]) -> list[Check]:
    """The checks whose codes begin with one of ``select`` and with none of ``ignore``."""
    for given in (*select, *ignore):
        if not any(c.code.startswith(given.upper()) for c in catalogue):
            raise ValgapError(f"no check is called {given!r}: codes look like PRE201, `valgap explain` lists them")
    chosen = [c for c in catalogue if not select or any(c.code.startswith(s.upper()) for s in select)]
    return [c for c in chosen if not any(c.code.startswith(i.upper()) for i in ignore)]


def judge(case: Case, checks: Sequence[Check]) -> list[Judged]:
    """Each check with its outcome; only here does an exception become ``Crashed``.

    Raises:
        UnreachableError: images lie at an address that does not answer: no check can say anything of them.
    """
    judged: list[Judged] = []
    for check in checks:
        if case.run.shortened is not None and check.needs_whole_run:
            judged.append(Judged(check, NotApplicable(f"a whole training: {check.needs_whole_run}")))
            continue
        try:
            outcome = check.detect(case)
            elsewhere = outcome.stage if isinstance(outcome, Finding) else None
            judged.append(Judged(replace(check, stage=elsewhere) if elsewhere is not None else check, outcome))
        except UnreachableError:
            raise
        except Exception:
            judged.append(Judged(check, Crashed(traceback.format_exc())))
    return judged


def _as_told(judged: Sequence[Judged]) -> list[Judged]:
    """The outcomes with the confidence that is told for what their checks claim."""
    out = []
    for one in judged:
        if isinstance(one.outcome, Finding):
            one = replace(one, outcome=replace(one.outcome, confidence=calibrated(one.outcome.confidence)))
        out.append(one)
    return out


def order(judged: Sequence[Judged]) -> list[Judged]:
    """Findings first (by verdict, then those we would bet on, then by points), then clear, open and crashed.

    Of those we would bet on, one that leaves no accuracy to measure points by comes before all that have some.
    """

    def key(item: Judged) -> tuple[float, ...]:
        outcome = item.outcome
        if isinstance(outcome, Finding):
            bet = outcome.confidence >= SUSPECTED
            claimed = outcome.severity_points if outcome.cost_known else UNKNOWN_POINTS
            weight = abs(item.effect.value if item.effect is not None else claimed * outcome.confidence)
            void = bet and item.check.voids_accuracy
            return (0, VERDICT_PLACE[item.verdict], -float(bet), -float(void), -weight, -outcome.confidence)
        return ((Clear, NotApplicable, Crashed).index(type(outcome)) + 1,)

    return sorted(judged, key=key)


def suspected(diagnosis: Diagnosis) -> list[Judged]:
    """The findings that we would bet on."""
    return [j for j in diagnosis.findings if isinstance(j.outcome, Finding) and j.outcome.confidence >= SUSPECTED]


def _require_passes(record: RunRecord) -> None:
    elsewhere = f" ({record.unseen[0]})" if record.unseen else ""
    if not record.passes:
        raise NothingRecordedError(
            f"{record.path} holds no pass of a model over data: was a DataLoader iterated and a model called?{elsewhere}"
        )
    learning = [p for p in record.passes if p.backwards]
    if learning and not any(p.optimizer_steps or p.loader >= 0 for p in learning):
        raise NothingRecordedError(
            "gradients were computed, but no weight of a model changed between them and no DataLoader was iterated: nothing "
            "sound can be said. Is the optimizer's step called?"
        )


def _require_finding(record: RunRecord, judged: Sequence[Judged]) -> None:
    """Without a validation only a finding is worth a report."""
    if any(isinstance(j.outcome, Finding) and j.outcome.confidence >= SUSPECTED for j in judged):
        return
    if not record.of_phase("train") and record.optimizers and record.unseen:
        raise NothingRecordedError(f"nothing can be said: {record.unseen[0]}")
    raise NothingRecordedError(
        "no validation was seen: no pass over other data without backward; add one, or let the script reach it"
    )


def _accuracy(one: Pass | None) -> float | None:
    if one is None or math.isnan(one.samples.accuracy):
        return None
    return one.samples.accuracy


def _rescored(record: RunRecord) -> float | None:
    table = record.closing.rescores.get("train_eval") if record.closing else None
    return table.accuracy if table is not None and not math.isnan(table.accuracy) else None


def _validation(record: RunRecord) -> Accuracy | None:
    last = record.last_validation
    return _accuracy_of(last.samples if last is not None else None)


def _accuracy_of(table: SampleTable | None) -> Accuracy | None:
    if table is None or not table.answered:
        return None
    right = table.correct
    low, high = wilson_interval(int(right.sum()), len(right))
    return Accuracy(float(right.mean()), low, high, len(right))
