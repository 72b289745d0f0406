"""Sound runs made of numpy arrays, with any part replaced: what the checks' tests plant their faults in."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from valgap.types import (
    Case,
    Closing,
    DatasetInfo,
    Evidence,
    Finding,
    InputStats,
    LoaderInfo,
    LossStats,
    ModelInfo,
    ModeStats,
    OptimizerInfo,
    Pass,
    RunRecord,
    SampleTable,
    StateSnapshot,
    StepTable,
    TransformStep,
)

CLASSES = ("ant", "bee", "cat", "dog")
TRAIN, VAL, EPOCHS, BATCH = 200, 100, 3, 20
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALIZE = TransformStep("Normalize", "Normalize(...)", False, MEAN, STD)
TENSORS = (
    ("conv.weight", True, "Conv2d", 1000),
    ("bn.weight", True, "BatchNorm2d", 16),
    ("bn.bias", True, "BatchNorm2d", 16),
    ("bn.running_mean", False, "BatchNorm2d", 16),
    ("bn.running_var", False, "BatchNorm2d", 16),
    ("fc.weight", True, "Linear", 64),
    ("fc.bias", True, "Linear", 4),
)


def samples(ids: Any, accuracy: float = 0.8, *, classes: int = 4, seed: int = 0, shuffle: bool = False) -> SampleTable:
    """A table whose first ``accuracy`` share (in a fixed random order) is right; sample i has the label i % classes."""
    ids = np.asarray(ids, np.int32)
    rng = np.random.default_rng(seed)
    if shuffle:
        ids = rng.permutation(ids)
    n = len(ids)
    target = (ids % classes).astype(np.int32)
    right = rng.permutation(n) < round(accuracy * n)
    prediction = np.where(right, target, (target + 1) % classes).astype(np.int32)
    prob = np.where(right, 0.8, 0.1).astype(np.float32)
    return SampleTable(
        sample=ids,
        target=target,
        prediction=prediction,
        loss=-np.log(prob),
        margin=np.where(right, 2.0, -2.0).astype(np.float32),
        label_prob=prob,
        batch=(np.arange(n) // BATCH).astype(np.int32),
        fingerprint=(ids * 0.37 + 1).astype(np.float32),
    )


def inputs(mean: Any = MEAN, std: Any = STD, *, pixel_mean: float = 0.45, pixel_std: float = 0.25) -> InputStats:
    """Batches of photographs of the given brightness after Normalize(mean, std); std 1 and mean 0 for none."""
    m, s = np.array(mean, np.float32), np.array(std, np.float32)
    rng = np.random.default_rng(0)
    centre = (pixel_mean - m) / s
    likeness = np.array([[0.95, 0.88, 0.82, 0.77], [0.94, 0.87, 0.81, 0.76]], np.float32)
    return InputStats(
        shape=(3, 224, 224),
        shapes=((3, 224, 224),),
        dtype="float32",
        minimum=(0 - m) / s,
        maximum=(1 - m) / s,
        mean=centre,
        std=pixel_std / s,
        batch_means=(centre + rng.normal(0, 0.02, (4, 3)) / s).astype(np.float32),
        quantum=(1 / (255 * s)).astype(np.float32),
        autocorrelation=likeness,
        nonfinite=0,
        sampled_batches=4,
    )


def loss_stats(**changes: Any) -> LossStats:
    """Plain logits into cross_entropy, with changes."""
    sound = LossStats("cross_entropy", "index", 0.0, False, -5.0, 5.0, -3.0, 3.0, 0.0, 4, 1.0)
    return replace(sound, **changes)


def steps(n: int, **changes: Any) -> StepTable:
    """n sound steps, with changes."""
    sound = StepTable(
        loss=np.linspace(1.4, 0.6, n).astype(np.float32),
        optimizer=np.zeros(n, np.int32),
        backwards=np.ones(n, np.int32),
        stale_gradients=np.zeros(n, np.int8),
        learning_rate=np.full((n, 1), 1e-3, np.float32),
        grad_norm=np.full(n, 1.0, np.float32),
        update_ratio=np.full(n, 1e-3, np.float32),
        nonfinite_grad=np.zeros(n, np.int8),
    )
    return replace(sound, **changes)


def modes(training: float, **changes: Any) -> ModeStats:
    """Every layer in one mode, with changes; one BatchNorm layer and one Dropout layer."""
    return replace(ModeStats(training, training, training, training, 1, 1), **changes)


def dataset(number: int, ids: Any, **changes: Any) -> DatasetInfo:
    """An ImageFolder with ToTensor and Normalize, with changes."""
    ids = np.asarray(ids, np.int32)
    sound = DatasetInfo(
        id=number,
        kind="ImageFolder",
        source="ImageFolder",
        size=len(ids),
        root="photos",
        class_to_idx={name: i for i, name in enumerate(CLASSES)},
        targets=(ids % 4).astype(np.int32),
        sample=ids,
        transform=(TransformStep("ToTensor", "ToTensor()", False), NORMALIZE),
        transform_text="",
    )
    return replace(sound, **changes)


def train_pass(index: int, epoch: int, ids: Any, **changes: Any) -> Pass:
    """A sound training pass, with changes."""
    table = samples(ids, 0.6 + 0.1 * epoch, seed=index, shuffle=True)
    n = int(table.batch.max()) + 1
    sound = Pass(
        index=index, phase="train", epoch=epoch, loader=0, dataset=0, model=0, complete=True, seconds=1.0,
        num_batches=n, backwards=n, optimizer_steps=n, zero_grads=n, batch_sizes=np.full(n, BATCH, np.int32),
        samples=table, inputs=inputs(), loss=loss_stats(), steps=steps(n), modes=modes(1.0), state=index + 1,
    )  # fmt: skip
    return replace(sound, **changes)


def val_pass(index: int, epoch: int, ids: Any, **changes: Any) -> Pass:
    """A sound validation pass, with changes."""
    table = samples(ids, 0.6 + 0.05 * epoch, seed=100 + index)
    n = int(table.batch.max()) + 1
    sound = Pass(
        index=index, phase="validation", epoch=epoch, loader=1, dataset=1, model=0, complete=True, seconds=1.0,
        num_batches=n, backwards=0, optimizer_steps=0, zero_grads=0, batch_sizes=np.full(n, BATCH, np.int32),
        samples=table, inputs=inputs(), loss=loss_stats(), steps=steps(0, learning_rate=np.zeros((0, 1), np.float32)),
        modes=modes(0.0), state=index + 1,
    )  # fmt: skip
    return replace(sound, **changes)


def model(**changes: Any) -> ModelInfo:
    """A fully trained small network with given weights, with changes."""
    parameter = np.array([t[1] for t in TENSORS])
    sound = ModelInfo(
        id=0, kind="Net", trained=True, tensor_names=tuple(t[0] for t in TENSORS), is_parameter=parameter,
        numel=np.array([t[3] for t in TENSORS]), requires_grad=parameter.copy(), in_optimizer=parameter.copy(),
        got_gradient=parameter.copy(), layer_kind=tuple(t[2] for t in TENSORS), num_outputs=4, expected_mean=MEAN,
        expected_std=STD, expected_size=(3, 224, 224), pretrained=True, fresh_batchnorm=0.0, loaded_fraction=0.99,
        dropout=(0.2,),
    )  # fmt: skip
    return replace(sound, **changes)


def states(moving: Any, count: int) -> tuple[StateSnapshot, ...]:
    """``count`` snapshots, the first at the start; ``moving`` (T,) says which tensors change with training passes."""
    moving = np.asarray(moving, float)
    base = np.arange(1, len(TENSORS) + 1, dtype=float)
    # Snapshots 1, 3, 5 end training passes; 2, 4, 6 end validation passes and equal the one before.
    return tuple(
        StateSnapshot(0, "start" if i == 0 else "pass", base + moving * ((i + 1) // 2), base + moving * ((i + 1) // 2))
        for i in range(count)
    )


def healthy(**changes: Any) -> Case:
    """A sound run of three epochs over 200 training and 100 validation images; ``changes`` replace RunRecord fields."""
    train_ids, val_ids = np.arange(TRAIN), np.arange(TRAIN, TRAIN + VAL)
    passes: list[Pass] = []
    for epoch in range(EPOCHS):
        passes.append(train_pass(2 * epoch, epoch, train_ids))
        passes.append(val_pass(2 * epoch + 1, epoch + 1, val_ids))
    last = passes[-1].samples
    sound = RunRecord(
        path="runs/x", schema=1, header={"script": "train.py"},
        sample_names=tuple(f"photos/{i}.jpg" for i in range(TRAIN + VAL)),
        datasets={0: dataset(0, train_ids), 1: dataset(1, val_ids)},
        loaders={
            0: LoaderInfo(0, 0, BATCH, "RandomSampler", True, False, 0, TRAIN // BATCH),
            1: LoaderInfo(1, 1, BATCH, "SequentialSampler", False, False, 0, VAL // BATCH),
        },
        models={0: model()}, optimizers={0: OptimizerInfo(0, "SGD", ({"lr": 1e-3},), (5,))}, passes=tuple(passes),
        states=states(np.ones(len(TENSORS)), 2 * EPOCHS + 1), weights_loaded=(), printed=(),
        closing=Closing(rescores={"val_eval": last, "train_eval": samples(train_ids, 0.82)}, twins=()),
        recorder_errors=(), exit_status=0, stopped=None, seconds=10.0,
    )  # fmt: skip
    return Case(replace(sound, **changes))


def with_phase(case: Case, phase: str, **changes: Any) -> Case:
    """The case with every pass of one phase changed."""
    passes = tuple(replace(p, **changes) if p.phase == phase else p for p in case.run.passes)
    return Case(replace(case.run, passes=passes))


def without(case: Case, phase: str) -> Case:
    """The case without the passes of one phase."""
    return Case(replace(case.run, passes=tuple(p for p in case.run.passes if p.phase != phase)))


def rescored(case: Case, **tables: SampleTable) -> Case:
    """The case with closing re-scores added."""
    closing = case.run.closing or Closing()
    return Case(replace(case.run, closing=replace(closing, rescores={**closing.rescores, **tables})))


def measured(case: Case, **numbers: float) -> Case:
    """The case with numbers of the closing measurements added."""
    closing = case.run.closing or Closing()
    return Case(replace(case.run, closing=replace(closing, numbers={**closing.numbers, **numbers})))


def replayed(case: Case, recorded: float, n: int = 200, **variants: tuple[float, float]) -> Case:
    """The case with the head trained again: each variant's accuracy and p-value; the run itself reached ``recorded``."""
    numbers = {"replay_recorded": recorded, "replay_n": float(n)}
    for name, (accuracy, p) in variants.items():
        key = f"replay_{name.replace('_tenth', '_x0.1').replace('_ten', '_x10')}"
        numbers |= {key: accuracy, f"{key}_p": p}
    last = case.run.last_validation
    assert last is not None
    return measured(rescored(case, val_eval=samples(last.samples.sample, recorded)), **numbers)


