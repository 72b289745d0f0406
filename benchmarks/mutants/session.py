"""What is done in the one session: tests are seen, then mutants are put, in parts; a row goes to its file at once."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mutants import served
from mutants.asked import Known, Numbers, chosen, shares, within
from mutants.source import (
    Overlay,
    Row,
    caches_in_memory,
    files,
    forget_modules,
    functions_in_memory,
    in_place,
    lines_of,
    mark_of,
    mutated,
    name_of,
)

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / "benchmarks" / "results" / "mutants.jsonl"
TESTS = (
    "checks", "contract", "seams", "experiments", "comparison", "edits", "engine", "exhibits", "fix", "integrations", "live",
    "models", "ranks", "record", "reference", "report",
    "test_confidence.py", "test_gap.py", "test_symptoms.py", "test_allocator.py",
)  # fmt: skip
FILE_S = 20.0  # files whose marker says that they take longer run whole programs: left out
SEEN_S, BESIDE_S, TIMES = 480.0, 20.0, 6.0  # limits: of a file that is seen; of a mutant, beside six times the undisturbed time


class Session:
    """The plugin whose loop takes the place of pytest's own."""

    def __init__(self, given: argparse.Namespace, overlay: Overlay, made: list[Row], until: float) -> None:
        self._given, self._overlay, self._made, self._until = given, overlay, made, until
        self._numbers = Numbers({file: len(lines_of(file)) for file in files()})
        self.done = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """See what tests run, then put mutants."""
        served.adopt()
        served.import_once()
        self._session = session
        self._items = {item.nodeid: item for item in session.items}
        gc.unfreeze()  # what is frozen is not listed
        gc.collect()
        self._functions, self._caches = functions_in_memory(self._overlay.root), caches_in_memory()
        gc.freeze()
        if not self._seen():
            return True
        self._tests = known(self._given.keep)
        self.done = self._put()
        return True

    def _seen(self) -> bool:
        by_file: dict[str, list[pytest.Item]] = defaultdict(list)
        for item in self._items.values():
            by_file[item.nodeid.partition("::")[0]].append(item)
        there = {row["file"]: row["of"] for row in map(json.loads, read(self._given.keep / "seen.jsonl"))}
        for file, items in sorted(by_file.items(), key=lambda one: max(map(_takes, one[1]))):  # the quick ones first
            of = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:12]
            if there.get(file) == of or max(map(_takes, items)) > FILE_S:
                continue
            if time.monotonic() > self._until:
                return False
            began = time.monotonic()
            found = served.in_fork(
                lambda items=items: served.seen(items, served.Lines(self._overlay.root, self._numbers)), SEEN_S
            )  # type: ignore[misc]
            tests = found if found is not None and "error" not in found else {}
            append(self._given.keep / "seen.jsonl", {"file": file, "of": of, "shares": shares(ROOT / file), "tests": tests})
            outcomes = [t["outcome"] for t in tests.values()]
            told = {o: outcomes.count(o) for o in dict.fromkeys(outcomes)} or (found or "took too long")
            why = next((t["why"] for t in tests.values() if t["outcome"] == "failed"), "")
            print(f"{file}: {told} of {len(items)}, {time.monotonic() - began:.1f} s {why}", flush=True)
        return True

    def _put(self) -> bool:
        there = {(row["name"], row["mark"]): row for row in rows()}
        for made in self._made:
            name, mark = name_of(made), mark_of(made)
            if self._given.only and name not in self._given.only:
                continue
            if self._given.part and not name.startswith(tuple(self._given.part)):
                continue
            before = there.get((name, mark))
            if self._given.survivors and (before is None or before["came"] == "killed"):
                continue
            if before is not None and not self._given.only and not self._given.survivors:
                continue
            if time.monotonic() > self._until:
                return False
            row = {"name": name, "mark": mark, **self.outcome(made)}
            row |= {key: made[key] for key in ("line", "old", "new")}
            append(ROWS, row)
            print(row["came"], row["seconds"], name, row.get("by", ""), flush=True)
        return True

    def outcome(self, made: Row) -> Row:
        """Put one mutant to the tests."""
        began = time.monotonic()
        try:
            text = mutated(made)
            compile(text, made["file"], "exec", dont_inherit=True)
        except SyntaxError as error:
            return {"came": "no program", "tests": 0, "seconds": 0.0, "why": str(error)}
        every = chosen(made, self._tests, self._numbers)
        tests = within(every, self._given.most_s)
        if not tests:
            return {"came": "not run", "tests": 0, "seconds": 0.0}
        self._overlay.put(made["file"], text)
        try:
            limit = TIMES * sum(t.seconds for t in tests) + BESIDE_S
            found = served.in_fork(lambda: self._in_fork(made, tests), limit)
        finally:
            self._overlay.restore(made["file"])
        seconds = round(time.monotonic() - began, 2)
        if found is None:
            return {"came": "late", "tests": len(tests), "seconds": seconds}
        if "error" in found:
            return {"came": "killed", "tests": len(tests), "seconds": seconds, "by": "end", "why": found["error"][-200:]}
        left = len(every) - len(tests) if found["came"] == "survived" else 0
        return {**found, "tests": len(tests), "left": left, "seconds": seconds}

    def _in_fork(self, made: Row, tests: Sequence[Known]) -> Row:
        config = self._session.config
        served.settle(config)
        served.quiet(config)
        if in_place(made, self._overlay.path(made["file"]), self._functions):
            for cached in self._caches:
                cached.cache_clear()
            told = served.Told()
            config.pluginmanager.register(told)
            items = [self._items[t.name] for t in tests if t.name in self._items]
            served.serve(items)
            served.run(items, told, stop=True)
        else:
            capture = config.pluginmanager.getplugin("capturemanager")
            capture.stop_global_capturing()
            forget_modules()
            told, status = served.anew([t.name for t in tests], ROOT)
            if status not in (0, 1) and told.failed is None:  # not even collected
                return {"came": "killed", "by": "import", "anew": True}
            return {**_came(told), "anew": True}
        return _came(told)


