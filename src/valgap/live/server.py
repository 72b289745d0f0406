"""The page that follows a run: this machine only, a secret in the address, nothing but GET, nothing but our own three files."""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

from valgap.errors import DataError, RecordError
from valgap.live.view import Watched
from valgap.review.server import LOOPBACK, POLICY, printable
from valgap.types import RunView, SideView

PAGES = {"": ("index.html", "text/html"), "view.js": ("view.js", "text/javascript"), "view.css": ("view.css", "text/css")}


class ViewServer(ThreadingHTTPServer):
    """Serves the view of one run.

    Raises:
        DataError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, run: Path, port: int = 0) -> None:
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise DataError(f"port {port} cannot be used: {error.strerror}; choose another with --port") from error
        self._watched = Watched(run)
        self._reading = threading.Lock()  # two pages read the record once
        self.token = secrets.token_urlsafe(24)
        self.origin = f"http://{LOOPBACK}:{self.server_address[1]}"
        self.address = f"{self.origin}/{self.token}/"

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


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; whatever is not exactly ours is refused."""

    server: ViewServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        place = self._place()
        if place is None:
            return
        if place in PAGES:
            name, kind = PAGES[place]
            self._send(200, kind, files("valgap.live").joinpath("page", name).read_bytes())
        elif place == "state":
            try:
                self._send(200, "application/json", self.server.state())
            except RecordError as error:  # its folder is gone, or it was edited
                self._refuse(410, str(error))
        else:
            self._refuse(404, "nothing here")

    def _place(self) -> str | None:
        """The part of the address after the token; None, refused, when host or token are not ours."""
        if self.headers.get("Host", "") != self.server.origin.removeprefix("http://"):  # a foreign name that leads here
            self._refuse(403, "wrong host")
            return None
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            self._refuse(403, "another page asks")
            return None
        token, _, place = self.path.split("?")[0].removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            self._refuse(403, "the address is not whole: take the one that valgap printed")
            return None
        return place

    def _refuse(self, status: int, why: str) -> None:
        self.close_connection = True  # what was not read must not be taken for the next request
        self._send(status, "text/plain", why.encode("utf-8", "replace"))

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "valgap"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged: the token would stand in it."""
