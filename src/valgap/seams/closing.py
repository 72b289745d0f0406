"""Closing measurements: made in the recorded process after the program has ended, within a time budget.

Its model, data sets and transforms are still alive then, so that no second copy of a stranger's classes is needed.
Nothing is left changed: weights, buffers, modes and random states are put back.
"""

from __future__ import annotations

import functools
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from valgap.record.writer import RecordWriter
from valgap.seams import datasets as ds
from valgap.seams.act import Act
from valgap.seams.batches import find_logits
from valgap.seams.calibration import calibration
from valgap.seams.changes import replace_transform, transform_for, without_randomness
from valgap.seams.head import (
    MAX_KEPT_BYTES,
    Gathered,
    Head,
    augmentation_numbers,
    fitting_s,
    probe_numbers,
    put_back,
    start_numbers,
)
from valgap.seams.head_replay import replay_numbers, settings_of
from valgap.seams.normalization import differs, normalization, renormalize
from valgap.seams.recorder import Recorder
from valgap.seams.source import CannotBeReadError, Source, preserved, sample_rows
from valgap.seams.tracked import TrackedModel
from valgap.seams.twins import same_bytes
from valgap.seams.walk import SAMPLE_COLUMNS

# Shares of the budget: validation first, since most causes are judged by it.
VALIDATION_SHARE = 0.4
TRAIN_SHARE = 0.65  # up to here; what is left is for augmented images, the replay and the first weights
AUGMENTED_IMAGES = 512
MAX_TRAIN_IMAGES = 2_000
# Images for the comparison of train and eval mode, when the program evaluated in eval mode.
MODE_IMAGES = 64
# Enough to see ten points. All of them where the colours look swapped.
FLIPPED_IMAGES = 256
# Images of a batch that is put together anew.
MATES = 32
# The program's own preparation of images between loader and model cannot be repeated here.
SAME_INPUT_SHARE = 0.9
# Seconds: the import of scipy.optimize on one core; the least in which training the head again says anything.
SCIPY_S = 0.3
MIN_REPLAY_S = 0.2
Mode = Literal["eval", "train", "dropout"]  # "dropout": all in eval mode but the Dropout layers


@dataclass
class _View:
    """One way to look at each batch: a change of the images, and the mode of the model."""

    name: str
    change: Callable[[torch.Tensor], torch.Tensor]
    mode: Mode = "eval"
    max_images: int = 1 << 60


