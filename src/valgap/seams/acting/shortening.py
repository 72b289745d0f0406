"""Cuts a program short: a few steps of each training loader, a part of each validation, and an end after its first epoch.

Nothing else of the program is changed, and nothing is known of it beforehand: which data it trains on shows when gradients are
computed. A walk ends as if its loader had no more to give. A validation after training is spread evenly over its set, so that it
holds every class that the whole one holds. ``len(loader)`` stays what it is in training: schedules are made by it.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, dataloader

from valgap.seams.acting.epochs import Epochs, StopProgram
from valgap.seams.attaching.stopping import may_end_here
from valgap.seams.looking.described import own_loader
from valgap.seams.recording.recorder import Recorder
from valgap.seams.recording.walk import Walk

# Where the time is short: so many training batches, and so many images of an evaluation, are seen all the same.
LEAST_STEPS, LEAST_IMAGES = 6, 96
# Steps that come once in so many batches (gathered gradients) are waited for so long.
MOST_BATCHES = 4
# Shares of the time: training until then, then validation; what is left is for measurements and the diagnosis.
TRAIN_SHARE, EVALUATION_SHARE, STOP_SHARE, LATEST = 0.3, 0.45, 0.6, 2.0
# The first batches of a walk wait for workers to start, for memory and for kernels to be chosen.
UNTIMED = 2
LEARNING_WORK = 3  # forward and backward, in forward passes


class Plan(NamedTuple):
    """How short: optimizer steps of a training walk, images of an evaluation, seconds beyond the program's own start."""

    steps: int = 32
    images: int = 512
    seconds: float = 60.0
    began: float = 0.0  # ``time.time()`` when its process was started


class _Given:
    """What one iterator has given of its loader."""

    def __init__(self, loader: Any, dataset: int, whole: int, spread: bool) -> None:
        self.loader, self.dataset, self.whole, self.spread = loader, dataset, whole, spread
        self.batches = 0
        self.ending = False  # only its last batch, or what workers have read ahead, is to come
        self.asked: list[float] = []
        self.walk: Walk | None = None  # that it is on
        self.closed: Walk | None = None  # that it was on last
        self.learns = False  # whether that was told


