"""What a program does to images between loader and model is learnt from the first of them."""

from __future__ import annotations

import pytest
import torch

from valgap.seams.looking.channel_change import FirstImages

DRAW = torch.Generator().manual_seed(0)
BYTES = torch.randint(0, 256, (2, 3, 9, 7), generator=DRAW, dtype=torch.uint8)
SCALE, OFFSET = torch.tensor([1 / 58.0, 1 / 57.0, 1 / 57.5])[:, None, None], torch.tensor([-2.1, -2.0, -1.8])[:, None, None]
NORMALISED = BYTES * SCALE + OFFSET


@pytest.mark.parametrize("loaded", [BYTES, BYTES.permute(0, 2, 3, 1)], ids=["channels first", "channels last"])
def test_normalised_by_the_loop(loaded: torch.Tensor) -> None:
    change = FirstImages(loaded, NORMALISED).change()
    assert change is not None
    torch.testing.assert_close(change(loaded), NORMALISED, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "used",
    [NORMALISED.flip(3), NORMALISED.transpose(2, 3).contiguous(), NORMALISED**2, NORMALISED[:, :, ::2]],
    ids=["mirrored", "transposed", "squared", "smaller"],
)
def test_what_is_more_than_scale_and_offset_is_not_guessed(used: torch.Tensor) -> None:
    assert FirstImages(BYTES, used).change() is None
