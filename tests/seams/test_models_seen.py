"""Which module is the model: what maps the batch to the logits that loss and metric use, however the program calls it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

import valgap
from valgap.record.reader import read_record
from valgap.seams.looking.tracked import TrackedModel
from valgap.types import RunRecord

pytestmark = pytest.mark.takes(15)
CLASSES = 3
Pieces = SimpleNamespace


def images(n: int, seed: int) -> TensorDataset:
    """Images whose colour is their class."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    return TensorDataset(torch.eye(3)[labels][:, :, None, None] + 0.4 * torch.randn(n, 3, 8, 8, generator=draw), labels)


def body() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1))


def net() -> nn.Module:
    return nn.Sequential(body(), nn.Flatten(), nn.Linear(6, CLASSES))


def trained(
    folder: Path,
    step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    answer: Callable[[torch.Tensor], torch.Tensor],
    parameters: Any,
    modules: list[nn.Module],
    after: Callable[[], object] = lambda: None,
) -> tuple[RunRecord, float]:
    """The record of two epochs and the accuracy that the program itself counted last."""
    train, val = DataLoader(images(48, 0), 8, shuffle=True), DataLoader(images(30, 1), 8)
    optimizer = torch.optim.SGD(parameters, 0.1)
    with valgap.watch(out=folder / "r", closing=30):
        for _ in range(2):
            for m in modules:
                m.train()
            for x, y in train:
                optimizer.zero_grad()
                step(x, y).backward()
                optimizer.step()
                after()
            for m in modules:
                m.eval()
            with torch.no_grad():
                right = sum(int((answer(x).argmax(1) == y).sum()) for x, y in val)
    record = read_record(folder / "r")
    assert record.recorder_errors == ()
    return record, right / 30


def seen_right(record: RunRecord, accuracy: float, kind: str | None = None, parameters: int = 6) -> None:
    """Phases, the whole model, its accuracy, and closing measurements that give the same answers again."""
    assert [p.phase for p in record.passes if p.phase != "other"] == ["train", "validation"] * 2
    model, last = record.trained_model, record.last_validation
    assert model is not None and last is not None and last.model == model.id
    assert last.samples.accuracy == pytest.approx(accuracy)
    assert model.is_parameter.sum() == parameters, model.tensor_names
    assert model.in_optimizer[model.is_parameter].all()
    assert kind is None or model.kind == kind
    first = [s for s in record.states if s.model == model.id and s.moment == "start"]
    assert len(first[-1].norms) == len(model.tensor_names)
    rescored_right(record)


def rescored_right(record: RunRecord) -> None:
    last = record.last_validation
    assert record.closing is not None and last is not None
    assert "rescores" not in record.closing.skipped, record.closing.skipped
    again = record.closing.rescores["val_eval"]
    own = dict(zip(last.samples.sample.tolist(), last.samples.prediction.tolist(), strict=True))
    assert [own[i] for i in again.sample.tolist()] == again.prediction.tolist()
    assert "train_eval" in record.closing.rescores


class Task(nn.Module):
    """Model and loss in one, with an averaged copy beside them."""

    def __init__(self, model: nn.Module, whole: bool) -> None:
        super().__init__()
        self.model, self.copy, self.whole = model, copy.deepcopy(model).requires_grad_(False), whole

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        output = self.model(x)
        loss = functional.cross_entropy(output, y)
        return {"loss": loss, "output": output} if self.whole else loss


@pytest.mark.parametrize("whole", [True, False])
def test_a_task_that_holds_model_and_loss(whole: bool, tmp_path: Path) -> None:
    model = net()
    task = Task(model, whole)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        result = task(x, y)
        return result["loss"] if whole else result  # type: ignore[no-any-return]

    seen_right(*trained(tmp_path, step, model, model.parameters(), [task]), "Sequential")


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


WRAPPERS = [Wrapper, nn.DataParallel, lambda m: torch.compile(m, backend="eager"), lambda m: Wrapper(Wrapper(m))]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_wrapped_at_training_bare_at_validation(wrap: Any, tmp_path: Path) -> None:
    model = net()
    outer = wrap(model)
    result = trained(tmp_path, lambda x, y: functional.cross_entropy(outer(x), y), model, model.parameters(), [outer])
    seen_right(*result, "Sequential")


