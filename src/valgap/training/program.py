"""`valgap train`: frozen features in one pass, a probe, then the last stage or all layers from there. Read it top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, RandomSampler

from valgap.allocator import freed_memory_kept
from valgap.data import ImageTable, load_folder, load_test
from valgap.engine import Rows
from valgap.engine.decoded import reduced
from valgap.errors import ConfigError, DataError, RecordError
from valgap.models import LoadedModel, create_model
from valgap.recipe import RECIPE, Recipe
from valgap.training.checkpoint import WEIGHTS, facts_of
from valgap.training.choice import AUTO, choose
from valgap.training.convolutions import quicken_convolutions
from valgap.training.decide import Decision, adjustment, flip_keeps_class, held_out_temperature, what_learns
from valgap.training.fit import EpochRow, Fit, FitResult, Watch, logits_of, logits_of_rows
from valgap.training.forecast import forecast, not_cached, planned
from valgap.training.images import SCORED_AT_ONCE, ImageDataset, StoredDataset, usual_workers
from valgap.training.in_time import keep_what_fits
from valgap.training.known import MOST, Known, given_to, known_of
from valgap.training.loggers import Loggers, check_names
from valgap.training.probe import Probe, fit_probe
from valgap.training.ranks import ALONE, Ranks, SharedBatches, joined
from valgap.training.result import STATE, SUMMARY, TrainResult, keep_result
from valgap.training.saved import FitStore
from valgap.training.scores import Scores, fit_temperature, score
from valgap.training.screen import bar, say
from valgap.training.settings import Settings
from valgap.training.sight import Sight
from valgap.training.stages import LAST, Tail, add_dropout, cut_for, freeze_all_but, hold_batchnorm, usual_epochs
from valgap.training.summary import show_summary

Made = TypeVar("Made")
DECISION = "decision.json"


def train(
    data: Path | None,
    out: Path,
    *,
    backbone: str = "resnet50",
    weights: str = "default",
    recipe: Recipe = RECIPE,
    size: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    time_limit_s: float | None = None,
    test: Path | None = None,
    resume: bool = False,
    log: Sequence[str] = (),
    console: Console | None = None,
    aside: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> TrainResult:
    """Train a classifier on the images below ``data`` and keep the best weights in ``out``.

    Under ``torchrun`` its processes train one model together, each with a part of every batch: the same batches, the same
    images in them, the same learning rate as alone.

    Args:
        data: folder with train/ and val/, or with class folders alone (then split); None when resuming.
        out: run directory; must hold no checkpoint yet.
        backbone: any timm or torchvision name, ``efficientnet_lite0`` (bundled), or ``auto``: the best, by probes on training
            images, of those whose weights are on this machine.
        weights: ``default``, ``none`` or a file.
        recipe: the settings; see `valgap.recipe`.
        size: image side in pixels; None: what the weights expect.
        workers: processes that read images where all layers are trained; None: as many as pay.
        time_limit_s: give the best that can be had in so many seconds.
        test: a folder of class folders that is scored once, at the end.
        resume: go on with the training that was begun in ``out``, with its settings.
        log: experiment loggers that get the curve as well: tensorboard, mlflow, wandb.
        aside: entered for what is no part of the training itself (features, trials), so that a recorder may look away.

    Raises:
        DataError: the folder cannot be used.
        WeightsError: the weights cannot be had.
        RecordError: ``out`` already holds a checkpoint, or nothing to resume.
        ConfigError: ``log`` names no logger, or one whose package is not installed.
    """
    check_names(log)
    started = time.monotonic()
    with freed_memory_kept(), joined() as ranks:
        screen = console if console is not None and ranks.first else Console(quiet=True)
        asked = Settings(data, backbone, weights, recipe, size, seed, workers, test) if data is not None else None
        settings = ranks.same(lambda: _begin(out, asked, resume))
        table = load_folder(settings.data, settings.seed, lambda files: bar(files, "reading images", screen))
        held_back = load_test(settings.test, table) if settings.test is not None else None
        for line in table.report.lines():
            say(line, screen)
        limit = started + time_limit_s if time_limit_s is not None else math.inf
        if settings.backbone == AUTO:
            with aside():
                settings = ranks.same(lambda: choose(settings, table, limit, screen))
        torch.manual_seed(settings.seed)
        loaded = create_model(settings.backbone, len(table.classes), settings.weights, lambda text: say(text, screen))
        if loaded.weights is not None:
            say(loaded.weights.line(), screen)
        if not resume and ranks.first:
            settings.keep(out)
        loggers = Loggers(log if ranks.first else (), out)
        try:
            told: dict[str, Any] = {
                "data": str(settings.data),
                "backbone": settings.backbone,
                "weights": settings.weights,
                "seed": settings.seed,
            }
            loggers.settings({**settings.recipe.model_dump(), **told})
            program = _Program(table, loaded, settings, out, limit, screen, aside, loggers, ranks)
            result = program.run(started, held_back)
            ranks.same(lambda: program.finish(result, settings.backbone))
            loggers.final({"train": result.train, "val": result.val, "test": result.test})
        finally:
            loggers.close()
    return result


def _begin(out: Path, asked: Settings | None, resume: bool) -> Settings:
    """The settings of this training, or of the one that is resumed; refused where it would overwrite something."""
    cut_off = resume and not (out / SUMMARY).exists()  # killed between the checkpoint and the summary
    if (out / WEIGHTS).exists() and not cut_off:
        raise RecordError(f"{out} already holds a checkpoint: choose another --out, nothing is overwritten")
    if resume:
        return Settings.read(out)
    if asked is None:
        raise DataError("no folder of images given: valgap train PHOTOS/")
    return asked


class _Program:
    """The state of one training."""

    def __init__(
        self,
        table: ImageTable,
        loaded: LoadedModel,
        settings: Settings,
        out: Path,
        limit: float,
        screen: Console,
        aside: Callable[[], AbstractContextManager[None]],
        loggers: Loggers,
        ranks: Ranks,
    ) -> None:
        self.loggers, self.ranks = loggers, ranks
        recipe = settings.recipe
        self.table, self.preprocessing, self.recipe, self.out = (
            table,
            loaded.preprocessing.at(settings.size, settings.crop),
            recipe,
            out,
        )
        self.seed, self.limit, self.screen, self.aside = settings.seed, limit, screen, aside
        self.device = ranks.device()
        self.workers = settings.workers if settings.workers is not None else usual_workers(self.device, ranks)
        self.model, self.head = loaded.model.to(self.device), loaded.head
        self.train_paths, self.train_labels = table.part(val=False)
        self.val_paths, self.val_labels = table.part(val=True)
        self.num_classes = len(table.classes)
        self.watch = Watch(limit, self.bar, self.show_row, self.say, aside)
        self.probe: Probe | None = None
        self.seeing_s = 0.0  # what the features of train took
        # Without a probe there is nothing that a trial could be compared with: the head learns.
        learns = "head" if recipe.unfreeze == "auto" and recipe.start != "probe" else recipe.unfreeze
        self.decision = Decision(learns, recipe.flip is not False, np.zeros(self.num_classes), [])
        self.vetoed = False  # whether val put the probe back
        self.known: Known | None = None  # what training images show
        known = self.decided()
        unfreeze = known.unfreeze if known is not None and known.unfreeze in LAST else learns
        with aside():
            once = len(self.train_paths) + len(self.val_paths)
            rows = once + len(self.train_paths)  # train also mirrored
            self.cut = cut_for(unfreeze, self.model, self.head, self.preprocessing.size, rows)
        if unfreeze in LAST and self.cut is None:
            raise ConfigError(f"this network cannot be cut for --unfreeze {unfreeze}: choose head or all")
        images = rows if self.cut is not None else once
        self.sight = Sight(self.model, self.head, self.cut, self.preprocessing, screen, images)

    def run(self, started: float, test: tuple[list[Path], npt.NDArray[np.int64]] | None) -> TrainResult:
        """Features, probe, decision, fit, scores."""
        freeze_all_but(self.model, self.head)
        self.model.eval()
        with self.aside():
            self.say(self.by_first(lambda: forecast(self, planned(self), not_cached(self))).line())
        if self.recipe.start == "probe":
            with self.aside():
                self.begin_with_probe()
        fitted = self.fit()
        with self.aside():
            if fitted.refused:
                self.keep_probe(fitted.refused)
            self.adjust_head()
            val_logits = fitted.val_logits + self.decision.bias
            temperature = self.temperature(val_logits)
            with given_to(self.head, self.remembered()) as shown:
                train_logits = self.logits(self.train_paths, self.train_labels, "train, re-scored")
            self.known = known_of(np.concatenate(shown)) if shown else None
            tested = None
            if test is not None:
                tested = score(self.logits(*test, "test") / temperature, test[1], self.num_classes)
        return TrainResult(
            run=self.out,
            unfrozen=self.decision.unfreeze,
            chosen=fitted.chosen,
            val=score(val_logits / temperature, self.val_labels, self.num_classes),
            train=score(train_logits / temperature, self.train_labels, self.num_classes),
            test=tested,
            probe=self.probe_on_val(),
            temperature=temperature,
            uncalibrated=score(val_logits, self.val_labels, self.num_classes),
            val_chose=self.val_chose(),
            epochs=tuple(fitted.rows),
            probe_train_accuracy=self.probe.train_accuracy if self.probe is not None else float("nan"),
            ended=fitted.ended or self.decision.ended,
            seconds=time.monotonic() - started,
        )

    # -- features, probe, decision ------------------------------------------------------------

    def begin_with_probe(self) -> None:
        """Features in one pass, the probe's weights into the head, and what is to learn."""
        started = time.monotonic()
        keep_what_fits(self)
        features, self.train_rows = self.see(self.train_paths, "features of train")
        self.seeing_s = time.monotonic() - started
        self.val_features, self.val_rows = self.see(self.val_paths, "features of val")
        self.probe = self.by_first(lambda: fit_probe(features, self.train_labels, self.num_classes, self.recipe, self.seed))
        self.put_head(self.probe.weight, self.probe.bias)
        self.say(f"probe: {self.probe.train_accuracy:.1%} on held-out parts of train, at inverse L2 {self.probe.inverse_l2:g}")
        self.decision = self.by_first(lambda: self.decided() or self.decide(features))
        for line in self.decision.reasons:
            self.say(line)
        if self.decision.backbone_rate is not None:
            self.recipe = self.recipe.model_copy(update={"backbone_rate": self.decision.backbone_rate})

    def by_first(self, make: Callable[[], Made]) -> Made:
        """What the first process makes while the others wait for it; whatever it calls is meant for one process alone."""
        ranks, self.ranks = self.ranks, ALONE
        try:
            return ranks.same(make)
        finally:
            self.ranks = ranks

    def see(self, paths: list[Path], what: str, view: Any = "plain") -> tuple[npt.NDArray[np.float32], Rows | None]:
        """(features, activations before the last stage where the network is cut) of images, by all processes of the host."""
        return self.sight.see(paths, what, view, self.ranks)

    def put_head(self, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> None:
        """Put a linear classifier into the head."""
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weight))  # type: ignore[operator]
            self.head.bias.copy_(torch.from_numpy(bias))  # type: ignore[operator]

    def decided(self) -> Decision | None:
        """What the run that is resumed had decided."""
        file = self.out / STATE / DECISION
        return Decision.read(file) if file.exists() else None

    def decide(self, features: npt.NDArray[np.float32]) -> Decision:
        """What learns, whether images are flipped, and how classes are weighed: all by train alone."""
        assert self.probe is not None
        reasons: list[str] = []
        bias = adjustment(self.probe, self.train_labels, self.num_classes, self.recipe.imbalance, reasons)
        flip = bool(self.recipe.flip)
        if self.recipe.unfreeze != "head" and self.recipe.flip is None and self.recipe.augment != "none":
            flip = flip_keeps_class(self, features, reasons)
        decision = self.decision = Decision(self.recipe.unfreeze, flip, bias, reasons)
        what_learns(self, features, decision)
        if decision.unfreeze == "head" and self.recipe.select == "held_out":
            decision.temperature = held_out_temperature(self.probe, self.train_labels, bias)
        decision.write(self.out / STATE / DECISION)
        return decision

    # -- fit ----------------------------------------------------------------------------------

    def fit(self) -> FitResult:
        """Train what learns; with the head alone the probe is already the optimum, and is only validated."""
        unfreeze = self.decision.unfreeze
        add_dropout(self.head, self.recipe.dropout)
        if unfreeze == "head" and self.probe is not None:
            freeze_all_but(self.model, self.head)
            features = self.stored_val(features=True)
            return self.loop(self.head, self.loader(features, True, 0), self.loader(features, False, 0), 0)
        stored = self.from_stored(unfreeze)
        module = self.learner(unfreeze)
        with self.aside():
            views = self.train_views() if stored else []
        learn = self.learn_loader(np.arange(len(self.train_labels)), views)
        val: Any = self.stored_val(features=False) if stored else self.images(self.val_paths, self.val_labels)
        epochs = usual_epochs(self.recipe, unfreeze, len(self.train_labels))
        return self.loop(module, learn, self.loader(val, False, 0 if stored else self.workers), epochs)

    def from_stored(self, unfreeze: str) -> bool:
        """Whether that learns from stored activations, and not from images."""
        return unfreeze in LAST and self.probe is not None and self.train_rows is not None

    def learner(self, unfreeze: str) -> nn.Module:
        """What images, or stored activations, go through in training, with gradients for what learns alone."""
        if self.from_stored(unfreeze):
            tail = self.tail()
            freeze_all_but(self.model, tail)
            return tail
        if unfreeze == "all":
            self.model.requires_grad_(True)
        elif unfreeze in LAST and self.cut is not None:
            freeze_all_but(self.model, self.cut.tail)
        if self.recipe.hold_batchnorm:
            hold_batchnorm(self.model)
        self.model.to(memory_format=torch.channels_last)
        quicken_convolutions(self.model)
        return self.model

    def learn_loader(self, part: npt.NDArray[np.int64], views: list[Rows]) -> DataLoader[Any]:
        """Batches of these training images (by number), augmented, for `learner`; from ``views`` where they are stored."""
        paths, labels = [self.train_paths[i] for i in part], self.train_labels[part]
        if views:
            seen = [Rows(r.array, r.places[part]) for r in views]
            return self.loader(StoredDataset(paths, labels, self.table.classes, seen, self.seed), True, 0)
        augment, share = self.recipe.augment, self.recipe.crop_share
        change = self.preprocessing.train_transform(augment, share, self.decision.flip)
        pictures = reduced(paths, self.preprocessing, self.preprocessing.smallest_crop(augment, share))
        return self.loader(ImageDataset(pictures, labels, self.table.classes, change, self.seed), True, self.workers)

    def trial_loaders(
        self, unfreeze: str, learned: npt.NDArray[np.int64], held_out: npt.NDArray[np.int64]
    ) -> tuple[DataLoader[Any], DataLoader[Any]]:
        """Batches to learn from, and those of the held-out images as validation shows its own."""
        paths, labels = [self.train_paths[i] for i in held_out], self.train_labels[held_out]
        if not self.from_stored(unfreeze):
            return self.learn_loader(learned, []), self.loader(self.images(paths, labels), False, self.workers)
        views = self.train_views()
        plain = [Rows(views[0].array, views[0].places[held_out])]
        shown = StoredDataset(paths, labels, self.table.classes, plain, self.seed)
        return self.learn_loader(learned, views), self.loader(shown, False, 0)

    def train_views(self) -> list[Rows]:
        """The stored activations of train, and of its mirrored images where they keep their class and there is time."""
        assert self.train_rows is not None
        views = [self.train_rows]
        if self.decision.flip and self.by_first(self.time_for_mirrors):
            flipped = self.see(self.train_paths, "features of flipped train", "flipped")[1]
            views += [flipped] if flipped is not None else []
        return views

    def time_for_mirrors(self) -> bool:
        """Whether a time limit leaves room to see train once more, mirrored, and to learn from it."""
        return self.limit - time.monotonic() > 3 * self.seeing_s

    def tail(self) -> Tail:
        """What is behind the cut as a module, its BatchNorm held."""
        assert self.cut is not None and self.train_rows is not None
        tail = Tail(self.cut.tail, self.train_rows.array.shape[1:])
        if self.recipe.hold_batchnorm:
            hold_batchnorm(tail)
        quicken_convolutions(tail)
        return tail

    def behind_cut(self) -> str:
        """What learns where everything behind the cut does: last or last2."""
        assert self.cut is not None
        return next(name for name, stages in LAST.items() if stages == self.cut.stages)

    def stored_val(self, features: bool) -> StoredDataset:
        """Val as stored features, or as stored activations."""
        rows = Rows(self.val_features, np.arange(len(self.val_labels))) if features else self.val_rows
        assert rows is not None
        return StoredDataset(self.val_paths, self.val_labels, self.table.classes, [rows], self.seed)

    def loader(self, dataset: Any, shuffle: bool, workers: int) -> DataLoader[Any]:
        """A loader whose order depends on the seed alone; this process's part of it, where several train together."""
        order = torch.Generator().manual_seed(self.seed)
        batch = self.recipe.batch_size if shuffle else max(self.recipe.batch_size, SCORED_AT_ONCE)
        more: dict[str, Any] = {"generator": order, "num_workers": workers, "persistent_workers": workers > 0}
        if self.ranks.world == 1:
            return DataLoader(dataset, batch, shuffle=shuffle, **more)
        if shuffle:
            shared = SharedBatches(RandomSampler(dataset, generator=order), batch, self.ranks)
            return DataLoader(dataset, batch_sampler=shared, **more)
        return DataLoader(dataset, batch, sampler=self.ranks.part(len(dataset)), **more)

    def loop(self, module: nn.Module, learn: DataLoader[Any], val: DataLoader[Any], epochs: int) -> FitResult:
        """The training loop."""
        self.screen.print(f"{'epoch':>5}  {'train loss':>10}  {'val loss':>8}  {'val accuracy':>12}", highlight=False)
        store = FitStore(self.out / STATE)
        known = logits_of_rows(self.head, self.val_features, self.device) if self.probe is not None else None
        how = (self.recipe, epochs, self.seed, store, self.watch, self.ranks, known, self.decision.course)
        return Fit(module, self.head, learn, val, *how).run()

    def keep_probe(self, why: str) -> None:
        """Val has put the probe back: what was decided for the fine-tuned weights goes with them."""
        assert self.probe is not None
        self.decision.unfreeze, self.vetoed = "head", True
        self.decision.temperature = held_out_temperature(self.probe, self.train_labels, self.decision.bias)
        told = f"the probe is kept: {why}, so its images are of another kind than training's (valgap check compares them)"
        self.decision.reasons.append(told)
        self.say(told)

    # -- scores -------------------------------------------------------------------------------

    def adjust_head(self) -> None:
        """Put the adjustment for uneven classes into the head's bias, so that it travels with the weights."""
        with torch.no_grad():
            self.head.bias += torch.from_numpy(self.decision.bias).to(self.head.bias)  # type: ignore[operator,arg-type]

    def temperature(self, val_logits: npt.NDArray[np.floating]) -> float:
        """What held-out train says; what val says where val chose."""
        if not self.recipe.temperature:
            return 1.0
        if self.decision.temperature is not None:
            return self.decision.temperature
        return fit_temperature(val_logits, self.val_labels)

    def val_chose(self) -> bool:
        """Whether anything was chosen by val, so that its figures are a little optimistic."""
        among_epochs = self.decision.course is None and self.decision.unfreeze != "head"
        return (
            self.vetoed or among_epochs or self.probe is None or (self.recipe.temperature and self.decision.temperature is None)
        )

    def probe_on_val(self) -> Scores | None:
        """The probe's scores on val, at the temperature that held-out train gives it."""
        if self.probe is None:
            return None
        temperature = held_out_temperature(self.probe, self.train_labels, self.decision.bias)
        logits = self.probe.logits(self.val_features) + self.decision.bias
        return score(logits / temperature, self.val_labels, self.num_classes)

    def logits(self, paths: list[Path], labels: npt.NDArray[np.int64], what: str) -> npt.NDArray[np.float32]:
        """(N, C) logits of images in eval mode under the evaluation transform; from what is stored, where it is."""
        if self.decision.unfreeze == "head" and self.probe is not None:
            return logits_of_rows(self.head, self.see(paths, what)[0], self.device)
        if self.decision.unfreeze in LAST and self.probe is not None and self.cut is not None:
            rows = self.see(paths, what)[1]
            assert rows is not None
            stored = StoredDataset(paths, labels, self.table.classes, [rows], self.seed)
            return logits_of(self.tail(), self.loader(stored, False, 0), self.device, self.watch, self.ranks)
        images = self.loader(self.images(paths, labels), False, self.workers)
        return logits_of(self.model, images, self.device, self.watch, self.ranks)

    def remembered(self) -> npt.NDArray[np.bool_]:
        """(n,) which of the training images that this process scores are kept, so that predict can tell what is like none."""
        count = len(range(self.ranks.rank, len(self.train_labels), self.ranks.world))
        wanted = np.zeros(count, np.bool_)
        wanted[np.random.default_rng(self.seed).permutation(count)[:MOST]] = True
        return wanted

    def images(self, paths: list[Path], labels: npt.NDArray[np.int64]) -> ImageDataset:
        """Images as the evaluation transform shows them."""
        pictures = reduced(paths, self.preprocessing, 1.0)
        return ImageDataset(pictures, labels, self.table.classes, self.preprocessing.eval_transform())

    def finish(self, result: TrainResult, backbone: str) -> None:
        """Write the checkpoint and the summary, show it, and drop what only a resumed run would need."""
        facts = facts_of(self.table.classes, backbone, self.recipe, self.seed, self.decision.flip, result.temperature)
        keep_result(result, self.model, facts, self.preprocessing, self.known)
        show_summary(result, self.table.classes, self.screen)

    # -- screen -------------------------------------------------------------------------------

    def bar(self, items: Iterable[Any], what: str) -> Iterator[Any]:
        """The items, with a progress bar."""
        return bar(items, what, self.screen)

    def say(self, text: str) -> None:
        """One line for the user."""
        say(text, self.screen)

    def show_row(self, row: EpochRow) -> None:
        """One line of the table of epochs, and of the loggers."""
        self.loggers.row(row)
        loss = "-" if math.isnan(row.train_loss) else f"{row.train_loss:.4f}"
        self.say(f"{row.epoch:5d}  {loss:>10}  {row.val_loss:8.4f}  {row.val_accuracy:12.1%}")
