"""Attempts on files outside: by Python's functions, by those below them, by libraries, by C and child programs."""

from __future__ import annotations

import ctypes
import io
import mmap
import os
import posix
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from tests.experiments.escapes.attempt import LED, LIBC, checked, gather, started, syscall

attempt, FILES = gather()
KEPT_OPEN = open  # taken before the sandbox began
AT_FDCWD, EXCHANGE, EMPTY_PATH = -100, 2, 0x1000
SET_FLAGS = 0x40086602


@attempt("open(file, 'w')", comes=LED)
def open_for_writing(o: Any) -> None:
    with open(o.file, "w") as file:
        file.write("harm")
    assert open(o.file).read() == "harm"


@attempt("open(file, 'a') by a thread", comes=LED)
def append_in_thread(o: Any) -> None:
    def write() -> None:
        with open(o.file, "a") as file:
            file.write("harm")

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert open(o.file).read().endswith("harm")


@attempt("open, taken before the sandbox began", "files")
def kept_open(o: Any) -> None:
    KEPT_OPEN(o.file, "w")


@attempt("io.FileIO", comes=LED)
def raw_file(o: Any) -> None:
    with io.FileIO(o.file, "w") as file:
        file.write(b"harm")
    assert open(o.file).read() == "harm"


@attempt("_io.FileIO, which Python's open is made of", "files")
def raw_file_below(o: Any) -> None:
    import _io

    _io.FileIO(o.file, "w")


@attempt("os.open with dir_fd", comes=LED)
def open_from_folder(o: Any) -> None:
    folder = os.open(o.folder, os.O_RDONLY)
    number = os.open("file", os.O_WRONLY | os.O_TRUNC, dir_fd=folder)
    os.write(number, b"harm")
    assert open(o.file).read() == "harm"


@attempt("os.unlink, rename, mkdir and symlink with dir_fd", comes=LED)
def change_from_folder(o: Any) -> None:
    folder = os.open(o.folder, os.O_RDONLY)
    os.rename("file", "other", src_dir_fd=folder, dst_dir_fd=folder)
    os.unlink("other", dir_fd=folder)
    os.mkdir("made", dir_fd=folder)
    os.symlink("made", "link", dir_fd=folder)
    assert sorted(os.listdir(o.folder)) == ["deep", "link", "made", "outer"]


@attempt("posix.open with dir_fd", "files")
def posix_open_from_folder(o: Any) -> None:
    folder = posix.open(o.folder, os.O_RDONLY)
    posix.open("file", os.O_WRONLY, dir_fd=folder)


@attempt("posix.unlink", "files")
def posix_unlink(o: Any) -> None:
    posix.unlink(o.file)


@attempt("posix.rename over a file", "files")
def posix_rename(o: Any) -> None:
    posix.rename(o.file, o.deep)


@attempt("posix.mkdir", "files")
def posix_mkdir(o: Any) -> None:
    posix.mkdir(f"{o.folder}/made")


@attempt("posix.symlink", "files")
def posix_symlink(o: Any) -> None:
    posix.symlink("file", f"{o.folder}/link")


@attempt("a hard link into the scratch folder, written to", "files")
def hard_link(o: Any) -> None:
    link = f"{o.scratch}/hard"
    posix.link(o.file, link)
    KEPT_OPEN(link, "w").write("harm")


@attempt("os.link, written to", comes=LED)
def hard_link_in_overlay(o: Any) -> None:
    os.link(o.file, f"{o.folder}/hard")
    with open(f"{o.folder}/hard", "w") as file:
        file.write("harm")


@attempt("posix.truncate", "truncation")
def posix_truncate(o: Any) -> None:
    posix.truncate(o.file, 0)


@attempt("opening for reading with O_TRUNC, which empties", "truncation")
def truncate_while_reading(o: Any) -> None:
    posix.open(o.file, os.O_RDONLY | os.O_TRUNC)


@attempt("posix.chmod", "attributes")
def posix_chmod(o: Any) -> None:
    posix.chmod(o.file, 0)


@attempt("os.fchmod of a file opened for reading", "attributes")
def chmod_by_descriptor(o: Any) -> None:
    with open(o.file) as file:
        os.fchmod(file.fileno(), 0)


@attempt("posix.chown", "attributes")
def posix_chown(o: Any) -> None:
    posix.chown(o.file, os.getuid(), os.getgid())
    posix.chown(o.file, 12345, 12345)


@attempt("posix.utime", "attributes")
def posix_utime(o: Any) -> None:
    posix.utime(o.file, (1, 1))


@attempt("posix.setxattr", "attributes")
def posix_setxattr(o: Any) -> None:
    posix.setxattr(o.file, "user.harm", b"harm")


@attempt("chattr +i (FS_IOC_SETFLAGS)", "attributes")
def file_flags(o: Any) -> None:
    import fcntl

    with open(o.file) as file:
        fcntl.ioctl(file.fileno(), SET_FLAGS, struct.pack("l", 0x10))


@attempt("chmod, chown, utime by os", comes=LED)
def attributes_in_overlay(o: Any) -> None:
    os.chmod(o.file, 0o600)
    os.utime(o.file, (1, 1))
    assert os.stat(o.file).st_mtime == 1


