"""Findings by the stage that they sit in: which of them tell a stage's cost, and the account by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from valgap.confidence import calibrated
from valgap.types import STAGES, CaseStages, Clear, Compared, Evidence, Finding, Judged, Measured, Stage, StageLine, StageShare

# A finding at or above this confidence is one we would bet on; below it is a hint.
SUSPECTED = 0.5
HINT = 0.45
# A cause explains a stage when it claims at least this share of what the stage was measured to cost.
EXPLAINS = 0.5
UNNAMED = "STG"
# What training makes follows from what it is given: a fault of the stages on the right shows in those on the left as well.
GIVEN: tuple[Stage, ...] = ("draw", "pair", "read_train")
FOLLOWS: Mapping[Stage, tuple[Stage, ...]] = {
    "forward": (*GIVEN, "read_val"),
    "loss": (*GIVEN, "read_val"),
    "update": (*GIVEN, "read_val", "loss"),
    "choose": (*GIVEN, "read_val", "loss"),
}
# Stages whose faults have names of their own, behind which a fault without a name is not looked for in the stages on the left.
UNDER: Mapping[Stage, tuple[Stage, ...]] = {"read_train": ("forward",), "update": ("forward",), "choose": ("forward", "update")}
# A cause claims no more than what was assumed of it, or measured in another way: a part of the stage's cost is enough.
PART = 0.3
SURE = 0.7
# What happens while training, in causal order; a fact of the record among them is at least so sure.
TRAINING: tuple[Stage, ...] = ("draw", "pair", "read_train", "forward", "loss", "update", "choose")
FACT = 0.9
# What is true of the files and costs less is told as a note: it is what re-runs call next to nothing.
HARMLESS_POINTS = 2.0
# What is no fact and claims no more than this, measured, is within the noise of any validation.
WITHIN_NOISE = 3.0
# What a fault is taken to cost among others where nothing says how much.
UNKNOWN_POINTS = 10.0
READING: tuple[Stage, Stage] = ("read_val", "read_train")


def settle(judged: Sequence[Judged], stages: CaseStages) -> list[Judged]:
    """The outcomes, where a stage at fault is told once: by its name where it has one, else as a stage."""
    out = [_as_hint(j) if _harmless(j, stages) else j for j in _of_the_odd_side(judged, stages)]
    for stage in STAGES:
        own = [i for i, j in enumerate(out) if j.check.stage == stage and _confidence(j) >= SUSPECTED]
        named = [i for i in own if not _unnamed(out[i])]
        if not named:
            continue
        measured = stages.compared(stage)
        cost = measured.points.value if measured.points is not None and measured.verdict == "at fault" else None
        if cost is not None and measured.own:
            # What the program's own model gains is known: the likeliest name has it, whatever it claims.
            first = max(named, key=lambda i: (_confidence(out[i]), _points(out[i])))
            out[first] = _costing(out[first], cost, "the finished model, asked again,")
            out = [_as_hint(j) if i in own and i != first else j for i, j in enumerate(out)]
            continue
        if cost is not None:
            fact = next((i for i in named if _confidence(out[i]) >= FACT and _points(out[i]) < cost <= _most(out[i])), None)
            if fact is not None:
                out[fact] = _costing(out[fact], cost, "the comparison of this stage")
            idle = [i for i in named if _points(out[i]) < HARMLESS_POINTS and _confidence(out[i]) < FACT]
            for i in idle:  # it gives nothing back, and the stage costs something
                out[i] = _as_hint(out[i])
            named = [i for i in named if i not in idle]
            if not named:
                continue
        first = max(named, key=lambda i: _weight(out[i]))
        for i in own:
            # A name that stands for a small part of the stage's cost leaves the rest to be told.
            if _unnamed(out[i]) and (cost is None or _points(out[first]) >= PART * cost):
                out[i] = _as_hint(out[i])
        if cost is not None and _points(out[first]) >= EXPLAINS * cost:
            for i in named:
                if i != first:
                    out[i] = _as_hint(out[i])
    return _of_loss_last(_with_consequences(_with_their_work(out, stages), stages))


def _of_the_odd_side(judged: Sequence[Judged], stages: CaseStages) -> list[Judged]:
    """The outcomes, where what differs between the two sides' reading is told of the side that is read unlike its files."""
    out = list(judged)
    for told, odd in (READING, READING[::-1]):
        if (
            stages.compared(odd).verdict == "at fault"
            and stages.compared(odd).own
            and stages.compared(told).verdict != "at fault"
        ):
            out = [replace(j, check=replace(j.check, stage=odd)) if j.check.stage == told and _suspects(j) else j for j in out]
    return out


def _suspects(judged: Judged) -> bool:
    return _confidence(judged) >= SUSPECTED and not _unnamed(judged)


