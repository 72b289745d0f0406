"""A page's own files: its body, styles and scripts, which lie in the folder ``page`` of a package, under one head."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.resources import files

COMMON = "common.css"  # of all pages
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>valgap {name}</title>
<link rel="icon" href="data:,">
{own}
</head>
<body>
{body}</body>
</html>
"""


@dataclass(frozen=True)
class Site:
    """The files of one page. ``NAME.css`` and the scripts are asked for by their names, the page itself by nothing."""

    package: str
    name: str
    scripts: tuple[str, ...]

    def file(self, place: str) -> tuple[str, bytes] | None:
        """(content type, bytes) of what a page asks for; None where that is none of its files."""
        if place == "":
            styles = [f'<link rel="stylesheet" href="{style}">' for style in (COMMON, f"{self.name}.css")]
            scripts = [f'<script src="{script}" defer></script>' for script in self.scripts]
            return "text/html", self._page([*styles, *scripts]).encode()
        if place in self.scripts:
            return "text/javascript", self._text(place).encode()
        if place in (COMMON, f"{self.name}.css"):
            return "text/css", self._text(place).encode()
        return None

    def in_one(self, given: str) -> str:
        """The page with its styles and scripts inside, for a frame that can ask for nothing; ``given``: JSON for its script."""
        inside = given.replace("<", "\\u003c")  # the same JSON, which cannot end its element
        scripts = [f"<script>{self._text(script)}</script>" for script in self.scripts]
        styles = [f"<style>{self._text(style)}</style>" for style in (COMMON, f"{self.name}.css")]
        page = self._page(styles)
        return page.replace("</body>", f'<script type="application/json" id="given">{inside}</script>{"".join(scripts)}</body>')

    def _page(self, own: list[str]) -> str:
        return PAGE.format(name=self.name, own="\n".join(own), body=self._text("body.html"))

    def _text(self, name: str) -> str:
        return _text("valgap.review" if name == COMMON else self.package, name)


@functools.cache
def _text(package: str, name: str) -> str:
    return files(package).joinpath("page", name).read_text("utf-8")