class Shortening:
    """Cuts a program short according to a plan. ``tell`` is given a line on where it is, now and then."""

    def __init__(self, plan: Plan, tell: Callable[[str], None] = lambda text: None) -> None:
        self.plan = plan
        self.reason = ""  # why the program was ended; "" while it was not
        self.start_s = float("nan")
        self._tell = tell
        self._length = Epochs(1)
        self._recorder: Recorder | None = None
        self._undo: list[Callable[[], None]] = []
        self._given: weakref.WeakKeyDictionary[Any, _Given] = weakref.WeakKeyDictionary()
        self._open: list[_Given] = []
        self._learnt: set[int] = set()  # data sets
        self._few: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()  # loader -> samples of it to be drawn
        self._whole: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()  # its batches before that
        self._over_with = False  # the epoch that is wanted has ended
        self._epoch_s = 0.0
        self.next_mode: float | None = None  # training flag of the model in the epoch after it
        self._started = 0.0
        self._ended = 0.0  # when the last walk did
        self._pace = float("nan")  # seconds an image in training
        self._unloaded: Walk | None = None

    # -- in place -----------------------------------------------------------------------------

    def attach(self, recorder: Recorder) -> None:
        """Put it in place; the recorder's hooks come after, so that it sees what is left."""
        self._recorder = recorder
        recorder.used = self._used
        plan = {"steps": self.plan.steps, "images": self.plan.images, "seconds": self.plan.seconds}
        recorder.writer.write("shortened", plan)
        base = dataloader._BaseDataLoaderIter
        self._patch(DataLoader, "__iter__", self._make_iter)
        self._patch(base, "__init__", self._make_init)
        self._patch(base, "__next__", self._make_next)
        self._patch(DataLoader, "_index_sampler", self._make_index)

    def detach(self) -> None:
        """Everything as it was."""
        while self._undo:
            self._undo.pop()()
        if self._recorder is not None:
            self._recorder.used = None

    def finish(self) -> dict[str, Any]:
        """What the record says of the end; called when the program has ended."""
        for one in self._open:
            self._write(one)
        after = time.perf_counter() - self._ended if self._ended else float("nan")
        return {"start_s": self.start_s, "epoch_s": self._epoch_s or after, "next_mode": self.next_mode}

    def _patch(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        original = owner.__dict__[name]
        setattr(owner, name, make(original))
        self._undo.append(lambda: setattr(owner, name, original))

    # -- walks --------------------------------------------------------------------------------

    def _make_iter(self, original: Any) -> Any:
        def __iter__(loader: Any) -> Any:
            self._begins(loader)
            return original(loader)

        return __iter__

    def _make_init(self, original: Any) -> Any:
        def __init__(iterator: Any, loader: Any, *args: Any, **kwargs: Any) -> None:
            own = own_loader(loader)
            if not isinstance(loader, DataLoader):  # other libraries make torch's iterators themselves
                self._begins(own)
            original(iterator, loader, *args, **kwargs)
            self._given[iterator] = self._fresh(own)

        return __init__

    def _make_next(self, original: Any) -> Any:
        def __next__(iterator: Any) -> Any:
            given = self._given_by(iterator)
            if given is not None:
                given.asked.append(time.perf_counter())
                if self._over_with and given.batches >= UNTIMED:
                    self._stop("epoch")  # it was read, and no model trained on it
                if self._is_enough(given) and not given.ending and may_end_here():
                    if given.walk is not None:
                        given.walk.dead = True  # as if its loop were left with break
                    if self._spent() > TRAIN_SHARE or not _skip_to_last(iterator, given):
                        self._over(given)
                        raise StopIteration
                    given.ending = True
            try:
                batch = original(iterator)
            except StopIteration:
                if given is not None:
                    self._over(given)
                raise
            if given is not None:
                given.batches += 1
            return batch

        return __next__

    def _make_index(self, original: Any) -> Any:
        def index(loader: Any) -> Any:
            every = original.fget(loader)
            count = self._few.get(loader)
            if count is None or not isinstance(every, BatchSampler):
                return every
            return BatchSampler(Spread(every.sampler, count), every.batch_size, every.drop_last)

        return property(index)

    def _number(self, loader: Any) -> int:
        assert self._recorder is not None
        return self._recorder.samples.dataset_id(getattr(loader, "dataset", None))

    def _begins(self, loader: Any) -> None:
        """A walk over a loader begins. Raises StopProgram where it is of an epoch that is not wanted."""
        self._notice()
        phase = self._phase(self._number(loader))
        self._stop_at(phase)
        if phase == "validation" and loader not in self._few:
            self._spread(loader)

    def _stop_at(self, phase: str) -> None:
        """The first batch of an epoch that is not wanted is still drawn: it shows in which mode the model trains on."""
        try:
            self._length.begins(phase)
        except StopProgram:
            if self._over_with:
                self._stop("epoch")
            self._over_with = True
            self._epoch_s = time.perf_counter() - self._ended if self._ended else 0.0
        # A first validation is waited for: without one hardly anything can be judged.
        self._stop_when_late(1.0 if phase == "train" else LATEST)

    def _stop(self, reason: str) -> None:
        self.reason = reason
        raise StopProgram(0)

    def _stop_when_late(self, share: float) -> None:
        if self._started and self._spent() > share:
            self._stop("time")

    def _spent(self) -> float:
        """Share of the time that has gone since a model was first called."""
        return (time.perf_counter() - self._started) / self.plan.seconds if self._started else 0.0

    def _phase(self, dataset: int) -> str:
        """By what was seen: data that gradients were computed on are training's, others after these are validation's."""
        if dataset in self._learnt:
            return "train"
        return "validation" if self._learnt else "other"

    def _notice(self) -> None:
        """Which of the open walks have learnt."""
        for one in self._open:
            if one.walk is not None and one.walk.backwards and one.dataset not in self._learnt:
                self._learnt.add(one.dataset)
            if one.walk is not None and one.walk.backwards and not one.learns:
                one.learns = True
                self._length.learns()

    def _fresh(self, loader: Any) -> _Given:
        whole = self._whole.get(loader, -1)
        return _Given(loader, self._number(loader), whole, loader in self._few)

    def _given_by(self, iterator: Any) -> _Given | None:
        """What the iterator has given on the walk that it is on."""
        given = self._given.get(iterator)
        walk = self._recorder.walk_of(iterator) if self._recorder is not None else None
        if given is None or walk is None:
            return given
        if walk is given.closed:
            return given  # asked once more after its end
        if given.walk is not walk:
            if given.walk is not None or given.closed is not None:  # workers that stay begin another walk
                given = self._given[iterator] = self._fresh(given.loader)
            given.walk = walk
            if not given.spread:
                given.whole = walk.length
                walk.expect(self.plan.steps)
            elif given.whole > walk.length:
                walk.dead, walk.length = True, given.whole  # it gives a part, however far it goes
            self._open = [one for one in self._open if one.walk is not None]
            self._open.append(given)
        self._notice()
        return given

    def _is_enough(self, given: _Given) -> bool:
        """Whether the walk has given what is wanted of it; one in which no model is called goes its own way."""
        walk, batches = given.walk, given.batches
        if walk is None or walk.index < 0:
            return False
        spent = self._spent()
        if walk.backwards:
            if self._length.made > 1:
                return batches >= 1  # of later epochs nothing is wanted but their end
            steps = walk.steps or batches
            few = batches >= LEAST_STEPS and spent > TRAIN_SHARE
            most = min(self.plan.steps, given.whole) if given.whole > 0 else self.plan.steps
            self._tell(f"training, batch {batches} of {max(most, batches)}")
            return few or spent > STOP_SHARE or steps >= self.plan.steps or batches >= MOST_BATCHES * self.plan.steps
        images = batches * max(walk.new_sizes, default=1)
        if not self._learnt:
            # Features of all images, to be learnt from later, or a first backward that is to come: cut where it takes too long.
            return spent > TRAIN_SHARE and images >= self.plan.images
        self._tell(f"validation, {images} images")
        late = spent > EVALUATION_SHARE and images >= LEAST_IMAGES
        return late or spent > LATEST or (not given.spread and images >= self.plan.images)

    def _over(self, given: _Given) -> None:
        """A walk has ended."""
        self._notice()
        self._ended = time.perf_counter()
        walk = given.walk
        if walk is not None and walk.backwards and len(given.asked) > UNTIMED + 1:
            size = max(1.0, float(np.mean(walk.new_sizes))) if walk.new_sizes else 1.0
            self._pace = _between(given.asked) / size
        self._write(given)
        self._tell("the end of the epoch")

    def _write(self, given: _Given) -> None:
        walk = given.walk
        if walk is None or walk.index < 0 or self._recorder is None:
            return
        body = {"pass": walk.index, "given": given.batches, "whole": given.whole, "spread": given.spread}
        self._recorder.writer.write("cut", {**body, "batch_s": _between(given.asked)})
        given.walk, given.closed = None, walk

    # -- validation ---------------------------------------------------------------------------

    def _spread(self, loader: Any) -> None:
        """Have a loader draw some of its samples, evenly spread, in its own order."""
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            return
        batches = loader.batch_sampler
        if type(batches) is not BatchSampler:
            return
        try:
            size, whole = len(batches.sampler), len(loader)  # type: ignore[arg-type]
        except TypeError:
            return
        count = self._images()
        if size > count:
            self._whole[loader] = whole
            self._few[loader] = count

    def _images(self) -> int:
        """So many images of an evaluation as the time is good for."""
        left = (EVALUATION_SHARE - self._spent()) * self.plan.seconds
        fitting = LEARNING_WORK * max(left, 0.1 * self.plan.seconds) / self._pace if self._pace > 0 else self.plan.images
        return int(min(self.plan.images, max(LEAST_IMAGES, fitting)))

    # -- batches ------------------------------------------------------------------------------

    def _used(self, walk: Walk, module: Any, grad_enabled: bool) -> None:
        """A model is called on a batch. Raises StopProgram where the time is up, or the epoch over."""
        if not self._started:
            self._started = time.perf_counter()
            self.start_s = max(0.0, time.time() - self.plan.began) if self.plan.began else 0.0
        if walk.loader_id < 0 and walk is not self._unloaded:
            if self._unloaded is not None and self._unloaded.backwards:
                self._length.learns()
                self._learnt.add(-1)
            self._unloaded = walk
            self._stop_at("train" if grad_enabled else "validation")
        if self._over_with and walk.index < 0 and (walk.loader_id < 0 or walk.dataset_id in self._learnt):
            if grad_enabled:  # else it is the frozen part of a model, or training images are scored
                self.next_mode = float(module.training)
            self._stop("epoch")
        self._stop_when_late(1.0 if grad_enabled and self._length.made <= 1 else LATEST)


class Spread:
    """``count`` of a sampler's indices, evenly spread, in its order."""

    def __init__(self, sampler: Any, count: int) -> None:
        self.sampler, self.count = sampler, count

    def __iter__(self) -> Iterator[Any]:
        every = list(self.sampler)
        chosen = np.unique(np.linspace(0, len(every) - 1, min(self.count, len(every))).round().astype(int))
        return iter([every[i] for i in chosen.tolist()])

    def __len__(self) -> int:
        return min(self.count, len(self.sampler))


def _skip_to_last(iterator: Any, given: _Given) -> bool:
    """Leave out all but the last batch, where that is an incomplete one: its size breaks programs as no other does.

    What workers have read ahead comes before it. False where there is no such batch to come.
    """
    loader = given.loader
    batches = getattr(loader, "batch_sampler", None)
    if type(batches) is not BatchSampler or batches.drop_last or isinstance(getattr(loader, "dataset", None), IterableDataset):
        return False
    left = given.whole - given.batches - getattr(iterator, "_tasks_outstanding", 0)
    try:
        incomplete = len(batches.sampler) % batches.batch_size  # type: ignore[arg-type]
    except TypeError:
        return False
    rows = getattr(iterator, "_sampler_iter", None)
    if not incomplete or left < 2 or rows is None:
        return False
    iterator._sampler_iter = iter(deque(islice(rows, left), maxlen=1))
    return True


def _between(asked: list[float]) -> float:
    """Median seconds between the moments, the first ones left out; nan where there are too few."""
    steps = np.diff(asked)
    steps = steps[UNTIMED:] if len(steps) > UNTIMED else steps
    return float(np.median(steps)) if len(steps) else float("nan")
