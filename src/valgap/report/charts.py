"""Charts as inline SVG: geometry of numbers that were made elsewhere. Every text is escaped; no script, no style attribute.

Colours are classes (s0, s1, ...), so that the page's sheet can turn them for dark screens and for print.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from valgap.types import Calibration, Series

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 12, 34
TICKS = 5


def line_chart(series: Sequence[Series], title: str, x_name: str, percent: bool) -> Markup:
    """Lines with their points, a band where there are intervals, and the names at the foot; empty without series."""
    if not series:
        return Markup("")
    x_ticks = ticks(*_span([x for s in series for x in s.x], whole=True), whole=True)
    values = [v for s in series for v in (*s.y, *s.low, *s.high)]
    y_ticks = ticks(*_span([*values, 0.0] if not percent else values))
    frame = _Frame(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1])
    body = [_axes(frame, x_ticks, y_ticks, x_name, percent)]
    for number, one in enumerate(series):
        body.append(_band(frame, one, number))
        points = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in zip(one.x, one.y, strict=True))
        if len(one.x) > 1:
            body.append(Markup('<polyline class="line s{}" points="{}"/>').format(number, points))
        body += [_point(frame, one.name, number, x, y, percent) for x, y in zip(one.x, one.y, strict=True)]
    return _svg(title, WIDTH, HEIGHT, body)


def calibration_chart(calibration: Calibration, title: str) -> Markup:
    """Accuracy over confidence with the diagonal of sound probabilities; the area of a point is its number of images."""
    frame = _Frame(0.0, 1.0, 0.0, 1.0)
    marks = [0.0, 0.25, 0.5, 0.75, 1.0]
    body = [_axes(frame, marks, marks, "mean confidence of the answers", True, x_percent=True)]
    line = f"{frame.x(0):.1f},{frame.y(0):.1f} {frame.x(1):.1f},{frame.y(1):.1f}"
    body.append(Markup('<polyline class="line faint dashed" points="{}"/>').format(line))
    most = max(b.n for b in calibration.bins)
    for one in calibration.bins:
        told = f"{one.n} images: confidence {one.confidence:.0%}, right {one.accuracy:.0%}"
        radius = 3.0 + 9.0 * math.sqrt(one.n / most)
        body.append(
            Markup('<circle class="dot s2" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
                f"{frame.x(one.confidence):.1f}", f"{frame.y(one.accuracy):.1f}", f"{radius:.1f}", told
            )
        )
    return _svg(title, WIDTH, HEIGHT, body)


def bar(start: float, end: float, low: float | None, high: float | None, span: tuple[float, float], kind: str) -> Markup:
    """One bar of a table from ``start`` to ``end`` on the common axis ``span``, with a whisker low .. high."""
    width = max(span[1] - span[0], 1e-9)

    def at(value: float) -> float:
        return 100.0 * (min(max(value, span[0]), span[1]) - span[0]) / width

    left, right = sorted((at(start), at(end)))
    body = [
        Markup('<rect class="bar {}" x="{}" y="4" width="{}" height="12"/>').format(
            kind, f"{left:.2f}", f"{max(right - left, 0.4):.2f}"
        )
    ]
    if low is not None and high is not None:
        a, b = f"{at(low):.2f}", f"{at(high):.2f}"
        for x1, x2, y1, y2 in ((a, b, 10, 10), (a, a, 6, 14), (b, b, 6, 14)):
            body.append(Markup('<line class="whisker" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(x1, x2, y1, y2))
    if span[0] < 0 < span[1]:
        body.append(Markup('<line class="zero" x1="{0}" x2="{0}" y1="0" y2="20"/>').format(f"{at(0.0):.2f}"))
    inner = Markup("").join(body)
    return Markup('<svg class="inbar" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">{}</svg>').format(inner)


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Round numbers that enclose low .. high, about `TICKS` of them; whole ones where asked."""
    if high <= low:
        high = low + 1.0
    raw = max((high - low) / TICKS, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in ((1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


class _Frame:
    """From values to places in the picture."""

    def __init__(self, x0: float, x1: float, y0: float, y1: float) -> None:
        self.x0, self.x1, self.y0, self.y1 = x0, x1, y0, y1

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.x0) / (self.x1 - self.x0)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.y0) / (self.y1 - self.y0)


def _span(values: Sequence[float], whole: bool = False) -> tuple[float, float]:
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    return (math.floor(min(finite)), math.ceil(max(finite))) if whole else (min(finite), max(finite))


def _axes(
    frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str, percent: bool, x_percent: bool = False
) -> Markup:
    out = []
    for value in y_ticks:
        y = f"{frame.y(value):.1f}"
        text = f"{100 * value:.3g} %" if percent else f"{value:.3g}"
        out.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, y, y))
        out.append(Markup('<text class="end" x="{}" y="{}">{}</text>').format(LEFT - 5, f"{frame.y(value) + 4:.1f}", text))
    for value in x_ticks:
        text = f"{100 * value:.3g} %" if x_percent else f"{value:.4g}"
        out.append(
            Markup('<text class="mid" x="{}" y="{}">{}</text>').format(f"{frame.x(value):.1f}", HEIGHT - BOTTOM + 15, text)
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(Markup('<text class="mid" x="{}" y="{}">{}</text>').format(middle, HEIGHT - 4, x_name))
    return Markup("").join(out)


def _band(frame: _Frame, one: Series, number: int) -> Markup:
    if not one.low or len(one.x) < 2:
        return Markup("")
    up = [f"{frame.x(x):.1f},{frame.y(v):.1f}" for x, v in zip(one.x, one.high, strict=True)]
    down = [f"{frame.x(x):.1f},{frame.y(v):.1f}" for x, v in zip(one.x, one.low, strict=True)]
    return Markup('<polygon class="band s{}" points="{}"/>').format(number, " ".join([*up, *reversed(down)]))


def _point(frame: _Frame, name: str, number: int, x: float, y: float, percent: bool) -> Markup:
    told = f"{name}, {x:g}: {y:.1%}" if percent else f"{name}, {x:g}: {y:.4g}"
    a, b = f"{frame.x(x):.1f}", f"{frame.y(y):.1f}"
    return Markup('<circle class="dot s{}" cx="{}" cy="{}" r="3"><title>{}</title></circle>').format(number, a, b, told)


def _svg(title: str, width: int, height: int, body: Sequence[Markup]) -> Markup:
    return Markup('<svg class="chart" role="img" viewBox="0 0 {} {}" aria-label="{}">{}</svg>').format(
        width, height, title, Markup("").join(body)
    )