@attempt("posix.mkfifo", "files")
def posix_mkfifo(o: Any) -> None:
    posix.mkfifo(f"{o.folder}/pipe")


@attempt("the disk as a block device of one's own in the scratch folder", "files")
def make_block_device(o: Any) -> None:
    posix.mknod(f"{o.scratch}/disk", 0o600 | 0o060000, os.makedev(7, 0))


@attempt("/proc/self/fd of a file opened for reading", comes=LED)
def descriptor_folder(o: Any) -> None:
    with open(o.file) as file, open(f"/proc/self/fd/{file.fileno()}", "w") as again:
        again.write("harm")


@attempt("/proc/self/fd of a file opened for reading, by posix.open", "files")
def posix_descriptor_folder(o: Any) -> None:
    posix.open(f"/proc/self/fd/{posix.open(o.file, os.O_RDONLY)}", os.O_WRONLY)


@attempt("/proc/self/root/...", comes=LED)
def through_root(o: Any) -> None:
    with open(f"/proc/self/root{o.file}", "w") as file:
        file.write("harm")
    assert open(o.file).read() == "harm"


@attempt("/proc/self/cwd/... by posix.open", "files")
def through_working_folder(o: Any) -> None:
    os.chdir(o.folder)
    posix.open("/proc/self/cwd/file", os.O_WRONLY)


@attempt("/proc/PARENT/root/..., another process's view", "files")
def through_parents_root(o: Any) -> None:
    posix.open(f"/proc/{o.outer}/root{o.file}", os.O_WRONLY)


@attempt("a link of one's own to the file, written through", comes=LED)
def through_link(o: Any) -> None:
    os.symlink(o.file, f"{o.folder}/link")
    with open(f"{o.folder}/link", "w") as file:
        file.write("harm")
    assert open(o.file).read() == "harm"


@attempt("a link of one's own to the folder, written through", comes=LED)
def through_folder_link(o: Any) -> None:
    os.symlink(o.folder, f"{o.scratch}/link")
    with open(f"{o.scratch}/link/file", "w") as file:
        file.write("harm")
    assert open(o.file).read() == "harm"


@attempt("a link of one's own to the folder, written through by posix.open", "files")
def posix_through_folder_link(o: Any) -> None:
    posix.symlink(o.folder, f"{o.scratch}/link2")
    posix.open(f"{o.scratch}/link2/file", os.O_WRONLY)


@attempt("a file opened for reading, mapped for writing")
def map_for_writing(o: Any) -> None:
    with open(o.file, "rb") as file:
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE)


@attempt("a private mapping turned into a shared one by its /proc/self/map_files", "files")
def map_files(o: Any) -> None:
    with open(o.file, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        line = next(x for x in open("/proc/self/maps") if x.rstrip().endswith("/file"))
        posix.open(f"/proc/self/map_files/{line.split()[0]}", os.O_RDWR)
        mapped.close()


@attempt("numpy.memmap 'r+'", comes=LED)
def numpy_memory_map(o: Any) -> None:
    import numpy as np

    mapped = np.memmap(o.file, np.uint8, "r+")
    mapped[:] = 0
    mapped.flush()
    assert set(open(o.file, "rb").read()) == {0}


@attempt("ndarray.tofile", comes=LED)
def numpy_to_file(o: Any) -> None:
    import numpy as np

    np.arange(3).tofile(o.file)


@attempt("shutil.rmtree", comes=LED)
def remove_tree(o: Any) -> None:
    shutil.rmtree(o.folder)
    assert not os.path.exists(o.file)


@attempt("renameat2 with RENAME_EXCHANGE", "files")
def rename_exchange(o: Any) -> None:
    syscall("renameat2", AT_FDCWD, o.file.encode(), AT_FDCWD, o.deep.encode(), EXCHANGE)


@attempt("renameat2 with RENAME_EXCHANGE, against a file of the scratch folder", "files")
def rename_exchange_with_own(o: Any) -> None:
    Path(f"{o.scratch}/own").write_text("harm")
    syscall("renameat2", AT_FDCWD, o.file.encode(), AT_FDCWD, f"{o.scratch}/own".encode(), EXCHANGE)


@attempt("a file without a name (O_TMPFILE) of the scratch folder, linked outside", "files")
def link_nameless(o: Any) -> None:
    number = posix.open(o.scratch, os.O_TMPFILE | os.O_RDWR, 0o600)
    syscall("linkat", AT_FDCWD, f"/proc/self/fd/{number}".encode(), AT_FDCWD, f"{o.folder}/new".encode(), 0x400)


@attempt("a file without a name (O_TMPFILE) in the folder outside", "files")
def nameless_outside(o: Any) -> None:
    posix.open(o.folder, os.O_TMPFILE | os.O_RDWR, 0o600)


@attempt("open_by_handle_at", "files")
def open_by_handle(o: Any) -> None:
    handle, place = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128)), ctypes.c_int()
    syscall("name_to_handle_at", AT_FDCWD, o.file.encode(), handle, ctypes.byref(place), 0)
    syscall("open_by_handle_at", posix.open("/", os.O_RDONLY), handle, os.O_RDWR)


@attempt("io_uring", "files")
def io_uring(o: Any) -> None:
    syscall("io_uring_setup", 4, ctypes.create_string_buffer(256))


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
