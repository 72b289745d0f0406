"""Names and messages of strangers as one line of text that can move no cursor and turn no text around."""

from __future__ import annotations


def visible(text: str, keep: str = "") -> str:
    """The text with all that is not printable (line breaks, control characters, halves of characters) shown as in Python.

    XML cannot hold most of them at all, and a name must stay one line. Those in ``keep`` stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)
