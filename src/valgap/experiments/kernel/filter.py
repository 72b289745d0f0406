"""A filter of system calls (seccomp): what no training program needs, and what no rule of Landlock reaches.

Refused calls fail as they do on a system that lacks them or forbids them. Source:
https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import platform
from collections.abc import Sequence
from dataclasses import dataclass

from valgap.experiments.kernel.calls import call, forgo_privileges, number

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000  # another numbering of the same calls on x86_64
LOAD, EQUAL, AT_LEAST, AND_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
AND = 0x54
ALLOW, ERRNO, NOTIFY = 0x7FFF0000, 0x00050000, 0x7FC00000
SET_MODE_FILTER, SPEC_ALLOW, NEW_LISTENER = 1, 1 << 2, 1 << 3
NUMBER_AT, ARCH_AT, ARGUMENTS_AT = 0, 4, 16

# Ways around the other guards, and what changes the machine.
REFUSED = (
    "acct", "add_key", "bpf", "chroot", "clock_adjtime", "clock_settime", "delete_module", "fanotify_init", "finit_module",
    "fsconfig", "fsmount", "fsopen", "fspick", "init_module", "ioperm", "iopl", "kexec_file_load", "kexec_load", "keyctl",
    "mount", "mount_setattr", "move_mount", "open_by_handle_at", "open_tree", "perf_event_open", "pivot_root", "quotactl",
    "quotactl_fd",
    "reboot", "request_key", "setdomainname", "sethostname", "setns", "settimeofday", "swapoff", "swapon", "umount2",
    "userfaultfd", "vhangup",
)  # fmt: skip
# What it does is done outside the filter; libraries that know it go on without.
ABSENT = ("io_uring_enter", "io_uring_register", "io_uring_setup")
TRACING = ("kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace")
SYSTEM_V = (
    "mq_open", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop", "shmat", "shmctl",
    "shmget",
)  # fmt: skip
# Their first argument is the number of a process; 0 is the one that calls.
NAMING = (
    "kill", "migrate_pages", "move_pages", "pidfd_open", "prlimit64", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "sched_setaffinity",
    "sched_setattr", "sched_setparam", "sched_setscheduler", "tgkill", "tkill",
)  # fmt: skip
NEW_NAMESPACES = 0x7E020080
# Typing into a terminal, or taking it over, from inside.
TERMINAL_COMMANDS = (0x5412, 0x541C, 0x541D)  # TIOCSTI, TIOCLINUX, TIOCCONS
OWNER_COMMANDS = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP
F_SETOWN, F_SETSIG, F_SETOWN_EX = 8, 10, 15  # by which another process is sent a signal
MSG_FASTOPEN = 0x20000000  # connects, and no rule of Landlock is asked
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, TYPE, TCP = 1, 0xF, 6
EVERY_PROCESS = 0xFFFFFFFF


@dataclass(frozen=True)
class Held:
    """What guards beside the filter, so that it need not."""

    network: bool  # a namespace
    tcp: bool  # Landlock's rules for TCP
    ipc: bool  # a namespace
    tracing: bool  # Landlock
    signals: bool  # Landlock's scope
    supervised: bool  # calls that name a process are asked about


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("true", ctypes.c_uint8), ("false", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


Code = list[tuple[int, int, int, int]]


def refuse(held: Held) -> bool:
    """Refuse these calls to this process and its children, for good; False where kernel or machine are not known."""
    if platform.machine() not in AUDIT_ARCH or number("seccomp") is None or not forgo_privileges():
        return False
    try:
        # Without the flag, older kernels switch off speculation and Python runs a third slower.
        call("seccomp", SET_MODE_FILTER, ctypes.c_ulong(SPEC_ALLOW), ctypes.byref(as_program(program(held))))
    except OSError:
        return False
    return True


def as_program(code: Code) -> _Program:
    """As the kernel takes it."""
    return _Program(len(code), (_Instruction * len(code))(*(_Instruction(*step) for step in code)))


def asked() -> Code:
    """The instructions by which the kernel asks of every call that names another process."""
    notify = (RETURN, 0, 0, NOTIFY)
    code = _beginning()
    for name in NAMING:
        code += _of(name, [*_low(0), (EQUAL, 0, 1, 0), _allow(), notify])
    for name in ("pidfd_send_signal",):
        code += _of(name, [notify])
    for name, user in (("setpriority", 2), ("ioprio_set", 3)):  # all processes of a user, whose number may be 0
        code += _of(name, [*_low(0), (EQUAL, 0, 1, user), notify, *_low(1), (EQUAL, 0, 1, 0), _allow(), notify])
    return [*code, _allow()]


def _beginning() -> Code:
    """Load the number of the call; whoever uses another numbering is refused."""
    code: Code = [
        (LOAD, 0, 0, ARCH_AT),
        (EQUAL, 1, 0, AUDIT_ARCH[platform.machine()]),
        _refuse(errno.ENOSYS),
        (LOAD, 0, 0, NUMBER_AT),
    ]
    if platform.machine() == "x86_64":
        code += [(AT_LEAST, 0, 1, X32), _refuse(errno.ENOSYS)]
    return code


def program(held: Held) -> Code:
    """The filter's instructions: (code, skipped where true, skipped where false, constant)."""
    code = _beginning()
    for name in (*REFUSED, *(() if held.tracing else TRACING), *(() if held.ipc else SYSTEM_V)):
        code += _of(name, [_refuse(errno.EPERM)])
    for name in ABSENT:
        code += _of(name, [_refuse(errno.ENOSYS)])
    code += _of("unshare", [*_low(0), (AND_SET, 0, 1, NEW_NAMESPACES), _refuse(errno.EPERM), _allow()])
    code += _of("kill", [*_low(0), (EQUAL, 0, 1, EVERY_PROCESS), _refuse(errno.EPERM), _allow()])
    if not held.supervised:
        # Limits of another process end it as well as a signal does. Its own limits a process sets under number 0.
        read_only = [*_low(2), (EQUAL, 0, 3, 0), *_high(2), (EQUAL, 0, 1, 0), _allow()]
        code += _of("prlimit64", [*_low(0), (EQUAL, 0, 1, 0), _allow(), *read_only, _refuse(errno.EPERM)])
    code += _of("socket", _sockets(held))
    commands = TERMINAL_COMMANDS if held.signals else (*TERMINAL_COMMANDS, *OWNER_COMMANDS)
    code += _of("ioctl", [*_low(1), *_any_of(commands), _allow()])
    if not held.signals:
        code += _of("fcntl", [*_low(1), *_any_of((F_SETOWN, F_SETSIG, F_SETOWN_EX)), _allow()])
    if not held.network:
        for name, flags in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
            code += _of(name, [*_low(flags), (AND_SET, 0, 1, MSG_FASTOPEN), _refuse(errno.EPERM), _allow()])
    return [*code, _allow()]


