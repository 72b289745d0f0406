"""What a recorded run did otherwise than bare runs of the same program, which must agree among themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from undisturbed.ran import Ran

NUMBER = re.compile(r"(\d+)")
OURS = "valgap: "
NOTHING_RECORDED = 2  # where the program itself ends with 0: docs/same_as_python.md
TROUBLE = ("Traceback", "Warning:", "Exception ignored", "Fatal Python", "leaked ")
SHOWN = 160


@dataclass(frozen=True)
class Compared:
    """Differences in words, and what could not be compared because bare runs differ in it."""

    differs: tuple[str, ...]
    varies: tuple[str, ...]
    nothing_recorded: bool = False  # the documented exit status in place of 0


def compared(bare: Sequence[Ran], recorded: Ran) -> Compared:
    """The comparison of one recorded run with at least two bare ones."""
    differs: list[str] = []
    varies: list[str] = []
    first = bare[0]
    nothing = False
    for rank in range(len(first.statuses)):
        at = f"rank {rank}: " if len(first.statuses) > 1 else ""
        statuses = {r.statuses[rank] for r in bare}
        told = recorded.statuses[rank]
        if len(statuses) > 1:
            varies.append(f"{at}exit status")
        elif told not in statuses:
            nothing = told == NOTHING_RECORDED and statuses == {0} and OURS in recorded.err[rank]
            differs += [] if nothing else [f"{at}exit status {told}, bare {first.statuses[rank]}"]
        for name, own, other in (
            ("standard output", [r.out[rank] for r in bare], recorded.out[rank]),
            ("standard error", [r.err[rank] for r in bare], recorded.err[rank]),
        ):
            why, unlike = text_difference(own, other, with_words=name == "standard error")
            differs += [f"{at}{name}: {why}"] if why else []
            varies += [f"{at}{name}"] if unlike else []
        why, unlike = _modules(bare, recorded, rank)
        differs += [f"{at}{why}"] if why else []
        varies += [f"{at}weights"] if unlike else []
        for library, state in first.random[rank].items():
            if len({r.random[rank].get(library) for r in bare}) > 1:
                varies.append(f"{at}state of {library}")
            elif recorded.random[rank].get(library) != state:
                differs.append(f"{at}state of {library}: {recorded.random[rank].get(library)}, bare {state}")
    files, unlike_files = _files(bare, recorded)
    return Compared(tuple(differs + files), tuple(varies + unlike_files), nothing)


def text_difference(own: Sequence[str], other: str, with_words: bool) -> tuple[str, bool]:
    """(where ``other`` differs from what bare runs print, whether these differ themselves).

    Numbers in which bare runs differ (seconds, addresses) may be any. ``with_words``: lines of valgap's may stand in it, and its
    report after it.
    """
    parts = [NUMBER.split(t) for t in own]
    if len({len(p) for p in parts}) > 1 or any(len({p[i] for p in parts}) > 1 for i in range(0, len(parts[0]), 2)):
        return "", True
    mine = other
    if with_words:
        mine = "".join(line for line in other.splitlines(keepends=True) if not line.startswith(OURS))
    told = NUMBER.split(mine)
    unlike = False
    for i, expected in enumerate(parts[0]):
        last = with_words and i == len(parts[0]) - 1
        came = told[i] if i < len(told) else None
        if len({p[i] for p in parts}) > 1:
            unlike = True
            if came is None:
                return f"ends before {expected!r}", unlike
        elif came != expected and not (last and came is not None and came.startswith(expected)):
            return f"{_around(told, i)!r}, bare {_around(parts[0], i)!r}", unlike
    rest = "".join(told[len(parts[0]) - 1 :])[len(parts[0][-1]) :]
    if not with_words and rest:
        return f"more: {rest[:SHOWN]!r}", unlike
    trouble = next((w for w in TROUBLE if w in rest), None)
    if trouble is not None:
        place = rest.index(trouble)
        return f"more: {rest[max(0, place - SHOWN) : place + SHOWN]!r}", unlike
    return "", unlike


def _around(pieces: Sequence[str], place: int) -> str:
    """The text that ends with this piece."""
    return "".join(pieces[max(0, place - 3) : place + 1])[-SHOWN:]


def _modules(bare: Sequence[Ran], recorded: Ran, rank: int) -> tuple[str, bool]:
    """Every module of a bare run was there with the same weights; copies that valgap makes may be there beside them."""
    sure = bare[0].modules[rank]
    for other in bare[1:]:
        sure = sure & other.modules[rank]
    missing = sure - recorded.modules[rank]
    unlike = any(r.modules[rank] != sure for r in bare)
    if not missing:
        return "", unlike
    names = ", ".join(sorted({m.partition(" ")[0] for m in missing}))
    return f"weights of {missing.total()} of {sure.total()} modules ({names})"[:SHOWN], unlike


def _files(bare: Sequence[Ran], recorded: Ran) -> tuple[list[str], list[str]]:
    paths = {p for r in bare for p in r.files} | set(recorded.files)
    differs, varies = [], []
    for path in sorted(paths):
        states = {r.files.get(path) for r in bare}
        if len(states) > 1:
            varies.append(path)
        elif recorded.files.get(path) not in states:
            known = next(iter(states))
            came = recorded.files.get(path)
            what = "is not there" if came is None else "is there" if known is None else "holds something else"
            differs.append(f"file {path} {what}")
    return differs, varies
