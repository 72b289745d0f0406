"""Requests of a stranger to the review server: refused, without a trace in the decisions; nothing but its own files goes out."""

from __future__ import annotations

import functools
import json
import random
import socket
import tempfile
import threading
from pathlib import Path

from hostile.names import NAMES
from hostile.pictures import HTML, noise
from hostile.records import BAD
from hostile.trial import REFUSED, Kind, Trial, UnsoundError, caught
from valgap.review import Decisions, ReviewServer, Suspect

SECRET = b"what no stranger may read"
WAIT_S = 3.0


@functools.cache
def server() -> ReviewServer:
    """A server of its own folder, with a secret beside its pictures."""
    folder = Path(tempfile.mkdtemp())
    (folder / "secret.txt").write_bytes(SECRET)
    (folder / "page.jpg").write_bytes(HTML)
    found = []
    for i in range(6):
        file = folder / f"{i}.png"
        file.write_bytes(noise(random.Random(i)))
        found.append(
            Suspect(
                f"{NAMES[i]}{i}",
                file if i != 3 else folder / "page.jpg",
                "DAT104",
                "wrong_train_labels",
                "train",
                "ant",
                "bee",
                "",
                0.9,
            )
        )
    made = ReviewServer(found, ["ant", "bee"], Decisions(folder / "decisions.csv"))
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return made


def asked(draw: random.Random, folder: Path) -> Trial:
    """One request that is not the page's own."""
    own = server()
    host, token = own.origin.removeprefix("http://"), own.token
    whole = {"Host": host, "Origin": own.origin, "Content-Type": "application/json"}
    good = json.dumps({"numbers": [0], "kind": "drop"}).encode()
    method, place, body = "POST", f"/{token}/decide", good
    form = draw.choice(
        (
            "origin",
            "host",
            "no token",
            "traversal",
            "large",
            "site",
            "type",
            "senseless",
            "length",
            "method",
            "line",
            "header",
            "decision",
        )
    )
    if form == "origin":
        whole["Origin"] = draw.choice(
            (
                "null",
                "http://evil.example",
                "",
                f"https://{host}",
                own.origin + ".evil.example",
                own.origin + "/",
                f"http://localhost:{own.server_address[1]}",
                "http://127.0.0.1",
                own.origin.upper(),
            )
        )
        if draw.random() < 0.2:
            del whole["Origin"]
    elif form == "host":
        port = own.server_address[1]
        whole["Host"] = draw.choice(
            (
                "evil.example",
                f"evil.example:{port}",
                "localhost",
                f"localhost:{port}",
                "127.0.0.1",
                f"127.0.0.1.evil.example:{port}",
                "",
                f"127.1:{port}",
                f"[::1]:{port}",
                f"{host}@evil",
                f"2130706433:{port}",
                f"{host}.",
                f"{host}, evil",
            )
        )
        method = draw.choice(("GET", "POST"))
        place = draw.choice((place, f"/{token}/", f"/{token}/suspects"))
    elif form == "no token":
        bad = draw.choice(
            (
                "",
                "x",
                token[:-1],
                token + "x",
                token[:-1] + "\u00e9",
                token.swapcase(),
                "%2e%2e",
                token.replace(token[0], "%" + f"{ord(token[0]):02x}", 1),
                "." + token,
                "\udcff",
                token + "\0",
            )
        )
        place = f"/{bad}/{draw.choice(('decide', 'suspects', 'image/0', '', 'undo'))}"
        method = draw.choice(("GET", "POST"))
    elif form == "traversal":
        method, body = "GET", b""
        steps = draw.choice(("../", "..%2f", "%2e%2e/", "....//", "..\\", "/./../", "..;/", "%252e%252e%252f", "\0../"))
        place = f"/{token}/{draw.choice(('', 'image/', 'image/0/', 'known/', 'page/'))}{steps * draw.choice((1, 3, 9))}{draw.choice(('secret.txt', 'etc/passwd', 'decisions.csv', 'server.py', 'body.html'))}"
    elif form == "large":
        body = draw.choice(
            (b"x" * 11_000, b"[" * 9_000, json.dumps({"numbers": [0], "kind": "drop", "x": "y" * 20_000}).encode())
        )
    elif form == "site":
        whole["Sec-Fetch-Site"] = draw.choice(("cross-site", "same-site", "", "none, same-origin", "NONE"))
        method = draw.choice(("GET", "POST"))
        place = place if method == "POST" else f"/{token}/suspects"
    elif form == "type":
        whole["Content-Type"] = draw.choice(
            (
                "text/plain",
                "application/x-www-form-urlencoded",
                "multipart/form-data; boundary=x",
                "",
                "text/json",
                " application/jso",
            )
        )
    elif form == "senseless":
        body = draw.choice(
            (
                b"",
                b"{",
                b"null",
                b"[]",
                b"\xff\xfe",
                b"{}" * 9,
                b'{"numbers":[0],"kind":"drop"}x',
                b"9" * 9_000,
                b'{"numbers":' + b"[" * 9000,
                b'{"a":' * 1500 + b"1" + b"}" * 1500,
                b"NaN",
                b'"x"',
            )
        )
    elif form == "decision":
        told = {
            "numbers": draw.choice((*BAD, [99], [-1], [0, 0], [0.0], ["0"], [True], list(range(200)))),
            "kind": draw.choice(("drop", "keep", *BAD)),
            "label": draw.choice(BAD),
        }
        if told["numbers"] == [0]:
            told["kind"] = "explode"
        if (
            not isinstance(told["numbers"], list)
            or told["numbers"] in ([], [[1]], [None])
            or told["kind"] not in ("drop", "keep")
        ):
            pass
        body = json.dumps(told).encode()[:9_000]
    elif form == "length":
        whole["Content-Length"] = draw.choice(
            ("-1", "x", "1e3", "99999999999999999999", "", "0x10", "\u0663", "+5", " 5", "5, 5", "10001")
        )
    elif form == "method":
        method = draw.choice(
            ("PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT", "PATCH", "get", "X" * 70_000, "\x1b[2J", "POST\tx")
        )
    elif form == "line":
        return raw(
            draw.choice(
                (
                    b"\r\n\r\n",
                    b"GET\r\n\r\n",
                    b"GET / HTTP/9.9\r\n\r\n",
                    b"GET / HTTP/0.9\r\n\r\n",
                    b"\x16\x03\x01\0\xa5",
                    b"GET " + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
                    b"\0" * 400 + b"\r\n\r\n",
                    b"GET /%s HTTP/1.1\r\n\r\n",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
                )
            ),
            form,
        )
    else:
        extra = draw.choice(
            (
                b"X: " + b"y" * 70_000,
                b"X: y\r\n" * 300,
                b"Transfer-Encoding: chunked",
                b"no colon",
                b": x",
                b" folded",
                b"Host: evil.example",
                b"Origin: http://evil.example",
                b"\xff: \xff",
                b"Expect: 100-continue",
                b"Upgrade: websocket",
            )
        )
        method, place, body = "GET", f"/{'x' * len(token)}/suspects", b""
        lines = f"{method} {place} HTTP/1.1\r\nHost: {host}\r\n".encode() + extra + b"\r\n\r\n"
        return raw(lines, f"{form} {extra[:20]!r}")
    whole.setdefault("Content-Length", str(len(body)))
    lines = f"{method} {place} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in whole.items()) + "\r\n"
    return raw(
        lines.encode("utf-8", "surrogateescape") + body,
        f"{form} {place.replace(token, 'TOKEN')[:40]}",
    )


