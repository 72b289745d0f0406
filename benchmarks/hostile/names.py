"""Names that a stranger gives to files and classes."""

from __future__ import annotations

import random

NAMES = (
    "plain", "x\x1b[2J\x1b[31mred", "x\x1b]0;title\x07", "a\nb", "a\rb", "tab\tx", "\x7f\x08\x08", "\u202egpj.exe", "a\u2066b",
    "\u200fright", "<script>alert(1)<&script>", "'\"><img src=x onerror=alert(1)>", "[bold]markup[&bold] [link=x]",
    "{0} {} %s %(a)s $(touch valgap-canary) `touch valgap-canary`", "-rf", "--help", " lead", "trail ", "\udcff\udcfe", "\u0000"[1:] + "nul",
    "n" * 240, "\u6f22" * 80, "e\u0301\u0301\u0301" * 20, "\U0001f600", "\x9b31m", "\u2028line", "\ufeffbom", "a,b;c|d=e#f?g", "..", "~", "*",
    "train", "val", "con", "a" + "\u0300" * 100, "\u00a0", "\u200b", "$HOME", "\\", "file:&&etc&passwd", "x = y",
)  # fmt: skip


def name(draw: random.Random) -> str:
    """A name that one file or folder can have: no slash, at most 240 bytes, not only dots."""
    text = draw.choice(NAMES)
    if draw.random() < 0.3:
        text += draw.choice(NAMES)
    if draw.random() < 0.1:
        text += "".join(
            chr(draw.choice((draw.randrange(1, 32), draw.randrange(128, 160), draw.randrange(0x2000, 0x2070)))) for _ in range(5)
        )
    text = text.replace("/", "&").replace("\0", "")
    while len(text.encode("utf-8", "surrogateescape")) > 240:
        text = text[:-1]
    return text if text.strip(".") else f"{text}x"
