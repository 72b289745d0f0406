"""Puts interventions, a seed and a length into a program that is being re-run.

Everything that depends on the phase goes by the data set whose batch was handed out last: the record of the first run
says which data sets it trained on and which it validated on, and data sets are numbered alike in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, dataloader
from torch.utils.data._utils import fetch as fetching

from valgap.seams.acting.act import Act
from valgap.seams.acting.acting_steps import ActingSteps
from valgap.seams.acting.decoded import DecodedFiles
from valgap.seams.acting.drawn_positions import DrawnPositions, next_positions
from valgap.seams.acting.epochs import Epochs
from valgap.seams.acting.feature_replay import FeatureReplay
from valgap.seams.acting.loader_acts import Chosen, ChosenOfBatches
from valgap.seams.acting.schedule_acts import attach_schedules
from valgap.seams.acting.seeds import Seeds
from valgap.seams.acting.shared_batches import SharedBatches
from valgap.seams.looking import datasets as ds
from valgap.seams.looking.batches import exchanged, find_images
from valgap.seams.looking.described import own_loader
from valgap.seams.recording.recorder import Recorder

NO_LOADER = frozenset({-1})  # the data sets of a phase whose images no loader gives


class Acting:
    """Interventions, a seed and a length for one re-run of a program.

    Args:
        acts: the interventions, in the order in which they act.
        train: ids of the data sets that the recorded run trained on (numbered as they are first iterated).
        validation: ids of those it validated on.
        seed: 0 leaves the program's random numbers alone; k > 0 moves all that is drawn after the first loader starts.
        epochs: training passes after which the program is ended; 0 for all.
        fraction: share of the training samples that is drawn, 0..1, the same ones in every arm.
        replay: features of frozen parts that arms share; None: every arm computes its own.
        decoded: what was decoded of files, which arms share as well; None: every arm decodes for itself.
        batches: batches that arms draw alike; None: every arm loads its own.
        at_first_loader: called once, before the first loader begins; the arm may be another one afterwards (``become``).
    """

    def __init__(
        self,
        acts: Sequence[Act],
        train: Collection[int],
        validation: Collection[int],
        seed: int = 0,
        epochs: int = 0,
        fraction: float = 1.0,
        replay: FeatureReplay | None = None,
        at_first_loader: Callable[[], None] | None = None,
        decoded: DecodedFiles | None = None,
        batches: SharedBatches | None = None,
        answers_only: bool = False,
    ) -> None:
        self.acts = list(acts)
        self.replay, self.decoded, self.batches = replay, decoded, batches
        self.train, self.validation = frozenset(train), frozenset(validation)
        self.seeds, self.fraction = Seeds(seed), fraction
        self._at_first_loader = at_first_loader
        self._answers_only = answers_only
        self._recorder: Recorder | None = None
        self.early: set[str] = set()  # what an intervention might have acted on before that
        self.number: Callable[[Any], int] = lambda dataset: -1  # the recorder's
        self._replaced: Callable[[Any, Any], None] = lambda old, new: None
        self._undo: list[Callable[[], None]] = []
        self._dataset = -1  # that of the batch handed out last
        self._length = Epochs(epochs)
        self._turned = ""  # the phase of a program without loaders
        self._inside = 0  # how many of the changes stand inside the recorder's hooks
        self._depth = 0
        self._begun = False  # a program without loaders: whether a model was called
        self._steps = ActingSteps(self)
        self.model: nn.Module | None = None
        self._subsets: dict[tuple[int, int], frozenset[int]] = {}
        self._drawn = DrawnPositions()

    def become(self, acts: Sequence[Act], seed: int, epochs: int, fraction: float, answers_only: bool = False) -> None:
        """Be another arm from now on, of a program that has not drawn from a loader yet."""
        self.acts, self._answers_only = list(acts), answers_only
        if self._recorder is not None:
            self._recorder.passes.keeps_images = not answers_only
        self.seeds.number, self.fraction = seed, fraction
        self._length.most = epochs
        self._alias()

    def acted(self) -> list[int]:
        """How often each intervention acted."""
        return [a.acted for a in self.acts]

    def replayed(self) -> int:
        """How many model calls had their frozen part replayed."""
        return self.replay.replayed if self.replay is not None else 0

    def phase(self, dataset: int | None = None, grad: bool | None = None) -> str:
        """The phase by the data set; where one serves both, by whether gradients are recorded."""
        which = self._dataset if dataset is None else dataset
        grad = torch.is_grad_enabled() if grad is None else grad
        if which in self.train and which in self.validation:
            return "train" if grad else "validation"
        if which in self.validation:
            return "validation"
        return "train" if which in self.train else "other"

    def now(self, phase: str | None = None) -> list[Act]:
        """What acts in this phase; None: in the one of the batch handed out last."""
        phase = self.phase() if phase is None else phase
        return [a for a in self.acts if a.wants(phase)]

    def attach(self, recorder: Recorder) -> None:
        """Put the interventions in place; the recorder's hooks come after, so that it sees what they did."""
        self._recorder, recorder.passes.keeps_images = recorder, not self._answers_only
        self.number = recorder.samples.dataset_id
        self._replaced = recorder.samples.datasets.alias
        self._alias()
        self._attach_loader()
        self._patch(nn.Module, "__call__", self._make_call)
        self._patch(nn.Module, "load_state_dict", self._make_load)
        self._steps.attach(self._patch, self._undo)
        attach_schedules(self._patch, self.now, self.note)
        if self.seeds.number or self._at_first_loader is not None:
            self.seeds.attach(self._patch)

    def _alias(self) -> None:
        for act in self.acts:
            act.replaced = self._replaced

    def attach_outside(self) -> None:
        """What must stand outside the recorder's hooks: it comes before them on the way in, after them on the way out."""
        self._inside = len(self._undo)
        self._patch(functional, "cross_entropy", self._make_loss)
        self._steps.attach_outside(self._patch, self._undo)

    def detach_outside(self) -> None:
        """Take off what stands outside the recorder's hooks."""
        while len(self._undo) > self._inside:
            self._undo.pop()()

    def detach(self) -> None:
        """Everything as it was."""
        if self.decoded is not None:
            self.decoded.detach()
        while self._undo:
            self._undo.pop()()

    def _patch(self, owner: Any, name: str, make_one: Callable[[Any], Any]) -> None:
        original = owner.__dict__[name]
        setattr(owner, name, make_one(original))
        self._undo.append(lambda: setattr(owner, name, original))

    # -- loader -------------------------------------------------------------------------------

    def _attach_loader(self) -> None:
        acting = self

        def make_iter(original: Any) -> Any:
            def __iter__(loader: Any) -> Any:
                loader.__dict__["_valgap_dataset"] = acting._iterating(loader)
                return original(loader)

            return __iter__

        def make_next(original: Any) -> Any:
            def __next__(iterator: Any) -> Any:
                batch = original(iterator)
                acting._dataset = iterator.__dict__.get("_valgap_dataset", acting._dataset)
                acting._handed_out(iterator)
                acts = acting.now()
                wanted = any(act.by_position for act in acts)
                positions = next_positions(iterator) if wanted else None
                for act in acts:
                    act.drawn = (acting._dataset, positions) if positions is not None else None
                    batch = act.batch(batch)
                if wanted and positions is not None:
                    acting._drawn.handed_out(iterator, acting._dataset, positions, batch)
                return batch

            return __next__

        def make_init(original: Any) -> Any:
            def __init__(iterator: Any, loader: Any, *args: Any, **kwargs: Any) -> None:
                # Other libraries' loaders make torch's iterators themselves, out of a stand-in; so do subclasses.
                own = loader if isinstance(loader, DataLoader) else own_loader(loader)
                number = loader.__dict__.get("_valgap_dataset") if own is loader else None
                iterator.__dict__["_valgap_dataset"] = acting._iterating(own) if number is None else number
                iterator.__dict__["_valgap_handed"] = [0, ds.length_of(loader), loader]
                original(iterator, loader, *args, **kwargs)

            return __init__

        def make_index(original: Any) -> Any:
            return property(lambda loader: acting._index_sampler(loader, original.fget(loader)))

        self._patch(DataLoader, "__iter__", make_iter)
        self._patch(dataloader._BaseDataLoaderIter, "__next__", make_next)
        self._patch(dataloader._BaseDataLoaderIter, "__init__", make_init)
        self._patch(DataLoader, "_index_sampler", make_index)
        if self.batches is not None:
            self._patch(fetching._MapDatasetFetcher, "fetch", self.batches.make_fetch)

    def _iterating(self, loader: Any) -> int:
        """A walk over a loader begins; returns the number of its data set. Raises StopProgram."""
        if self.decoded is not None:
            self.decoded.attach()  # where the program has Pillow by now
        self._wait()
        if self.decoded is not None:
            self.decoded.tell()
        dataset = self.number(getattr(loader, "dataset", None))
        self.seeds.begin(loader)
        self._walks(loader, self.phase(dataset))
        return dataset

    def _handed_out(self, iterator: Any) -> None:
        """A batch of this iterator; one that goes on beyond its loader's length is on another walk. Raises StopProgram."""
        walk = iterator.__dict__.get("_valgap_handed")
        if walk is None:
            return
        walk[0] += 1
        if 0 < walk[1] < walk[0]:
            walk[0] = 1
            self._walks(walk[2], self.phase())

    def _walks(self, loader: Any, phase: str) -> None:
        self._length.begins(phase)
        for act in self.now(phase):
            act.training = phase == "train"
            act.iterating(loader)

    def _index_sampler(self, loader: Any, original: Any) -> Any:
        dataset = loader.__dict__.get("_valgap_dataset")
        if dataset is None:  # its length is asked before it is first iterated
            dataset = self.number(loader.dataset)
        phase = self.phase(dataset)
        own_batches = loader.batch_sampler is original and not isinstance(original, BatchSampler)
        if own_batches and loader.batch_size is not None:
            return original  # put there afterwards, such as one that never ends: its length is the program's
        base = original.sampler if isinstance(original, BatchSampler) else original
        chosen = base
        for act in self.now(phase):
            chosen = act.sampler(chosen, loader)
        if phase == "train" and self.fraction < 1.0:
            kept = self._subset(dataset, ds.safe_len(loader.dataset))
            chosen = (ChosenOfBatches if own_batches else Chosen)(chosen, kept.__contains__)
        if chosen is base:
            return original
        if isinstance(original, BatchSampler):
            return BatchSampler(chosen, original.batch_size, original.drop_last)
        return chosen

    def _subset(self, dataset: int, size: int) -> frozenset[int]:
        key = (dataset, size)
        if key not in self._subsets:
            order = np.random.default_rng(0).permutation(size)
            self._subsets[key] = frozenset(order[: max(1, round(self.fraction * size))].tolist())
        return self._subsets[key]

    # -- model --------------------------------------------------------------------------------

    def _make_call(self, original: Any) -> Any:
        acting = self

        def __call__(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if acting._depth:
                if acting.replay is not None:
                    return acting.replay.inner(module, args, kwargs, original)
                return original(module, *args, **kwargs)
            images = find_images((args, kwargs))
            trains = next(module.parameters(), None) is not None
            if images is None or images.ndim < 4 or not trains:
                output = original(module, *args, **kwargs)
                for act in acting.now() if trains else ():
                    act.returned(output, False)
                return output
            acting._begin_without_loader()
            acting.note("called")
            acting._turn()
            acts = acting.now()
            for act in acts:
                module = act.instead(module)
            acting.model = module
            changed = images
            drawn = acting._drawn.of(images) if any(act.by_position for act in acts) else None
            training = acting.phase() == "train"
            for act in acts:
                act.drawn, act.training = drawn, training
                act.before_call(module)
                changed = act.inputs(changed)
            if changed is not images:
                args, kwargs = exchanged((args, kwargs), images, changed)
            restore: list[tuple[nn.Module, bool]] = []
            for act in acts:
                for part, mode in act.modes(module):
                    restore.append((part, part.training))
                    part.training = mode
                    act.acted += 1
            acting._depth += 1
            try:
                if acting.replay is not None:
                    output = acting.replay.call(module, args, kwargs, changed, original)
                else:
                    output = original(module, *args, **kwargs)
            finally:
                acting._depth -= 1
                for part, mode in reversed(restore):
                    part.training = mode
            for act in acts:
                act.returned(output, True)
            return output

        return __call__

    def _wait(self) -> None:
        """Where arms are forked: the first time only."""
        if self._at_first_loader is not None:
            wait, self._at_first_loader = self._at_first_loader, None
            wait()

    @property
    def _no_loader(self) -> bool:
        return NO_LOADER == self.train == self.validation

    def _begin_without_loader(self) -> None:
        """A program without loaders calls a model; with the first call begins what begins with the first loader of others."""
        if self._no_loader and not self._begun:
            self._begun = True
            self._wait()
            self.seeds.begin(None)

    def _turn(self) -> None:
        """A program without loaders calls a model: its passes begin where it turns from training to evaluating, or back."""
        if not self._no_loader or self.phase() == self._turned:
            return
        self._turned = self.phase()
        self._length.begins(self._turned)
        for act in self.now():
            act.turning()

    def note(self, what: str) -> None:
        """An intervention might have acted on this before the first loader."""
        if self._at_first_loader is not None:
            self.early.add(what)

    def _make_load(self, original: Any) -> Any:
        acting = self

        def load_state_dict(module: nn.Module, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
            acting.note("loading")
            for act in acting.acts:
                state_dict = act.loading(module, state_dict)
            return original(module, state_dict, *args, **kwargs)

        return load_state_dict

    def _make_loss(self, original: Any) -> Any:
        acting = self

        def cross_entropy(input: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            for act in acting.now():
                input = act.loss_input(input)
            return original(input, *args, **kwargs)

        return cross_entropy

    def learns(self) -> None:
        """Gradients are computed."""
        if self.phase() == "train":
            self._length.learns()