def _came(told: served.Told) -> Row:
    if told.failed is not None:
        return {"came": "killed", "by": told.failed, "why": told.whys[told.failed]}
    return {"came": "survived"}


def _takes(item: pytest.Item) -> float:
    marker = item.get_closest_marker("takes")
    return float(marker.args[0]) if marker is not None else 0.0


def known(keep: Path) -> list[Known]:
    """All tests that were seen."""
    found = []
    files = {row["file"]: row for row in map(json.loads, read(keep / "seen.jsonl"))}  # of two rows of one file the later counts
    for row in files.values():
        found += [
            Known(name, row["file"], t["outcome"], t["seconds"], frozenset(t["lines"]), row["shares"])
            for name, t in row["tests"].items()
        ]
    return found


def rows(newest: bool = True) -> list[Row]:
    """What came so far, of each mutant at last or at first."""
    every = [json.loads(line) for line in read(ROWS)]
    return list({row["name"]: row for row in (every if newest else every[::-1])}.values())


def read(path: Path) -> list[str]:
    """The lines of a file, if there is one."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def append(path: Path, row: Row) -> None:
    """Add a row, without the folder that this checkout lies in."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row).replace(f"{ROOT}/", "") + "\n")


def sample(keep: Path, python: Path, count: int) -> list[Row]:
    """The mutants, made again only where a source has changed since."""
    stamp = {"count": count, "files": {file: "".join(lines_of(file)) for file in files()}}
    kept, of = keep / "made.jsonl", keep / "made_of.json"
    if not (kept.exists() and of.exists() and json.loads(of.read_text(encoding="utf-8")) == stamp):
        command = [str(python), str(Path(__file__).with_name("made.py")), str(ROOT / "src"), str(count), *files()]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            sys.exit(made.stderr)
        kept.write_text(made.stdout, encoding="utf-8")
        (keep / "all").write_text(made.stderr.split()[-1], encoding="utf-8")
        of.write_text(json.dumps(stamp), encoding="utf-8")
    return [json.loads(line) for line in read(kept)]


def work(given: argparse.Namespace, until: float) -> bool:
    """Do what has no row, until that moment; whether nothing is left."""
    made = sample(given.keep, given.python, given.count)
    overlay = Overlay(given.keep / "src")
    os.environ.update(PYTHONPATH=str(overlay.root), OMP_NUM_THREADS="1")
    sys.path.insert(0, str(overlay.root))
    session = Session(given, overlay, made, until)
    chosen_tests = given.tests or [str(ROOT / "tests" / name) for name in TESTS]
    arguments: list[Any] = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(ROOT),
        "-c",
        str(ROOT / "pyproject.toml"),
        *chosen_tests,
    ]
    os.chdir(ROOT)
    status = pytest.main(arguments, plugins=[session])
    if status not in (0, 5):
        print(f"pytest ended with {status}")
    return session.done
