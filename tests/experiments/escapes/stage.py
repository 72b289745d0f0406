"""What lies outside the sandbox: files, servers, a process, queues and shared memory, and whether any of them was reached."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import os
import pty
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import psutil

VICTIM = """
import ctypes, time
text = ctypes.create_string_buffer(b'untouched')
print(ctypes.addressof(text), flush=True)
time.sleep(600)
"""
EXTENSION = r"""
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
int write_to(const char *path) { FILE *f = fopen(path, "w"); if (!f) return -1; fputs("harm", f); return fclose(f); }
static void *removing(void *path) { return (void *)(long)(unlink(path) ? errno : 0); }
int delete_in_thread(const char *path) {
  pthread_t one; void *result;
  pthread_create(&one, 0, removing, (void *)path);
  pthread_join(one, &result);
  errno = (int)(long)result;
  return errno ? -1 : 0;
}
#if defined(__x86_64__)
int bare_unlink(const char *path) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(87), "D"(path) : "rcx", "r11", "memory");
  return (int)result;
}
int old_unlink(const char *path) {
  /* These take addresses of 32 bits. */
  char *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  int result;
  int i = 0;
  for (; path[i] && i < 4095; i++) low[i] = path[i];
  low[i] = 0;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(10), "b"(low) : "memory");
  return result;
}
#else
int bare_unlink(const char *path) { long r = syscall(SYS_unlinkat, -100, path, 0); return r < 0 ? -errno : 0; }
int old_unlink(const char *path) { return -ENOSYS; }
#endif
"""
KEY = 0x76616C67
_numbers = itertools.count(1000 * (os.getpid() % 1000))  # a name of its own for each
IPC_CREAT, IPC_RMID = 0o1000, 0


class Stage:
    """It is there until ``close``; ``told`` is what a program in the sandbox is told of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.scratch = folder / "home", folder / "scratch"
        self.scratch.mkdir()
        self._name = f"valgap-{os.getpid()}-{next(_numbers)}"
        self.heard: list[str] = []
        self._close = contextlib.ExitStack()
        self._files()
        self.told: dict[str, Any] = {
            "folder": str(self.folder), "file": str(self.folder / "file"), "deep": str(self.folder / "deep" / "file"),
            "database": str(self.folder / "outer" / "base.db"), "hdf": str(self.folder / "outer" / "data.h5"),
            "scratch": str(self.scratch), "outer": os.getpid(), "extension": extension(folder), "disk": disk(),
        }  # fmt: skip
        try:
            self._victim()
            self._servers()
            self._terminal()
            self._shared()
            self._before = self.seen()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End and remove all of it."""
        self._close.close()

    def changed(self) -> list[str]:
        """What is not as it was; empty where nothing was reached."""
        now = self.seen()
        return [f"{name}: {self._before.get(name)} -> {now.get(name)}" for name in now if now[name] != self._before.get(name)] + [
            f"{name} is gone" for name in self._before if name not in now
        ]

    def seen(self) -> dict[str, object]:
        """Everything outside, by name."""
        return {**self._tree(), **self._of_victim(), **self._of_shared(), "heard": list(self.heard), "host": socket.gethostname()}

    # -- files --------------------------------------------------------------------------------

    def _files(self) -> None:
        import h5py

        (self.folder / "deep").mkdir(parents=True)
        (self.folder / "outer").mkdir()
        (self.folder / "file").write_text("untouched")
        (self.folder / "deep" / "file").write_text("untouched too")
        with contextlib.closing(sqlite3.connect(self.folder / "outer" / "base.db")) as base, base:
            base.execute("create table t (x)")
            base.execute("insert into t values (1)")
        with h5py.File(self.folder / "outer" / "data.h5", "w") as file:
            file["x"] = [1, 2]

    def _tree(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for path in [self.folder, *sorted(self.folder.rglob("*"))] if self.folder.exists() else []:
            status = path.lstat()
            content = (
                hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else os.listdir(path) if path.is_dir() else ""
            )
            attributes = os.listxattr(path, follow_symlinks=False)
            found[str(path)] = (
                content, attributes, status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns,
                status.st_ino,
            )  # fmt: skip
        return found

    # -- a process ----------------------------------------------------------------------------

    def _victim(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        self._close.callback(self._process.stdout.close)
        self._close.callback(self._process.wait)
        self._close.callback(self._process.kill)
        self.told |= {"victim": self._process.pid, "address": int(self._process.stdout.readline())}

    def _of_victim(self) -> dict[str, object]:
        if self._process.poll() is not None:
            return {"process": "ended"}
        one = psutil.Process(self._process.pid)
        with Path(f"/proc/{one.pid}/mem").open("rb") as memory:
            memory.seek(self.told["address"])
            text = memory.read(9)
        adjusted = Path(f"/proc/{one.pid}/oom_score_adj").read_text()
        state = (text, one.nice() == 19, one.cpu_affinity(), one.rlimit(psutil.RLIMIT_CPU), one.status() == "stopped", adjusted)
        return {"process": state}

    # -- servers ------------------------------------------------------------------------------

    def _servers(self) -> None:
        place = Path(tempfile.mkdtemp(prefix="v-"))  # the path of a socket is short
        self._close.callback(shutil.rmtree, place)
        stream, packet = socket.SOCK_STREAM, socket.SOCK_DGRAM
        unix, local = str(place / "service"), ("127.0.0.1", 0)
        abstract = self._name
        self.told["tcp"] = self._serve("TCP", socket.AF_INET, stream, local)
        self.told["udp"] = self._serve("UDP", socket.AF_INET, packet, local)
        self.told["unix"] = self._serve("service", socket.AF_UNIX, stream, unix)
        self.told["datagram"] = self._serve("log", socket.AF_UNIX, packet, str(place / "log"))
        self._serve("abstract", socket.AF_UNIX, stream, f"\0{abstract}")
        self.told["abstract"] = abstract
        with socket.socket() as one:
            one.bind(local)
            self.told["free"] = one.getsockname()[1]

    def _serve(self, name: str, family: int, kind: int, address: Any) -> Any:
        one = socket.socket(family, kind)
        one.bind(address)
        if kind == socket.SOCK_STREAM:
            one.listen()
        self._close.callback(_end, one)

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    if kind == socket.SOCK_STREAM:
                        one.accept()[0].close()
                    else:
                        one.recv(100)
                    self.heard.append(name)

        threading.Thread(target=listen, daemon=True).start()
        return one.getsockname()

    def _terminal(self) -> None:
        ours, theirs = pty.openpty()
        self._close.callback(os.close, ours)
        self._close.callback(os.close, theirs)
        self.told["terminal"] = os.ttyname(theirs)

        def listen() -> None:
            with contextlib.suppress(OSError):
                while os.read(ours, 100):
                    self.heard.append("terminal")

        threading.Thread(target=listen, daemon=True).start()

    # -- what programs share ------------------------------------------------------------------

    def _shared(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        name = self._name
        self._memory = SharedMemory(name, create=True, size=16)
        self._close.callback(_unlink, self._memory)
        self._close.callback(self._memory.close)
        self.told |= {"shared": name, "semaphore": f"/{name}", "queue": f"/{name}"}
        libc.sem_open.restype = ctypes.c_void_p
        self._semaphore = Path(f"/dev/shm/sem.{name}")
        assert libc.sem_open(f"/{name}".encode(), os.O_CREAT, 0o600, 0)
        self._close.callback(libc.sem_unlink, f"/{name}".encode())
        key = next(k for k in map(KEY.__add__, _numbers) if libc.shmget(k, 0, 0) < 0 and libc.msgget(k, 0) < 0)
        self._segment = libc.shmget(key, 16, IPC_CREAT | 0o600)
        self.told |= {"segment": self._segment, "key": key}
        libc.shmat.restype = ctypes.c_void_p
        self._attached = libc.shmat(self._segment, None, 0)
        self._close.callback(libc.shmdt, ctypes.c_void_p(self._attached))
        self._close.callback(libc.shmctl, self._segment, IPC_RMID, None)
        self._system_v_queue = libc.msgget(key, IPC_CREAT | 0o600)
        self._close.callback(libc.msgctl, self._system_v_queue, IPC_RMID, None)
        small = struct.pack("4l", 0, 2, 64, 0) + bytes(32)  # a user may have few bytes of these
        self._queue = libc.mq_open(f"/{name}".encode(), os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o600, small)
        assert self._queue >= 0 and self._segment >= 0 and self._system_v_queue >= 0
        self._close.callback(libc.mq_close, self._queue)
        self._close.callback(libc.mq_unlink, f"/{name}".encode())
        self._libc = libc

    def _of_shared(self) -> dict[str, object]:
        text = ctypes.create_string_buffer(8192)
        waiting = self._libc.msgrcv(self._system_v_queue, text, 4, 0, 0o4000)
        posix_waiting = self._libc.mq_receive(self._queue, text, ctypes.c_size_t(8192), None)
        segments = Path("/proc/sysvipc/shm").read_text().splitlines()
        return {
            "shared memory": bytes(self._memory.buf[:16]),
            "its files": sorted(os.listdir("/dev/shm")),
            "semaphore": self._semaphore.read_bytes() if self._semaphore.exists() else None,
            "System V": (ctypes.string_at(self._attached, 4), any(f" {self._segment} " in s for s in segments)),
            "queues": (waiting, posix_waiting),
        }


def _unlink(memory: SharedMemory) -> None:
    with contextlib.suppress(FileNotFoundError):
        memory.unlink()


def _end(server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # whoever waits at it goes on
        server.shutdown(socket.SHUT_RDWR)
    server.close()


def extension(folder: Path) -> str:
    """The path of a C extension; empty where there is no compiler."""
    compiler = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
    if compiler is None:
        return ""
    source, built = folder / "extension.c", folder / "extension.so"
    source.write_text(EXTENSION)
    subprocess.run([compiler, "-shared", "-fPIC", "-pthread", "-o", str(built), str(source)], check=True)
    return str(built)


def disk() -> str:
    """A block device that this user could write to; empty where there is none."""
    return next((str(p) for p in sorted(Path("/dev").glob("*")) if p.is_block_device() and os.access(p, os.W_OK)), "")
