"""What of the first run can be put into the second's program by itself: a part of its source, an argument, or a setting."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from valgap.comparison.learning import PLATEAU
from valgap.comparison.source import same_code
from valgap.types import Comparison, Departure, Intervention, RunRecord

# More parts than these are joined with their neighbours: each takes re-runs of its own.
MOST_PARTS = 8
MAX_NAME = 60


@dataclass(frozen=True)
class Piece:
    """A change of the second program towards the first: edited texts by path below its folder, a call, or acts."""

    name: str
    texts: Mapping[str, str] = field(default_factory=dict)
    argv: tuple[str, ...] | None = None
    acts: tuple[Intervention, ...] = ()


def pieces_of(good: RunRecord, bad: RunRecord, comparison: Comparison) -> list[Piece]:
    """All that can be tried alone, parts of the source first; acts at the seams only where neither source nor call differs."""
    found = [*_of_source(good, bad), *_of_arguments(good, bad)]
    if not found:
        found = [p for d in comparison.departures if (p := _of_setting(d, good, bad)) is not None]
    return found


def texts_of(run: RunRecord) -> dict[str, str] | None:
    """The program's texts by path ("" for the script); None where the record does not hold all of them."""
    if not run.sources or any(s.text is None for s in run.sources):
        return None
    return {"" if s.entry else s.path: s.text for s in run.sources if s.text is not None}


def _of_source(good: RunRecord, bad: RunRecord) -> Iterator[Piece]:
    texts = texts_of(good), texts_of(bad)
    if texts[0] is None or texts[1] is None:
        return
    for path in sorted(texts[0].keys() & texts[1].keys()):
        if texts[0][path] != texts[1][path]:
            script = next((s.path for s in bad.sources if s.entry), "script")
            for name, text in parts_of(texts[0][path], texts[1][path]):
                yield Piece(f"{path or script}, {name}", {path: text})


def parts_of(good: str, bad: str) -> list[tuple[str, str]]:
    """(name, the bad text with one part of the good one in place), a part for each place where they differ.

    Parts that change no code are left out; one that is no program by itself is joined with the next.
    """
    a, b = good.splitlines(keepends=True), bad.splitlines(keepends=True)
    changes = [c[1:] for c in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if c[0] != "equal"]
    groups: list[list[tuple[int, int, int, int]]] = []
    for change in changes:
        if groups and not _compiles(_with(a, b, groups[-1])):
            groups[-1].append(change)
        elif not same_code(_with(a, b, [change]), bad) or not _compiles(_with(a, b, [change])):
            groups.append([change])
    if len(groups) > 1 and not _compiles(_with(a, b, groups[-1])):
        groups[-2:] = [[*groups[-2], *groups[-1]]]
    while len(groups) > MOST_PARTS:
        near = min(range(len(groups) - 1), key=lambda i: groups[i + 1][0][2] - groups[i][-1][3])
        groups[near : near + 2] = [[*groups[near], *groups[near + 1]]]
    return [(_name(a, b, group), _with(a, b, group)) for group in groups]


def _with(a: Sequence[str], b: Sequence[str], changes: Sequence[tuple[int, int, int, int]]) -> str:
    lines = list(b)
    for i1, i2, j1, j2 in reversed(changes):
        lines[j1:j2] = a[i1:i2]
    return "".join(lines)


def _compiles(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def _name(a: Sequence[str], b: Sequence[str], changes: Sequence[tuple[int, int, int, int]]) -> str:
    """The lines of the second text, and the first line that comes in or goes."""
    first, last = changes[0][2] + 1, max(changes[-1][3], changes[0][2] + 1)
    where = f"line {first}" if first == last else f"lines {first} to {last}"
    new = _code(line for i1, i2, _, _ in changes for line in a[i1:i2])
    old = _code(line for _, _, j1, j2 in changes for line in b[j1:j2])
    told = f"{new[0][:MAX_NAME]}" if new else f"without {(old or [''])[0][:MAX_NAME]}"
    return f"{where}: {told}"


def _code(lines: Iterable[str]) -> list[str]:
    """Lines that are not empty, comments last."""
    return sorted((line.strip() for line in lines if line.strip()), key=lambda line: line.startswith("#"))


def _of_arguments(good: RunRecord, bad: RunRecord) -> Iterator[Piece]:
    a, b = _call(good), _call(bad)
    if a is None or b is None:
        return
    for name in [*b, *(n for n in a if n not in b)]:
        if a.get(name) == b.get(name):
            continue
        values = a.get(name)
        changed = {**b, name: values} if values is not None else {k: v for k, v in b.items() if k != name}
        if name == "":
            changed = {"": tuple(absolute(v, good) for v in values or ()), **{k: v for k, v in b.items() if k}}
        argv = [_program(bad)]
        for option, given in changed.items():
            argv += [*([option] if option else []), *given]
        told = f"with {' '.join([*([name] if name else []), *values])}" if values is not None else f"without {name}"
        yield Piece(f"called {told[:MAX_NAME]}", argv=tuple(argv))


def _call(run: RunRecord) -> dict[str, tuple[str, ...]] | None:
    """Option -> its values, of the program's call; what comes before the first option stands under ""."""
    argv = run.header.get("argv")
    if not isinstance(argv, list):
        return None
    found: dict[str, tuple[str, ...]] = {"": ()}
    name = ""
    for word in (str(w) for w in argv[1:]):
        if word.startswith("-") and not word[1:2].isdigit():
            name, equal, value = word.partition("=")
            found[name] = (value,) if equal else ()
        else:
            found[name] = (*found[name], word)
    return found


def _program(run: RunRecord) -> str:
    argv = run.header.get("argv")
    return str(argv[0]) if isinstance(argv, list) and argv else ""


def absolute(word: str, run: RunRecord) -> str:
    """The path that a word was for the run, where there is something; else the word."""
    path = Path(str(run.header.get("cwd", "."))) / word
    return str(path) if path.exists() else word


def _of_setting(departure: Departure, good: RunRecord, bad: RunRecord) -> Piece | None:
    """The act at the seams that gives the second program this setting of the first; None where there is none."""
    act: Intervention | None = None
    if departure.quantity == "rate" and not any(s.kind == PLATEAU for s in bad.schedules):
        rates = [float(run.of_phase("train")[0].steps.learning_rate[0].max()) for run in (good, bad)]
        act = Intervention("scale_rate", {"factor": rates[0] / rates[1]}) if rates[1] > 0 else None
    elif departure.quantity == "optimizer":
        for option in ("weight_decay", "momentum"):
            if f"optimizer's {option} " in departure.text:
                value = next(iter(good.optimizers.values())).groups[0].get(option)
                if isinstance(value, (int, float)):
                    act = Intervention("optimizer_settings", {"values": {option: float(value)}})
    elif departure.quantity == "val mode":
        act = Intervention("eval_mode", {"phase": "validation"})
    elif departure.quantity == "gradients" and departure.text.endswith("then left over"):
        act = Intervention("zero_gradients", {"phase": "train"})
    elif departure.quantity == "drawn" and departure.text.endswith("then in the order of the data set"):
        act = Intervention("shuffle", {"phase": "train"})
    return Piece(f"setting: {departure.text}"[: 2 * MAX_NAME], acts=(act,)) if act is not None else None
