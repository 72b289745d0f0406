"""Heads that learn from features made before: each row of numbers is told to be the features of an image.

The record keeps a few numbers of each row that a model made of images, and of each row that the trained model was given
(seams/recording/kept_rows.py). Programs scale their features, drop some of them and shuffle them; so the rows of both are
standardised column by column, in the order first, where as many are there, else each beside those that are most like it. The
record that is returned shows the passes of training and validation as passes over those images.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from valgap.types import FloatArray, IntArray, KeptRows, Pass, RunRecord, SampleTable

# Correlation of a row with the features that it is, in 64 columns: Dropout of .3 leaves .5 to .9. Others come to .5, of the same
# class to .7; so the best must be apart from the next.
ALIKE, APART, SAME = 0.5, 0.1, 0.98
# Of the rows of a pass, so many must be told, and at least so many.
MOSTLY, LEAST = 0.8, 20
MOST_COMPARED = 1 << 24  # pairs of rows
IN_MEMORY = "memory"  # the source of rows of the program's own tensors


def with_feature_rows(run: RunRecord) -> RunRecord:
    """The record, its training and validation on rows of features told as passes over the images that they are of."""
    given = {r.pass_index: r for r in run.rows if not r.made}
    made = [r for r in run.rows if r.made and run.passes[r.pass_index].phase == "other"]
    train, val = run.last_train, run.last_validation
    if not made or train is None or val is None:
        return run
    sources: dict[str, KeptRows] = {}  # by phase: the features that its rows are
    tables: dict[int, IntArray] = {}  # pass -> image ids of its samples
    for last in (train, val):
        for i in (i for i in given if run.passes[i].phase == last.phase):
            for source in made:
                found = images_of_rows(given[i], source)
                if found is not None and len(found) == len(run.passes[i].samples):
                    tables[i], sources[last.phase] = found, source
                    break
    return _told_by_images(run, tables, sources) if sources else run


def images_of_rows(rows: KeptRows, made: KeptRows) -> IntArray | None:
    """(n,) the image ids of these rows among the features that were made, -1 where it is not clear; None where few are told."""
    if rows.width != made.width or min(len(rows.values), len(made.values)) < LEAST:
        return None
    if len(rows.values) * len(made.values) > MOST_COMPARED:
        return None
    ours, theirs = (_standardised(v.values) for v in (rows, made))
    if len(ours) == len(theirs) and np.median((ours * theirs).sum(1)) >= ALIKE and _in_order(ours, theirs):
        return made.sample.astype(np.int32)
    likeness = ours @ theirs.T
    best = likeness.argmax(1)
    top = likeness[np.arange(len(ours)), best]
    likeness[np.arange(len(ours)), best] = -1.0
    clear = (top >= SAME) | ((top >= ALIKE) & (top - likeness.max(1) >= APART))
    if clear.mean() < MOSTLY:
        return None
    return np.where(clear, made.sample[best], -1).astype(np.int32)


def _in_order(ours: FloatArray, theirs: FloatArray) -> bool:
    """Whether each row is more like the features in its own place than like those of the next one, nearly always."""
    own, next_one = (ours * theirs).sum(1), (ours * np.roll(theirs, 1, axis=0)).sum(1)
    return bool((own >= next_one).mean() >= MOSTLY)


def _standardised(values: npt.NDArray[np.floating]) -> FloatArray:
    """Rows (n, d) of mean 0 and length 1, after each column was brought to mean 0 and spread 1."""
    table = np.nan_to_num(values.astype(np.float32))
    table = (table - table.mean(0)) / np.maximum(table.std(0), 1e-6)
    table = table - table.mean(1, keepdims=True)
    return np.asarray(table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-6), np.float32)


def _told_by_images(run: RunRecord, tables: dict[int, IntArray], sources: dict[str, KeptRows]) -> RunRecord:
    """The record with these image ids in its passes, their data set that of the images, and with what was kept of the images."""
    phases = {phase: run.passes[source.pass_index] for phase, source in sources.items()}
    passes: list[Pass] = []
    newest: dict[str, int] = {}
    for i, one in enumerate(run.passes):
        if one.phase not in phases:
            passes.append(one)
            continue
        images = phases[one.phase]
        # Of other epochs the rows were not kept; where they are named, they are the same.
        of_phase = {k: told for k, told in tables.items() if run.passes[k].phase == one.phase}
        ids = tables[i] if i in tables else _images_of(run, one.samples, of_phase)
        info = run.datasets.get(images.dataset)
        listed = info is not None and info.sample is not None and info.source != IN_MEMORY  # of those looks tell the files
        passes.append(
            replace(
                one,
                samples=replace(one.samples, sample=ids),
                dataset=images.dataset if listed else -1,
                loader=images.loader if listed else -1,
            )
        )
        if i in tables:
            newest[one.phase] = i
    kept = list(run.kept)
    for phase, source in sources.items():
        own = next((k for k in run.kept if k.pass_index == source.pass_index), None)
        if own is not None:  # features of both sides may have been made in one go
            mine = np.isin(own.sample, tables[newest[phase]])
            kept.append(replace(own, pass_index=newest[phase], sample=own.sample[mine], images=own.images[mine]))
    closing = run.closing
    if closing is not None:
        again = {name: replace(t, sample=_images_of(run, t, tables)) for name, t in closing.rescores.items()}
        closing = replace(closing, rescores=again)
    return replace(run, passes=tuple(passes), kept=tuple(kept), closing=closing, made_once=True)


def _images_of(run: RunRecord, table: SampleTable, tables: dict[int, IntArray]) -> IntArray:
    """(n,) image ids of samples that were asked about again; -1 of those whose rows are not told."""
    known: dict[int, int] = {}
    for i, ids in tables.items():
        known.update(zip(run.passes[i].samples.sample.tolist(), ids.tolist(), strict=True))
    return np.array([known.get(s, -1) if s >= 0 else -1 for s in table.sample.tolist()], np.int32)
