"""How a Diagnosis and a RunRecord look in a notebook. Registered with IPython where it runs; imports nothing otherwise."""

from __future__ import annotations

import sys
from typing import Any

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
