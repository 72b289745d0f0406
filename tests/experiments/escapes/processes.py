"""Attempts on processes outside, on the devices of the machine, and on the machine itself."""

from __future__ import annotations

import ctypes
import fcntl
import os
import posix
import resource
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any

from tests.experiments.escapes.attempt import LIBC, checked, gather, started, syscall

attempt, PROCESSES = gather()
F_SETOWN, F_SETSIG = 8, 10
ATTACH, SEIZE = 16, 0x4206


@attempt("os.kill", "signals")
def kill(o: Any) -> None:
    os.kill(o.victim, signal.SIGKILL)


@attempt("kill by ctypes", "signals")
def c_kill(o: Any) -> None:
    checked(LIBC.kill(o.victim, signal.SIGKILL))


@attempt("os.killpg", "signals")
def kill_group(o: Any) -> None:
    os.killpg(os.getpgid(o.victim), signal.SIGKILL)


@attempt("kill(-1), every process of the user", "signals")
def kill_all(o: Any) -> None:
    checked(LIBC.kill(-1, signal.SIGCONT))


@attempt("tgkill", "signals")
def kill_thread(o: Any) -> None:
    syscall("tgkill", o.victim, o.victim, signal.SIGKILL)


@attempt("tkill", "signals")
def kill_task(o: Any) -> None:
    syscall("tkill", o.victim, signal.SIGKILL)


@attempt("rt_sigqueueinfo", "signals")
def queue_signal(o: Any) -> None:
    information = ctypes.create_string_buffer(struct.pack("iii", signal.SIGTERM, 0, -1) + bytes(116))
    syscall("rt_sigqueueinfo", o.victim, signal.SIGTERM, information)


@attempt("pidfd_send_signal", "signals")
def kill_by_descriptor(o: Any) -> None:
    number = syscall("pidfd_open", o.victim, 0)
    syscall("pidfd_send_signal", number, signal.SIGKILL, None, 0)


