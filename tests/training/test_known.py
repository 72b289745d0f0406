"""Images of another kind than those of training are told; those of its kind are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from valgap.errors import RecordError
from valgap.training.known import FILE, Known, given_to, known_of, nearest


def cloud(count: int, centre: float, seed: int) -> np.ndarray:
    """Features (count, 40) around a direction."""
    rng = np.random.default_rng(seed)
    towards = np.zeros(40)
    towards[int(centre)] = 6.0
    return (towards + rng.normal(size=(count, 40))).astype(np.float32)


def test_what_training_showed_is_known_and_the_rest_is_not() -> None:
    known = known_of(np.concatenate([cloud(150, 0, 0), cloud(150, 1, 1)]))
    assert known is not None
    same = known.nearness(np.concatenate([cloud(200, 0, 2), cloud(200, 1, 3)])) < known.least
    assert 0.01 < same.mean() < 0.12  # one of twenty, as of the training images among themselves
    assert (known.nearness(cloud(200, 20, 4)) < known.least).mean() > 0.95


def test_nearest_is_counted_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, given = cloud(23, 0, 0), cloud(11, 0, 1)
    whole = nearest(asked, given, 5)
    assert np.allclose(whole, np.sort(asked @ given.T, axis=1)[:, -5:].mean(1), atol=1e-4)
    monkeypatch.setattr("valgap.training.known.AT_ONCE", 22)
    assert np.allclose(nearest(asked, given, 5), whole, atol=1e-4)
    assert nearest(asked[:0], given, 5).shape == (0,)


def test_few_images_say_nothing() -> None:
    assert known_of(cloud(9, 0, 0)) is None


def test_it_is_kept_and_read(tmp_path: Path) -> None:
    known = known_of(cloud(50, 0, 0))
    assert known is not None
    known.write(tmp_path)
    again = Known.read(tmp_path)
    assert again.least == known.least and np.allclose(again.directions, known.directions, atol=1e-3)
    with pytest.raises(RecordError, match="train again"):
        Known.read(tmp_path / "nowhere")
    for body in ({"directions": np.zeros((2, 3))}, {"directions": np.full((2, 3), np.nan), "least": np.zeros(1)}):
        save_file(body, str(tmp_path / FILE))
        with pytest.raises(RecordError, match="cannot be read"):
            Known.read(tmp_path)
    (tmp_path / FILE).write_bytes(b"\x80\x02no")
    with pytest.raises(RecordError, match="cannot be read"):
        Known.read(tmp_path)


def test_only_the_wanted_rows_are_kept_in_order() -> None:
    head, rows = nn.Linear(4, 2), torch.arange(40.0).reshape(10, 4)
    wanted = np.array([0, 1, 0, 0, 1, 1, 0, 0, 0, 1], bool)
    with given_to(head, wanted) as shown:
        for part in rows.split(3):
            head(part)
    assert np.array_equal(np.concatenate(shown), rows.numpy()[wanted])
    head(rows)
    assert len(shown) == 4