class Parts(nn.Module):
    """Calls its parts from a method that is called directly, as Lightning's training_step does."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.features, self.classifier, self.between = body(), nn.Linear(6, CLASSES), between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.between(self.features(x)))  # type: ignore[no-any-return]

    def classify(self, pixels: torch.Tensor) -> torch.Tensor:
        f = self.features(pixels)
        return self.classifier(2 * self.between(f))  # type: ignore[no-any-return]


def squeezed(x: torch.Tensor) -> torch.Tensor:
    return x.squeeze(-1).squeeze(-1)


def relued(x: torch.Tensor) -> torch.Tensor:
    return functional.relu(x - 0.1).mean((2, 3))


@pytest.mark.parametrize("between", [squeezed, relued])
@pytest.mark.parametrize("method", ["forward", "classify"])
@pytest.mark.parametrize("held", [False, True])
def test_parts_called_by_a_method_of_their_owner(between: Any, method: str, held: bool, tmp_path: Path) -> None:
    owner = Parts(between)
    if held:
        owner.features.requires_grad_(False)
    own = getattr(owner, method)
    parameters = owner.classifier.parameters() if held else owner.parameters()
    record, accuracy = trained(tmp_path, lambda x, y: functional.cross_entropy(own(x), y), own, parameters, [owner])
    model = record.trained_model
    assert model is not None
    assert {n.split(".")[0] for n in model.tensor_names} == {"features", "classifier"}
    if held:
        assert model.in_optimizer.sum() == 2 and model.is_parameter.sum() == 6
        rescored_right(record)
    else:
        seen_right(record, accuracy)


def test_parts_in_the_loop_itself(tmp_path: Path) -> None:
    first, second = body(), nn.Linear(6, CLASSES)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        f = first(x)
        f = torch.flatten(f, 1)
        out = second(f)
        return functional.cross_entropy(out, y)

    def answer(x: torch.Tensor) -> torch.Tensor:
        return second(first(x).flatten(1)) + 0 * len(str(x.shape))  # type: ignore[no-any-return]

    parameters = [*first.parameters(), *second.parameters()]
    seen_right(*trained(tmp_path, step, answer, parameters, [first, second]))


def test_what_cannot_be_repeated_is_said(tmp_path: Path) -> None:
    first, second = body(), nn.Linear(6, CLASSES)
    calls: list[int] = []

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(answer(x), y)

    def answer(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))  # leaves something behind: never called again by the recorder
        return second((first(x).flatten(1) * 3 - 1).sin())  # type: ignore[no-any-return]

    record, accuracy = trained(tmp_path, step, answer, [*first.parameters(), *second.parameters()], [first, second])
    assert len(calls) == 2 * (6 + 4)
    assert record.last_validation is not None and record.last_validation.samples.accuracy == pytest.approx(accuracy)
    assert record.closing is not None and "could not be repeated" in record.closing.skipped["rescores"]


class Deep(nn.Module):
    """Two heads; the one that counts comes last."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.early, self.late = body(), nn.Linear(6, CLASSES), nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        f = self.body(x).flatten(1)
        return [self.early(f.detach() * 0 + f.mean()), self.late(f)]


def test_of_several_heads_the_one_that_the_loss_names_first(tmp_path: Path) -> None:
    model = Deep()

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        early, late = model(x)
        return functional.cross_entropy(late, y) + 0.3 * functional.cross_entropy(early, y)

    seen_right(*trained(tmp_path, step, lambda x: model(x)[1], model.parameters(), [model]), "Deep", 8)


@pytest.mark.parametrize("average", [True, False])
def test_a_copy_beside_the_model_is_another_model(average: bool, tmp_path: Path) -> None:
    model = net()
    other = AveragedModel(model) if average else copy.deepcopy(model).requires_grad_(False)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            soft = other(x).softmax(1)
        out = model(x)
        distance = functional.kl_div(out.log_softmax(1), soft, reduction="batchmean")
        return functional.cross_entropy(out, y) + 0.1 * distance

    def after() -> None:
        if average:
            other.update_parameters(model)  # type: ignore[operator]

    seen_right(*trained(tmp_path, step, model, model.parameters(), [model, other], after))


