"""Interventions whose whole effect can be seen on a small model, without a re-run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, TensorDataset
from torchvision import transforms
from torchvision.datasets import FakeData

from valgap.seams.acting.loader_acts import DrawAll, WeightsTransform
from valgap.seams.acting.model_acts import Augment, NoDropout, RestoreStart
from valgap.seams.acting.sample_acts import ReadSoundly
from valgap.seams.acting.step_acts import FreezeBackbone, OptimizerSettings, StepOnce, UnfreezeLast


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 2))


def backward(model: nn.Module) -> None:
    model(torch.randn(4, 3, 8, 8)).square().mean().backward()


def moved(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_a_model_starts_anew_with_other_data() -> None:
    act = RestoreStart()
    act.training = True
    model, first = nn.Linear(2, 2), SimpleNamespace(dataset=[1])
    start = model.weight.detach().clone()
    for loader, restored in ((first, False), (first, False), (SimpleNamespace(dataset=[2]), True)):
        act.iterating(loader)
        assert act.instead(model) is model
        assert act.acted == int(restored)
        assert torch.equal(model.weight, start) or not restored
        with torch.no_grad():
            model.weight.add_(1.0)
    assert torch.equal(model.weight, start + 1)


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_a_second_step_on_a_gradient_does_nothing(kind: str) -> None:
    model, act = network(), StepOnce()
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.1, weight_decay=0.1)
    act.before_backward(True, [optimizer])
    backward(model)
    act.before_step(optimizer, model)
    optimizer.step()
    before = state(model)
    act.before_step(optimizer, model)
    optimizer.step()
    assert moved(model, before) == set()
    assert act.acted == 1


def test_only_the_last_layer_learns() -> None:
    model, act = network(), FreezeBackbone("train")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for module, mode in act.modes(model):
        module.training = mode
    before = state(model)
    backward(model)
    act.before_step(optimizer, model)
    optimizer.step()
    assert moved(model, before) == {"4.weight", "4.bias"}


def test_the_last_part_is_unfrozen() -> None:
    model, act = network(), UnfreezeLast(share=0.7, factor=0.1)
    model.requires_grad_(False)
    model[4].requires_grad_(True)
    optimizer = torch.optim.SGD(model[4].parameters(), lr=0.1)
    act.instead(model)
    backward(model)
    before = state(model)
    act.before_step(optimizer, model)
    optimizer.step()
    changed = moved(model, before)
    assert {"1.weight", "4.weight"} <= changed
    assert not any(name.startswith("0.") for name in changed)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.01)
    assert act.acted == 1


def test_settings_of_every_group_that_has_them() -> None:
    model = network()
    sgd, adam = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.Adam(model.parameters())
    act = OptimizerSettings({"momentum": 0.9, "beta1": 0.5, "weight_decay": 0.01})
    act.before_step(sgd, model)
    act.before_step(adam, model)
    assert (sgd.param_groups[0]["momentum"], sgd.param_groups[0]["weight_decay"]) == (0.9, 0.01)
    assert (adam.param_groups[0]["betas"], adam.param_groups[0]["weight_decay"]) == ((0.5, 0.999), 0.01)
    assert "betas" not in sgd.param_groups[0] and "momentum" not in adam.param_groups[0]
    assert act.acted == 4


def test_no_dropout() -> None:
    model = network()
    assert NoDropout("train").modes(model.train()) == [(model[2], False)]
    assert NoDropout("train").modes(model.eval()) == []


def test_augmented_images_are_crops_and_mirrors_of_their_own() -> None:
    act = Augment(scale=0.5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    images = torch.linspace(0, 1, 16).expand(64, 1, 16, 16).clone()
    out = act.inputs(images)
    assert torch.equal(torch.get_rng_state(), before)
    assert out.shape == images.shape and out.min() >= -1e-5 and out.max() <= 1 + 1e-5
    slopes = (out[:, 0, 8, 12] - out[:, 0, 8, 4]) / (images[:, 0, 8, 12] - images[:, 0, 8, 4])
    assert 15 < int((slopes < 0).sum()) < 49
    assert (slopes.abs() > 0.45).all() and (slopes.abs() < 1.05).all()
    assert torch.allclose(Augment(scale=1.0, flip=False).inputs(images), images, atol=1e-5)


def test_validation_images_prepared_as_the_weights_want_them() -> None:
    dataset = FakeData(4, (3, 80, 60), 3, transforms.ToTensor())
    settings = {"size": [3, 32, 32], "crop_share": 0.875, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    act = WeightsTransform(**settings)
    image, target = act.dataset(dataset)[1]
    assert act.acted == 1
    assert image.shape == (3, 32, 32) and float(image.min()) < 0
    assert dataset[1][0].shape == (3, 80, 60) and dataset[1][1] == target


def test_batches_that_a_program_makes_itself_hold_every_sample_too() -> None:
    data = TensorDataset(torch.arange(10))
    loader = DataLoader(data, batch_sampler=[[0, 1], [0, 1]])
    drawn = DrawAll(4, positions=[1, 3, 5, 7, 9]).sampler(loader.batch_sampler, loader)
    assert isinstance(drawn, BatchSampler) and [len(b) for b in drawn] == [4, 1]
    assert sorted(i for b in drawn for i in b) == [1, 3, 5, 7, 9]
    kept = DrawAll(4, positions=[12])
    assert kept.sampler(loader.sampler, loader) is loader.sampler and kept.acted == 0  # it was of another data set


def test_files_are_read_upright_in_the_colours_of_the_model(tmp_path: Path) -> None:
    upright = np.zeros((40, 30, 3), np.uint8)
    upright[:20] = (200, 100, 0)  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side, to be turned by a quarter to the right
    Image.fromarray(np.rot90(upright)).save(tmp_path / "a.png", exif=exif)
    act = ReadSoundly({"3": [str(tmp_path / "a.png"), "", str(tmp_path / "gone.png")]}, [0.01] * 3, [-1.0] * 3, phase="both")
    images = torch.full((4, 3, 8, 8), 7.0)
    assert act.inputs(images) is images and act.acted == 0  # nobody knows what they are
    act.drawn = (3, [1, 0, 2, 9])
    before = torch.get_rng_state()
    changed = act.inputs(images)
    assert torch.equal(torch.get_rng_state(), before)
    assert act.acted == 1 and (images == 7).all() and (changed[[0, 2, 3]] == 7).all()
    assert torch.allclose(changed[1, :, 1, 4], torch.tensor([1.0, 0.0, -1.0]), atol=0.03)
    assert torch.allclose(changed[1, :, 6, 4], torch.tensor(-1.0), atol=0.03)


def test_in_training_files_are_mirrored_and_shifted(tmp_path: Path) -> None:
    slope = np.tile(np.arange(100, dtype=np.uint8)[:, None], (100, 1, 3))
    Image.fromarray(slope).save(tmp_path / "a.png")
    act = ReadSoundly({"0": [str(tmp_path / "a.png")]}, [1.0] * 3, [0.0] * 3)
    act.drawn = (0, [0] * 16)
    images = torch.zeros(16, 1, 45, 45)
    assert len(act.inputs(images).unique(dim=0)) == 1
    act.training = True
    seen = act.inputs(images)
    mirrored = seen[:, 0, 0, 0] > seen[:, 0, 0, -1]
    assert 2 < int(mirrored.sum()) < 14 and len(seen.unique(dim=0)) > 4


def test_all_of_a_file_is_squeezed_where_the_program_does_so(tmp_path: Path) -> None:
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, :30] = 250  # beyond the middle square
    Image.fromarray(wide).save(tmp_path / "a.png")
    images = torch.zeros(8, 3, 20, 20)
    for frame, left in ((0.0, 250.0), (1.0, 0.0)):
        act = ReadSoundly({"0": [str(tmp_path / "a.png")]}, [1.0] * 3, [0.0] * 3, frame=frame, vary=False)
        act.drawn, act.training = (0, [0] * 8), True
        seen = act.inputs(images)
        assert len(seen.unique(dim=0)) == 1  # nothing varies, though it is training
        assert float(seen[0, 0, 10, 2]) == left


def test_files_are_read_in_another_shape_than_the_program_gives(tmp_path: Path) -> None:
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 40:] = 200
    Image.fromarray(wide).save(tmp_path / "a.png")
    act = ReadSoundly({"0": [str(tmp_path / "a.png"), ""]}, [1.0] * 3, [0.0] * 3, frame=0.0, size=[10, 20])
    act.drawn = (0, [0, 1])
    seen = act.inputs(torch.full((2, 3, 20, 10), 7.0))
    assert seen.shape == (2, 3, 10, 20) and (seen[1] == 7).all()  # what is not known is the program's own, resized
    assert (seen[0, :, :, :9] == 0).all() and (seen[0, :, :, 11:] == 200).all()
