"""The numbers of one printed line, and what the line says of each."""

from __future__ import annotations

from dataclasses import dataclass, field

from valgap.record.printed.tokens import Token


@dataclass
class Found:
    """A number of a line, and what the line says of it."""

    token: Token
    words: tuple[str, ...] = ()
    metric: str = "other"  # accuracy, top_k, loss, other
    k: int = 1
    side: str = ""
    own_side: bool = False  # its own label says so
    kind: str = ""
    percent: bool = False  # a percent sign stands with it
    labelled: bool = False  # some word is its label

    @property
    def value(self) -> float:
        """The number."""
        return float(self.token.text)

    @property
    def unit(self) -> str | None:
        """percent or share; None where it cannot be known from the number alone."""
        if self.metric not in ("accuracy", "top_k"):
            return None
        if self.percent or self.value > 1:
            return "percent"
        # Programs that write "Acc@1" mean percent, most of them; 0 and 1 are shares as well as percents.
        return None if "@" in "".join(self.words) or self.value in (0.0, 1.0) else "share"


@dataclass
class Line:
    """A line, read."""

    numbers: list[Found] = field(default_factory=list)
    epoch: float | None = None
    finished: bool | None = None  # by its progress ("[4/5]"); None where it shows none
    words: tuple[str, ...] = ()  # of what is left after the last number
    heads: bool = False  # it ends with a colon: what follows belongs to those words
