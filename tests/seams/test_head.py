"""The closing measurements' arithmetic against torch and scikit-learn, on small arrays."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from valgap.seams.closing import head_replay
from valgap.seams.closing.attempts import OutOfTimeError
from valgap.seams.closing.head import (
    Gathered,
    Head,
    augmentation_numbers,
    curve_numbers,
    probe_answers,
    probe_numbers,
    start_numbers,
)
from valgap.seams.looking.calibration import calibration, nll, temperature
from valgap.seams.looking.tracked import TrackedModel

N, D, C = 120, 6, 3


def clouds(n: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, D) and classes (n,) of three clouds."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, C, n)
    centres = np.random.default_rng(99).normal(size=(C, D))
    return (centres[y] + spread * rng.normal(size=(n, D))).astype(np.float32), y


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("SGD", {"lr": 0.1}),
        ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
        ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
        ("Adam", {"lr": 0.01, "weight_decay": 0.1}),
        ("AdamW", {"lr": 0.01, "weight_decay": 0.5}),
    ],
)
def test_the_replay_is_what_torch_computes(kind: str, settings: dict[str, float]) -> None:
    x, y = clouds(N, 0)
    torch.manual_seed(0)
    layer = nn.Linear(D, C)
    start = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = getattr(torch.optim, kind)(layer.parameters(), **settings)
    draw = torch.Generator().manual_seed(0)
    order, place, rates = torch.randperm(N, generator=draw), 0, []
    for _ in range(20):
        if place + 32 > N:
            order, place = torch.randperm(N, generator=draw), 0
        chosen = order[place : place + 32]
        place += 32
        optimizer.zero_grad()
        nn.functional.cross_entropy(layer(torch.from_numpy(x)[chosen]), torch.from_numpy(y)[chosen]).backward()
        optimizer.step()
        rates.append(settings["lr"])
    recorded = head_replay.settings_of(kind, dict(optimizer.param_groups[0]), rates, 0.0)
    assert recorded is not None
    weights = head_replay._trained((x, y), start, [recorded], 32, time.perf_counter() + 60)
    assert weights is not None
    assert torch.allclose(weights[0, :-1].T, layer.weight, atol=1e-5)
    assert torch.allclose(weights[0, -1], layer.bias, atol=1e-5)


def test_variants_change_one_thing_and_are_paired() -> None:
    recorded = head_replay.settings_of("SGD", {"momentum": 0.0, "weight_decay": 0.1}, [1e-4] * 10, 0.5)
    assert recorded is not None
    ways = head_replay.variants(recorded)
    assert set(ways) == {
        "recorded", "rate_x10", "rate_x0.1", "longer", "momentum", "fitting", "decay_x0.1", "no_dropout"
    }  # fmt: skip
    start = torch.zeros(C, D), torch.zeros(C)
    numbers = head_replay.replay_numbers(clouds(N, 0), clouds(80, 1), start, recorded, 32, time.perf_counter() + 60)
    assert isinstance(numbers, dict)
    assert numbers["replay_fitting"] >= numbers["replay_recorded"] - 0.1
    assert all(0 <= v <= 1 for k, v in numbers.items() if k != "replay_n")
    assert head_replay.settings_of("LBFGS", {}, [1.0], 0.0) is None


def test_a_deadline_gives_no_numbers() -> None:
    recorded = head_replay.settings_of("SGD", {}, [0.1] * 5, 0.0)
    assert recorded is not None
    start = torch.zeros(C, D), torch.zeros(C)
    with pytest.raises(OutOfTimeError):
        head_replay.replay_numbers(clouds(N, 0), clouds(80, 1), start, recorded, 32, 0.0)


def test_temperature_is_the_scale() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 2000)
    logits = rng.normal(size=(2000, 4)) * 2
    y = np.array([rng.choice(4, p=np.exp(row) / np.exp(row).sum()) for row in logits])  # calibrated by construction
    assert temperature(logits, y) == pytest.approx(1.0, abs=0.1)
    assert temperature(5 * logits, y) == pytest.approx(5.0, rel=0.1)
    assert nll(logits, y, 1.0).mean() == pytest.approx(
        float(nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(y))), abs=1e-9
    )
    found = calibration(logits, y)
    assert found is not None
    assert found["val_ece"] < 0.05
    assert calibration(logits[:5], y[:5]) is None


def gathered(features: np.ndarray, targets: np.ndarray, **more: np.ndarray) -> Gathered:
    """One batch of features."""
    both = {k: [torch.from_numpy(v)] for k, v in more.items()}
    return Gathered(features=[torch.from_numpy(features)], targets=[torch.from_numpy(targets)], **both)  # type: ignore[arg-type]


def test_probes_tell_good_features_from_noise() -> None:
    x, y = clouds(N, 0)
    z, t = clouds(80, 1)
    noise = np.random.default_rng(2).normal(size=(N + 80, D)).astype(np.float32)
    numbers = probe_numbers(gathered(x, y, middle=noise[:N]), gathered(z, t, middle=noise[N:]))
    assert isinstance(numbers, dict)
    assert numbers["probe_final"] > numbers["probe_middle"] + 0.2
    numbers = probe_numbers(gathered(noise[:N], y, before=x), gathered(noise[N:], t, before=z))
    assert isinstance(numbers, dict)
    assert numbers["probe_before"] > numbers["probe_final"] + 0.2 and numbers["probe_before_se"] > 0
    numbers = start_numbers(gathered(noise[:N], y, start=x), gathered(noise[N:], t, start=z))
    assert isinstance(numbers, dict)
    assert numbers["probe_start"] > numbers["probe_end"] + 0.2
    assert isinstance(probe_numbers(gathered(x[:5], y[:5]), gathered(z, t)), str)


def test_parts_of_few_images_tell_how_much_more_would_help() -> None:
    x, y = clouds(N, 0)
    z, t = clouds(80, 1)
    few = np.concatenate([np.flatnonzero(y == c)[:8] for c in np.unique(y)])

    def of(rows: np.ndarray) -> dict[str, float] | str:
        return curve_numbers([torch.from_numpy(x[rows])], y[rows], [torch.from_numpy(z)], t)

    found = of(few)
    assert isinstance(found, dict) and found["curve_n"] == found["curve_100_n"] == len(few)
    small = [v for k, v in found.items() if k.startswith("curve_30_") and k != "curve_30_n"]
    assert len(small) == 8 and found["curve_30_n"] == len(few) // 8 * round(8 * 0.3) and np.mean(small) < found["curve_100_0"]
    assert isinstance(of(np.arange(N)), str)  # their files tell


def test_augmentation_that_destroys_and_that_does_not() -> None:
    x, y = clouds(N, 0)
    same = augmentation_numbers(gathered(x, y), gathered(x + 0.01, y))
    lost = augmentation_numbers(gathered(x, y), gathered(-x, y))
    assert isinstance(same, dict) and isinstance(lost, dict)
    assert same["probe_augmented"] == pytest.approx(same["probe_plain"], abs=0.05)
    assert lost["probe_augmented"] < lost["probe_plain"] - 0.2


def test_the_head_and_the_dropout_before_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, C))
    model = TrackedModel(0, net)
    model.num_outputs = C
    head = Head(model)
    assert head.layer is net[4] and head.dropout == 0.3 and head.middle is net[1]
    assert head.name_of("weight") == "4.weight"
    with head.listening():
        net.eval()(torch.ones(2, 3, 6, 6))
    features, middle = head.caught(2), head.caught_middle(2)
    assert features is not None and features.shape == (2, 16)
    assert middle is not None and middle.shape == (2, 4)
    assert not net[4]._forward_pre_hooks


@pytest.mark.parametrize(("n", "width", "classes"), [(60, 200, 2), (60, 200, 4), (150, 20, 2), (150, 20, 5), (40, 40, 3)])
def test_probes_answer_as_scikit_learns_do(n: int, width: int, classes: int) -> None:
    rng = np.random.default_rng(n + classes)
    centres = rng.normal(size=(classes, width))
    y, asked = rng.integers(0, classes, n), rng.integers(0, classes, 300)
    x, z = (np.float32(0.4 * centres[t] + rng.normal(size=(len(t), width))) for t in (y, asked))
    x[:, 0], z[:, 0] = 0.7, rng.random(300)  # a feature that training leaves alone
    known = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(0, 5, 11))).fit(x, y + 3)
    assert np.array_equal(probe_answers(x, y + 3, z), known.predict(z))


class Selected(nn.Module):
    """Of all features the first is left."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (torch.arange(x.shape[1]) < 1)


@pytest.mark.parametrize(("between", "dead"), [(Selected(), False), (nn.ReLU(), True)])
def test_what_the_layer_before_gave_is_caught_as_an_activation_lets_it_through(between: nn.Module, dead: bool) -> None:
    """Units that a training has killed are no fault of the activation behind them; what a step throws away is its own."""
    net = nn.Sequential(nn.Linear(D, 8), between, nn.Linear(8, C))
    if dead:
        nn.init.constant_(net[0].bias, -100.0)
    model = TrackedModel(0, net)
    model.num_outputs = C
    head = Head(model)
    with head.listening(), torch.no_grad():
        net(torch.from_numpy(clouds(20, 0)[0]))
        before, after = head.caught_before(20), head.caught(20)
    assert before is not None and after is not None and before.shape == after.shape == (20, 8)
    assert bool((before.std(0) > 0).any()) != dead and bool((after.std(0) > 0).sum() > 1) is False