def raw(sent: bytes, what: str) -> Trial:
    """What is sent, byte by byte; the answer has to be a refusal, or none."""

    def act() -> str:
        own = server()
        before = own.decisions.file.read_bytes() if own.decisions.file.exists() else b""
        with caught() as (out, err):
            answer = exchanged(sent)
        if out() or err():
            raise UnsoundError(f"the server said {(out() + err())[-300:]!r}")
        after = own.decisions.file.read_bytes() if own.decisions.file.exists() else b""
        if after != before:
            raise UnsoundError(f"decided by a stranger: {after[-200:]!r}")
        if SECRET in answer or own.token.encode() in answer.split(b"\r\n\r\n", 1)[-1] or b"root:" in answer:
            raise UnsoundError("a secret went out")
        status = answer.split(b" ", 2)[1:2]
        if answer[:5] == b"HTTP/" and status and status[0][:1] == b"2":
            raise UnsoundError(f"answered: {answer[:300]!r}")
        body = answer.partition(b"\r\n\r\n")[2]
        if b"<script" in body.lower():
            raise UnsoundError("a script in a refusal")
        return REFUSED

    return Trial(what, act)


def exchanged(sent: bytes) -> bytes:
    """The answer to these bytes."""
    own = server()
    found = b""
    with socket.create_connection(("127.0.0.1", own.server_address[1]), timeout=WAIT_S) as line:
        try:
            line.sendall(sent)
            line.shutdown(socket.SHUT_WR)
            while part := line.recv(1 << 16):
                found += part
        except OSError:
            pass
    return found


KINDS = (Kind("request", "requests of a stranger to the review server", 600, asked),)
