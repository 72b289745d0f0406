"""Replayed features: equal to the last bit, and refused wherever that is not sure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from valgap.record.writer import RecordWriter
from valgap.seams.acting.acting import Acting
from valgap.seams.acting.feature_replay import VERIFIED_CALLS, FeatureReplay
from valgap.seams.acting.frozen_parts import Parts, divide, walk
from valgap.seams.attaching.hooks import Seams
from valgap.seams.recording.recorder import Recorder


class Net(nn.Module):
    """A frozen body of several modules with glue between them, and a head."""

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.drop = nn.Dropout(drop)
        self.fc = nn.Linear(8, 3)
        self.calls = 0
        for part in (self.conv, self.norm, self.second):
            part.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.pool(self.relu(self.norm(self.conv(x))))
        x = x + self.second(x)
        return self.fc(self.drop(x.mean((2, 3))))


class Leaking(Net):
    """Also returns what the frozen part gave."""

    def forward(self, x: torch.Tensor) -> Any:
        first = self.relu(self.norm(self.conv(x)))
        return self.fc(first.mean((2, 3))), first.sum()


@contextmanager
def acting(folder: Path, run: Path) -> Iterator[FeatureReplay]:
    """A process with the recorder and the replay in place."""
    folder.mkdir(exist_ok=True)
    writer = RecordWriter(run)
    recorder = Recorder(writer)
    seams = Seams(recorder)
    replay = FeatureReplay(folder)
    act = Acting([], [0], [1], replay=replay)
    act.attach(recorder)
    seams.attach()
    act.attach_outside()
    try:
        yield replay
    finally:
        act.detach_outside()
        seams.detach()
        act.detach()
        writer.close()
    assert not recorder.errors


def train(net: nn.Module, steps: int = 8) -> list[torch.Tensor]:
    """Losses and final weights of a short training on batches that come again."""
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randn(6, 3, 12, 12, generator=generator) for _ in range(2)]
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1)
    torch.manual_seed(5)
    out = []
    for step in range(steps):
        optimizer.zero_grad()
        given = net(batches[step % 2])
        logits = given[0] if isinstance(given, tuple) else given
        loss = nn.functional.cross_entropy(logits, torch.arange(6) % 3)
        loss.backward()
        optimizer.step()
        out.append(loss.detach())
    return [*out, *(t.clone() for t in net.state_dict().values()), torch.get_rng_state()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def build(kind: type[Net] = Net, seed: int = 0, drop: float = 0.0) -> Net:
    torch.manual_seed(seed)
    return kind(drop) if drop else kind()


def test_replayed_and_equal_to_the_last_bit(tmp_path: Path) -> None:
    plain = train(build().eval())
    with acting(tmp_path / "f", tmp_path / "a") as replay:
        assert same(train(build().eval()), plain)
    assert replay.replayed == 8 - 2 - VERIFIED_CALLS  # two batches were computed, two calls compared
    with acting(tmp_path / "f", tmp_path / "b") as again:
        assert same(train(build().eval()), plain)
    assert again.replayed == 8 - VERIFIED_CALLS


def test_the_frozen_part_is_not_computed(tmp_path: Path) -> None:
    net = build().eval()
    computed = []
    real = nn.functional.conv2d
    with acting(tmp_path / "f", tmp_path / "a") as replay, pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", lambda m, x: computed.append(1) or real(x, m.weight, m.bias, padding=m.padding))
        train(net, 20)
    assert len(computed) == 2 * (20 - replay.replayed)


def test_other_weights_are_another_key(tmp_path: Path) -> None:
    with acting(tmp_path / "f", tmp_path / "a"):
        train(build().eval())
    changed = build().eval()
    changed.conv.weight.data.mul_(1.001)  # moves no version counter
    plain = train(changed)
    again = build().eval()
    with acting(tmp_path / "f", tmp_path / "b"):
        train(again)
        again.fc.load_state_dict(build().fc.state_dict())
        again.conv.weight.data.mul_(1.001)
        assert same(train(again), plain)


def made_to_draw() -> Net:
    """Dropout behind the frozen part's last module, and before the head."""
    net = build(drop=0.5).eval()
    net.drop.train()
    return net