def _with_their_work(judged: list[Judged], stages: CaseStages) -> list[Judged]:
    """The outcomes, where a fact whose own cost nobody measured has the measured cost of what it may have brought about.

    What a network makes of a training is judged as it is, not as it would be with the earlier fault mended: the cost of later
    stages may be all of it. Told once, it stands at the cause that is sure. So does what the updates left to a probe where that
    alone would be excused, as by a training that is still under way.
    """
    out = list(judged)
    facts = [i for i, j in enumerate(out) if _confidence(j) >= FACT and _most(j) > 0 and j.check.stage in TRAINING]
    facts.sort(key=lambda i: TRAINING.index(out[i].check.stage))
    for i in facts:
        later = TRAINING[TRAINING.index(out[i].check.stage) :]
        for k, other in enumerate(out):
            measured = _confidence(other) >= SUSPECTED and not _most(other) and other.check.stage in later
            if k == i or not measured or _points(other) > _most(out[i]):
                continue
            if _points(other) > _points(out[i]):
                out[i] = _costing(out[i], _points(other), f"{other.check.code}, further on,")
            out[k] = _as_hint(other)
    left = stages.compared("update")
    if facts and left.verdict == "unknown" and left.points is not None and left.points.low > 0:
        first, cost = facts[0], left.points.value
        if out[first].check.stage != "choose" and _points(out[first]) < cost <= _most(out[first]):
            out[first] = _costing(out[first], cost, "a probe on the network's features")
    return out


def _costing(judged: Judged, points: float, by: str) -> Judged:
    """The finding with a cost that was measured elsewhere."""
    fact = judged.outcome
    assert isinstance(fact, Finding)
    cost = Evidence(f"cost, as {by} measures it", points, 0.0, "points")
    kept = tuple(e for e in fact.evidence if not e.assumed)
    return replace(judged, outcome=replace(fact, severity_points=points, evidence=(cost, *kept)))


def _of_loss_last(judged: list[Judged]) -> list[Judged]:
    """The outcomes, where what costs loss alone is a hint beside anything that costs accuracy: it is a part of the loss."""
    rivals = any(_confidence(j) >= SUSPECTED and not j.check.loss_alone for j in judged)
    return [_as_hint(j) if rivals and j.check.loss_alone and _confidence(j) >= SUSPECTED else j for j in judged]


def _with_consequences(judged: list[Judged], stages: CaseStages) -> list[Judged]:
    """The outcomes, where what claims no more than a fault of a stage before it costs is a hint: it may well follow from it."""
    out = []
    for one in judged:
        if _unnamed(one) and _confidence(one) >= SUSPECTED and _named_before(one, judged):
            out.append(_as_hint(one))
            continue
        before = FOLLOWS.get(one.check.stage, ()) if _confidence(one) >= SUSPECTED else ()
        if one.check.by_features and _confidence(one) >= SUSPECTED:
            # Features are those of the network as it is evaluated, with the weights that it has in the end.
            before = (*before, "forward")
            before = (*before, "choose") if stages.compared("choose").kind == "loaded" else before
        if one.check.by_answers and _confidence(one) >= SUSPECTED:
            before = (*before, "read_val")
        faults = [c for c in map(stages.compared, before) if c.verdict == "at fault" and c.confidence >= SURE]
        costs = [c.points for c in faults if c.points is not None]
        # Which epoch is the best one, and what became of the features, says little of a training that was given something wrong:
        # about as much is enough.
        share = EXPLAINS if one.check.stage == "choose" or one.check.by_features else 1.0
        follows = any(_points(one) <= c.high or share * _points(one) <= c.value for c in costs)
        out.append(_as_hint(one) if follows else one)
    return out


def _named_before(one: Judged, judged: Sequence[Judged]) -> bool:
    """Whether a likely cause with a name, of a stage before this one, explains a part of what this stage seems to cost."""
    stages = (*FOLLOWS.get(one.check.stage, ()), *UNDER.get(one.check.stage, ()))
    named = [j for j in judged if j.check.stage in stages and not _unnamed(j) and _confidence(j) >= SURE]
    return any(_points(j) >= PART * _points(one) for j in named)


def account(judged: Sequence[Judged], stages: CaseStages, shares: Sequence[StageShare] = ()) -> tuple[StageLine, ...]:
    """One line a stage, the most costly first; stages that nothing is known of come last. ``shares``: what re-runs gave."""
    by_stage = {s.stage: s for s in shares}
    lines = [_line(stage, [j for j in judged if j.check.stage == stage], stages.compared(stage)) for stage in STAGES]
    lines = [_as_shared(line, by_stage[line.stage]) if line.stage in by_stage else line for line in lines]
    place = ("at fault", "gain", "unknown", "sound")
    return tuple(sorted(lines, key=lambda x: (place.index(x.verdict) > 0, -_told(x), STAGES.index(x.stage))))


