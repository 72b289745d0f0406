"""How a Diagnosis, a RunRecord and a run that goes on look in a notebook, and its cell magic.

Registered with IPython; imports nothing otherwise.
"""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valgap.errors import NothingRecordedError, RecordError, StoppedOnWarning, ValgapError
from valgap.types import Diagnosis, RunRecord
from valgap.visible import visible

PICTURE_BYTES = 300_000  # the page goes into the notebook's file
FRAME_HEIGHT, VIEW_HEIGHT = 560, 640
# Of the view: seconds between two looks at the record, and the share of the program's time that they may take.
EVERY_S, SHARE = 2.0, 0.02


def register() -> bool:
    """Tell a running IPython how to show our objects, and `valgap.watch` to show a run there; returns whether there is one."""
    from valgap.seams.hosting import watch

    shell = _shell()
    if shell is None:
        return False
    if shown_live not in watch.beside:
        watch.beside.append(shown_live)
    html = shell.display_formatter.formatters["text/html"]
    html.for_type(Diagnosis, diagnosis_to_frame)
    html.for_type(RunRecord, record_to_table)
    return True


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def add_magic(shell: Any) -> None:
    """``%%valgap [--out DIR] [--live] [--stop-on suspected]``: the cell recorded under `valgap.watch`, its diagnosis after it."""

    def magic(line: str, cell: str) -> Diagnosis | None:
        return run_cell(shell, line, cell)

    register()
    shell.register_magic_function(magic, magic_kind="cell", magic_name="valgap")


def run_cell(shell: Any, line: str, cell: str) -> Diagnosis | None:
    """Run a cell as the notebook would, recorded; returns what is to be said of it, None where it fails or holds no training."""
    from valgap.diagnosis import diagnose
    from valgap.seams.hosting.watch import watch

    def say(text: str) -> None:
        print(f"valgap: {visible(text)}", file=sys.stderr)

    failed: BaseException | None = None
    try:
        out, live, stop_on = _options(line)
        with watch(out, live=live, stop_on=stop_on) as folder:
            result = shell.run_cell(cell)
            failed = result.error_before_exec or result.error_in_exec
            if failed is not None:
                raise failed  # the record ends with it
    except BaseException as reason:
        if isinstance(reason, StoppedOnWarning):
            say(f"the cell was {reason}; what it did until then is recorded in {folder}")
        elif reason is failed:  # the notebook has shown it already
            say(f"the cell failed; what it did until then is recorded in {folder}")
        elif isinstance(reason, ValgapError):
            say(str(reason))
        else:
            raise
        return None
    say(f"recorded in {folder}")
    try:
        return diagnose(folder, say=say)
    except NothingRecordedError as nothing:
        say(str(nothing))
        return None


def _options(line: str) -> tuple[Path | None, bool, str | None]:
    """The line of the magic: (where to record, whether to warn while it runs, whether to end the cell then)."""
    try:
        words, out, live, stop_on = shlex.split(line), None, False, None
    except ValueError as mistake:
        raise ValgapError(f"%%valgap {line}: {mistake}") from mistake
    while words:
        word = words.pop(0)
        if word == "--live":
            live = True
        elif word == "--out" and words:
            out = Path(words.pop(0))
        elif word == "--stop-on" and words:
            stop_on = words.pop(0)
        else:
            raise ValgapError(f"%%valgap takes --out DIR, --live and --stop-on suspected, not {word!r}")
    return out, live, stop_on


@contextmanager
def shown_live(folder: Path) -> Iterator[None]:
    """Inside, the page of `valgap view` stands below the cell and is made anew as the record grows; where HTML can be shown."""
    shell = _shell()
    if shell is None or "text/html" not in shell.display_formatter.active_types:
        yield
        return
    view = _LiveView(folder)
    view.start()
    try:
        yield
    finally:
        view.end()


class _LiveView:
    """One output of a cell, made anew by a thread. It must never be what ends a training: its own faults are printed."""

    def __init__(self, folder: Path) -> None:
        from IPython import display

        from valgap.live.view import Watched

        self._folder, self._watched = folder, Watched(folder, SHARE)
        self._shown = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="valgap view", daemon=True)
        untyped: Any = display
        self._handle = untyped.DisplayHandle()
        self._handle.display(_as_html("<p>valgap: recording</p>"), raw=True)

    def start(self) -> None:
        """Begin to look at the record."""
        self._thread.start()

    def end(self) -> None:
        """Show how it ended."""
        from valgap.live.view import Watched

        failed = self._over.is_set()
        self._over.set()
        self._thread.join()
        if not failed:
            self._watched = Watched(self._folder)  # whatever was read a moment ago
            self._show()

    def _follow(self) -> None:
        spent = 0.0
        while not self._over.wait(EVERY_S + spent / SHARE):
            begun = time.monotonic()
            self._show()
            spent = time.monotonic() - begun

    def _show(self) -> None:
        from valgap.live.server import SITE, view_to_json

        try:
            body = view_to_json(self._watched.now())
            if self._shown != (shown := json.dumps({**body, "seconds": 0})):
                self._shown = shown
                page = page_in_frame(SITE.in_one(json.dumps(body)), "allow-scripts", VIEW_HEIGHT)
                self._handle.update(_as_html(page), raw=True)
        except RecordError:  # it has not begun, or its folder is gone
            return
        except Exception:
            self._over.set()
            traceback.print_exc()


def _as_html(page: str) -> dict[str, str]:
    return {"text/html": page, "text/plain": "a run that goes on, as valgap view shows it"}


def diagnosis_to_frame(diagnosis: Diagnosis) -> str:
    """The page in a frame of its own, in which nothing can run."""
    from valgap.exhibits import gather
    from valgap.fix import code_of_remedies
    from valgap.report.as_html import diagnosis_to_html

    page = diagnosis_to_html(diagnosis, gather(diagnosis, code_of_remedies(diagnosis), PICTURE_BYTES))
    return page_in_frame(page, "", FRAME_HEIGHT)


def page_in_frame(page: str, allowed: str, height: int) -> str:
    """A frame whose style and scripts (where ``allowed`` at all) cannot touch the notebook's."""
    from markupsafe import Markup

    frame = Markup('<iframe title="valgap" sandbox="{}" srcdoc="{}" width="100%" height="{}" frameborder="0"></iframe>')
    return str(frame.format(allowed, page, height))


def record_to_table(run: RunRecord) -> str:
    """What ran, and every pass."""
    from markupsafe import Markup

    names = ("pass", "phase", "epoch", "images", "accuracy", "loss")
    head = Markup("").join(Markup("<th>{}</th>").format(n) for n in names)
    rows = []
    for one in run.passes:
        cells = (one.index, one.phase, one.epoch, len(one.samples), f"{one.samples.accuracy:.1%}", f"{one.samples.mean_loss:.4f}")
        rows.append(Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(c) for c in cells)))
    title = Markup("<p><strong>{}</strong> recorded in <code>{}</code>, exit status {}, {} s</p>").format(
        run.header.get("script", "?"), run.path, run.exit_status, f"{run.seconds:.1f}"
    )
    return str(title + Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, Markup("").join(rows)))
