"""What is done to all images of a side, told by undoing it, without a word on which file an image is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import valgap
from tests.reference.pictures_seen import KINDS, drawn, run_on
from valgap.features.backbone import Backbone
from valgap.record.reader import read_record
from valgap.reference import Stages
from valgap.reference.undone import Pixels, undone
from valgap.types import FloatArray, IntArray

EACH = 12


def pictures(first: int) -> tuple[Pixels, IntArray]:
    made = [drawn(kind, 1000 * k + i + first).resize((112, 112)) for k, kind in enumerate(KINDS) for i in range(EACH)]
    return np.stack([np.asarray(p) for p in made]), np.repeat(np.arange(len(KINDS)), EACH)


@pytest.fixture(scope="module")
def network() -> Backbone:
    return Backbone(1_000)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda x: x, None),
        (lambda x: np.rot90(x, 1, axes=(1, 2)), "lie turned by a quarter"),
        (lambda x: x.transpose(0, 2, 1, 3), "turned"),  # an axis for another: a turn and a mirror
        (lambda x: np.random.default_rng(0).permuted(x, axis=0), None),  # nothing brings this back
    ],
)
def test_it_is_told_by_what_brings_the_classes_back(
    change: Callable[[Pixels], Pixels], what: str | None, network: Backbone
) -> None:
    (seen, labels), (files, others) = pictures(0), pictures(500)
    shown = np.ascontiguousarray(change(seen))

    def under(way: Callable[[Pixels], Pixels]) -> FloatArray:
        return network.plain(np.ascontiguousarray(way(shown)))

    def files_under(way: Callable[[Pixels], Pixels]) -> FloatArray:
        return network.plain(np.ascontiguousarray(way(seen)))

    found = undone(under, files_under, labels, (network.plain(files), others))
    assert (found is None) == (what is None)
    if found is not None and what is not None:
        assert what in found.what and found.after.accuracy > 0.8 > found.before.accuracy


def test_what_helps_the_files_as_well_is_no_fault_of_the_program(network: Backbone) -> None:
    """Images that are known better turned, as their files are: they lie so in the files."""
    (seen, labels), (files, others) = pictures(0), pictures(500)
    lying = np.ascontiguousarray(np.rot90(seen, 1, axes=(1, 2)))

    def under(way: Callable[[Pixels], Pixels]) -> FloatArray:
        return network.plain(np.ascontiguousarray(way(lying)))

    assert undone(under, under, labels, (network.plain(files), others)) is None


def test_training_images_whose_files_are_not_known_are_told_to_lie_on_their_side(tmp_path: Path) -> None:
    run, images = run_on(tmp_path, train=lambda x, _: np.rot90(x), each=EACH)
    unknown = replace(run, sample_names=tuple(n if "val" in n else f"content[{i:x}]" for i, n in enumerate(run.sample_names)))
    found = Stages(unknown, images).compared("read_train")
    assert found.verdict == "at fault" and found.kind == "turned" and "validation images do not" in found.summary
    both, files = run_on(tmp_path / "b", train=lambda x, _: np.rot90(x), val=lambda x, _: np.rot90(x), each=EACH)
    hidden = replace(both, sample_names=tuple(n if "val" in n else f"content[{i:x}]" for i, n in enumerate(both.sample_names)))
    assert "validation images do not" not in Stages(hidden, files).compared("read_train").summary


def test_features_of_a_frozen_network_made_without_no_grad_are_no_part_of_the_training(tmp_path: Path) -> None:
    body = nn.Sequential(nn.Conv2d(3, 40, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).requires_grad_(False)
    head = nn.Linear(40, 3)
    optimizer = torch.optim.SGD(head.parameters(), 0.1)
    x, y, vx, vy = torch.randn(24, 3, 8, 8), torch.arange(24) % 3, torch.randn(20, 3, 8, 8), torch.arange(20) % 3
    with valgap.watch(out=tmp_path / "run", closing=0):
        rows = torch.cat([body(b) for b in vx.clone().split(10)])
        for _ in range(2):
            for i in torch.randperm(24).split(8):
                loss = nn.functional.cross_entropy(head(body(x[i])), y[i])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                nn.functional.cross_entropy(head(rows), vy)
    run = read_record(tmp_path / "run")
    assert [(p.phase, len(p.samples), p.backwards) for p in run.passes] == [
        ("other", 20, 0), ("train", 24, 3), ("validation", 20, 0), ("train", 24, 3), ("validation", 20, 0),
    ]  # fmt: skip
    kept = [k for k in run.kept if k.pass_index == 1]
    assert len(kept) == 1 and len(kept[0].sample) == 24 and not run.recorder_errors
    targets = dict(zip(run.passes[1].samples.sample.tolist(), run.passes[1].samples.target.tolist(), strict=True))
    images = {int(s): v for s, v in zip(kept[0].sample, kept[0].values, strict=True)}
    for s, value in images.items():  # each under its own name
        place = int(np.abs(x.numpy() - value).sum((1, 2, 3)).argmin())
        assert targets[s] == int(y[place])
