"""Landlock: the Linux kernel keeps this process and its children from writing outside given folders, and from much else.

By version of its interface: 1 files and tracing, 2 moving between folders, 3 truncation, 4 TCP, 5 commands to devices,
6 signals and abstract UNIX sockets. Rules are by place and by port: not by address.

Source: https://docs.kernel.org/userspace-api/landlock.html (system calls 444 to 446, the same on every architecture).
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Sequence

from valgap.experiments.kernel.calls import forgo_privileges, libc

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG = 1
RULE_PATH_BENEATH = 1
WRITE_FILE = 1 << 1
REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))  # remove_dir ... make_sym
MAKE_DEVICE = 1 << 6 | 1 << 11  # whoever may make a block device has the whole disk
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
TCP = 1 << 0 | 1 << 1  # bind, connect
ABSTRACT_SOCKETS, SIGNALS = 1 << 0, 1 << 1
O_PATH = 0o10000000
TRUNCATE_VERSION, TCP_VERSION, DEVICE_VERSION, SCOPE_VERSION = 3, 4, 5, 6


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def version() -> int:
    """Of the kernel's Landlock, 0 where there is none; restricts nothing."""
    if sys.platform != "linux":
        return 0
    return max(0, int(libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG)))


def restrict(folders: Sequence[str], devices: Sequence[str], no_tcp: bool) -> bool:
    """Allow writing only below ``folders`` and to ``devices``, for good; False where the kernel cannot.

    Processes outside get no signal of this one and of its children, as far as the version goes.
    ``no_tcp``: neither bind nor connect.
    """
    found = version()
    if found < 1:
        return False
    rights = WRITE_FILE | REMOVE_AND_MAKE
    rights |= (
        (REFER if found >= 2 else 0)
        | (TRUNCATE if found >= TRUNCATE_VERSION else 0)
        | (IOCTL_DEV if found >= DEVICE_VERSION else 0)
    )
    wanted = _Ruleset(
        rights,
        TCP if no_tcp and found >= TCP_VERSION else 0,
        ABSTRACT_SOCKETS | SIGNALS if found >= SCOPE_VERSION else 0,
    )
    # An older kernel knows a shorter structure, and the rest of a longer one must be zero.
    ruleset = libc().syscall(CREATE_RULESET, ctypes.byref(wanted), ctypes.c_size_t(ctypes.sizeof(wanted)), 0)
    if ruleset < 0:
        return False
    try:
        for folder in folders:
            _allow(ruleset, folder, rights & ~(MAKE_DEVICE | IOCTL_DEV))
        for device in devices:
            _allow(ruleset, device, rights & ~MAKE_DEVICE)
        return forgo_privileges() and bool(libc().syscall(RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= WRITE_FILE | TRUNCATE | IOCTL_DEV
        rule = _PathBeneath(rights, place)
        libc().syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(place)
