"""Entering: namespaces first, then capabilities, Landlock and the filter of system calls; each where this system has it."""

from __future__ import annotations

from collections.abc import Sequence

from valgap.experiments.kernel import capabilities, devices, filter, landlock, namespaces, supervisor
from valgap.experiments.kernel.guards import Guards
from valgap.experiments.kernel.mounts import SHARED


def enter(folders: Sequence[str]) -> Guards:
    """Keep this process and its children from everything outside, but for reading files; for good. Returns what holds.

    The process must have one thread. ``folders`` can be written to.
    """
    own = namespaces.enter(folders)
    capabilities.drop()
    supervised = supervisor.begin()  # from where nothing of what follows holds it
    version = landlock.version()
    held = landlock.restrict([*folders, SHARED], devices.usable(), no_tcp=not own.network)
    tcp = held and version >= landlock.TCP_VERSION
    scoped = held and version >= landlock.SCOPE_VERSION
    filtered = filter.refuse(filter.Held(own.network, tcp, own.ipc, held, scoped, supervised))
    return Guards(
        files=held or own.mounts.files,
        truncation=(held and version >= landlock.TRUNCATE_VERSION) or own.mounts.files,
        attributes=own.mounts.files,
        network=own.network or filtered,
        loopback=own.network or not filtered,
        sockets=own.mounts.sockets,
        signals=scoped or (supervised and filtered),
        priorities=supervised,
        tracing=held or filtered,
        ipc=(own.ipc or filtered) and own.mounts.shared_memory,
        calls=filtered,
        devices=held and own.mounts.terminals,
    )


def narrow(folders: Sequence[str]) -> None:
    """Of what this process may write to, leave it these folders; once more is as often as a kernel lets one, sixteen times."""
    landlock.restrict([*folders, SHARED], devices.usable(), no_tcp=False)
