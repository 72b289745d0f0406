"""The C library's allocator, told to keep what is freed for the next step: of a training, of measurements.

By default glibc returns large blocks to the kernel as soon as they are freed, and the kernel hands out zeroed pages, one fault
each, for the next ones: on processors a training step waits for its activations' pages again and again (`make bench-speed`).
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt(3). Blocks from the kernel (mmap) go back to it when freed, those of the heap when the threshold says so.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
NEVER, NONE, USUAL_MAX = -1, 0, 65536
# Where glibc's own thresholds end, which follow the largest block that was freed: 32 MiB for mmap, twice that to trim.
USUAL_MMAP, USUAL_TRIM = 32 << 20, 64 << 20


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory in the process meanwhile, and give it back at the end. Without effect where the C library is not glibc.

    The process then holds about a tenth more than it needs at its peak. No number that it computes changes.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(TRIM_THRESHOLD, NEVER)
    library.mallopt(MMAP_MAX, NONE)
    try:
        yield
    finally:
        library.mallopt(TRIM_THRESHOLD, USUAL_TRIM)
        library.mallopt(MMAP_THRESHOLD, USUAL_MMAP)
        library.mallopt(MMAP_MAX, USUAL_MAX)
        library.malloc_trim(0)
