"""What keeps a re-run off the network: variables that experiment loggers and hubs obey, and sockets that refuse."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from valgap.experiments.overlay import Overlay

INTERNET = (socket.AF_INET, socket.AF_INET6)
LONGEST = 107  # bytes of a socket's path, without the zero behind it

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


def keep_to_this_program(overlay: Overlay) -> None:
    """From now on this process's sockets speak to this machine alone, and by a path to those of the program alone.

    The kernel says it too, where it can: to C code and child programs, and of sockets of this machine as well.
    """
    for name, place in (("connect", 0), ("connect_ex", 0), ("sendto", -1), ("sendmsg", 3)):
        setattr(socket.socket, name, _kept(overlay, getattr(socket.socket, name), place))
    bind = socket.socket.bind

    def bound(own: socket.socket, address: Any) -> None:
        bind(own, _led(overlay, address) if _is_path(own, address) else address)

    socket.socket.bind = bound  # type: ignore[method-assign,assignment]


def _led(overlay: Overlay, address: str | bytes) -> Any:
    """Where a socket that the program opens at this path lies."""
    led = overlay.write(address)
    return led if len(os.fsencode(led)) <= LONGEST else _nearby(address)


def _nearby(address: str | bytes) -> str:
    """A short path among the temporary files, for an address that the scratch folder would make too long."""
    return os.path.join(tempfile.gettempdir(), f"s{hashlib.blake2b(os.fsencode(address), digest_size=8).hexdigest()}")


def _kept(overlay: Overlay, original: Callable[..., Any], place: int) -> Callable[..., Any]:
    """The method of a socket whose argument at ``place`` is an address."""

    def method(own: socket.socket, *arguments: Any) -> Any:
        given = list(arguments)
        if len(given) > max(place, 0) and (place or len(given) == 1):
            given[place] = _own(overlay, own, given[place])
        return original(own, *given)

    return method


def _own(overlay: Overlay, own: socket.socket, address: Any) -> Any:
    """The address where it is one of the program's own."""
    if _is_path(own, address):
        nearby = _nearby(address)
        led = nearby if os.path.exists(nearby) else overlay.read(address)
        if overlay.covered(led) is not None:
            raise ConnectionRefusedError(
                errno.ECONNREFUSED, "no services of this machine in a re-run of valgap", os.fsdecode(address)
            )
        return led
    host = address[0] if isinstance(address, tuple) and own.family in INTERNET else "localhost"
    if host not in ("localhost", "", "0.0.0.0", "::", "::1") and not str(host).startswith("127."):
        raise OSError(errno.ENETUNREACH, "no network in a re-run of valgap")
    return address


def _is_path(own: socket.socket, address: Any) -> bool:
    """Whether it is the path of a socket, neither an abstract name nor the address of a network."""
    local = own.family == getattr(socket, "AF_UNIX", None) and isinstance(address, (str, bytes, os.PathLike))
    return local and bool(os.fsencode(address)) and not os.fsencode(address).startswith(b"\0")