def _sockets(held: Held) -> Code:
    """Sockets of this machine, and of TCP/IP where something else keeps them from the network."""
    unknown = _refuse(errno.EAFNOSUPPORT)
    code = [*_low(0), (EQUAL, 0, 1, AF_UNIX), _allow()]
    if held.network:
        code += [(EQUAL, 1, 0, AF_INET), (EQUAL, 0, 1, AF_INET6), _allow()]
    elif held.tcp:
        stream = [*_low(1), (AND, 0, 0, TYPE), (EQUAL, 1, 0, SOCK_STREAM), _refuse(errno.EACCES)]
        protocol = [*_low(2), (EQUAL, 1, 0, 0), (EQUAL, 0, 1, TCP), _allow(), _refuse(errno.EACCES)]
        inner = [*stream, *protocol]
        code += [(EQUAL, 1, 0, AF_INET), (EQUAL, 0, len(inner), AF_INET6), *inner]
    else:
        code += [(EQUAL, 1, 0, AF_INET), (EQUAL, 0, 1, AF_INET6), _refuse(errno.EACCES)]
    # The kernel's own: which addresses this machine has (protocol 0) is asked in every look-up of a name.
    return [*code, (EQUAL, 1, 0, AF_NETLINK), unknown, *_low(2), (EQUAL, 1, 0, 0), unknown, _allow()]


def _of(name: str, body: Code) -> Code:
    """The body for one system call, nothing for others; it must end in a return."""
    found = number(name)
    if found is None:
        return []
    return [(EQUAL, 0, len(body), found), *body]


def _low(argument: int) -> Code:
    """Load the lower half of an argument. It overwrites the number of the call, which is not needed any more."""
    return [(LOAD, 0, 0, ARGUMENTS_AT + 8 * argument)]


def _high(argument: int) -> Code:
    """Load the upper half of an argument."""
    return [(LOAD, 0, 0, ARGUMENTS_AT + 8 * argument + 4)]


def _any_of(values: Sequence[int]) -> Code:
    """Refuse where the loaded value is one of these."""
    return [step for value in values for step in ((EQUAL, 0, 1, value), _refuse(errno.EPERM))]


def _refuse(code: int) -> tuple[int, int, int, int]:
    return RETURN, 0, 0, ERRNO | code


def _allow() -> tuple[int, int, int, int]:
    return RETURN, 0, 0, ALLOW
