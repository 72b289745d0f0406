"""Numbers and the user's names as text."""

from __future__ import annotations

from rich.markup import escape

from valgap.types import Accuracy, Evidence, LossParts, Measured
from valgap.visible import visible

# A share of fewer images is left out; of fewer than the second, it is shown with their number and the interval.
FEWEST, FEW = 10, 200


def safe(text: str) -> str:
    """The text for a terminal: rich's markup is escaped, and control characters, which could move the cursor, are shown."""
    return escape(visible(text))


def evidence_line(evidence: Evidence) -> str:
    """One piece of evidence as text: name, value, interval, reference, n."""
    unit = f" {evidence.unit}" if evidence.unit else ""
    text = f"{evidence.name}: {number_text(evidence.value)}{unit}"
    if evidence.low is not None and evidence.high is not None:
        text += f" ({number_text(evidence.low)} .. {number_text(evidence.high)})"
    if evidence.reference is not None:
        text += f", in a sound run {number_text(evidence.reference)}{unit}"
    return text + (f"  [n = {evidence.n}]" if evidence.n is not None else "")


def loss_text(nats: Measured | None) -> str:
    """What mending does to the loss, in nats and with its sign: less is better. "" where it is not known."""
    return f"{-nats.value:+.2f}".replace("-0.00", "0.00").replace("+0.00", "0.00") if nats is not None else ""


# Nats by which a loss that is scored again differs from the recorded one, before both are told.
ANOTHER_LOSS = 0.05


def loss_parts_text(parts: LossParts) -> str:
    """The loss and its two parts in one line; where the program's own validation came to another, that first."""
    own = f"{parts.value:.2f} nats"
    if parts.recorded is not None and abs(parts.recorded - parts.value) > ANOTHER_LOSS:
        own = f"{parts.recorded:.2f} nats as recorded; scored again in eval mode {own}"
    if parts.confidence.low <= 0:
        return f"{own}: no temperature takes anything off it"
    return f"{own}: {parts.discrimination:.2f}, and {parts.confidence.value:.2f} that one temperature takes off"


def share_text(value: float, known: Accuracy | None) -> str:
    """A share as text, with the number of images and the 95 % interval where these are few."""
    if known is None or known.n >= FEW:
        return f"{value:.1%}"
    return f"{value:.1%} ({known.n} images, {known.low:.0%} .. {known.high:.0%})"


def number_text(value: float | str | None) -> str:
    """A number with four significant digits, or the text itself."""
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) else f"{value:.4g}"