def _as_shared(line: StageLine, share: StageShare) -> StageLine:
    """The line with what re-runs gave to its stage in the place of what the comparison lets expect."""
    shared = replace(line, points=share.points, nats=share.nats)
    if share.told == "cost":
        return shared
    if share.told == "gain":
        told = "re-runs with the plain way in its place do worse: the program's own is a gain"
        return replace(shared, verdict="gain", confidence=0.0, summary=told, causes=(), missing="")
    if line.verdict == "at fault":
        return line  # what is suspected has a word of its own
    words = f"tried at once with {', '.join(s for s in share.together if s != line.stage)}" if share.together else "tried"
    told = f"re-runs with the plain way in its place change next to nothing ({words})"
    return replace(shared, verdict="sound", confidence=min(HINT, line.confidence), summary=told, missing="")


def _line(stage: Stage, own: list[Judged], found: Compared) -> StageLine:
    findings = [j for j in own if isinstance(j.outcome, Finding) and not j.check.limit]
    likely = sorted((j for j in findings if _confidence(j) >= SUSPECTED and j.verdict != "refuted"), key=_weight, reverse=True)
    proved = [j for j in findings if j.verdict == "confirmed"]
    causes = tuple(j.check.code for j in (*proved, *(j for j in likely if j not in proved)))
    points, nats, verdict, confidence = found.points, found.nats, found.verdict, found.confidence
    summary, evidence = found.summary, found.evidence
    if stage == "files" and verdict == "unknown" and any(isinstance(j.outcome, Clear) for j in own):
        verdict, summary = "sound", "no check of images, labels and splits found a fault that costs anything"
    unnamed = [j for j in findings if _unnamed(j)]
    if verdict == "at fault" and unnamed and not likely and not proved:
        # Its own finding became a hint: a fault of a stage before may be all of it.
        verdict, confidence = "unknown", max(map(_confidence, unnamed))
    leading = next(iter((*proved, *likely)), None)
    if leading is not None and isinstance(leading.outcome, Finding):
        verdict, summary = "at fault", leading.outcome.summary
        # Of the stage, not of the name.
        confidence = max(leading.outcome.confidence, calibrated(found.confidence) if found.verdict == "at fault" else 0.0)
        evidence = (*leading.outcome.evidence, *evidence)
        if leading.effect is not None:
            points = Measured(leading.effect.value, leading.effect.low, leading.effect.high)
            nats = leading.effect.nats or nats
        elif points is None or found.verdict != "at fault":
            told = leading.outcome.severity_points
            # Claimed, not measured: it may be nothing, or twice as much.
            claimed = Measured(told, min(0.0, 2 * told), max(0.0, 2 * told))
            points = claimed if leading.outcome.cost_known else None
    return StageLine(
        stage,
        points,
        nats,
        verdict,
        confidence if verdict == "at fault" else min(HINT, confidence),
        bool(proved),
        causes,
        summary,
        evidence,
        found.missing if verdict == "unknown" else "",
        found.pictures if verdict == "at fault" else (),
    )


def _told(line: StageLine) -> float:
    if line.points is None:
        return UNKNOWN_POINTS * line.confidence if line.verdict == "at fault" else 0.0
    return abs(line.points.value) * max(0.05, line.confidence)


def _confidence(judged: Judged) -> float:
    return judged.outcome.confidence if isinstance(judged.outcome, Finding) else 0.0


def _points(judged: Judged) -> float:
    return abs(judged.outcome.severity_points) if isinstance(judged.outcome, Finding) else 0.0


def _most(judged: Judged) -> float:
    return judged.outcome.most_points if isinstance(judged.outcome, Finding) else 0.0


def _weight(judged: Judged) -> float:
    return _points(judged) * _confidence(judged)


def _harmless(judged: Judged, stages: CaseStages) -> bool:
    """Whether it is a fact of the files that costs nothing, or a suspicion of next to nothing: a note."""
    if not _confidence(judged) >= SUSPECTED:
        return False
    of_files = judged.check.stage == "files" and _points(judged) < HARMLESS_POINTS
    if of_files or _confidence(judged) >= FACT or _most(judged) > 0 or not 0 < _points(judged) < WITHIN_NOISE:
        return of_files
    return stages.compared(judged.check.stage).verdict != "at fault"  # else it is the name of what that was measured to cost


def _unnamed(judged: Judged) -> bool:
    return judged.check.code.startswith(UNNAMED)


def _as_hint(judged: Judged) -> Judged:
    assert isinstance(judged.outcome, Finding)
    return replace(judged, outcome=replace(judged.outcome, confidence=min(HINT, judged.outcome.confidence)))
