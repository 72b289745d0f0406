"""A server for one person on this machine: on the loopback alone, a secret in the address, no other page may ask."""

from __future__ import annotations

import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from valgap.errors import DataError

LOOPBACK = "127.0.0.1"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PrivateServer(ThreadingHTTPServer):
    """Serves at ``address``, which holds a secret, until ``shutdown``; ``port`` 0 for any free one.

    Raises:
        DataError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, handler: type[PrivateHandler], port: int = 0) -> None:
        try:
            super().__init__((LOOPBACK, port), handler)
        except OSError as error:
            raise DataError(f"port {port} cannot be used: {error.strerror}; choose another with --port") from error
        self.token = secrets.token_urlsafe(24)
        self.origin = f"http://{LOOPBACK}:{self.server_address[1]}"
        self.address = f"{self.origin}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page that was turned or closed waits for no picture: that is no fault."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class PrivateHandler(BaseHTTPRequestHandler):
    """Answers one request; whatever is not exactly ours is refused."""

    server: PrivateServer
    protocol_version = "HTTP/1.1"

    def _place(self) -> str | None:
        """The part of the address after the token; None, refused, when host or token are not ours."""
        host = self.headers.get("Host", "")
        if host != self.server.origin.removeprefix("http://"):  # a foreign name that leads to this machine
            self._refuse(403, "wrong host")
            return None
        site = self.headers.get("Sec-Fetch-Site", "none")
        if site not in ("none", "same-origin"):
            self._refuse(403, "another page asks")
            return None
        token, _, place = self.path.split("?")[0].removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            self._refuse(403, "the address is not whole: take the one that valgap printed")
            return None
        return place

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server refuses by itself, it would answer with a page that repeats what was asked."""
        self.close_connection = True
        if self.request_version == "HTTP/0.9":
            self.request_version = self.protocol_version
        self._refuse(code, "that is no request of this page")

    def _refuse(self, status: int, why: str) -> None:
        self.close_connection = True  # what was not read must not be taken for the next request
        self._send(status, "text/plain", why.encode("utf-8", "replace"))

    def _send(self, status: int, kind: str, body: bytes, cache: str = "no-store") -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind if kind.startswith("image/") else f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", cache),
        ):
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "valgap"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged: the token would stand in it."""


def printable(text: str) -> str:
    """The text with what no character set knows replaced, so that it can go into JSON."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
