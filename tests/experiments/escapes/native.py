"""Attempts on files outside by C, by child programs, and by libraries that open files themselves."""

from __future__ import annotations

import ctypes
import os
import posix
import subprocess
import sys
import tempfile
import threading
from typing import Any

from tests.experiments.escapes.attempt import LED, LIBC, checked, gather, started

attempt, NATIVE = gather()


@attempt("fopen(file, 'w') by ctypes", "files")
def c_fopen(o: Any) -> None:
    LIBC.fopen.restype = ctypes.c_void_p
    if not LIBC.fopen(o.file.encode(), b"w"):
        raise OSError(ctypes.get_errno(), "fopen")


@attempt("a C extension that writes", "files")
def c_extension_writes(o: Any) -> None:
    checked(_extension(o).write_to(o.file.encode()))


@attempt("a C extension that deletes, in a thread of its own", "files")
def c_extension_deletes(o: Any) -> None:
    checked(_extension(o).delete_in_thread(o.file.encode()))


@attempt("a system call without the C library", "files")
def c_bare_system_call(o: Any) -> None:
    found = _extension(o).bare_unlink(o.file.encode())
    if found < 0:
        raise OSError(-found, os.strerror(-found))


@attempt("the system calls of 32-bit programs (int 0x80)", "files")
def c_old_system_call(o: Any) -> None:
    found = _extension(o).old_unlink(o.file.encode())
    if found < 0:
        raise OSError(-found, os.strerror(-found))


def _extension(o: Any) -> ctypes.CDLL:
    if not o.extension:
        raise NotImplementedError("no C compiler here")
    return ctypes.CDLL(o.extension, use_errno=True)


@attempt("the system calls of the x32 numbering", "files")
def c_other_numbering(o: Any) -> None:
    checked(LIBC.syscall(ctypes.c_long(0x40000000 | 87), o.file.encode()))


@attempt("rm -rf by a shell", "files")
def shell_removes(o: Any) -> None:
    started(subprocess.run(["rm", "-rf", o.folder], stderr=subprocess.DEVNULL, check=False).returncode)


@attempt("os.system", "files")
def system_writes(o: Any) -> None:
    started(os.system(f"echo harm 2>&- > {o.file}"))


@attempt("chmod by a child program", "attributes")
def shell_changes_mode(o: Any) -> None:
    started(subprocess.run(["chmod", "0", o.file], stderr=subprocess.DEVNULL, check=False).returncode)


@attempt("os.posix_spawn", "files")
def spawn_writes(o: Any) -> None:
    command = [sys.executable, "-c", f"open({o.file!r}, 'w')"]
    pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_CLOSE, 2)])
    started(os.waitpid(pid, 0)[1])


@attempt("a process of multiprocessing that begins anew (spawn)", "truncation")
def spawned_process(o: Any) -> None:
    import multiprocessing

    main: Any = sys.modules["__main__"]
    main.__spec__ = None  # else the process begins by importing this program
    del main.__file__
    process = multiprocessing.get_context("spawn").Process(target=posix.truncate, args=(o.file, 0))
    process.start()
    process.join()
    started(process.exitcode or 0)


@attempt("a forked process of multiprocessing", comes=LED)
def forked_process(o: Any) -> None:
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=os.truncate, args=(o.file, 0))
    process.start()
    process.join()
    started(process.exitcode or 0)
    assert open(o.file).read() == ""


@attempt("Ctrl-C in the middle of replacing a file", comes=LED)
def interrupted(o: Any) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        while True:
            handle, name = tempfile.mkstemp(dir=o.folder)
            os.write(handle, b"x" * 100_000)
            os.close(handle)
            os.replace(name, o.file)
    except KeyboardInterrupt:
        pass


@attempt("sqlite3", comes=LED)
def sqlite_writes(o: Any) -> None:
    import sqlite3

    with sqlite3.connect(o.database) as base:
        base.execute("insert into t values (2)")
    assert sqlite3.connect(o.database).execute("select count(*) from t").fetchone() == (2,)


@attempt("sqlite3: ATTACH, which opens by itself", "files")
def sqlite_attaches(o: Any) -> None:
    import sqlite3

    base = sqlite3.connect(":memory:")
    base.execute("attach ? as other", (o.database,))
    base.execute("insert into other.t values (2)")


@attempt("h5py.File 'r+', or its library by ctypes", comes=LED)
def hdf_writes(o: Any) -> None:
    import h5py

    with h5py.File(o.hdf, "r+") as file:
        file["x"][0] = 7
    with h5py.File(o.hdf, "r") as file:
        assert file["x"][0] == 7


@attempt("torch.save and torch.jit.save", comes=LED)
def torch_saves(o: Any) -> None:
    import torch

    torch.save(torch.ones(2), o.file)
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1, 1)), o.deep)
    torch.jit.load(o.deep)


@attempt("torch.from_file with shared=True", comes=LED)
def torch_maps(o: Any) -> None:
    import torch

    torch.from_file(o.file, shared=True, size=4, dtype=torch.uint8).zero_()