class ClosingMeasurements:
    """Runs once, after ``Recorder.finish``; writes its results as events."""

    def __init__(self, recorder: Recorder, writer: RecordWriter, budget_s: float, started: float | None = None) -> None:
        self.recorder = recorder
        self.writer = writer
        self.budget_s = budget_s
        self.started = time.perf_counter() if started is None else started  # importing what is needed counts too
        self.model: TrackedModel | None = recorder.last_train[1]["model"] if recorder.last_train else None
        self.head: Head | None = None
        self._statistics: list[tuple[torch.Tensor, torch.Tensor]] = []

    def run(self) -> None:
        """Make what fits into the budget; what does not is written as skipped, with the reason."""
        started = self.started
        self.writer.write("closing_begin", {"budget_s": self.budget_s})
        with torch.no_grad():
            self._attempt("weights", self._save_weights)
            self._attempt("twins", self._find_twins)
            if self.model is None or self.recorder.last_eval is None:
                self._skip("rescores", "no trained model with a validation pass was seen")
            else:
                with preserved(self.model):
                    self._attempt("rescores", lambda: self._rescore(started))
        self.writer.write("closing_end", {"seconds": round(time.perf_counter() - started, 3)})

    def rescore_under(self, acts: Sequence[Act]) -> None:
        """Score the last validation data as the program did, then under each act: tables ``own`` and ``under 0``, ...

        All on the weights as they are now, in the program's own mode, so that they compare with each other.
        """
        self.writer.write("closing_begin", {"budget_s": 0.0})
        if self.model is None or self.recorder.last_eval is None:
            self._skip("own", "no trained model with a validation pass was seen")
            return
        loader, facts = self.recorder.last_eval
        with torch.no_grad(), preserved(self.model):
            for name, act in [("own", None), *((f"under {i}", act) for i, act in enumerate(acts))]:
                self._attempt(name, functools.partial(self._rescore_under, name, act, loader, facts))

    def _rescore_under(self, name: str, act: Act | None, loader: Any, facts: dict[str, Any]) -> None:
        dataset = loader.dataset if act is None else act.dataset(loader.dataset)
        view = _View(name, _unchanged if act is None else act.inputs, _mode_at(facts["walk"]))
        self._walk(self._source(loader, dataset, facts["dataset"]), [view], float("inf"))

    def _attempt(self, name: str, measure: Callable[[], None], needs_s: float = 0.0) -> None:
        """Make a measurement that is not worth an exception; it is skipped where less time is left than it needs."""
        left = self.started + self.budget_s - time.perf_counter()
        if left < needs_s:
            self._skip(name, f"it needs about {needs_s:.1f} s, and the time budget has {max(0.0, left):.1f} s left")
            return
        try:
            measure()
        except KeyboardInterrupt:
            self._skip(name, "interrupted")
        except CannotBeReadError as reason:
            self._skip(name, str(reason))
        except Exception as error:
            self._skip(name, f"{type(error).__name__}: {error}"[:300])

    def _skip(self, name: str, reason: str) -> None:
        self.writer.write("skipped", {"name": name, "reason": reason})

    # -- weights ------------------------------------------------------------------------------

    def _save_weights(self) -> None:
        from safetensors.torch import save_file

        if self.model is None:
            return
        final = {name: t.detach().cpu().contiguous().clone() for name, t, _, _ in self.model.tensors}
        save_file(final, str(self.writer.path / "final.safetensors"))
        if self.recorder.best is not None:
            accuracy, index, state = self.recorder.best
            best = {k: v.contiguous() for k, v in state.items()}
            save_file(best, str(self.writer.path / "best.safetensors"), {"pass": str(index), "val": f"{accuracy:.6f}"})

    # -- twins --------------------------------------------------------------------------------

    def _find_twins(self) -> None:
        if self.recorder.last_train is None or self.recorder.last_eval is None:
            return
        train = self._sample_ids(self.recorder.last_train)
        val = self._sample_ids(self.recorder.last_eval)
        if train is None or val is None:
            self._skip("twins", "the samples' identities are not known")
            return
        names = list(self.recorder.samples.names)
        rows: list[tuple[int, int, str, float]] = [(int(i), int(i), "same_file", 1.0) for i in np.intersect1d(train, val)]
        own = {i for i, _, _, _ in rows}
        others = [(int(i), names[i]) for i in val if i not in own]
        by_content = same_bytes([(int(i), names[i]) for i in train], others, self.started + self.budget_s)
        rows += [(a, b, "same_bytes", 1.0) for a, b in by_content]
        self.writer.write("twins", {"twins": rows})

    def _sample_ids(self, side: tuple[Any, dict[str, Any]]) -> Any:
        ids = self.recorder.samples.ids.get(side[1]["dataset"])
        if ids is None or (ids < 0).any():
            return None
        return np.unique(ids)

    def _source(self, loader: Any, dataset: Any, number: int, most: int = 1 << 60, check_inputs: bool = True) -> Source:
        assert self.model is not None
        return Source(self.recorder, self.model, loader, dataset, number, most, check_inputs)

    # -- re-scoring ---------------------------------------------------------------------------

    def _rescore(self, started: float) -> None:
        assert self.model is not None and self.recorder.last_eval is not None and self.recorder.last_train is not None
        loader, facts = self.recorder.last_eval
        self.head = Head(self.model)
        self._statistics = self.head.first_statistics()
        ending = started + self.budget_s
        deadline = started + self.budget_s * VALIDATION_SHARE
        views = self._views(facts, self.recorder.last_train[1])
        val = self._source(loader, loader.dataset, facts["dataset"])
        begun = time.perf_counter()
        of_val = self._walk(val, views, deadline, True)
        one_walk = (time.perf_counter() - begun) / len(views)
        self._attempt("batch_mates", lambda: self._batch_mates(of_val, facts))
        found = ds.transform_of(loader.dataset)
        if found is not None and any(s.random for s in found.steps):
            fixed = functools.partial(self._fixed_validation, loader, facts, found, deadline)
            self._attempt("val_fixed", fixed, (1 - VALIDATION_SHARE) * self.budget_s)
        self._rescore_training(found, of_val, started)
        if found is not None:
            prepared = functools.partial(self._as_weights_expect, loader, facts, found, ending)
            self._attempt("val_weights", prepared, one_walk)

    def _rescore_training(self, found: ds.FoundTransform | None, of_val: Gathered, started: float) -> None:
        """Training images through the validation transform, and what is learnt from them; ``found`` is that transform."""
        assert self.model is not None and self.recorder.last_train is not None and self.recorder.last_eval is not None
        loader = self.recorder.last_eval[0]
        train_loader, train_facts = self.recorder.last_train
        if train_loader is None:
            self._skip("train_eval", "training used no DataLoader")
            return
        dataset = replace_transform(train_loader.dataset, found.transform) if found is not None else None
        if dataset is None:
            dataset = train_loader.dataset
            own = ds.transform_of(dataset)
            if own is not None and any(s.random for s in own.steps):
                self._skip("train_eval", "the validation transform could not be put on the training data set")
                return
        train = self._source(loader, dataset, train_facts["dataset"], MAX_TRAIN_IMAGES)
        if time.perf_counter() > started + self.budget_s * TRAIN_SHARE:
            self._skip("train_eval", "the time budget ended")
            return
        train_views = [_View("train_eval", _unchanged)]
        if self.model.dropouts:
            train_views.append(_View("train_dropout", _unchanged, "dropout", AUGMENTED_IMAGES))
        of_train = self._walk(train, train_views, started + self.budget_s * TRAIN_SHARE, True)
        ending = started + self.budget_s
        self._probes(of_train, of_val, ending)
        if dataset is not train_loader.dataset:
            self._attempt("train_augmented", lambda: self._augmented(train_loader, train_facts, of_train, ending))

    def _batch_mates(self, val: Gathered, facts: dict[str, Any]) -> None:
        """Some validation images among other batch mates, in the program's own mode: no answer should depend on them."""
        if len(val.images) < 2 or min(len(b) for b in val.images[:2]) < 2:
            self._skip("batch_mates", "it takes two validation batches of at least two images")
            return
        first, second = val.images[0][:MATES], val.images[1][:MATES]
        half = len(first) // 2
        mode = _mode_at(facts["walk"])
        answers: list[torch.Tensor | None] = []
        for mates in (first[half:], second[: len(first) - half]):
            torch.manual_seed(0)  # the same units dropped both times
            answers.append(self._forward(torch.cat([first[:half], mates]), mode))
        before, among_others = answers
        if before is None or among_others is None or before.ndim != 2:
            self._skip("batch_mates", "the model's output holds no class scores")
            return
        kept, moved = before[:half].float(), among_others[:half].float()
        change = float((kept - moved).abs().mean()) / (float(kept.std()) or 1.0)
        self._numbers("batch_mates", {"batch_mate_change": change, "batch_mate_n": half})

    def _as_weights_expect(self, loader: Any, facts: dict[str, Any], found: ds.FoundTransform, deadline: float) -> None:
        """Validation images prepared from the file on as the published weights want them."""
        assert self.model is not None
        expected = self.model.expected()
        if expected is None or expected.size is None:
            self._skip("val_weights", "what the weights expect is not known")
            return
        transform = transform_for(expected.size, expected.crop_share, expected.interpolation, expected.mean, expected.std)
        dataset = replace_transform(loader.dataset, transform)
        if dataset is None:
            self._skip("val_weights", "the validation transform could not be exchanged")
            return
        prepared = ds.transform_of(dataset)
        if prepared is not None and [s.text for s in prepared.steps] == [s.text for s in found.steps]:
            self._skip("val_weights", "the program's own validation transform is the weights' own")
            return
        self._walk(self._source(loader, dataset, facts["dataset"]), [_View("val_weights", _unchanged)], deadline)

    def _augmented(self, loader: Any, facts: dict[str, Any], plain: Gathered, deadline: float) -> None:
        """Training images as the script reads them, in eval mode: what augmentation alone does to the model's answers."""
        source = self._source(loader, loader.dataset, facts["dataset"], AUGMENTED_IMAGES, check_inputs=False)
        if time.perf_counter() > deadline:
            self._skip("train_augmented", "the time budget ended")
            return
        augmented = self._walk(source, [_View("train_augmented", _unchanged)], deadline, True)
        fit = lambda: self._numbers("augmentation", augmentation_numbers(plain, augmented))  # noqa: E731
        self._attempt("augmentation", fit, fitting_s(plain, 2))

    def _fixed_validation(self, loader: Any, facts: dict[str, Any], found: ds.FoundTransform, deadline: float) -> None:
        fixed = without_randomness(found.transform)
        dataset = replace_transform(loader.dataset, fixed) if fixed is not None else None
        if dataset is None:
            self._skip("val_fixed", "the random steps of the validation transform could not be taken out")
            return
        self._walk(self._source(loader, dataset, facts["dataset"]), [_View("val_fixed", _unchanged)], deadline)

    def _views(self, facts: dict[str, Any], train_facts: dict[str, Any]) -> list[_View]:
        assert self.model is not None and self.recorder.last_eval is not None and self.recorder.last_train is not None
        views = [_View("val_eval", _unchanged)]
        trained_in_eval = facts["walk"].mode_rows and max(r[0] for r in facts["walk"].mode_rows) > 0
        if self.model.batchnorms or self.model.dropouts:
            few = 1 << 60 if trained_in_eval else MODE_IMAGES
            views.append(_View("val_train", _unchanged, "train", few))
        own = normalization(self.recorder.last_eval[0])
        train_loader = self.recorder.last_train[0]
        other = normalization(train_loader) if train_loader is not None else None
        if own is not None and other is not None and own != other:
            views.append(_View("val_train_norm", renormalize(own, other)))
        expected = self.model.expected()
        if own is not None and expected is not None and differs(own, (expected.mean, expected.std)):
            views.append(_View("val_weights_norm", renormalize(own, (expected.mean, expected.std))))
        # Means of many kinds of things are grey, and then say nothing of the order of channels; the answers do.
        swapped = self._channels_look_swapped(facts["walk"], train_facts["walk"])
        if _coloured(facts["walk"]):
            views.append(_View("val_flipped_channels", lambda x: x.flip(1), max_images=1 << 60 if swapped else FLIPPED_IMAGES))
        return views

    def _channels_look_swapped(self, val: Any, train: Any) -> bool:
        a, b = val.inputs.result(), train.inputs.result()
        if a is None or b is None or len(a["mean"]) != 3 or len(b["mean"]) != 3:
            return False
        straight = float(np.abs(a["mean"] - b["mean"]).sum())
        return float(np.abs(a["mean"][::-1] - b["mean"]).sum()) < straight

    def _walk(self, source: Source, views: list[_View], deadline: float, probing: bool = False) -> Gathered:
        """Score every view of every batch until the deadline; gathers the features of the first view where wanted."""
        assert self.model is not None
        tables: dict[str, list[dict[str, Any]]] = {v.name: [] for v in views}
        gathered = Gathered()
        logits_of: list[torch.Tensor] = []
        changes: list[float] = []
        done = 0
        slowest = 0.0
        compared: list[bool] = []
        begun = time.perf_counter()
        for images, target, ids in source.batches():
            compared += source.same_inputs(ids, images)
            eval_logits = None
            gathered.targets.append(target.detach().cpu())
            for view in views:
                if done >= view.max_images:
                    continue
                logits = self._look(view.change(images), view.mode, gathered if probing and view is views[0] else None)
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
            if now + slowest > deadline:
                break
        if compared and np.mean(compared) < SAME_INPUT_SHARE:
            self._skip(views[0].name, "the script changes the images between loader and model, which is not repeated here")
            return Gathered()
        for name, parts in tables.items():
            if parts:
                table = {c: np.concatenate([p[c] for p in parts]).astype(SAMPLE_COLUMNS[c]) for c in SAMPLE_COLUMNS}
                self.writer.write("rescore", {"name": name, "samples": table, "of": source.size})
        if changes:
            self.writer.write("numbers", {"values": {"mode_logit_change": float(np.mean(changes))}})
        if views[0].name == "val_eval" and logits_of and logits_of[0].ndim == 2:
            needs = 0.0 if "scipy.optimize" in sys.modules else SCIPY_S
            self._attempt("calibration", lambda: self._calibrate(logits_of, gathered.targets), needs)
        return gathered

    def _look(self, images: torch.Tensor, mode: Mode, gathered: Gathered | None) -> torch.Tensor | None:
        """The logits of one call; with ``gathered``, its features are added there."""
        if gathered is None or self.head is None:
            return self._forward(images, mode)
        with self.head.listening():
            logits = self._forward(images, mode)
            features, middle = self.head.caught(len(images)), self.head.caught_middle(len(images))
            if features is None:
                return logits
            gathered.features.append(features)
            if middle is not None:
                gathered.middle.append(middle)
            if self._statistics:
                with put_back(self._statistics):
                    self._forward(images, mode)
                first = self.head.caught(len(images))
                assert first is not None
                gathered.first_statistics.append(first)
        gathered.kept_bytes += images.numel() * images.element_size()
        if gathered.kept_bytes <= MAX_KEPT_BYTES:
            gathered.images.append(images)
        return logits

    def _forward(self, images: torch.Tensor, mode: Mode) -> torch.Tensor | None:
        """The logits (N, C) of one call; in train mode the buffers are put back afterwards."""
        assert self.model is not None
        for part in self.model.parts:
            part.train(mode == "train")
        if mode == "dropout":
            for module in self.model.dropouts:
                module.train()
        kept = [(b, b.clone()) for p in self.model.parts for b in p.buffers()] if mode == "train" else []
        try:
            first = self.model.parts[0]
            output: Any = first(**{self.model.input_name: images}) if self.model.input_name else first(images)
            for part in self.model.parts[1:]:
                output = part(output)
        finally:
            for buffer, value in kept:
                buffer.copy_(value)
        return find_logits(output, len(images))

    # -- probes -------------------------------------------------------------------------------

    def _numbers(self, name: str, values: dict[str, float] | str) -> None:
        """Write the numbers, or why there are none."""
        if isinstance(values, str):
            self._skip(name, values)
        else:
            self.writer.write("numbers", {"values": values})

    def _probes(self, train: Gathered, val: Gathered, deadline: float) -> None:
        fits = 1 + bool(train.first_statistics) + bool(train.middle)
        self._attempt("probe", lambda: self._numbers("probe", probe_numbers(train, val)), fitting_s(train, fits))
        self._attempt("replay", lambda: self._numbers("replay", self._replay(train, val, deadline)), MIN_REPLAY_S)
        pairs = self.head.first_features() if self.head is not None else []
        if pairs:
            self._attempt("probe_start", lambda: self._start_probe(pairs, train, val, deadline), fitting_s(train, 2))

    def _start_probe(self, pairs: list[tuple[Any, Any]], train: Gathered, val: Gathered, deadline: float) -> None:
        """The features once more, under the first weights."""
        assert self.head is not None
        with put_back(pairs), self.head.listening():
            for images, other in itertools.zip_longest(val.images, train.images):
                if time.perf_counter() > deadline:
                    break
                for gathered, batch in ((val, images), (train, other)):
                    if batch is None:
                        continue
                    self._forward(batch, "eval")
                    features = self.head.caught(len(batch))
                    if features is not None:
                        gathered.start.append(features)
        self._numbers("probe_start", start_numbers(train, val))

    def _replay(self, train: Gathered, val: Gathered, deadline: float) -> dict[str, float] | str:
        """The head trained again on the features, as recorded and with one change each."""
        head, first = self.head, self.model.initial_state if self.model is not None else None
        if head is None or head.layer is None or first is None or not train.features or not val.features:
            return "no linear head, no first weights or no features"
        names = [head.name_of(n) for n in ("weight", "bias")]
        trained = self.recorder.training_of(head.layer.weight)
        if names[0] is None or trained is None:
            return "the optimizer of the head is not known"
        recorded = settings_of(*trained, head.dropout)
        if recorded is None:
            return f"the optimizer {trained[0]} is not repeated here"
        weight, bias = (first.get(n) if n is not None else None for n in names)
        if weight is None:
            return "the first weights of the head were not kept"
        assert self.recorder.last_train is not None
        size = getattr(self.recorder.last_train[0], "batch_size", None) or 32
        both = [(torch.cat(g.features).numpy(), g.target(len(g.features))) for g in (train, val)]
        return replay_numbers(both[0], both[1], (weight, bias), recorded, size, deadline)

    def _calibrate(self, logits: list[torch.Tensor], targets: list[torch.Tensor]) -> None:
        """How much the validation logits exaggerate."""
        values = calibration(torch.cat(logits).double().cpu().numpy(), torch.cat(targets).cpu().numpy())
        self._numbers("calibration", values if values is not None else "too few labelled validation images")


def _mode_at(walk: Any) -> Mode:
    """The mode of the model in which the program validated."""
    return "train" if walk.mode_rows and max(r[0] for r in walk.mode_rows) > 0.5 else "eval"


def _coloured(walk: Any) -> bool:
    """Whether a pass was given images of three channels."""
    stats = walk.inputs.result()
    return stats is not None and len(stats["mean"]) == 3


def _unchanged(images: torch.Tensor) -> torch.Tensor:
    return images
