"""Capabilities: what root may do beyond others. A re-run keeps those that reading and writing files take."""

from __future__ import annotations

import ctypes
import os
import sys

from valgap.experiments.kernel.calls import call, libc

# chown, dac_override, fowner, fsetid, net_bind_service, ipc_lock, sys_resource
KEPT = (0, 1, 3, 4, 10, 14, 24)
SYS_ADMIN = 21
LAST = 63
PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 24, 47, 4
VERSION = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int32))


class _Set(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def has(capability: int) -> bool:
    """Whether it is in effect for this process."""
    try:
        return bool(_sets()[capability // 32].effective >> capability % 32 & 1)
    except OSError:
        return False


def drop() -> None:
    """Keep none but ``KEPT``, and as another user than root none at all; for good, and for every program started."""
    if sys.platform != "linux":
        return
    kept = KEPT if os.geteuid() == 0 else ()
    for capability in range(LAST + 1):
        if capability not in kept:
            libc().prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc().prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    try:
        sets = _sets()
        for place in (0, 1):
            mask = sum(1 << c % 32 for c in kept if c // 32 == place)
            sets[place].effective &= mask
            sets[place].permitted &= mask
            sets[place].inheritable &= mask
        call("capset", ctypes.byref(_Header(VERSION, 0)), ctypes.byref(sets))
    except OSError:
        return  # a machine whose system calls are not known: what it may do stays as it is


def _sets() -> ctypes.Array[_Set]:
    sets = (_Set * 2)()
    call("capget", ctypes.byref(_Header(VERSION, 0)), ctypes.byref(sets))
    return sets
