"""Data sets scored again on the finished model, once for each way to look at their batches."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import torch

from valgap.seams.closing.attempts import Attempts
from valgap.seams.closing.head import MAX_KEPT_BYTES, Gathered, Head, put_back
from valgap.seams.closing.source import Source, sample_rows
from valgap.seams.looking.calibration import calibration
from valgap.seams.looking.tables import SAMPLE_COLUMNS
from valgap.seams.looking.tracked import TrackedModel
from valgap.seams.looking.views import Mode, View, forward

# The program's own preparation of images between loader and model cannot be repeated here.
SAME_INPUT_SHARE = 0.9
# Seconds: the import of scipy.optimize on one core.
SCIPY_S = 0.3


class Rescoring:
    """Scores views of batches with one model, and writes a table for each view."""

    def __init__(self, model: TrackedModel, attempts: Attempts, head: Head | None = None) -> None:
        self.model = model
        self.attempts = attempts
        self.head = head
        self._statistics = head.first_statistics() if head is not None else []

    def score(self, source: Source, views: list[View], deadline: float) -> None:
        """Score every view of every batch until the deadline."""
        self._walk(source, views, deadline, None)

    def gather(self, source: Source, views: list[View], deadline: float, later: int = 0) -> Gathered:
        """Score them, and gather the features of the first view; nothing where the program gave the model other images.

        The deadline does not count where at its pace all of it fits into the budget, with so many images ``later``.
        """
        return self._walk(source, views, deadline, self.head, later)

    def _walk(self, source: Source, views: list[View], deadline: float, head: Head | None, later: int | None = None) -> Gathered:
        tables: dict[str, list[dict[str, Any]]] = {v.name: [] for v in views}
        gathered = Gathered()
        logits_of: list[torch.Tensor] = []
        changes: list[float] = []
        done = 0
        slowest = 0.0
        compared: list[bool] = []
        begun = started = time.perf_counter()
        for images, target, ids in source.batches():
            compared += source.same_inputs(ids, images)
            eval_logits = None
            gathered.targets.append(target.detach().cpu())
            for view in views:
                if done >= view.max_images:
                    continue
                changed = view.change(images)
                if head is not None and view is views[0]:
                    logits = self._listen(head, changed, view.mode, gathered)
                else:
                    logits = forward(self.model, changed, view.mode)
                if logits is None:
                    raise ValueError("the model's output holds no class scores")
                tables[view.name].append(sample_rows(logits, target, ids, len(tables[view.name]), images))
                if view is views[0]:
                    eval_logits = logits
                    logits_of.append(logits.detach().float())
                elif view.mode == "train" and eval_logits is not None and logits.ndim == 2:
                    spread = float(eval_logits.float().std()) or 1.0
                    changes.append(float((logits.float() - eval_logits.float()).abs().mean()) / spread)
            done += len(ids)
            now = time.perf_counter()
            slowest, begun = max(slowest, now - begun), now
            left = len(source.order) - done
            if now + slowest > deadline and not (
                later is not None
                and not source.in_order
                and will_fit(now - started, done * len(views), left * len(views) + later, self.attempts.ending - now)
            ):
                if source.in_order and source.left:  # what comes first may be of one kind
                    reason = "the time budget ended before all images of the loader were read"
                    self.attempts.out_of_time(views[0].name, reason)
                    return Gathered()
                if done < len(source.order):
                    self.attempts.cut.append(views[0].name)
                break
        if compared and np.mean(compared) < SAME_INPUT_SHARE:
            reason = "the script changes the images between loader and model, which is not repeated here"
            self.attempts.skip(views[0].name, reason)
            return Gathered()
        self._write(tables, done if source.in_order else source.size, changes)
        if views[0].name == "val_eval" and logits_of and logits_of[0].ndim == 2:
            needs = 0.0 if "scipy.optimize" in sys.modules else SCIPY_S
            self.attempts.numbers("calibration", lambda: _calibration_numbers(logits_of, gathered.targets), needs)
        return gathered

    def _write(self, tables: dict[str, list[dict[str, Any]]], size: int, changes: list[float]) -> None:
        """Write the tables by view, of ``size`` samples there are, and the changes of the logits from eval to train mode."""
        for name, parts in tables.items():
            if parts:
                table = {c: np.concatenate([p[c] for p in parts]).astype(SAMPLE_COLUMNS[c]) for c in SAMPLE_COLUMNS}
                self.attempts.writer.write("rescore", {"name": name, "samples": table, "of": size})
        if changes:
            self.attempts.writer.write("numbers", {"values": {"mode_logit_change": float(np.mean(changes))}})

    def _listen(self, head: Head, images: torch.Tensor, mode: Mode, gathered: Gathered) -> torch.Tensor | None:
        """The logits of one call; its features, and its images while they take little memory, are added to ``gathered``."""
        with head.listening():
            logits = forward(self.model, images, mode)
            features, middle = head.caught(len(images)), head.caught_middle(len(images))
            before = head.caught_before(len(images))
            gathered.kept_bytes += images.numel() * images.element_size()
            if gathered.kept_bytes <= MAX_KEPT_BYTES:
                gathered.images.append(images)
            if features is None:
                return logits
            gathered.features.append(features)
            if middle is not None:
                gathered.middle.append(middle)
            if before is not None:
                gathered.before.append(before)
            if self._statistics:
                with put_back(self._statistics):
                    forward(self.model, images, mode)
                first = head.caught(len(images))
                assert first is not None
                gathered.first_statistics.append(first)
        return logits


def _calibration_numbers(logits: list[torch.Tensor], targets: list[torch.Tensor]) -> dict[str, float] | str:
    """How much the validation logits exaggerate."""
    values = calibration(torch.cat(logits).double().cpu().numpy(), torch.cat(targets).cpu().numpy())
    return values if values is not None else "too few labelled validation images"


def will_fit(spent_s: float, done: int, left: int, room_s: float) -> bool:
    """Whether what is left to do takes no more than ``room_s``, at the pace of what was done in ``spent_s``."""
    return done > 0 and left * spent_s / done <= room_s
