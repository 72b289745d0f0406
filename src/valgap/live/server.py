"""The page that follows a run: this machine only, a secret in the address, nothing but GET, nothing but our own files."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from valgap.errors import RecordError
from valgap.live.view import Watched
from valgap.review.private import PrivateHandler, PrivateServer, printable
from valgap.review.site import Site
from valgap.types import RunView, SideView

SITE = Site("valgap.live", "view", ("view.js",))


class ViewServer(PrivateServer):
    """Serves the view of one run.

    Raises:
        DataError: the port is taken.
    """

    def __init__(self, run: Path, port: int = 0) -> None:
        super().__init__(_Handler, port)
        self._watched = Watched(run)
        self._reading = threading.Lock()  # two pages read the record once

    def state(self) -> bytes:
        """The run as it is now, as JSON."""
        with self._reading:
            body = view_to_json(self._watched.now())
        return json.dumps(body, allow_nan=False).encode()


def view_to_json(view: RunView) -> dict[str, Any]:
    """The view as the page reads it."""
    body = {
        **asdict(view),
        "epochs": [{"epoch": e.epoch, "train": _side(e.train), "validation": _side(e.validation)} for e in view.epochs],
    }
    texts: dict[str, Any] = _printable(body)
    return texts


def _side(side: SideView | None) -> dict[str, Any] | None:
    return {**asdict(side), "images_per_second": side.images_per_second} if side is not None else None


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {k: _printable(v) for k, v in value.items()}
    return [_printable(v) for v in value] if isinstance(value, (list, tuple)) else value


class _Handler(PrivateHandler):
    """Answers one request of the page."""

    server: ViewServer

    def do_GET(self) -> None:  # noqa: N802 (http.server calls it so)
        place = self._place()
        if place is None:
            return
        if (own := SITE.file(place)) is not None:
            self._send(200, *own)
        elif place == "state":
            try:
                self._send(200, "application/json", self.server.state())
            except RecordError as error:  # its folder is gone, or it was edited
                self._refuse(410, str(error))
        else:
            self._refuse(404, "nothing here")
