"""Closing measurements: made in the recorded process after the program has ended, within a time budget.

Its model, data sets and transforms are still alive then, so that no second copy of a stranger's classes is needed.
Nothing is left changed: weights, buffers, modes and random states are put back.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from valgap.allocator import freed_memory_kept
from valgap.record.writer import RecordWriter
from valgap.seams.acting.act import Act
from valgap.seams.acting.model_acts import PlainForward
from valgap.seams.closing.attempts import Attempts
from valgap.seams.closing.batch_mates import batch_mate_numbers
from valgap.seams.closing.feature_measurements import measure_features
from valgap.seams.closing.head import Gathered, Head, augmentation_numbers, fitting_s
from valgap.seams.closing.rescoring import Rescoring
from valgap.seams.closing.source import Source, comes_in_order, own_places, preserved, uncompiled
from valgap.seams.looking import datasets as ds
from valgap.seams.looking.changes import replace_transform, transform_for, without_randomness
from valgap.seams.looking.model_states import state_digest
from valgap.seams.looking.provenance import learn
from valgap.seams.looking.random_states import random_states_kept
from valgap.seams.looking.routes import Route
from valgap.seams.looking.tracked import TrackedModel
from valgap.seams.looking.twins import twin_rows
from valgap.seams.looking.views import View, mode_at, unchanged, validation_views
from valgap.seams.looking.worker_draws import worker_numbers
from valgap.seams.recording.held_images import HeldImages
from valgap.seams.recording.recorder import Recorder

# Files are looked up before all else, since most of what a report shows goes by them.
PROVENANCE_SHARE = 0.2
LEAST_LOOKING_S = 0.1  # what imports took of that is not taken from it: a listed set is looked up in no time
# Shares of the budget: validation first, since most causes are judged by it. They count where not all of it will fit.
VALIDATION_SHARE = 0.4
TRAIN_SHARE = 0.65  # up to here; what is left is for augmented images, the replay and the first weights
AUGMENTED_IMAGES = 512
# Images are read as far as a fifth of the program's own work goes, of training and of validation as many: work is counted in
# images through the model, a training image as three, one that is measured as eight (in several modes and states).
WORK_SHARE = 0.2
WORK_PER_IMAGE = 8
LEAST_IMAGES = 400
LEAST_PREPARED = 96  # of validation, prepared as the weights want them
MOST_TRAIN_IMAGES = 2_000
MOST_VALIDATION_IMAGES = 10_000


class ClosingMeasurements:
    """Runs once, after ``Recorder.finish``; writes its results as events."""

    def __init__(
        self, recorder: Recorder, writer: RecordWriter, budget_s: float, started: float | None = None, planned: int = 0
    ) -> None:
        """``planned``: images of training, and of validation, that are read; 0 for as many as the program's work allows."""
        self.recorder = recorder
        self.writer = writer
        # Importing what is needed counts too.
        self.attempts = Attempts(writer, budget_s, time.perf_counter() if started is None else started)
        self.trained: TrackedModel | None = recorder.last.train[1]["model"] if recorder.last.train else None
        self.model = self.trained if recorder.last.eval is None else judged(self.trained, recorder.last.eval[1])
        if self.model is None and recorder.last.eval is not None and recorder.last.eval[1]["model"].is_shared():
            self.model = recorder.last.eval[1]["model"]  # other processes have trained it
        self.planned = planned or max(LEAST_IMAGES, int(WORK_SHARE * recorder.work / (2 * WORK_PER_IMAGE)))
        self.train_images = min(MOST_TRAIN_IMAGES, self.planned)
        self.validation_images = min(MOST_VALIDATION_IMAGES, self.planned)

    def run(self) -> None:
        """Make what fits into the budget; what does not is written as skipped, with the reason."""
        self.writer.write("closing_begin", {"budget_s": self.attempts.budget_s, "planned": self.planned})
        with torch.no_grad(), np.errstate(all="ignore"), uncompiled(), freed_memory_kept():
            self.attempts.make("weights", self._save_weights, -math.inf)  # all that comes later needs them
            self.attempts.make("provenance", self._learn_provenance)
            self.attempts.make("twins", self._find_twins)
            if self.model is None or self.recorder.last.eval is None:
                self.attempts.skip("rescores", "no trained model with a validation pass was seen")
            else:
                self.model.route = self._route(self.model)
                with preserved(self.model):
                    reason = self._settle(self.model)
                    if reason is not None:
                        self.attempts.skip("rescores", reason)
                    else:
                        self.attempts.make("rescores", self._rescore)
            if self.recorder.last.train is not None and self.recorder.last.train[0] is not None:
                loader = self.recorder.last.train[0]
                self.attempts.numbers("workers", lambda: worker_numbers(loader))
        seconds = round(time.perf_counter() - self.attempts.started, 3)
        self.writer.write("closing_end", {"seconds": seconds, "cut": sorted(set(self.attempts.cut))})

    def _route(self, model: TrackedModel) -> Route | None:
        """How validation came from images to logits; where that was seen of no call of this model, how training did."""
        if model.core is not None:
            return Route([model.core])
        seen = [last[1]["walk"].routes.get(model.id) for last in (self.recorder.last.eval, self.recorder.last.train) if last]
        return next((r for r in seen if r is not None), None)

    def _settle(self, model: TrackedModel) -> str | None:
        """Make sure that the model can be called again; None, or why it cannot."""
        if not model.is_current():
            return "the weights that were trained are not those of the module: the program hands them over at each call"
        if model.embeds:
            return "what the model gives is no score of a class: the program compares images by it"
        if model.route is None:
            return "the model was not seen to be called on images" if len(model.parts) > 1 else None
        assert self.recorder.last.eval is not None
        facts = self.recorder.last.eval[1]
        for root in model.roots():
            root.eval()
        same = facts["model"] is model and facts["state"] == state_digest(*model.snapshot())
        reason = model.route.settle(same)
        if model.route.by_labels:
            self.attempts.numbers("labels_given", lambda: {"labels_given": 1.0})
        return reason

    def rescore_under(self, acts: Sequence[Act]) -> None:
        """Score the last validation data as the program did, then under each act: tables ``own`` and ``under 0``, ...

        All on the weights as they are now, in the program's own mode, so that they compare with each other.
        """
        self.writer.write("closing_begin", {"budget_s": 0.0})
        if self.model is None or self.recorder.last.eval is None:
            self.attempts.skip("own", "no trained model with a validation pass was seen")
            return
        loader, facts = self.recorder.last.eval
        rescoring = Rescoring(self.model, self.attempts)
        self.model.route = self._route(self.model)
        with torch.no_grad(), uncompiled(), preserved(self.model):
            reason = self._settle(self.model)
            if reason is not None:
                self.attempts.skip("own", reason)
                return
            for name, act in [("own", None), *((f"under {i}", act) for i, act in enumerate(acts))]:
                self.attempts.make(name, functools.partial(self._rescore_under, rescoring, name, act, loader, facts))

    def _rescore_under(self, rescoring: Rescoring, name: str, act: Act | None, loader: Any, facts: dict[str, Any]) -> None:
        dataset = loader.dataset if act is None else act.dataset(loader.dataset)
        mode = mode_at(facts["walk"])
        if isinstance(act, PlainForward):
            assert self.model is not None
            if facts["model"] is not self.model or facts["state"] != state_digest(*self.model.snapshot()):
                self.attempts.skip(name, "the finished model holds other weights than at the last validation")
                return
            mode = "eval"
        view = View(name, unchanged if act is None else act.inputs, mode)
        rescoring.score(self._source(loader, dataset, facts), [view], float("inf"))

    def _source(self, loader: Any, dataset: Any, facts: dict[str, Any], most: int = 1 << 60, check_inputs: bool = True) -> Source:
        assert self.model is not None
        places = own_places(self.recorder, facts)
        return Source(self.recorder, self.model, loader, dataset, facts["dataset"], most, check_inputs, places)

    def _rescore_trained(self, loader: Any, facts: dict[str, Any]) -> None:
        """The same validation images by the model that was trained, where a copy of it was validated in its place."""
        assert self.trained is not None
        trained = self.trained
        trained.route = self._route(trained)
        with preserved(trained):
            reason = self._settle(trained)
            if reason is not None:
                self.attempts.skip("val_trained", reason)
                return
            source = self._source(loader, loader.dataset, facts, self.validation_images)
            Rescoring(trained, self.attempts).score(source, [View("val_trained", unchanged)], self.attempts.ending)

    # -- weights and twins --------------------------------------------------------------------

    def _save_weights(self) -> None:
        from safetensors.torch import save_file

        if self.trained is None or (self.writer.name and (self.writer.path / "final.safetensors").exists()):
            return  # nothing was trained, or another process of the program has written its own
        final = {name: t.detach().cpu().contiguous().clone() for name, t, _, _ in self.trained.tensors}
        save_file(final, str(self.writer.path / "final.safetensors"))
        if self.recorder.last.best is not None:
            accuracy, index, state = self.recorder.last.best
            best = {k: v.contiguous() for k, v in state.items()}
            save_file(best, str(self.writer.path / "best.safetensors"), {"pass": str(index), "val": f"{accuracy:.6f}"})

    def _learn_provenance(self) -> None:
        """Which files the samples of the last training and validation are, before anything goes by their names."""
        samples = self.recorder.samples
        done: set[int] = set()
        seen = [last for last in (self.recorder.last.eval, self.recorder.last.train) if last is not None and last[0] is not None]
        for number, (loader, facts) in enumerate(seen, 1):
            dataset = getattr(loader, "dataset", None)
            if facts["dataset"] in done or dataset is None or isinstance(dataset, HeldImages):
                continue
            done.add(facts["dataset"])
            collate = getattr(loader, "collate_fn", None) if getattr(loader, "batch_size", None) is not None else None
            deadline = max(self.attempts.until(PROVENANCE_SHARE * number / len(seen)), time.perf_counter() + LEAST_LOOKING_S)
            with random_states_kept():
                found = learn(samples, dataset, facts["dataset"], collate, deadline)
            if time.perf_counter() > deadline:
                self.attempts.cut.append("provenance")
            self.writer.write("provenance", vars(found))
        for _, facts in seen:
            new = samples.renamed.get(facts["dataset"], {})
            walk = facts["walk"]
            walk.fingerprints = {new.get(i, i): mark for i, mark in walk.fingerprints.items()}

    def _find_twins(self) -> None:
        if self.recorder.last.train is None or self.recorder.last.eval is None:
            return
        train, val = self.recorder.last.train[1]["dataset"], self.recorder.last.eval[1]["dataset"]
        rows = twin_rows(self.recorder.samples, train, val, self.attempts.ending)
        if rows is None:
            self.attempts.skip("twins", "the samples' identities are not known")
            return
        if time.perf_counter() > self.attempts.ending:
            self.attempts.cut.append("twins")
        self.writer.write("twins", {"twins": rows})

    # -- re-scoring ---------------------------------------------------------------------------

    def _rescore(self) -> None:
        assert self.model is not None and self.recorder.last.eval is not None
        model, attempts = self.model, self.attempts
        loader, facts = self.recorder.last.eval
        train_loader, train_walk = (
            (None, None)
            if self.recorder.last.train is None
            else (self.recorder.last.train[0], self.recorder.last.train[1]["walk"])
        )
        head = Head(model)
        rescoring = Rescoring(model, attempts, head)
        deadline = attempts.until(VALIDATION_SHARE)
        views = validation_views(model, loader, facts["walk"], train_loader, train_walk)
        val = self._source(loader, loader.dataset, facts, self.validation_images)
        begun = time.perf_counter()
        found = ds.transform_of(loader.dataset)
        # Training images pass the model plain, and as the program augments them; under the first weights so do all.
        in_training = min(self.train_images, max(0, ds.safe_len(getattr(train_loader, "dataset", None))))
        after = in_training * (found is not None) + (in_training + len(val.order)) * bool(head.first_features())
        of_val = rescoring.gather(val, views, deadline, in_training + after)
        one_walk = (time.perf_counter() - begun) / len(views)
        if self.trained is not None and self.trained is not model:
            attempts.make("val_trained", functools.partial(self._rescore_trained, loader, facts), one_walk)
        attempts.numbers("batch_mates", lambda: batch_mate_numbers(model, of_val.images, mode_at(facts["walk"])))
        if found is not None and any(s.random for s in found.steps):
            fixed = functools.partial(self._fixed_validation, rescoring, loader, facts, found, deadline)
            attempts.make("val_fixed", fixed, (1 - VALIDATION_SHARE) * attempts.budget_s)
        self._rescore_training(rescoring, head, found, of_val, after)
        if found is not None:
            prepared = functools.partial(self._as_weights_expect, rescoring, loader, facts, found)
            attempts.make("val_weights", prepared, one_walk)

    def _rescore_training(
        self, rescoring: Rescoring, head: Head, found: ds.FoundTransform | None, of_val: Gathered, after: int
    ) -> None:
        """Training images through the validation transform, and what is learnt from them; ``found`` is that transform.

        ``after``: images that pass the model after that.
        """
        assert self.recorder.last.eval is not None
        attempts = self.attempts
        if self.recorder.last.train is None:
            attempts.skip("train_eval", "training ran in another process")
            return
        loader = self.recorder.last.eval[0]
        train_loader, train_facts = self.recorder.last.train
        if train_loader is None:
            attempts.skip("train_eval", "no loader gave the training images, and they are too many to be held")
            return
        if train_facts["walk"].inputs.result() is not None and self.recorder.last.eval[1]["walk"].inputs.result() is None:
            attempts.skip("train_eval", "training gave the model images, validation features that were made of its images once")
            return
        as_read = functools.partial(self._probe, rescoring, head, "train_augmented", train_loader, train_loader.dataset, of_val)
        if isinstance(train_loader.dataset, HeldImages) and train_loader.dataset.changes:
            plain = train_loader.dataset.unchanged(self.recorder.samples, train_facts["dataset"])
            if plain is None:
                attempts.skip("train_eval", "the program changes its training images, and how they are unchanged is not seen")
                as_read(after)
                return
            of_train = self._probe(rescoring, head, "train_eval", train_loader, plain, of_val, after)
            if of_train is not None:
                self._make_augmented(rescoring, of_train)
            return
        dataset = replace_transform(train_loader.dataset, found.transform) if found is not None else None
        if dataset is None:
            dataset = train_loader.dataset
            own = ds.transform_of(dataset)
            if own is not None and any(s.random for s in own.steps):
                attempts.skip("train_eval", "the validation transform could not be put on the training data set")
                as_read(after)
                return
        if comes_in_order(train_loader):
            loader, dataset = train_loader, train_loader.dataset  # only its own loader reads it
        elif comes_in_order(loader):
            attempts.skip("train_eval", "the validation loader makes its batches in its own way, and of its own data set alone")
            as_read(after)
            return
        of_train = self._probe(rescoring, head, "train_eval", loader, dataset, of_val, after)
        if of_train is None:
            return
        if not of_train.features and comes_in_order(train_loader):
            # It changes its images at random; about as bright and as varied as in training, they are what training learns from.
            self._probe(rescoring, head, "train_augmented", train_loader, dataset, of_val, after, alike=True)
            return
        if dataset is not train_loader.dataset:
            self._make_augmented(rescoring, of_train)

    def _probe(
        self,
        rescoring: Rescoring,
        head: Head,
        name: str,
        loader: Any,
        dataset: Any,
        of_val: Gathered,
        after: int,
        alike: bool = False,
    ) -> Gathered | None:
        """Training images of a data set, as ``loader`` makes batches of them, scored under that name; and probes on them.

        ``alike``: they need not be the very tensors that the model was given. None where the time is over.
        """
        assert self.recorder.last.train is not None
        attempts = self.attempts
        train_loader, train_facts = self.recorder.last.train
        train = self._source(loader, dataset, train_facts, self.train_images)
        train.only_alike = alike
        whole = "val_eval" not in attempts.cut  # validation that took longer was let to, since all will fit
        if time.perf_counter() > (attempts.ending if whole else attempts.until(TRAIN_SHARE)):
            attempts.out_of_time(name)
            return None
        views = [View(name, unchanged)]
        if rescoring.model.dropouts and name == "train_eval":
            views.append(View("train_dropout", unchanged, "dropout", AUGMENTED_IMAGES))
        of_train = rescoring.gather(train, views, attempts.until(TRAIN_SHARE), after)
        batch_size = getattr(train_loader, "batch_size", None) or 32
        measure_features(of_train, of_val, head, attempts, self.recorder.passes.steps.training_of, batch_size)
        return of_train

    def _make_augmented(self, rescoring: Rescoring, plain: Gathered) -> None:
        assert self.recorder.last.train is not None
        loader, facts = self.recorder.last.train
        self.attempts.make("train_augmented", lambda: self._augmented(rescoring, loader, facts, plain))

    def _augmented(self, rescoring: Rescoring, loader: Any, facts: dict[str, Any], plain: Gathered) -> None:
        """Training images as the script reads them, in eval mode: what augmentation alone does to the model's answers."""
        source = self._source(loader, loader.dataset, facts, min(AUGMENTED_IMAGES, self.train_images), check_inputs=False)
        if time.perf_counter() > self.attempts.ending:
            self.attempts.out_of_time("train_augmented")
            return
        augmented = rescoring.gather(source, [View("train_augmented", unchanged)], self.attempts.ending)
        self.attempts.numbers("augmentation", lambda: augmentation_numbers(plain, augmented), fitting_s(plain, 2))

    def _as_weights_expect(self, rescoring: Rescoring, loader: Any, facts: dict[str, Any], found: ds.FoundTransform) -> None:
        """Validation images prepared from the file on as the published weights want them."""
        skip = functools.partial(self.attempts.skip, "val_weights")
        expected = rescoring.model.expected()
        if expected is None or expected.size is None:
            skip("what the weights expect is not known")
            return
        transform = transform_for(expected.size, expected.crop_share, expected.interpolation, expected.mean, expected.std)
        dataset = replace_transform(loader.dataset, transform)
        if dataset is None:
            skip("the validation transform could not be exchanged")
            return
        prepared = ds.transform_of(dataset)
        if prepared is not None and [s.text for s in prepared.steps] == [s.text for s in found.steps]:
            skip("the program's own validation transform is the weights' own")
            return
        # Larger images take longer by their area.
        own = facts["walk"].inputs.result()
        area = float(np.prod(own["shape"][-2:])) if own is not None else float("inf")
        wanted = self.validation_images * min(1.0, area / float(np.prod(expected.size[-2:])))
        source = self._source(loader, dataset, facts, min(self.validation_images, max(LEAST_PREPARED, int(wanted))))
        rescoring.score(source, [View("val_weights", unchanged)], self.attempts.ending)

    def _fixed_validation(
        self, rescoring: Rescoring, loader: Any, facts: dict[str, Any], found: ds.FoundTransform, deadline: float
    ) -> None:
        fixed = without_randomness(found.transform)
        dataset = replace_transform(loader.dataset, fixed) if fixed is not None else None
        if dataset is None:
            self.attempts.skip("val_fixed", "the random steps of the validation transform could not be taken out")
            return
        source = self._source(loader, dataset, facts, self.validation_images)
        rescoring.score(source, [View("val_fixed", unchanged)], deadline)


def judged(trained: TrackedModel | None, last_eval: dict[str, Any]) -> TrackedModel | None:
    """The model that the last validation tells of: the trained one, or where only that was validated, a copy of it (averaged,
    loaded) with other values."""
    copy: TrackedModel = last_eval["model"]
    if trained is None or copy is trained or not trained.is_alike(copy) or not copy.is_current():
        return trained
    return trained if state_digest(*trained.snapshot()) == state_digest(*copy.snapshot()) else copy
