"""Nothing gets out of the sandbox: each attempt of the list is made in it, and what lies outside is as it was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.takes(25), pytest.mark.skipif(sys.platform != "linux", reason="the kernel's guards are Linux's")]
h5py = pytest.importorskip("h5py")

from tests.experiments.escapes.asked import SYSTEMS, Asked  # noqa: E402
from tests.experiments.escapes.attempt import LED, Attempt  # noqa: E402
from tests.experiments.escapes.program import ATTEMPTS  # noqa: E402

# Where something is left out, only what the kernel must hold is tried: the overlay is the same.
CASES = [(system, a) for system, without in SYSTEMS.items() for a in ATTEMPTS if a.guard or not without]


@pytest.fixture(scope="module")
def asked_on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Asked]]:
    """The program of a system; one is there at a time."""
    there: dict[str, Asked] = {}

    def asked(system: str) -> Asked:
        if system not in there:
            for other in list(there):
                there.pop(other).close()
            there[system] = Asked(tmp_path_factory.mktemp(system), SYSTEMS[system])
        return there[system]

    yield asked
    for one in there.values():
        one.close()


@pytest.mark.parametrize(("system", "attempt"), CASES, ids=[f"{system}-{a.name}" for system, a in CASES])
def test_nothing_gets_out(system: str, attempt: Attempt, asked_on: Callable[[str], Asked]) -> None:
    asked = asked_on(system)
    if attempt.guard and not asked.guards[attempt.guard]:
        pytest.skip(f"{attempt.guard}: not held, and told so")
    came, changed = asked.make(attempt)
    assert not changed, (changed, came)
    assert came["status"] == 0, came
    if attempt.comes == LED:
        assert not came["error"], came
    else:
        kind = came["error"].partition(":")[0]
        assert kind.endswith(("Error", "gaierror")), came
        assert kind not in ("AttributeError", "NameError", "TypeError", "AssertionError"), came


# Without a sandbox these do harm that cannot be taken back, or need rights that a user has not.
NOT_WITHOUT = {"kill_all", "make_block_device", "io_uring", "file_flags", "posix_chown", "posix_setxattr", "out_of_memory"}
NOT_WITHOUT |= {"kernel_setting", "device_setting", "control_group", "mount_in_clone", "udp_outside", "name", "raw", "affinity"}
NOT_WITHOUT |= {"tcp_fast_open", "multipath_tcp", "c_old_system_call", "c_other_numbering", "map_files"}  # many a kernel has none


@pytest.mark.slow
@pytest.mark.parametrize(
    "attempt",
    [a for a in ATTEMPTS if a.guard not in ("", "calls", "devices") and a.name not in NOT_WITHOUT],
    ids=lambda a: a.name,
)
def test_without_a_sandbox_it_gets_out(attempt: Attempt, tmp_path: Path) -> None:
    """An attempt that fails by itself would prove nothing."""
    asked = Asked(tmp_path, ("everything",))
    try:
        came, changed = asked.make(attempt)
    finally:
        asked.close()
    assert changed or not came["error"], came


def test_the_list_is_long() -> None:
    assert len({a.name for a in ATTEMPTS}) == len(ATTEMPTS) >= 60
