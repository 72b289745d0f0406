"""The review page's server: this machine only, a secret in the address, no other page may ask.

Images go out re-encoded, never as the bytes of the file: what is called .jpg may be anything.
"""

from __future__ import annotations

import functools
import io
import json
import threading
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from valgap.data.images import read_small
from valgap.errors import DataError
from valgap.review.decisions import Decision, Decisions
from valgap.review.private import PrivateHandler, PrivateServer, printable
from valgap.review.suspects import Suspect

SIDE = 640  # pixels of the picture on the page
MAX_BODY = 10_000
CACHED = 256  # pictures: those around the place of review
PAGES = {"": ("index.html", "text/html"), "review.js": ("review.js", "text/javascript"), "review.css": ("review.css", "text/css")}


class ReviewServer(PrivateServer):
    """Serves the suspects at ``address`` until ``shutdown``.

    Args:
        suspects: what is to be gone through.
        labels: the class names an image can be given.
        decisions: where they go.
        port: 0 for any free one.
    """

    def __init__(self, suspects: Sequence[Suspect], labels: Sequence[str], decisions: Decisions, port: int = 0) -> None:
        super().__init__(_Handler, port)
        self.suspects, self.labels, self.decisions = list(suspects), list(labels), decisions
        self.picture = functools.lru_cache(maxsize=CACHED)(_picture)
        self.changing = threading.Lock()

    def state(self) -> dict[str, Any]:
        """Suspects with what was decided so far, and the labels."""
        made = self.decisions.current()
        rows = []
        for s in self.suspects:
            one = made.get(s.path)
            decided = {"kind": one.kind, "label": one.label} if one is not None else None
            rows.append(
                {
                    "path": printable(s.path), "cause": s.cause, "name": s.name, "split": s.split, "given": s.given,
                    "likely": s.likely, "seen": s.seen, "score": s.score, "pair": s.beside is not None, "decision": decided,
                }
            )  # fmt: skip
        return {"suspects": rows, "labels": self.labels}

    def decide(self, body: dict[str, Any]) -> dict[str, Any]:
        """Write one decision down. Raises DataError for one that makes no sense."""
        number, kind, label = body.get("number"), body.get("kind"), body.get("label", "")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(self.suspects):
            raise DataError("there is no suspect of that number")
        if not isinstance(kind, str) or not isinstance(label, str) or (label and label not in self.labels):
            raise DataError("that is no label of this data set")
        suspect = self.suspects[number]
        label = label if kind == "relabel" else ""
        self.decisions.make(Decision(suspect.path, kind, label, suspect.split, suspect.given, suspect.cause))
        return {"number": number, "decision": {"kind": kind, "label": label}}

    def undo(self) -> dict[str, Any]:
        """Take the last decision back; says which suspect it was about and what counts for it now."""
        last = self.decisions.undo()
        number = next((i for i, s in enumerate(self.suspects) if last is not None and s.path == last.path), None)
        now = self.decisions.current().get(last.path) if last is not None else None
        return {"number": number, "decision": {"kind": now.kind, "label": now.label} if now is not None else None}


class _Handler(PrivateHandler):
    """Answers one request of the page."""

    server: ReviewServer

    def do_GET(self) -> None:  # noqa: N802 (http.server calls it so)
        place = self._place()
        if place is None:
            return
        if place in PAGES:
            name, kind = PAGES[place]
            self._send(200, kind, files("valgap.review").joinpath("page", name).read_bytes())
        elif place == "suspects":
            self._json(200, self.server.state())
        elif place.startswith("image/"):
            self._image(place.split("/")[1:])
        else:
            self._refuse(404, "nothing here")

    def do_POST(self) -> None:  # noqa: N802 (http.server calls it so)
        place = self._place()
        if place is None:
            return
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Origin") != self.server.origin or not self.headers.get("Content-Type", "").startswith(
            "application/json"
        ):
            self._refuse(403, "only this page may decide")
            return
        if not length.isdigit() or int(length) > MAX_BODY:
            self._refuse(413, "too long")
            return
        try:
            body = json.loads(self.rfile.read(int(length)) or b"{}")
            if not isinstance(body, dict):
                raise DataError("that is no decision")
            with self.server.changing:
                told = self.server.decide(body) if place == "decide" else self.server.undo() if place == "undo" else None
        except (ValueError, RecursionError):
            self._refuse(400, "that is no JSON")
        except DataError as error:
            self._json(400, {"error": str(error)})
        else:
            if told is not None:
                self._json(200, told)
            else:
                self._refuse(404, "nothing here")

    def _image(self, parts: list[str]) -> None:
        number = int(parts[0]) if parts[0].isdigit() and len(parts[0]) < 9 else -1
        if not 0 <= number < len(self.server.suspects):
            self._refuse(404, "no such picture")
            return
        suspect = self.server.suspects[number]
        file = suspect.beside if parts[1:] == ["beside"] else suspect.file
        try:
            if file is None:
                raise DataError("no such picture")
            self._send(200, "image/webp", self.server.picture(str(file)), "private, max-age=3600")
        except DataError as error:
            self._refuse(404, str(error))

    def _json(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(body).encode())


def _picture(file: str) -> bytes:
    stream = io.BytesIO()
    read_small(file, SIDE).save(stream, "WEBP", quality=80)
    return stream.getvalue()