@attempt("SIGKILL as what a pipe sends its owner (F_SETOWN, F_SETSIG)", "signals")
def kill_by_pipe(o: Any) -> None:
    mine, other = os.pipe()
    fcntl.fcntl(mine, F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(mine, F_SETOWN, o.victim)
    fcntl.fcntl(mine, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(other, b"x")
    raise PermissionError("nothing is told of what is not sent")


@attempt("kill as a program", "signals")
def kill_program(o: Any) -> None:
    started(subprocess.run(f"kill -9 {o.victim}", shell=True, stderr=subprocess.DEVNULL, check=False).returncode)


@attempt("a limit of processor time for the other process", "calls")
def limit(o: Any) -> None:
    resource.prlimit(o.victim, resource.RLIMIT_CPU, (1, 1))


@attempt("a low priority for the other process", "priorities")
def priority(o: Any) -> None:
    os.setpriority(os.PRIO_PROCESS, o.victim, 19)


@attempt("another processor for the other process", "priorities")
def affinity(o: Any) -> None:
    os.sched_setaffinity(o.victim, {0})


@attempt("the other process as the first to be ended when memory is short", "files")
def out_of_memory(o: Any) -> None:
    with open(f"/proc/{o.victim}/oom_score_adj", "w") as file:
        file.write("1000")


@attempt("ptrace (attach)", "tracing")
def trace(o: Any) -> None:
    syscall("ptrace", ATTACH, o.victim, None, None)


@attempt("ptrace (seize)", "tracing")
def trace_seize(o: Any) -> None:
    syscall("ptrace", SEIZE, o.victim, None, None)


@attempt("process_vm_writev", "tracing")
def write_memory(o: Any) -> None:
    text = ctypes.create_string_buffer(b"harm")
    here = (ctypes.c_void_p * 2)(ctypes.addressof(text), 4)
    there = (ctypes.c_void_p * 2)(o.address, 4)
    syscall("process_vm_writev", o.victim, here, 1, there, 1, 0)


@attempt("process_vm_readv", "tracing")
def read_memory(o: Any) -> None:
    text = ctypes.create_string_buffer(4)
    here = (ctypes.c_void_p * 2)(ctypes.addressof(text), 4)
    there = (ctypes.c_void_p * 2)(o.address, 4)
    syscall("process_vm_readv", o.victim, here, 1, there, 1, 0)


@attempt("/proc/PID/mem", "tracing")
def memory_file(o: Any) -> None:
    number = posix.open(f"/proc/{o.victim}/mem", os.O_RDWR)
    os.pwrite(number, b"harm", o.address)


@attempt("a descriptor of the other process (pidfd_getfd)", "tracing")
def take_descriptor(o: Any) -> None:
    syscall("pidfd_getfd", syscall("pidfd_open", o.victim, 0), 1, 0)


@attempt("a descriptor of the other process (/proc/PID/fd)", "tracing")
def open_descriptor(o: Any) -> None:
    posix.open(f"/proc/{o.victim}/fd/1", os.O_WRONLY)


@attempt("the namespaces of the first process (setns)", "calls")
def enter_namespace(o: Any) -> None:
    syscall("setns", posix.open("/proc/1/ns/net", os.O_RDONLY), 0)


@attempt("namespaces of one's own, where one is root (unshare)", "calls")
def new_namespaces(o: Any) -> None:
    syscall("unshare", 0x10000000 | 0x20000)


@attempt("a mount in the place of the folder", "calls")
def mount(o: Any) -> None:
    syscall("mount", b"tmpfs", o.folder.encode(), b"tmpfs", 0, None)


@attempt("a mount in the place of the folder, as root of a namespace made by clone", "files")
def mount_in_clone(o: Any) -> None:
    child = syscall("clone", 0x10000000 | 0x20000 | signal.SIGCHLD, None, None, None, None)
    if child == 0:
        LIBC._exit(1 if LIBC.mount(b"tmpfs", o.folder.encode(), b"tmpfs", ctypes.c_ulong(0), None) else 0)
    started(os.waitpid(child, 0)[1])


@attempt("unmounting what makes it read-only", "calls")
def unmount(o: Any) -> None:
    syscall("umount2", b"/dev/shm", 2)


@attempt("mounting everything writable again", "calls")
def remount(o: Any) -> None:
    syscall("mount", None, b"/", None, 1 << 5 | 1 << 12, None)


@attempt("the same by mount_setattr", "calls")
def remount_by_attribute(o: Any) -> None:
    syscall("mount_setattr", -100, b"/", 0x8000, struct.pack("QQQQ", 0, 1, 0, 0), 32)


@attempt("chroot", "calls")
def new_root(o: Any) -> None:
    syscall("chroot", o.scratch.encode())


@attempt("a write to the kernel's log (/dev/kmsg)", "devices")
def kernel_log(o: Any) -> None:
    posix.write(posix.open("/dev/kmsg", os.O_WRONLY), b"harm")


@attempt("the disk itself", "devices")
def disk(o: Any) -> None:
    if not o.disk:
        raise PermissionError("no disk is seen here")
    posix.open(o.disk, os.O_RDWR)


@attempt("a loop device (a command to /dev/loop-control)", "devices")
def loop_device(o: Any) -> None:
    fcntl.ioctl(posix.open("/dev/loop-control", os.O_RDONLY), 0x4C82)


@attempt("another terminal", "devices")
def terminal(o: Any) -> None:
    number = posix.open(o.terminal, os.O_WRONLY | os.O_NOCTTY)
    posix.write(number, b"harm")


@attempt("typing into one's own terminal (TIOCSTI)", "calls")
def type_into_terminal(o: Any) -> None:
    fcntl.ioctl(os.openpty()[1], 0x5412, b"x")


@attempt("a setting of the kernel (/proc/sys)", "files")
def kernel_setting(o: Any) -> None:
    Path("/proc/sys/kernel/core_pattern").write_text("core")


@attempt("a setting of a device (/sys)", "files")
def device_setting(o: Any) -> None:
    posix.open("/sys/kernel/profiling", os.O_WRONLY)


@attempt("a group of processes (cgroup)", "files")
def control_group(o: Any) -> None:
    posix.mkdir("/sys/fs/cgroup/harm")


@attempt("the machine's name", "calls")
def host_name(o: Any) -> None:
    syscall("sethostname", b"harm", 4)


@attempt("the clock", "calls")
def clock(o: Any) -> None:
    syscall("clock_settime", 0, struct.pack("qq", 0, 0))


@attempt("a restart (with a wrong number, so that nothing happens)", "calls")
def restart(o: Any) -> None:
    try:
        syscall("reboot", 1, 2, 3, None)
    except OSError as error:
        if error.errno == 22:
            return  # the kernel looked at the number
        raise


@attempt("a module of the kernel", "calls")
def kernel_module(o: Any) -> None:
    _told_by_permission("init_module", None, 0, b"")


@attempt("another kernel", "calls")
def another_kernel(o: Any) -> None:
    _told_by_permission("kexec_load", 0, 0, None, 0)


@attempt("a program inside the kernel (bpf)", "calls")
def kernel_program(o: Any) -> None:
    _told_by_permission("bpf", 0, None, 0)


@attempt("the kernel's keys", "calls")
def keys(o: Any) -> None:
    syscall("add_key", b"user", b"harm", b"x", 1, -4)


@attempt("counters of every process (perf_event_open)", "calls")
def counters(o: Any) -> None:
    syscall("perf_event_open", struct.pack("IIQ", 1, 112, 0) + bytes(96), -1, 0, -1, 0)


@attempt("userfaultfd", "calls")
def fault_handler(o: Any) -> None:
    syscall("userfaultfd", 1)


@attempt("watching every file (fanotify)", "calls")
def watch_files(o: Any) -> None:
    syscall("fanotify_init", 0x200, 0)


def _told_by_permission(name: str, *arguments: Any) -> None:
    """Only a refusal counts: with arguments like these the kernel would find another fault."""
    try:
        syscall(name, *arguments)
    except OSError as error:
        if error.errno in (1, 13, 38):
            raise
