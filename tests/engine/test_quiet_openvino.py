"""OpenVINO runs a network and reports to nobody: no connection is tried, and nothing is written into the home folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import socket, sys
tried = []
def connect(self, address): tried.append(address); raise OSError("no network")
socket.socket.connect = connect
from pathlib import Path
import numpy as np
from torch import nn
from valgap.engine.forward import OpenVinoForward
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
    def forward(self, x):
        return self.fc(x.float().mean((1, 2)))
pixels = np.zeros((5, 8, 8, 3), np.uint8)
found = OpenVinoForward(Net().eval(), pixels, Path(sys.argv[1]) / "network-x.xml")(pixels)
assert found[0].shape == (5, 2)
print(tried, "openvino_telemetry" in sys.modules, sys.modules.get("openvino_telemetry", "not there"))
"""


def test_nothing_is_sent_and_nothing_is_written(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    home = tmp_path / "home"
    home.mkdir()
    # By itself it keeps still in CI.
    variables = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**variables, "HOME": str(home)}, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "[] False not there"
    assert list(home.iterdir()) == []
    assert (tmp_path / "network-x.xml").exists()
