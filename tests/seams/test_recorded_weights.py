"""Recorded weights go back into the model that validates, be it called as a whole or part by part."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from valgap.record.writer import RecordWriter
from valgap.seams.acting.acting import Acting
from valgap.seams.acting.model_acts import RecordedWeights
from valgap.seams.recording.recorder import Recorder


class Parts(nn.Module):
    """Its methods call its parts; nobody calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)
        self.register_buffer("counted", torch.ones(3))  # a metric's, no part of what answers

    def answers(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


@pytest.mark.parametrize("missing", [False, True])
def test_parts_that_a_method_calls_get_theirs(missing: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, wanted = Parts(), Parts()
    weights = {k: t for k, t in wanted.state_dict().items() if k != "counted"}
    if missing:
        weights["tail.weight"] = torch.zeros(2)
    save_file(weights, tmp_path / "weights.safetensors")
    held = RecordedWeights(tmp_path / "weights.safetensors")
    acting = Acting([held], train=[], validation=[0])
    acting.attach(Recorder(RecordWriter(tmp_path / "r")))
    acting.attach_outside()
    loader = DataLoader(TensorDataset(torch.rand(3, 3, 2, 2)), 3)
    try:
        with torch.no_grad():
            (images,) = next(iter(loader))
            if missing:
                with pytest.raises(ValueError, match="do not fit"):
                    model.eval().answers(images)
            else:
                assert torch.equal(model.eval().answers(images), wanted.eval().answers(images)) and held.acted == 1
    finally:
        acting.detach_outside()
        acting.detach()
