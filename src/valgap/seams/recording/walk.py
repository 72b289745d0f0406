"""One walk over a loader, as the recorder gathers it: becomes a Pass when it is written."""

from __future__ import annotations

import itertools
import time
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset

from valgap.seams.attaching.comparing import AnswersCompared, predictions
from valgap.seams.looking.batches import LoadedBatch, find_images, read_batch
from valgap.seams.looking.channel_change import KEPT, FirstImages
from valgap.seams.looking.datasets import length_of, safe_len
from valgap.seams.looking.fingerprints import Fingerprints
from valgap.seams.looking.inputs import InputCollector, LossCollector
from valgap.seams.looking.mixing import source_of
from valgap.seams.looking.routes import Route
from valgap.seams.looking.tables import SAMPLE_COLUMNS, score
from valgap.seams.looking.tracked import TrackedModel
from valgap.seams.recording.gradient_log import GradientLog
from valgap.seams.recording.held_images import HeldImages
from valgap.seams.recording.kept_inputs import InputKeeper
from valgap.seams.recording.kept_rows import RowKeeper
from valgap.seams.recording.labels_used import targets_of
from valgap.seams.recording.open_batch import OpenBatch
from valgap.seams.recording.step_rows import StepRow, step_table
from valgap.seams.recording.time_spent import KINDS

FLUSH_BYTES = 4 << 20
FLUSH_SECONDS = 20.0
MARKED = 256
MIXED_BATCHES = 2  # of a pass, whose images are looked for in those at the model
# A batch begins a walk anew when this share of its samples has been in it.
REPEATED_SHARE = 0.75
# A loader that says it gives its data so many times over is taken for one that never ends.
ENDLESS = 3


