"""While the recorder looks, Python searches for no garbage; the program's own setting is as it was, and is never overruled."""

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from valgap.seams.attaching.hooks import Seams


class Looks:
    """A listener that notes whether the collector is on."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.seen: list[bool] = []

    def gradients_zeroed(self) -> None:
        self.seen.append(gc.isenabled())
        if self.error is not None:
            raise self.error

    def failed(self, where: str, error: Exception) -> None:
        """Errors go nowhere."""


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    was = gc.isenabled()
    yield
    (gc.enable if was else gc.disable)()


def tell(listener: Any) -> None:
    Seams(listener).tell("gradients_zeroed")


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("error", [None, ValueError(), KeyboardInterrupt()])
def test_it_is_as_it_was_afterwards(on: bool, error: BaseException | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 1)  # tests in parallel have a thread of their own beside them
    (gc.enable if on else gc.disable)()
    listener = Looks(error)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            tell(listener)
    else:
        tell(listener)
    assert listener.seen == [False] and gc.isenabled() is on


def test_beside_another_thread_it_is_left_alone() -> None:
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    gc.enable()
    listener = Looks()
    tell(listener)
    done.set()
    other.join()
    assert listener.seen == [True] and gc.isenabled()