def test_modules_in_a_plain_list(tmp_path: Path) -> None:
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Linear(6, CLASSES)]

    def run(x: torch.Tensor) -> torch.Tensor:
        for layer in layers[:3]:
            x = layer(x)
        return layers[3](x.flatten(1))  # type: ignore[no-any-return]

    parameters = [p for m in layers for p in m.parameters()]
    record, accuracy = trained(tmp_path, lambda x, y: functional.cross_entropy(run(x), y), run, parameters, layers)
    seen_right(record, accuracy)


class Padded:
    """Images with a mask of their padding."""

    def __init__(self, tensors: torch.Tensor, mask: torch.Tensor) -> None:
        self.tensors, self.mask = tensors, mask


class Taking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, samples: Any = None, pixels: Any = None, labels: Any = None) -> Any:
        if isinstance(samples, Padded):
            return self.net(samples.tensors * ~samples.mask[:, None])
        x = samples["image"] if samples is not None else pixels
        logits = self.net(x)
        loss = functional.cross_entropy(logits, labels) if labels is not None else None
        return SimpleNamespace(loss=loss, logits=logits)


@pytest.mark.parametrize("how", ["padded", "dict", "keyword"])
def test_ways_to_hand_over_images(how: str, tmp_path: Path) -> None:
    model = Taking()

    def call(x: torch.Tensor, y: torch.Tensor | None = None) -> Any:
        if how == "padded":
            return SimpleNamespace(logits=model(Padded(x, torch.zeros(len(x), 8, 8, dtype=torch.bool))))
        return model({"image": x}, labels=y) if how == "dict" else model(pixels=x, labels=y)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = call(x, y)
        return functional.cross_entropy(out.logits, y) if how == "padded" else out.loss  # type: ignore[no-any-return]

    seen_right(*trained(tmp_path, step, lambda x: call(x).logits, model.parameters(), [model]))


def test_a_model_made_anew_for_each_fold(tmp_path: Path) -> None:
    data = images(48, 0)
    with valgap.watch(out=tmp_path / "r", closing=30):
        for fold in range(3):
            model = net()
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            held = list(range(fold * 16, fold * 16 + 16))
            rest = [i for i in range(48) if i not in held]
            for x, y in DataLoader(torch.utils.data.Subset(data, rest), 8):
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                for x, _ in DataLoader(torch.utils.data.Subset(data, held), 8):
                    model(x)
    record = read_record(tmp_path / "r")
    assert [p.phase for p in record.passes] == ["train", "validation"] * 3
    assert [p.model for p in record.passes] == [0, 0, 1, 1, 2, 2]
    rescored_right(record)


@pytest.mark.parametrize("transform", [False, True])
def test_weights_handed_over_at_each_call(transform: bool, tmp_path: Path) -> None:
    model = net()
    weights = {k: v.detach().clone().requires_grad_() for k, v in model.named_parameters()}

    def call(own: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, own, (x,))  # type: ignore[no-any-return]

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if transform:  # beside the training: no error, and nothing that would be taken for a pass
            model.eval()  # BatchNorm's counter cannot be changed inside
            torch.func.grad(lambda w: functional.cross_entropy(call(w, x), y))({k: v.detach() for k, v in weights.items()})
            torch.vmap(lambda one: call({k: v.detach() for k, v in weights.items()}, one[None]))(x)
            model.train()
        return functional.cross_entropy(call(weights, x), y)

    record, accuracy = trained(tmp_path, step, lambda x: call(weights, x), weights.values(), [model])
    last, found = record.last_validation, record.trained_model
    assert last is not None and last.samples.accuracy == pytest.approx(accuracy)
    assert found is not None and found.in_optimizer[found.is_parameter].all()
    # The module's own weights never learnt: to score with them would be wrong.
    assert record.closing is not None and "hands them over" in record.closing.skipped["rescores"]