def test_random_numbers_that_a_frozen_part_draws_go_on_after_its_replay(tmp_path: Path) -> None:
    plain = train(made_to_draw())
    replayed = []
    for place in ("a", "b", "c"):
        with acting(tmp_path / "f", tmp_path / place) as replay:
            assert same(train(made_to_draw()), plain)
        replayed.append(replay.replayed)
    assert replayed == [0, 8 - 1 - VERIFIED_CALLS, 8 - 1 - VERIFIED_CALLS]  # with the first call it is learnt that it draws


def test_other_random_numbers_are_another_key(tmp_path: Path) -> None:
    def drawn_later() -> list[torch.Tensor]:
        net = made_to_draw()
        hold = torch.manual_seed
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "manual_seed", lambda seed: hold(seed + 1))
            return train(net)

    plain = drawn_later()
    with acting(tmp_path / "f", tmp_path / "a"):
        train(made_to_draw())
    with acting(tmp_path / "f", tmp_path / "b") as replay:
        assert same(drawn_later(), plain)
    assert replay.replayed == 0


def made_to_train() -> Net:
    """Frozen, but its BatchNorm goes by the batch and moves its statistics."""
    net = build().eval()
    net.norm.train()
    return net


def test_statistics_that_a_frozen_part_moves_are_moved_by_its_replay(tmp_path: Path) -> None:
    plain = train(made_to_train())
    replayed = []
    for place in ("a", "b", "c"):
        with acting(tmp_path / "f", tmp_path / place) as replay:
            net = made_to_train()
            assert same(train(net), plain)
            assert int(net.norm.num_batches_tracked) == 8
        replayed.append(replay.replayed)
    assert replayed == [0, 8 - VERIFIED_CALLS, 8 - VERIFIED_CALLS]  # no batch comes again with the same statistics in one arm


def test_other_statistics_are_another_key(tmp_path: Path) -> None:
    with acting(tmp_path / "f", tmp_path / "a"):
        train(made_to_train())
    other = made_to_train()
    other.norm.running_mean.add_(1e-3)
    plain = train(other)
    again = made_to_train()
    again.norm.running_mean.add_(1e-3)
    with acting(tmp_path / "f", tmp_path / "b") as replay:
        assert same(train(again), plain)
    assert replay.replayed == 0


def test_an_output_that_bypasses_the_head_is_found(tmp_path: Path) -> None:
    plain = train(build(Leaking).eval())
    for place in ("a", "b"):
        with acting(tmp_path / "f", tmp_path / place) as replay:
            assert same(train(build(Leaking).eval()), plain)
        assert replay.replayed == 0


def test_a_trained_body_is_left_alone(tmp_path: Path) -> None:
    net = build().eval()
    net.conv.requires_grad_(True)
    with acting(tmp_path / "f", tmp_path / "a") as replay:
        train(net)
    assert replay.replayed == 0


def test_a_network_is_divided_as_its_parameters_say() -> None:
    frozen, half, shared = Net().requires_grad_(False), Net(), nn.Linear(2, 2).requires_grad_(False)
    whole = nn.Sequential(frozen, half, nn.ReLU(), nn.Sequential(shared, nn.Sequential()), shared, nn.Linear(3, 3))
    assert list(walk(whole)) == list(whole.modules())
    parts = Parts()
    divide(whole, parts)
    assert parts.trained == {id(half.fc), id(whole[5])}
    wanted = [frozen, half.conv, half.norm, half.relu, half.pool, half.second, half.drop, whole[2], whole[3], shared]
    assert parts.modules == wanted
    tensors = {id(t) for m in wanted for t in (*m.parameters(), *m.buffers())}
    assert {id(t) for t in (*parts.tensors, *parts.moving)} == tensors
    assert {id(t) for t in parts.moving} == {id(b) for m in (frozen.norm, half.norm) for b in m.buffers()}
