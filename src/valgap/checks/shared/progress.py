"""How a run went from epoch to epoch, as measured quantities. No check; the checks of training share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from valgap.checks.shared.freezing import holding
from valgap.stats import best_row_cross_fitted, paired_difference, paired_p_value, wilson_interval
from valgap.types import Closing, DatasetInfo, Evidence, Pass, RunRecord, SampleTable

MIN_EPOCHS = 3


@dataclass(frozen=True)
class Course:
    """The validation passes over one data set, on the samples that all of them scored."""

    passes: tuple[Pass, ...]  # E, in order
    right: npt.NDArray[np.bool_]  # (E, N)
    loss: npt.NDArray[np.float64]  # (E, N) nats
    train_loss: npt.NDArray[np.float64]  # (E,) mean of the training pass before each, nan unknown
    train_accuracy: npt.NDArray[np.float64]  # (E,)

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """(E,), 0..1."""
        return np.asarray(self.right.mean(1))

    @property
    def mean_loss(self) -> npt.NDArray[np.float64]:
        """(E,), nats."""
        return np.asarray(self.loss.mean(1))

    @property
    def best(self) -> int:
        """The epoch of the highest accuracy, the earliest of equals."""
        return int(self.accuracy.argmax())


def course(run: RunRecord) -> Course | None:
    """The course of the last labelled validation's data; None with fewer than two comparable passes."""
    last = run.last_validation
    if last is None or not several_classes(last.samples):
        return None
    alike = made_anew(run, last.dataset)
    passes = [p for p in run.of_phase("validation") if p.dataset in alike and p.model == last.model and p.epoch > 0]
    tables = [(p, *_ordered(p)) for p in passes]
    tables = [t for t in tables if len(t[1]) == len(_ordered(last)[0])]
    if len(tables) < 2:
        return None
    trained = {p.epoch + 1: p.samples for p in run.of_phase("train") if p.model == last.model}
    return Course(
        passes=tuple(t[0] for t in tables),
        right=np.array([t[1] for t in tables]),
        loss=np.array([t[2] for t in tables], np.float64),
        train_loss=np.array([trained[p.epoch].mean_loss if p.epoch in trained else np.nan for p, _, _ in tables]),
        train_accuracy=np.array([trained[p.epoch].accuracy if p.epoch in trained else np.nan for p, _, _ in tables]),
    )


def made_anew(run: RunRecord, dataset: int) -> set[int]:
    """The data set and those that are it once more: the same images in the same order, labelled and prepared alike.

    Trainers make their loaders, and programs their data sets, again for a last validation of the weights that were kept.
    """
    one = run.datasets.get(dataset)
    if one is None or one.sample is None or not len(one.sample) or (one.sample < 0).any():
        return {dataset}
    return {dataset} | {n for n, d in run.datasets.items() if _same_data(one, d)}


def _same_data(one: DatasetInfo, other: DatasetInfo) -> bool:
    alike = (one.source, one.size, one.transform_text) == (other.source, other.size, other.transform_text)
    if not alike or one.sample is None or other.sample is None or not np.array_equal(one.sample, other.sample):
        return False
    if one.targets is None or other.targets is None:
        return one.targets is other.targets
    return np.array_equal(one.targets, other.targets)


def several_classes(table: SampleTable) -> bool:
    """Whether the labels are of more than one class: else an accuracy says nothing."""
    return len(np.unique(table.target[table.labelled])) > 1


def _ordered(one: Pass) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.floating]]:
    """(right, loss) of the labelled samples, by sample where these are known (a loader may shuffle)."""
    table = one.samples
    keep = np.flatnonzero(table.labelled)
    order = keep[np.argsort(table.sample[keep], kind="stable")]
    return np.asarray(table.prediction[order] == table.target[order]), table.loss[order]