def test_a_part_that_was_tried_out_before_the_whole_was_built(tmp_path: Path) -> None:
    """The body alone is called on an empty image, to learn how many features it has."""
    features = nn.Sequential(body(), nn.Flatten())
    train, val = DataLoader(images(48, 0), 8, shuffle=True), DataLoader(images(30, 1), 8)
    with valgap.watch(out=tmp_path / "r", closing=30):
        with torch.no_grad():
            width = nn.Sequential(*features.children()).eval()(torch.zeros(1, 3, 8, 8)).shape[1]
        model = nn.Sequential(features, nn.Linear(width, CLASSES))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(2):
            for x, y in train:
                optimizer.zero_grad()
                functional.cross_entropy(model.train()(x), y).backward()
                optimizer.step()
            with torch.no_grad():
                right = sum(int((model.eval()(x).argmax(1) == y).sum()) for x, y in val)
    record = read_record(tmp_path / "r")
    assert record.passes[0].phase == "other" and not record.recorder_errors
    seen_right(record, right / 30)


def test_where_only_an_averaged_copy_is_validated_the_copy_is_measured(tmp_path: Path) -> None:
    model = net()
    average = AveragedModel(model, avg_fn=lambda old, new, _: 0.9 * old + 0.1 * new)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(model(x), y)

    after = lambda: average.update_parameters(model)  # noqa: E731
    record, accuracy = trained(tmp_path, step, average, model.parameters(), [model, average], after)
    last = record.last_validation
    assert last is not None and last.samples.accuracy == pytest.approx(accuracy)
    rescored_right(record)
    assert record.closing is not None
    table, own = record.closing.rescores["val_eval"], last.samples
    assert table.loss[np.argsort(table.sample)] == pytest.approx(own.loss[np.argsort(own.sample)], abs=1e-5)
    # The trained model itself is asked about the same images.
    beside = record.closing.rescores["val_trained"]
    with torch.no_grad():
        right = [bool(model.eval()(x[None]).argmax(1) == y) for x, y in images(30, 1)]
    assert sorted(beside.sample) == sorted(table.sample) and beside.accuracy == pytest.approx(sum(right) / 30)
    assert np.abs(np.sort(beside.loss) - np.sort(table.loss)).max() > 1e-3


def test_lazy_layers_that_a_trial_call_gives_their_shapes(tmp_path: Path) -> None:
    model = nn.Sequential(body(), nn.Flatten(), nn.LazyLinear(CLASSES))
    with valgap.watch(out=tmp_path / "tried", closing=0), torch.no_grad():
        model(torch.zeros(2, 3, 8, 8))  # before any loader

        def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return functional.cross_entropy(model(x), y)

    seen_right(*trained(tmp_path, step, model, model.parameters(), [model]), "Sequential")
    fresh = nn.Sequential(body(), nn.Flatten(), nn.LazyLinear(CLASSES))
    with valgap.watch(out=tmp_path / "first", closing=0):
        fresh(torch.zeros(2, 3, 8, 8))
        optimizer = torch.optim.SGD(fresh.parameters(), 0.1)
        for x, y in DataLoader(images(48, 0), 8):
            optimizer.zero_grad()
            functional.cross_entropy(fresh(x), y).backward()
            optimizer.step()
    record = read_record(tmp_path / "first")
    assert record.recorder_errors == () and record.trained_model is not None
    assert record.trained_model.in_optimizer[record.trained_model.is_parameter].all() and len(record.passes[0].samples) == 48


def test_a_model_in_shared_memory_that_other_processes_train(tmp_path: Path) -> None:
    model = net().share_memory()
    with valgap.watch(out=tmp_path / "r", closing=30), torch.no_grad():
        for x, y in DataLoader(images(30, 1), 8):
            functional.cross_entropy(model.eval()(x), y)
    closing = read_record(tmp_path / "r").closing
    assert closing is not None and len(closing.rescores["val_eval"]) == 30
    assert closing.skipped["train_eval"] == "training ran in another process"


def test_layers_that_track_nothing_but_have_statistics_use_them_in_eval_mode() -> None:
    frozen, without = nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)
    frozen.track_running_stats = False  # as Lightning leaves frozen layers
    images = torch.randn(4, 3, 2, 2)
    for layer, by_batch in ((frozen, 0.0), (without, 1.0)):
        model = TrackedModel(0, nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 2)).eval())
        assert model.modes()[1] == by_batch
        alone = torch.cat([layer.eval()(images[i : i + 1]) for i in range(4)])
        assert torch.allclose(alone, layer(images), atol=1e-4) != bool(by_batch)
