"""Attempts on the network, on services of the machine, and on memory and queues that other programs share."""

from __future__ import annotations

import _socket
import ctypes
import os
import posix
import socket
import struct
import subprocess
import sys
import time
from typing import Any

from tests.experiments.escapes.attempt import LED, LIBC, checked, gather, started, syscall

attempt, NETWORKS = gather()
MSG_FASTOPEN = 0x20000000


def _internet(address: tuple[str, int]) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", address[1], socket.inet_aton(address[0]))


@attempt("TCP to a server of this machine, by socket", "network")
def tcp(o: Any) -> None:
    socket.create_connection(tuple(o.tcp), timeout=2)


@attempt("TCP to an address outside, by socket")
def tcp_outside(o: Any) -> None:
    socket.create_connection(("192.0.2.1", 80), timeout=2)


@attempt("TCP by _socket, below Python's class", "network")
def tcp_below(o: Any) -> None:
    _socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect(tuple(o.tcp))


@attempt("TCP by ctypes", "network")
def tcp_by_c(o: Any) -> None:
    number = checked(LIBC.socket(socket.AF_INET, socket.SOCK_STREAM, 0))
    checked(LIBC.connect(number, _internet(o.tcp), 16))


@attempt("TCP by a system call", "network")
def tcp_by_system_call(o: Any) -> None:
    number = syscall("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    syscall("connect", number, _internet(o.tcp), 16)


@attempt("TCP of a child program", "network")
def tcp_of_child(o: Any) -> None:
    code = f"import socket; socket.create_connection({tuple(o.tcp)!r}, timeout=2)"
    started(subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode)


@attempt("TCP that connects as it sends (fast open)", "network")
def tcp_fast_open(o: Any) -> None:
    one = _socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    one.sendto(b"harm", MSG_FASTOPEN, tuple(o.tcp))


@attempt("multipath TCP", "network")
def multipath_tcp(o: Any) -> None:
    _socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).connect(tuple(o.tcp))


@attempt("UDP by socket", "network")
def udp(o: Any) -> None:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.connect(tuple(o.udp))
    one.send(b"harm")
    one.settimeout(0.5)
    one.recv(1)


@attempt("UDP by ctypes", "network")
def udp_by_c(o: Any) -> None:
    number = checked(LIBC.socket(socket.AF_INET, socket.SOCK_DGRAM, 0))
    checked(LIBC.sendto(number, b"harm", 4, 0, _internet(o.udp), 16))
    time.sleep(0.2)  # until it is heard
    raise ConnectionError("nothing is told of what nobody hears")


@attempt("UDP to an address outside", "network")
def udp_outside(o: Any) -> None:
    _socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"harm", ("192.0.2.1", 53))


@attempt("the name of a host", "network")
def name(o: Any) -> None:
    socket.getaddrinfo("valgap.example.com", 80)


@attempt("a raw socket", "network")
def raw(o: Any) -> None:
    _socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).sendto(b"\x08\x00\xf7\xff" + bytes(4), ("192.0.2.1", 0))


@attempt("frames (AF_PACKET)", "calls")
def frames(o: Any) -> None:
    _socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)


@attempt("the machine's host (AF_VSOCK)", "calls")
def host_of_machine(o: Any) -> None:
    _socket.socket(40, socket.SOCK_STREAM, 0)


@attempt("the kernel's audit (AF_NETLINK)", "calls")
def audit(o: Any) -> None:
    _socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)


@attempt("a service by its path, by socket")
def service(o: Any) -> None:
    one = socket.socket(socket.AF_UNIX)
    one.connect(o.unix)
    one.send(b"harm")


@attempt("a service by its path, by _socket", "sockets")
def service_below(o: Any) -> None:
    _socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(o.unix)


@attempt("a service by its path, through /proc/self/root", "sockets")
def service_through_root(o: Any) -> None:
    _socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(f"/proc/self/root{o.unix}")


@attempt("a service by its path, of a child program", "sockets")
def service_of_child(o: Any) -> None:
    code = f"import socket; socket.socket(socket.AF_UNIX).connect({o.unix!r})"
    started(subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode)


@attempt("a datagram to a service by its path (syslog)", "sockets")
def datagram(o: Any) -> None:
    _socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"harm", o.datagram)


@attempt("a service by an abstract name", "sockets")
def abstract(o: Any) -> None:
    _socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(f"\0{o.abstract}")


@attempt("a manager of multiprocessing outside", "network")
def manager(o: Any) -> None:
    from multiprocessing.managers import BaseManager

    BaseManager(tuple(o.tcp), b"key").connect()


@attempt("a client of multiprocessing, by path", "sockets")
def client(o: Any) -> None:
    from multiprocessing.connection import Client

    Client(o.unix, "AF_UNIX")


@attempt("a server of one's own where others could connect", "loopback", LED)
def server(o: Any) -> None:
    with socket.socket() as one:
        one.bind(("0.0.0.0", o.free))
        one.listen()
        with socket.create_connection(("127.0.0.1", o.free), timeout=2):
            assert subprocess.run(["true"], check=False).returncode == 0


@attempt("a server of one's own by a path in the folder")
def server_by_path(o: Any) -> None:
    _socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).bind(f"{o.folder}/s")


@attempt("shared memory of System V", "ipc")
def system_v_memory(o: Any) -> None:
    number = checked(LIBC.shmget(o.key, 16, 0o600))
    LIBC.shmat.restype = ctypes.c_void_p
    ctypes.memmove(LIBC.shmat(number, None, 0), b"harm", 4)


@attempt("shared memory of System V, by its number", "ipc")
def system_v_memory_by_number(o: Any) -> None:
    checked(LIBC.shmctl(o.segment, 0, None))


@attempt("a message queue of System V", "ipc")
def system_v_queue(o: Any) -> None:
    number = checked(LIBC.msgget(o.key, 0o600))
    checked(LIBC.msgsnd(number, struct.pack("l4s", 1, b"harm"), 4, 0))


@attempt("a message queue of POSIX", "ipc")
def posix_queue(o: Any) -> None:
    number = checked(LIBC.mq_open(o.queue.encode(), os.O_WRONLY))
    checked(LIBC.mq_send(number, b"harm", 4, 0))


@attempt("removing a message queue of POSIX", "ipc")
def remove_posix_queue(o: Any) -> None:
    checked(LIBC.mq_unlink(o.queue.encode()))


@attempt("shared memory by its file, by posix.open", "ipc")
def shared_file(o: Any) -> None:
    os.write(posix.open(f"/dev/shm/{o.shared}", os.O_WRONLY), b"harm")


@attempt("shared memory by its file, by open", comes=LED)
def shared_file_in_overlay(o: Any) -> None:
    with open(f"/dev/shm/{o.shared}", "w") as file:
        file.write("harm")


@attempt("removing shared memory by its name", "ipc")
def remove_shared(o: Any) -> None:
    import _posixshmem

    _posixshmem.shm_unlink(f"/{o.shared}")


@attempt("multiprocessing.shared_memory of another program", "ipc")
def shared_memory(o: Any) -> None:
    from multiprocessing.shared_memory import SharedMemory

    memory = SharedMemory(o.shared)
    memory.buf[:4] = b"harm"
    memory.close()


@attempt("a semaphore of another program", "ipc")
def semaphore(o: Any) -> None:
    LIBC.sem_open.restype = ctypes.c_void_p
    found = LIBC.sem_open(o.semaphore.encode(), 0)
    if not found:
        raise OSError(ctypes.get_errno(), "sem_open")
    LIBC.sem_post(ctypes.c_void_p(found))
