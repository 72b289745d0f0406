"""What happened, in two sentences."""

from __future__ import annotations

from valgap.types import Diagnosis, Finding, Judged

LIKELY = 0.5
# A share of fewer training images is left out; of fewer than the second, their number is told.
FEWEST, FEW = 10, 200


def two_sentences(diagnosis: Diagnosis) -> str:
    """The result of the run and what it is put down to, in words for somebody who has not heard of valgap."""
    return f"{_result(diagnosis)} {_cause(diagnosis)}"


def _result(diagnosis: Diagnosis) -> str:
    val = diagnosis.validation
    if val is None:
        return "No validation result with labels was recorded."
    text = f"This run answers {val.value:.1%} of its {val.n} validation images correctly"
    shares = (
        (diagnosis.train_rescored, diagnosis.rescored, "scored in the same way"),
        (diagnosis.train_reported, diagnosis.reported, "as they went by in training"),
    )
    for train, known, how in shares:
        if train is not None and (known is None or known.n >= FEWEST):
            which = "its training images" if known is None or known.n >= FEW else f"{known.n} training images"
            return f"{text}, and {train:.1%} of {which} {how}."
    return f"{text}."


def _cause(diagnosis: Diagnosis) -> str:
    confirmed = [j for j in diagnosis.findings if j.verdict == "confirmed"]
    likely = [
        j
        for j in diagnosis.findings
        if isinstance(j.outcome, Finding) and j.outcome.confidence >= LIKELY and j.verdict != "refuted"
    ]
    if confirmed:
        return _proved(diagnosis, confirmed)
    if not likely:
        return "".join(diagnosis.without_finding)
    first = likely[0].outcome
    assert isinstance(first, Finding)
    others = f" (and {_count(len(likely) - 1)} more)" if len(likely) > 1 else ""
    return f"The main suspect{others}, not proved by a re-run: {first.summary}."


def _proved(diagnosis: Diagnosis, confirmed: list[Judged]) -> str:
    first = confirmed[0].outcome
    assert isinstance(first, Finding)
    what = first.summary if len(confirmed) == 1 else f"{first.summary}, and {_count(len(confirmed) - 1)} more"
    told = f"Re-runs of the program confirm the cause: {what}" if len(confirmed) == 1 else f"Re-runs confirm the causes: {what}"
    if diagnosis.reached is None or not diagnosis.ledger:
        return f"{told}."
    return f"{told}; without {'it' if len(confirmed) == 1 else 'them'} the result is {diagnosis.reached:.1f} %."


def _count(number: int) -> str:
    return {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}.get(number, str(number))
