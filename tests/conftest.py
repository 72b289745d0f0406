"""One thread for each process, and the longest files first, so that several workers end together."""

from __future__ import annotations

import compileall
import importlib.util
import os
import signal
import sys

import pytest

# Before anything imports torch. Two workers on two cores, each with two threads, would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A thousand processes import hundreds of our modules: none compiles what another has compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A shell that starts the tests in the background has them ignore Ctrl-C, and the programs that they start inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Compile our modules. Programs in the sandbox, most of those that tests start, may not keep what they compile."""
    if not hasattr(config, "workerinput"):
        spec = importlib.util.find_spec("valgap")
        for folder in spec.submodule_search_locations or () if spec is not None else ():
            compileall.compile_dir(folder, quiet=2)


@pytest.fixture(scope="session", autouse=True)
def own_image_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests leave the user's cache of image features alone. The workers of one session share theirs, as programs of a user do."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    os.environ["VALGAP_CACHE"] = str(folder / "cache-of-this-session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files by what their ``takes`` marker says, longest first; tests of one file keep their order."""
    items.sort(key=_seconds, reverse=True)


def _seconds(item: pytest.Item) -> float:
    marker = item.get_closest_marker("takes")
    return float(marker.args[0]) if marker is not None else 0.0
