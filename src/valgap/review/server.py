"""The review page's server: this machine only, a secret in the address, no other page may ask.

Images go out re-encoded, never as the bytes of the file: what is called .jpg may be anything.
"""

from __future__ import annotations

import functools
import io
import json
import threading
from collections.abc import Sequence
from typing import Any

from valgap.data.images import read_small
from valgap.errors import DataError
from valgap.review.decisions import Decision, Decisions
from valgap.review.private import PrivateHandler, PrivateServer, printable
from valgap.review.site import Site
from valgap.review.suspects import Suspect

SITE = Site("valgap.review", "review", ("review.js", "zoom.js", "grid.js"))
# The sides of a picture, in pixels, by the last part of its address; and how many of each are kept: small ones for many pages.
SIDES = {"small": 192, "": 640, "large": 2_000}
CACHED = {"small": 4_096, "": 256, "large": 8}
MAX_BODY = 10_000
MOST_TOGETHER = 96  # what a page of the grid holds: nothing is decided that nobody saw


class ReviewServer(PrivateServer):
    """Serves the suspects at ``address`` until ``shutdown``.

    Args:
        suspects: what is to be gone through.
        labels: the class names an image can be given.
        decisions: where they go.
        port: 0 for any free one.
        known: the files of the images in whose places the suspects' neighbours are given.
    """

    def __init__(
        self,
        suspects: Sequence[Suspect],
        labels: Sequence[str],
        decisions: Decisions,
        port: int = 0,
        known: Sequence[str] = (),
    ) -> None:
        super().__init__(_Handler, port)
        self.suspects, self.labels, self.decisions = tuple(suspects), list(labels), decisions
        self.changing = threading.Lock()
        self._number = {s.path: i for i, s in enumerate(self.suspects)}
        near = {place for s in self.suspects for place in s.near_given + s.near_likely}
        self._files: dict[str, dict[int, str]] = {
            "image": {i: str(s.file) for i, s in enumerate(self.suspects)},
            "beside": {i: str(s.beside) for i, s in enumerate(self.suspects) if s.beside is not None},
            "known": {place: known[place] for place in near},
        }
        self._drawn = {size: functools.lru_cache(CACHED[size])(functools.partial(_picture, side)) for size, side in SIDES.items()}

    def state(self) -> dict[str, Any]:
        """Suspects with what was decided so far, and the labels."""
        made = self.decisions.current()
        rows = []
        for s in self.suspects:
            rows.append(
                {
                    "path": printable(s.path), "cause": s.cause, "name": s.name, "split": s.split, "given": s.given,
                    "likely": s.likely, "seen": s.seen, "score": s.score, "pair": s.beside is not None,
                    "near": {"given": s.near_given, "likely": s.near_likely}, "decision": _told(made.get(s.path)),
                }
            )  # fmt: skip
        return {"suspects": rows, "labels": self.labels}

    def picture(self, kind: str, number: int, size: str) -> bytes:
        """A suspect ("image"), its copy ("beside") or a neighbour ("known") as WebP. Raises DataError where there is none."""
        file = self._files.get(kind, {}).get(number)
        if file is None or size not in SIDES:
            raise DataError("no such picture")
        return self._drawn[size](file)

    def decide(self, body: dict[str, Any]) -> dict[str, Any]:
        """Write decisions that were made together down: all, or none. Raises DataError for one that makes no sense.

        ``body``: ``numbers`` of suspects, ``kind``, and ``label`` of a relabelling; None for the likely class of each.
        """
        numbers, kind, label = body.get("numbers"), body.get("kind"), body.get("label", "")
        if not isinstance(numbers, list) or not 0 < len(numbers) <= MOST_TOGETHER:
            raise DataError(f"decisions are made of 1 to {MOST_TOGETHER} suspects at once")
        if any(type(n) is not int or not 0 <= n < len(self.suspects) for n in numbers) or len(set(numbers)) < len(numbers):
            raise DataError("there is no suspect of that number")
        if not isinstance(kind, str) or not isinstance(label, str | None):
            raise DataError("that is no decision")
        made = []
        for one in (self.suspects[n] for n in numbers):
            new = "" if kind != "relabel" else one.likely if label is None else label
            if new and new not in self.labels:
                raise DataError("that is no label of this data set")
            made.append(Decision(one.path, kind, new, one.split, one.given, one.cause))
        self.decisions.make(*made)
        return {"decided": [[n, _told(one)] for n, one in zip(numbers, made, strict=True)]}

    def undo(self) -> dict[str, Any]:
        """Take the last decisions back; says which suspects they were about and what counts for these now."""
        taken = self.decisions.undo()
        now = self.decisions.current()
        return {"decided": [[self._number[d.path], _told(now.get(d.path))] for d in taken if d.path in self._number]}


class _Handler(PrivateHandler):
    """Answers one request of the page."""

    server: ReviewServer

    def do_GET(self) -> None:  # noqa: N802 (http.server calls it so)
        place = self._place()
        if place is None:
            return
        if (own := SITE.file(place)) is not None:
            self._send(200, *own)
        elif place == "suspects":
            self._json(200, self.server.state())
        else:
            self._picture(place)

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

    def _picture(self, place: str) -> None:
        kind, number, *size = f"{place}/".split("/")[:3]
        try:
            if not number.isdecimal() or len(number) > 9 or place.count("/") > 2:
                raise DataError("nothing here")
            picture = self.server.picture(kind, int(number), size[0])
        except DataError as error:
            self._refuse(404, str(error))
        else:
            self._send(200, "image/webp", picture, "private, max-age=3600")

    def _json(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(body).encode())


def _told(decision: Decision | None) -> dict[str, str] | None:
    return {"kind": decision.kind, "label": decision.label} if decision is not None else None


def _picture(side: int, file: str) -> bytes:
    stream = io.BytesIO()
    read_small(file, side).save(stream, "WEBP", quality=80, method=2)
    return stream.getvalue()
