"""How a Diagnosis and a RunRecord look in a notebook, and its cell magic. Registered with IPython; imports nothing otherwise."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from valgap.errors import NothingRecordedError, ValgapError
from valgap.types import Diagnosis, RunRecord

PICTURE_BYTES = 300_000  # the page goes into the notebook's file
FRAME_HEIGHT = 560


def register() -> bool:
    """Tell a running IPython how to show our objects; returns whether there is one."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return False
    html = shell.display_formatter.formatters["text/html"]
    html.for_type(Diagnosis, diagnosis_to_frame)
    html.for_type(RunRecord, record_to_table)
    return True


def add_magic(shell: Any) -> None:
    """``%%valgap [--out DIR] [--live]``: the cell recorded under `valgap.watch`, its diagnosis after it."""

    def magic(line: str, cell: str) -> Diagnosis | None:
        return run_cell(shell, line, cell)

    register()
    shell.register_magic_function(magic, magic_kind="cell", magic_name="valgap")


def run_cell(shell: Any, line: str, cell: str) -> Diagnosis | None:
    """Run a cell as the notebook would, recorded; returns what is to be said of it, None where it fails or holds no training."""
    from valgap.diagnosis import diagnose
    from valgap.seams.watch import watch

    def say(text: str) -> None:
        print(f"valgap: {text}", file=sys.stderr)

    failed: BaseException | None = None
    try:
        out, live = _options(line)
        with watch(out, live=live) as folder:
            result = shell.run_cell(cell)
            failed = result.error_before_exec or result.error_in_exec
            if failed is not None:
                raise failed  # the record ends with it
    except BaseException as reason:
        if reason is failed:  # the notebook has shown it already
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


def _options(line: str) -> tuple[Path | None, bool]:
    """The line of the magic: (where to record, whether to warn while it runs)."""
    try:
        words, out, live = shlex.split(line), None, False
    except ValueError as mistake:
        raise ValgapError(f"%%valgap {line}: {mistake}") from mistake
    while words:
        word = words.pop(0)
        if word == "--live":
            live = True
        elif word == "--out" and words:
            out = Path(words.pop(0))
        else:
            raise ValgapError(f"%%valgap takes --out DIR and --live, not {word!r}")
    return out, live


def diagnosis_to_frame(diagnosis: Diagnosis) -> str:
    """The page in a frame of its own, in which nothing can run and whose style cannot touch the notebook's."""
    from markupsafe import Markup

    from valgap.exhibits import gather
    from valgap.fix import code_of_remedies
    from valgap.report.as_html import diagnosis_to_html

    page = diagnosis_to_html(diagnosis, gather(diagnosis, code_of_remedies(diagnosis), PICTURE_BYTES))
    frame = Markup('<iframe title="valgap report" sandbox srcdoc="{}" width="100%" height="{}" frameborder="0"></iframe>')
    return str(frame.format(page, FRAME_HEIGHT))


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