@dataclass(frozen=True)
class Drop:
    """Accuracy of the best epoch or epochs, chosen by the other half of the samples, minus that of the last; fractions."""

    value: float
    low: float
    high: float
    p_value: float
    n: int

    def evidence(self) -> Evidence:
        """In points."""
        return Evidence(
            "val accuracy, best epoch (chosen by other images) minus last",
            100 * self.value,
            0.0,
            "points",
            self.n,
            100 * self.low,
            100 * self.high,
        )


def drop_after_best(run: Course) -> Drop:
    """How far the last epoch lies below the best one."""
    best, last = best_row_cross_fitted(run.right), run.right[-1]
    return Drop(*paired_difference(last, best), paired_p_value(last, best), len(last))


def lasting_fall(run: Course) -> Drop:
    """How far the last third of the epochs lies below the best run of as many, chosen by the other half of the samples.

    Averages over epochs keep a curve that jumps from looking like one that fell.
    """
    width = max(1, len(run.right) // 3)
    rows = np.array([run.right[i : i + width].mean(0) for i in range(len(run.right) - width + 1)])
    delta = best_row_cross_fitted(rows) - rows[-1]
    n = len(delta)
    value, error = float(delta.mean()), float(np.sqrt((delta.var() * n + 1.0 / n) / n / n))
    p_value = float(2 * ndtr(-abs(value) / error))
    return Drop(value, value - 1.96 * error, value + 1.96 * error, p_value, n)


def loss_rise(run: Course) -> tuple[float, float]:
    """(rise of the mean val loss from its lowest epoch to the last, its standard error), nats, paired over samples."""
    delta = run.loss[-1] - run.loss[int(run.mean_loss.argmin())]
    return float(delta.mean()), float(delta.std() / np.sqrt(max(1, len(delta))))


def update_ratio(passes: Sequence[Pass]) -> float:
    """Median over sampled steps of the update's norm over that of the weights; nan where none was sampled."""
    ratios = np.concatenate([p.steps.update_ratio for p in passes]) if passes else np.zeros(0)
    ratios = ratios[np.isfinite(ratios)]
    return float(np.median(ratios)) if len(ratios) else float("nan")


def paired_error(numbers: dict[str, float], name: str, n: int) -> float:
    """Standard error of the difference of two probes on ``n`` images, as measured; one image more keeps it above zero."""
    return float(np.hypot(numbers[name], 1 / max(1, n)))


def interval_of(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share that n images gave."""
    return wilson_interval(round(share * n), n)


@dataclass(frozen=True)
class Shortfall:
    """Validation accuracy that a linear probe on the run's features reaches beyond the run itself; fractions."""

    probe: float
    reached: float
    low: float  # 95 % interval of the difference
    n: int

    @property
    def value(self) -> float:
        """Probe minus run."""
        return self.probe - self.reached

    def evidence(self) -> Evidence:
        """Both accuracies."""
        name = "val accuracy of a linear probe on this run's features, against its own head"
        return Evidence(name, self.probe, self.reached, "", self.n, *interval_of(self.probe, self.n))


def shortfall(run: RunRecord) -> Shortfall | None:
    """What the run's head left lying; None without probe."""
    numbers = numbers_of(run)
    table = run.closing.rescores.get("val_eval") if run.closing is not None else None
    if table is None or "probe_final" not in numbers or not several_classes(table):
        return None
    n, reached = int(numbers["probe_n"]), table.accuracy
    probe = numbers["probe_final"]
    error = float(np.sqrt(max(1e-4, probe * (1 - probe) + reached * (1 - reached)) / max(1, n) / 2))  # paired: about half
    return Shortfall(probe, reached, probe - reached - 1.96 * error, n)


def numbers_of(run: RunRecord) -> dict[str, float]:
    """The numbers of the closing measurements."""
    return dict((run.closing or Closing()).numbers)


@dataclass(frozen=True)
class Replay:
    """Validation accuracy of the head trained again with one change, against the same as recorded; fractions."""

    name: str
    recorded: float
    changed: float
    p_value: float
    n: int

    @property
    def gain(self) -> float:
        """Changed minus recorded."""
        return self.changed - self.recorded

    def evidence(self, words: str) -> Evidence:
        """Both accuracies."""
        name = f"val accuracy of the head trained again {words}"
        return Evidence(name, self.changed, self.recorded, "", self.n, *interval_of(self.changed, self.n))


# How far the replay as recorded may be from the run itself: augmentation and Dropout elsewhere are not replayed. Set on
# sound runs of a few programs, by hand: no command of the repository repeats that yet.
FAITHFUL = 0.1


def replay(run: RunRecord, name: str) -> Replay | None:
    """The replay under one change; None where there is none, or where the replay does not repeat the run."""
    numbers = numbers_of(run)
    table = run.closing.rescores.get("val_eval") if run.closing is not None else None
    key = f"replay_{name}"
    if key not in numbers or table is None or not faithful(run):
        return None
    return Replay(name, numbers["replay_recorded"], numbers[key], numbers[f"{key}_p"], int(numbers["replay_n"]))


def faithful(run: RunRecord) -> bool:
    """Whether the head trained again as recorded reaches what the run reached."""
    numbers = numbers_of(run)
    table = run.closing.rescores.get("val_eval") if run.closing is not None else None
    if table is None or "replay_recorded" not in numbers or not several_classes(table):
        return False
    noise = 2 * float(np.sqrt(0.25 / max(1.0, numbers["replay_n"])) / 2)
    return abs(numbers["replay_recorded"] - table.accuracy) <= max(FAITHFUL, noise)


def backbone_trained(run: RunRecord) -> float:
    """Share of the model's parameter numbers that are trained, 0..1; nan without model."""
    model = run.trained_model
    if model is None:
        return float("nan")
    wanted = model.is_parameter & model.requires_grad & model.in_optimizer
    held = holding(run)
    if held is not None:
        wanted = wanted & held.moved
    return float(model.numel[wanted].sum() / max(1, model.numel[model.is_parameter].sum()))


def train_rescored(run: RunRecord) -> float:
    """Accuracy of training images re-scored like validation, 0..1; nan without."""
    table = run.closing.rescores.get("train_eval") if run.closing is not None else None
    return table.accuracy if table is not None else float("nan")


def has_learnt(run: RunRecord) -> bool:
    """Whether training images are answered better than by one class for all, beyond noise, as training ran or re-scored."""
    last = run.last_train
    rescored = run.closing.rescores.get("train_eval") if run.closing is not None else None
    return any(beats_guess(t) for t in (last.samples if last is not None else None, rescored) if t is not None)


def beats_guess(table: SampleTable) -> bool:
    """Whether the answers are right more often than the largest class alone would be, beyond noise."""
    target = table.target[table.labelled]
    if not len(target):
        return False
    low, _ = wilson_interval(int(table.correct.sum()), len(target))
    return low > float(np.bincount(target).max()) / len(target)


# BatchNorm keeps nine tenths of its old statistics a batch: of those that it began with, a twentieth is left after so many.
SETTLED_BATCHES = 29


def settled_batchnorm(run: RunRecord) -> bool:
    """Whether running statistics that began at 0 and 1 have seen enough batches for eval mode to mean anything."""
    model = run.trained_model
    passes = run.of_phase("train")
    if model is None or model.pretrained is True or not any(p.modes.batchnorm_layers for p in passes):
        return True
    return sum(p.num_batches for p in passes if p.modes.batchnorm_training > 0) >= SETTLED_BATCHES


@dataclass(frozen=True)
class Gap:
    """Accuracy of training images re-scored like validation, minus that of validation; fractions."""

    train: float
    validation: float
    low: float  # 95 % interval of the difference
    high: float
    n: int

    @property
    def value(self) -> float:
        """Train minus validation."""
        return self.train - self.validation

    def evidence(self) -> tuple[Evidence, ...]:
        """The difference in points."""
        name = "train accuracy re-scored like validation, minus validation"
        return (Evidence(name, 100 * self.value, 0.0, "points", self.n, 100 * self.low, 100 * self.high),)


def overfit_gap(run: RunRecord) -> Gap | None:
    """The gap, both sides scored on the final weights in eval mode; None without closing measurements."""
    tables = run.closing.rescores if run.closing is not None else {}
    train, val = tables.get("train_eval"), tables.get("val_eval")
    if train is None or val is None or not train.labelled.any() or not val.labelled.any():
        return None
    a, b = train.correct, val.correct
    error = float(np.sqrt(a.var() / len(a) + b.var() / len(b) + 0.25 / len(a) / len(b)))
    value = float(a.mean() - b.mean())
    return Gap(float(a.mean()), float(b.mean()), value - 1.96 * error, value + 1.96 * error, len(b))


MIN_IMAGES = 50
ABOVE_CHANCE = 1.25


def overfits(run: RunRecord, gap: Gap, least: float) -> bool:
    """Whether the gap is at least ``least`` beyond noise on enough images, and validation no mere guess (others cause it)."""
    last = run.last_train
    shares = np.bincount(last.samples.target[last.samples.labelled]) if last is not None else np.zeros(0)
    guess = float(shares.max() / shares.sum()) if shares.sum() else 1.0
    return gap.low >= least and gap.n >= MIN_IMAGES and gap.validation >= ABOVE_CHANCE * guess


def batch_size(run: RunRecord) -> float:
    """Median images per optimizer step in training, gathered gradients counted; 0 without steps."""
    trained = run.of_phase("train")
    sizes = np.concatenate([p.batch_sizes for p in trained]) if trained else np.zeros(0)
    steps = sum(p.optimizer_steps for p in trained)
    if not len(sizes) or not steps:
        return 0.0
    gathered = max(1.0, sum(p.backwards for p in trained) / steps)
    return float(np.median(sizes) * gathered)


# Usual rates of a new head: Adam 1e-3 (Kingma and Ba 2015), SGD with momentum 1e-2, without momentum ten times that.
USUAL_RATES = {"SGD": 1e-2, "Adam": 1e-3, "AdamW": 1e-3}


def usual_rate(run: RunRecord) -> float:
    """A usual learning rate of the run's optimizer; nan for one that is not known."""
    kind = next((o.kind for o in run.optimizers.values()), "")
    return USUAL_RATES.get(kind, float("nan")) * (10 if plain_sgd(run) else 1)


NO_TORCH_OPTIMIZER = "a torch optimizer: this program changes its weights by other means, at rates that are not known"


# Long trainings take ten thousand steps. A rate at which all of them go no farther than fifty at a usual one is low anyhow.
# Given layers want a tenth and less of what a new head does; a head alone that goes no farther than two hundred is as low.
HOPELESS, HOPELESS_HEAD = 50 / 10_000, 200 / 10_000
TRAINED_SHARE = 0.2
# A warm-up by epoch holds its first rate for one: a single pass of few steps does not tell what follows.
ONE_PASS_STEPS = 100


def far_below_usual(run: RunRecord) -> bool:
    """Whether even a long training at this rate would hardly arrive, so that a short one tells as much."""
    trained = run.of_phase("train")
    least = HOPELESS if backbone_trained(run) >= TRAINED_SHARE else HOPELESS_HEAD
    enough = len(trained) > 1 or sum(p.optimizer_steps for p in trained) >= ONE_PASS_STEPS
    return bool(head_rate(run) < least * usual_rate(run)) and enough


def head_rate(run: RunRecord) -> float:
    """The highest learning rate of any group at any step; nan without steps."""
    found = [np.nanmax(p.steps.learning_rate) for p in run.of_phase("train") if p.steps.learning_rate.size]
    return float(max(found)) if found else float("nan")


def plain_sgd(run: RunRecord) -> bool:
    """Whether the optimizers are SGD without momentum."""
    return bool(run.optimizers) and all(
        o.kind == "SGD" and not any(float(g.get("momentum") or 0.0) for g in o.groups) for o in run.optimizers.values()
    )
