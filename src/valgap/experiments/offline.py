"""What keeps a re-run off the network: variables that experiment loggers and hubs obey, and sockets that refuse."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

# Experiment loggers and hubs stay away from the network and write, if at all, into the scratch folder.
OFFLINE = {
    "WANDB_MODE": "disabled",
    "NEPTUNE_MODE": "offline",
    "CLEARML_OFFLINE_MODE": "1",
    "COMET_OFFLINE_MODE": "1",
    "COMET_MODE": "OFFLINE",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "DISABLE_MLFLOW_INTEGRATION": "TRUE",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def environment(scratch: Path, temporary: Path) -> dict[str, str]:
    """Variables for a sandboxed program: offline, and a folder of its own for temporary files.

    ``temporary`` should have a short path: the sockets of loader workers lie there, and theirs must stay below 108 bytes.
    """
    return {**OFFLINE, "TMPDIR": str(temporary), "MLFLOW_TRACKING_URI": (scratch / "mlruns").as_uri()}


def refuse_network() -> None:
    """From now on this process's sockets connect to this machine alone."""
    original = socket.socket.connect

    def connect(own: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else "local"
        if own.family != getattr(socket, "AF_UNIX", None) and host not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(errno.ENETUNREACH, "no network in a re-run of valgap")
        original(own, address)

    socket.socket.connect = connect  # type: ignore[method-assign,assignment]
