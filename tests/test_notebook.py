"""In a notebook, a diagnosis is its page and a record is its table, by IPython's own formatters."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

from tests.report.pages import HOSTILE, diagnosis, finding, record
from valgap.notebook import register


def test_rich_representations(tmp_path: Path) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        assert register()
        run = record(tmp_path)
        run = replace(run, header={**run.header, "script": HOSTILE})
        one = diagnosis(run, ("MOD302", finding()))
        shown, _ = shell.display_formatter.format(one)
        assert shown["text/html"].startswith("<iframe") and " sandbox " in shown["text/html"]
        page = html.unescape(shown["text/html"].split('srcdoc="')[1].split('" width')[0])
        assert page.startswith("<!doctype html>") and "batchnorm_drift" in page and "<script>" not in page
        assert len(shown["text/html"]) < 1_000_000
        assert "batchnorm_drift (confirmed)" in shown["text/plain"] and len(shown["text/plain"]) < 500
        table, _ = shell.display_formatter.format(run)
        assert "<td>validation</td>" in table["text/html"] and "<script>" not in table["text/html"]
    finally:
        InteractiveShell.clear_instance()
