"""What is said of a program while it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LiveWarning:
    """A cause that a running program is suspected of, told once."""

    time: float  # Unix time
    epoch: int  # training passes that had ended
    pass_index: int  # position in RunRecord.passes of the last pass that had ended; of the first one, while it goes on
    code: str
    name: str
    stage: str
    confidence: float  # 0..1
    what: str
    why: tuple[str, ...]  # pieces of evidence, a line each
    remedy: str