def trained_with(case: Case, kind: str, rate: float, **settings: Any) -> Case:
    """The case trained by this optimizer at this rate."""
    case = Case(replace(case.run, optimizers={0: OptimizerInfo(0, kind, ({"lr": rate, **settings},), (5,))}))
    passes = [
        replace(p, steps=replace(p.steps, learning_rate=np.full_like(p.steps.learning_rate, rate))) for p in case.run.passes
    ]
    return Case(replace(case.run, passes=tuple(passes)))


UNITS = frozenset(
    (
        "", "points", "nats", "images", "samples", "files", "keys", "classes", "epochs", "passes", "batches", "steps", "times",
        "places", "groups", "tensors", "layers", "outputs", "pixels", "of the first value",
    )
)  # fmt: skip


def told(outcome: object) -> object:
    """The outcome; each of its facts must be a value beside another, in a unit, of so many, with both ends of an interval."""
    for fact in getattr(outcome, "evidence", ()):
        assert isinstance(fact, Evidence), fact
        assert isinstance(fact.name, str) and isinstance(fact.value, (Real, str)), fact
        assert fact.reference is None or isinstance(fact.reference, (Real, str)), fact
        assert not isinstance(fact.value, str) or isinstance(fact.reference, (str, type(None))), fact
        assert fact.unit in UNITS and fact.reference not in UNITS, fact
        assert fact.n is None or (isinstance(fact.n, Integral) and fact.n >= 0), fact
        assert (fact.low is None) == (fact.high is None), fact
        assert fact.low is None or fact.high is None or fact.low <= fact.high, fact
    if isinstance(outcome, Finding):
        assert isinstance(outcome.summary, str) and isinstance(outcome.remedy, str), outcome
        assert all(isinstance(s, str) for s in outcome.subjects), outcome
        assert 0 <= outcome.confidence <= 1 and np.isfinite([outcome.severity_points, outcome.most_points]).all(), outcome
    return outcome


def found(outcome: object) -> Finding:
    """The outcome, which must be a finding that we would bet on."""
    assert isinstance(told(outcome), Finding), outcome
    assert isinstance(outcome, Finding)
    assert outcome.confidence >= 0.5, outcome
    return outcome


def quiet(outcome: object) -> bool:
    """Whether the outcome is no finding that we would bet on."""
    return not (isinstance(told(outcome), Finding) and isinstance(outcome, Finding) and outcome.confidence >= 0.5)
