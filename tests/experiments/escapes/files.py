"""Attempts on files outside: by Python's functions, by those below them, by libraries, by C and child programs."""

from __future__ import annotations

import ctypes
import io
import mmap
import os
import posix
import shutil
import struct
import threading
from pathlib import Path
from typing import Any

from tests.experiments.escapes.attempt import LED, gather, syscall

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