class Walk:
    """Everything seen of one pass so far."""

    def __init__(
        self,
        loader: Any,
        loader_id: int,
        dataset_id: int,
        sample_ids: Any,
        ids_of_keys: Callable[[Any], Any] | None = None,
    ) -> None:
        self.loader = loader
        self._dropped: Callable[[], Any] | None = None  # the loader, where it is held no longer
        self.length = (
            length_of(loader) if loader is not None else -1
        )  # batches; -1 unknown. Some loops stop there and never ask for one more.
        self.index = -1  # position among the passes; given when the model first uses a batch of it
        self.loader_id = loader_id
        self.dataset_id = dataset_id
        self.sample_ids = sample_ids  # (N,) ids by position in the data set, or None
        self.shown: npt.NDArray[np.bool_] | None = None  # (N,) which positions the model was shown, where they are known
        # A stream's length is what its class says; a sampler's is counted.
        self.length_is_sure = loader is not None and not isinstance(getattr(loader, "dataset", None), IterableDataset)
        self.endless = _is_endless(loader, self.length)
        self.drawn = 0  # batches that the loader gave
        self.order: Any = None  # positions in the order in which they are drawn, where the loader itself keeps them
        self.given: FirstImages | None = None  # its first images, before and after what the program does to them
        self.met: set[Any] = set()  # what has been in it, where nothing else says when it ends
        self.ids_of_keys = ids_of_keys  # names samples by their content
        self.exhausted = False
        self.dead = False
        self.written = False
        self.part = 0
        self.started = time.perf_counter()
        self.flushed = self.started
        self.ended = self.started
        self.num_batches = 0
        self.backwards = 0
        self.steps = 0
        self.zero_grads = 0
        self.spent = dict.fromkeys(KINDS, 0.0)  # seconds
        self.positions = 0  # images seen, for loaders that give no indices
        self.votes: Counter[int] = Counter()
        self.models: dict[int, TrackedModel] = {}
        self.mode_rows: list[tuple[float, float, float, float]] = []
        self.inputs = InputCollector()
        self.kept = InputKeeper(self.length)
        self.rows = RowKeeper()
        self.traced = Fingerprints()
        self.held = HeldImages() if loader_id < 0 else None
        self.gradients = GradientLog()
        self._written_samples = 0
        self.loss = LossCollector()
        self.new_sizes: list[int] = []
        self._rows: list[tuple[OpenBatch, torch.Tensor | None, torch.Tensor | None]] = []
        self._bytes = 0
        self.step_rows: list[StepRow] = []
        # (N right, N labelled) so far: what best-epoch bookkeeping needs
        self.right = 0
        self.labelled = 0
        self.seen: torch.Tensor | None = None  # its first images, small, where this pass shows them
        self.fingerprints: dict[int, float] = {}  # of a few samples, for the closing measurements
        self.learned = False  # whether its images, from no loader, are those that a training was given
        self.blind = False  # whether nothing but the gradients tells the targets
        self.own = AnswersCompared()
        self.views = 1  # so many rows at the model are one image
        self.outputs = 0  # columns of the last scores; 0 unknown
        self.routes: dict[int, Route] = {}  # model id -> how its first batch came to its logits

    def drop_loader(self) -> None:
        """Hold the loader no longer: with it go its worker processes, as soon as the program drops it too."""
        if self.loader is not None:
            try:
                self._dropped = weakref.ref(self.loader)
            except TypeError:  # no weak references to this class: it stays
                return
            self.loader = None

    def expect(self, batches: int) -> None:
        """It will be cut after so many batches: what is kept of it is spread over these."""
        if not self.num_batches:
            self.kept = InputKeeper(min(self.length, batches) if self.length > 0 else batches)

    def another(self) -> Walk:
        """A walk that has not begun, over the same data."""
        loader = self.loader if self._dropped is None else self._dropped()
        other = Walk(loader, self.loader_id, self.dataset_id, self.sample_ids, self.ids_of_keys)
        other.learned = self.learned
        return other

    def read(self, indices: Any, batch: Any) -> LoadedBatch:
        """The batch that the loader gives next."""
        if self.given is None and self.drawn <= 1:
            images = find_images(batch)
            self.given = FirstImages(images[:KEPT].detach().clone()) if images is not None and images.ndim == 4 else None
        loaded = read_batch(self, indices if self.order is None and self.sample_ids is not None else None, batch)
        images = find_images(batch) if self.drawn <= MIXED_BATCHES else None
        loaded.source = source_of(images) if images is not None else None
        if self.order is None:
            return loaded
        loaded.indices, self.order = self.order[: loaded.size], self.order[loaded.size :]
        if len(loaded.indices) == loaded.size:
            loaded.keys = None
        return loaded

    def look_at(self, images: torch.Tensor, num_names: int) -> None:
        """The images (N, ...) of its next batch, as the model is given them; ``num_names``: of all samples known by now."""
        self.inputs.add(images.detach(), self.num_batches)
        self.kept.add(images, self.num_batches)
        if images.ndim == 2:
            self.rows.add(images)
        if self.held is not None:
            self.held.add(images, num_names)

    @property
    def only_looked(self) -> bool:
        """Whether the batches so far, from no loader, had gradients recorded and yet no answers that can learn.

        A frozen network without ``no_grad`` that makes features, before the training that begins now.
        """
        if self.loader_id >= 0 or self.backwards or self.steps or self.part or not self._rows:
            return False
        calls = [c for batch, _, _ in self._rows for c in batch.calls]
        return len(self._rows) == self.num_batches - 1 and bool(calls) and not any(c.requires_grad for c in calls)

    @property
    def is_over(self) -> bool:
        """Whether the loader has no more to give: it said so, or it has given what it holds."""
        return self.exhausted or (self.length_is_sure and self.drawn == self.length)

    def meet(self, marks: list[Any]) -> None:
        """These samples are in it."""
        self.met.update(marks)

    def has_met(self, marks: list[Any]) -> bool:
        """Whether (nearly) all of these have been in it before; unknown, and so False, where many of them are alike."""
        distinct = set(marks)
        if not marks or 2 * len(distinct) <= len(marks):
            return False
        return len(distinct & self.met) >= REPEATED_SHARE * len(distinct)

    @property
    def model(self) -> TrackedModel | None:
        """The model that most batches went through."""
        return self.models[self.votes.most_common(1)[0][0]] if self.votes else None

    def close_batch(self, batch: OpenBatch, target_keys: dict[int, str]) -> None:
        """Take in a finished batch: its logits and targets wait on their device."""
        call = batch.chosen()
        if call is not None:
            self.votes[call.model.id] += 1
            self.mode_rows.append(call.modes)
            self.models[call.model.id] = call.model
            if call.given is not None:
                route = batch.route(call)
                if route is not None:
                    self.routes[call.model.id] = route
        logits = batch.loss_logits
        if logits is not None and call is not None:
            call.model.num_outputs = _columns(logits)
        elif batch.elsewhere or (call is not None and call.model.embeds):
            logits = None
            if call is not None:
                call.model.embeds = True
        elif call is not None and call.logits is not None:
            known = call.model.num_outputs
            # Features, where the loss was given other scores: what the program makes of them is not seen.
            logits = call.logits if known in (-1, _columns(call.logits)) or not call.model.steps else None
            if logits is not None:
                call.model.num_outputs = _columns(logits)
        if logits is not None:
            self.outputs = _columns(logits)
        if len(batch.shape) > 1:
            self.rows.made = True
            self.rows.add(logits if batch.loss_logits is None else None)
        target = targets_of(batch, self.dataset_id, target_keys)
        if target is None and self.loader_id < 0 and call is not None and call.gradient is not None:
            target = call.gradient.pulled_up()
            self.blind = True
        if self.traced.batch == batch.number:
            self.traced.add("target", target)
            self.traced.add("logits", logits)
            if call is not None:
                self.traced.statistics(call.model, batch.number)
        if call is not None:
            self.gradients.add(batch, call, target)
        for one in batch.calls:
            if one.gradient is not None:
                one.gradient.let_go()
        if batch.loaded is not None:
            batch.loaded.origin = None  # keeps the images alive
        self._rows.append((batch, logits, target))
        self.new_sizes.append(batch.size)
        self.ended = time.perf_counter()
        if logits is not None:
            self._bytes += logits.numel() * 4

    def size_with(self, current: OpenBatch) -> int:
        """Images of all batches that wait, and of the ``current`` one."""
        return sum(r[0].size for r in self._rows) + current.size

    def scores(self, current: OpenBatch) -> list[torch.Tensor]:
        """(N, C) each, what all batches of an evaluation so far may be answered by, ``current`` the last of them.

        Nothing where scores of a batch are missing; see ``OpenBatch.scores``.
        """
        if self.backwards or any(r[1] is None for r in self._rows):
            return []
        every = [r[0].scores() for r in self._rows] + [current.scores()]
        ways = list(zip(*every, strict=False))
        return [torch.cat(way) for way in ways if all(s.ndim == 2 and s.shape[1:] == way[0].shape[1:] for s in way)]

    def label(self, current: OpenBatch, labels: torch.Tensor) -> None:
        """These (N,) are the labels of all that it holds so far."""
        parts = labels.split([*(r[0].size for r in self._rows), current.size])
        self._rows = [(r[0], r[1], part) for r, part in zip(self._rows, parts, strict=False)]
        current.loss_target = parts[-1]

    @property
    def wants_flush(self) -> bool:
        """Whether enough has gathered to be written before the pass ends."""
        return self._bytes > FLUSH_BYTES or time.perf_counter() - self.flushed > FLUSH_SECONDS

    def take(self) -> dict[str, Any]:
        """The body of the next event: new samples and steps, and all counters as they stand."""
        body: dict[str, Any] = {
            "pass": self.index,
            "part": self.part,
            "loader": self.loader_id,
            "dataset": self.dataset_id,
            "model": self.model.id if self.model else -1,
            "complete": (self.exhausted and not self.dead and self.loader_id >= 0) or self.num_batches == self.length,
            "seconds": round(self.ended - self.started, 4),
            "spent": {kind: round(seconds, 4) for kind, seconds in self.spent.items()},
            "num_batches": self.num_batches,
            "backwards": self.backwards,
            "steps": self.steps,
            "zero_grads": self.zero_grads,
            "batch_sizes": np.array(self.new_sizes, np.int32),
            "samples": self._take_samples(),
            "step_table": step_table(self.step_rows),
            "inputs": self.inputs.result(),
            "loss": self.loss.result(self.num_batches),
            "modes": self._modes(),
            "gradient": self.gradients.result(),
            "mix": self.gradients.mix(),
            "outputs": self.outputs,
            "own": self.own.result(),
        }
        self.part += 1
        self.new_sizes, self.step_rows = [], []
        self.flushed = time.perf_counter()
        return body

    def _modes(self) -> dict[str, float]:
        rows = np.array(self.mode_rows or [(0.0, 0.0, 0.0, 0.0)], np.float64)
        model = self.model
        return {
            "training_flag": float(rows[:, 0].mean()),
            "batchnorm_training": float(rows[:, 1].mean()),
            "dropout_training": float(rows[:, 2].mean()),
            "grad_enabled": float(rows[:, 3].mean()),
            "batchnorm_layers": len(model.batchnorms) if model else 0,
            "dropout_layers": len(model.dropouts) if model else 0,
        }

    def _take_samples(self) -> dict[str, Any]:
        columns: dict[str, list[Any]] = {k: [] for k in SAMPLE_COLUMNS}
        first = self.num_batches - len(self._rows)
        for offset, (batch, _, _) in enumerate(self._rows):
            columns["sample"].append(self._ids(batch))
            columns["batch"].append(np.full(batch.size, first + offset, np.int32))
            marks = batch.fingerprint
            columns["fingerprint"].append(
                marks.float().cpu().numpy() if marks is not None else np.full(batch.size, np.nan, np.float32)
            )
        for one, scores_of, labels in self._rows if not self.backwards else ():
            if one.compared and scores_of is not None and labels is not None:
                self.own.add(one.compared, labels.long(), predictions(scores_of))
        # Batches of one kind are scored as one: a small model's answers take less time than so many calls.
        for _, alike in itertools.groupby(self._rows, _kind_of):
            rows = list(alike)
            logits = [r[1] for r in rows if r[1] is not None and r[1].shape[:1] == (r[0].size,)]
            target = [r[2] for r in rows if r[2] is not None and r[2].shape == (r[0].size,)]
            count = sum(r[0].size for r in rows)
            whole = [torch.cat(parts) if parts else None for parts in (logits, target)]
            scores = score(whole[0], whole[1], count, rows[0][0].loss_name)
            for name, values in scores.items():
                columns[name].append(values)
        self._rows = []
        self._bytes = 0
        table = {
            name: np.concatenate(parts).astype(SAMPLE_COLUMNS[name]) if parts else np.zeros(0, SAMPLE_COLUMNS[name])
            for name, parts in columns.items()
        }
        self.kept.name(table["sample"], self._written_samples)
        self.rows.name(table["sample"])
        if self.held is not None:
            self.held.name(table["sample"], table["target"])
        self._written_samples += len(table["sample"])
        if not self.fingerprints:
            few = zip(table["sample"][:MARKED].tolist(), table["fingerprint"][:MARKED].tolist(), strict=True)
            self.fingerprints = {i: mark for i, mark in few if i >= 0}
        known = table["target"] >= 0
        self.labelled += int(known.sum())
        self.right += int((table["prediction"][known] == table["target"][known]).sum())
        return table

    def _ids(self, batch: OpenBatch) -> Any:
        unknown = np.full(batch.size, -1, np.int32)
        loaded = batch.loaded
        if loaded is None or loaded.size != batch.size:
            return unknown
        if loaded.keys is not None and self.ids_of_keys is not None:
            return self.ids_of_keys(loaded.keys.cpu().numpy())
        if self.sample_ids is None:
            return unknown
        indices = loaded.indices
        if indices is None or len(indices) != batch.size or min(indices) < 0 or max(indices) >= len(self.sample_ids):
            return unknown
        if self.shown is None:
            self.shown = np.zeros(len(self.sample_ids), bool)
        self.shown[np.array(indices)] = True
        return self.sample_ids[np.array(indices)]


def _is_endless(loader: Any, length: int) -> bool:
    """Whether a loader goes on for ever, or so long that a pass over its data is no measure of it."""
    if length < 0:
        return True
    size, batch = safe_len(getattr(loader, "dataset", None)), getattr(loader, "batch_size", None)
    return isinstance(batch, int) and size > 0 and length * batch >= ENDLESS * (size + batch)


def _columns(logits: torch.Tensor) -> int:
    return int(logits.shape[1]) if logits.ndim == 2 else 1


def _kind_of(row: tuple[OpenBatch, torch.Tensor | None, torch.Tensor | None]) -> Any:
    """What batches must have in common to be scored together."""
    batch, logits, target = row
    answered = logits is not None and logits.shape[:1] == (batch.size,)
    labelled = target is not None and target.shape == (batch.size,)
    return (
        (logits.shape[1:], logits.dtype, logits.device) if answered and logits is not None else None,
        (target.dtype, target.device) if labelled and target is not None else None,
        batch.loss_name,
    )
