"""What the kernel keeps a re-run from, and how what it does not is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# What is told where a guard is missing: what then holds nothing but Python's own functions, or nothing at all.
MISSING = {
    "files": "files outside can be written to by code that is not Python",
    "truncation": "files outside can be emptied by code that is not Python",
    "attributes": "modes, owners and times of files outside can be changed by code that is not Python",
    "network": "the network can be reached by code that is not Python",
    "sockets": "sockets of services on this machine can be reached by code that is not Python",
    "signals": "processes outside can be ended by code that is not Python",
    "priorities": "priorities and processors of processes outside can be changed by code that is not Python",
    "tracing": "memory of processes outside can be read and written",
    "ipc": "shared memory and message queues of other programs can be reached",
    "calls": "settings, mounts and limits of the machine are kept by its own rules alone",
    "devices": "devices outside the usual ones can be written to",
}


@dataclass(frozen=True)
class Guards:
    """Which of them the kernel holds, for child programs and C code too."""

    files: bool = False  # written, made, removed
    truncation: bool = False  # emptied or cut
    attributes: bool = False  # their modes, owners, times
    network: bool = False
    loopback: bool = False  # processes of the program can still speak to each other over TCP
    sockets: bool = False  # those of this machine that others have opened, by path or name
    signals: bool = False  # to processes outside
    priorities: bool = False  # of processes outside, and on which processors they run
    tracing: bool = False  # of processes outside
    ipc: bool = False
    calls: bool = False  # system calls that change the machine, or lead around the other guards
    devices: bool = False

    def missing(self) -> tuple[str, ...]:
        """What is not held, each in words; empty where all is."""
        return tuple(told for name, told in MISSING.items() if not getattr(self, name))

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Guards:
        """As a re-run wrote them down."""
        return cls(**{f.name: bool(told.get(f.name)) for f in fields(cls)})


NOTHING = Guards()
