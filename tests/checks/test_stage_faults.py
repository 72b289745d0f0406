"""STG601 to STG609: a stage at fault is told, whatever the fault is called, and told once."""

from dataclasses import replace

import pytest

from tests.checks.cases import healthy, with_phase
from valgap.checks import CATALOGUE
from valgap.checks.shared.stage_faults import of_folders, of_pairing
from valgap.confidence import calibrated
from valgap.diagnosis import order
from valgap.reference.updating import settled
from valgap.stages import HINT, account, settle
from valgap.types import (
    Check,
    Clear,
    Compared,
    Effect,
    Evidence,
    Finding,
    Intervention,
    Judged,
    Measured,
    NotApplicable,
    Stage,
    StageShare,
    Untreatable,
)

UNNAMED = [c for c in CATALOGUE if c.code.startswith("STG")]
FAULT = Compared("at fault", "it loses 20 points", Measured(20.0, 12.0, 28.0), Measured(0.5, 0.3, 0.7), 0.9)
SOUND = Compared("sound", "as it should be", Measured(0.1, -1.0, 1.2))


class Known:
    """Stages of which all is known beforehand; unknown where nothing is said."""

    def __init__(self, **said: Compared) -> None:
        self.said = said

    def compared(self, stage: Stage) -> Compared:
        return self.said.get(stage, Compared("unknown", "", missing="a reason"))

    def reference(self, stage: Stage) -> Intervention | Untreatable:
        return self.compared(stage).treatment or Untreatable("not known")


def named(stage: Stage, points: float, confidence: float, code: str = "XXX101") -> Judged:
    """A cause of the catalogue in that stage."""
    return Judged(Check(code, code.lower(), lambda case: Clear(""), "", stage), Finding("", points, confidence, (), ""))


@pytest.mark.parametrize("check", UNNAMED, ids=lambda c: c.code)
def test_each_stage_is_asked_for(check: Check) -> None:
    fault = check.detect(replace(healthy(), stages=Known(**{check.stage: FAULT})))
    assert isinstance(fault, Finding) and fault.severity_points == 20 and fault.confidence == 0.9
    assert isinstance(check.detect(replace(healthy(), stages=Known(**{check.stage: SOUND}))), Clear)
    assert check.detect(replace(healthy(), stages=Known())) == NotApplicable("a reason")


@pytest.mark.parametrize("check", [c for c in UNNAMED if c.treat is not None], ids=lambda c: c.code)
def test_a_re_run_puts_in_place_what_the_comparison_names(check: Check) -> None:
    assert check.treat is not None
    finding, own = Finding("", 20.0, 0.9, (), ""), Intervention("draw_all", {"batch_size": 4})
    treated = check.treat(replace(healthy(), stages=Known(**{check.stage: replace(FAULT, treatment=own)})), finding)
    unknown = check.treat(replace(healthy(), stages=Known(**{check.stage: FAULT})), finding)
    if check.stage in ("forward", "choose"):
        assert isinstance(treated, Intervention) and treated == unknown  # the same for every program
        return
    assert treated == own and isinstance(unknown, Untreatable)
    reason = Untreatable("a reason")
    assert check.treat(replace(healthy(), stages=Known(**{check.stage: replace(FAULT, treatment=reason)})), finding) == reason


def test_a_stage_with_a_name_is_told_by_its_name() -> None:
    stages = Known(draw=FAULT)
    unnamed = Judged(UNNAMED[0], Finding("", 20.0, 0.9, (), ""))
    settled = settle([named("draw", 18.0, 0.7), unnamed], stages)
    assert [j.outcome.confidence for j in settled if isinstance(j.outcome, Finding)] == [0.7, HINT]
    assert settle([unnamed], stages) == [unnamed]


def test_a_name_has_what_the_finished_model_was_measured_to_gain() -> None:
    """Whatever it claims itself: costs that can be measured are measured."""
    unnamed = Judged(next(c for c in UNNAMED if c.stage == "read_val"), Finding("", 20.0, 0.9, (), ""))
    rivals = [named("read_val", 2.0, 0.75), named("read_val", 0.0, 0.6, "XXX102"), unnamed]
    settled = settle(rivals, Known(read_val=replace(FAULT, own=True)))
    told = [(j.outcome.severity_points, j.outcome.confidence) for j in settled if isinstance(j.outcome, Finding)]
    assert told == [(20.0, 0.75), (0.0, HINT), (20.0, HINT)]
    line = account(settled, Known(read_val=replace(FAULT, own=True)))[0]
    assert line.stage == "read_val" and line.confidence == max(0.75, calibrated(0.9)) and line.points == FAULT.points


def test_a_measured_cost_takes_the_place_of_an_assumed_one() -> None:
    one = named("read_val", 5.0, 0.9)
    assert isinstance(one.outcome, Finding)
    facts = (Evidence("mean of the normalisation", 0.4, 0.5), Evidence("cost (not re-scored): assumed", 5.0, 0.0, "points"))
    told = settle([replace(one, outcome=replace(one.outcome, evidence=facts))], Known(read_val=replace(FAULT, own=True)))[
        0
    ].outcome
    assert isinstance(told, Finding) and [e.value for e in told.evidence] == [20.0, 0.4]


@pytest.mark.parametrize("stage", ["loss", "update", "choose"])
def test_what_a_wrongly_read_validation_brings_about_is_a_hint(stage: Stage) -> None:
    later = named(stage, 15.0, 0.6, "XXX102")
    read = Known(read_val=replace(FAULT, own=True))
    assert [j.outcome.confidence for j in settle([later], read) if isinstance(j.outcome, Finding)] == [HINT]
    assert settle([later], Known(read_val=SOUND)) == [later]


@pytest.mark.parametrize(("kind", "told"), [("loaded", HINT), ("", 0.6)])
def test_features_of_weights_that_were_loaded_at_the_end_tell_nothing_of_the_training(kind: str, told: float) -> None:
    later = named("read_train", 15.0, 0.6)
    later = replace(later, check=replace(later.check, by_features=True))
    found = settle([later], Known(choose=replace(FAULT, kind=kind)))[0].outcome
    assert isinstance(found, Finding) and found.confidence == told
    assert settle([named("read_train", 15.0, 0.6)], Known(choose=replace(FAULT, kind=kind)))[0].outcome.confidence == 0.6  # type: ignore[union-attr]


def test_what_costs_nobody_knows_how_much_is_told_before_what_costs_little() -> None:
    sure = Judged(Check("XXX103", "x", lambda case: Clear(""), "", "draw"), Finding("", 0.0, 0.95, (), "", most_points=60))
    little, much = named("files", 6.0, 0.7), named("update", 30.0, 0.7, "XXX102")
    assert [j.check.code for j in order([little, sure, much])] == ["XXX102", "XXX103", "XXX101"]
    assert [line.stage for line in account([little, sure, much], Known())][:3] == ["update", "draw", "files"]


def test_differences_are_told_of_the_side_that_is_unlike_its_files() -> None:
    odd = Known(read_train=replace(FAULT, own=True), read_val=replace(SOUND, own=True))
    told = settle([named("read_val", 5.0, 0.9)], odd)[0]
    assert told.check.stage == "read_train" and isinstance(told.outcome, Finding) and told.outcome.severity_points == 20
    assert settle([named("read_val", 5.0, 0.9)], Known(read_train=FAULT))[0].check.stage == "read_val"  # no probe's word


@pytest.mark.parametrize(("points", "confidence", "told"), [(2.5, 0.65, False), (2.5, 0.9, True), (4.0, 0.65, True)])
def test_a_suspicion_of_next_to_nothing_is_a_hint(points: float, confidence: float, told: bool) -> None:
    found = settle([named("update", points, confidence)], Known())[0].outcome
    assert isinstance(found, Finding) and (found.confidence == confidence) == told


def test_a_name_for_a_small_part_of_a_stage_leaves_the_rest_to_be_told() -> None:
    unnamed = Judged(next(c for c in UNNAMED if c.stage == "read_val"), Finding("", 20.0, 0.9, (), ""))
    stages = Known(read_val=FAULT)
    both = [named("read_val", 3.0, 0.7), unnamed]
    assert settle(both, stages) == both
    nothing = settle([named("read_val", 0.0, 0.75), unnamed], stages)  # a name that gives nothing back is a hint
    assert [j.outcome.confidence for j in nothing if isinstance(j.outcome, Finding)] == [HINT, 0.9]
    fact, rest = settle([sure("read_val", 2.0, 90.0), unnamed], stages)  # a fact of unknown cost: it is the name of all of it
    assert isinstance(fact.outcome, Finding) and isinstance(rest.outcome, Finding)
    assert fact.outcome.severity_points == 20.0 and rest.outcome.confidence == HINT


def test_where_one_cause_explains_a_stage_its_rivals_are_hints() -> None:
    rivals = [named("update", 18.0, 0.9, "XXX101"), named("update", 15.0, 0.6, "XXX102"), named("files", 15.0, 0.6, "XXX103")]
    told = [j.outcome.confidence for j in settle(rivals, Known(update=FAULT)) if isinstance(j.outcome, Finding)]
    assert told == [0.9, HINT, 0.6]
    assert settle(rivals, Known(update=SOUND)) == rivals  # nothing was measured that one of them could explain


def test_the_account_has_each_stage_once_and_the_most_costly_first() -> None:
    lines = account([named("files", 5.0, 0.6)], Known(draw=FAULT, choose=SOUND))
    assert len(lines) == len({x.stage for x in lines}) == 10
    assert [(x.stage, x.verdict) for x in lines[:2]] == [("draw", "at fault"), ("files", "at fault")]
    assert lines[1].causes == ("XXX101",) and lines[1].points is not None and lines[1].points.low == 0.0


def test_what_follows_from_a_fault_before_it_is_a_hint() -> None:
    later = [named("update", 15.0, 0.9), named("choose", 60.0, 0.6, "XXX102"), named("read_val", 5.0, 0.6, "XXX103")]
    told = [j.outcome.confidence for j in settle(later, Known(draw=FAULT)) if isinstance(j.outcome, Finding)]
    assert told == [HINT, 0.6, 0.6]  # what costs more, and what scoring alone does, has another reason
    nearly = [named("choose", 30.0, 0.6), named("update", 30.0, 0.6)]  # that another epoch was better is a weak sign
    told = [j.outcome.confidence for j in settle(nearly, Known(draw=FAULT)) if isinstance(j.outcome, Finding)]
    assert told == [HINT, 0.6]
    spoilt = named("update", 30.0, 0.6)
    spoilt = replace(spoilt, check=replace(spoilt.check, by_features=True))  # what was drawn may have spoilt the features
    for before in (Known(draw=FAULT), Known(forward=FAULT)):  # nor are features good that wrong statistics make
        assert [j.outcome.confidence for j in settle([spoilt], before) if isinstance(j.outcome, Finding)] == [HINT]
    read = [named("forward", 15.0, 0.9), replace(later[2], check=replace(later[2].check, stage="pair", by_answers=True))]
    told = [j.outcome.confidence for j in settle(read, Known(read_val=FAULT)) if isinstance(j.outcome, Finding)]
    assert told == [HINT, HINT]  # wrongly read images are answered wrongly, in whatever mode
    clear = [replace(read[1], outcome=Clear(""))]
    assert settle(clear, Known(read_val=FAULT)) == clear
    unsure = replace(FAULT, confidence=0.6)
    assert settle(later, Known(draw=unsure)) == later


def test_a_training_that_was_under_way_is_not_at_fault() -> None:
    few = with_phase(healthy(), "train", optimizer_steps=3).run
    told = settled(few, FAULT)
    assert told.verdict == "unknown" and "more steps" in told.missing
    assert settled(few, SOUND) == SOUND


def test_a_fault_without_a_name_does_not_hide_a_name_before_it() -> None:
    unnamed = Judged(next(c for c in UNNAMED if c.stage == "update"), Finding("", 30.0, 0.9, (), ""))
    told = settle([named("forward", 15.0, 0.9), unnamed], Known(update=FAULT))
    assert [j.outcome.confidence for j in told if isinstance(j.outcome, Finding)] == [0.9, HINT]
    little = [named("forward", 2.0, 0.9), unnamed]
    assert settle(little, Known(update=FAULT)) == little


def test_the_account_says_no_more_than_the_findings() -> None:
    unnamed = Judged(next(c for c in UNNAMED if c.stage == "choose"), Finding("", 9.0, 0.9, (), ""))
    stages = Known(read_train=FAULT, choose=replace(FAULT, points=Measured(9.0, 4.0, 14.0)))
    lines = {x.stage: x for x in account(settle([unnamed], stages), stages)}
    assert lines["choose"].verdict == "unknown" and lines["choose"].confidence == HINT  # it may follow from what was read
    assert lines["choose"].points is not None and lines["read_train"].verdict == "at fault"


def sure(stage: Stage, points: float, most: float, code: str = "XXX101") -> Judged:
    """A fact of the record whose cost is assumed."""
    judged = named(stage, points, 0.95, code)
    assert isinstance(judged.outcome, Finding)
    return replace(judged, outcome=replace(judged.outcome, most_points=most))


def test_what_a_fact_of_unknown_cost_may_have_brought_about_is_told_with_it() -> None:
    later = named("update", 36.0, 0.65, "XXX102")
    fact, work = settle([sure("draw", 8.0, 80.0), later], Known())
    assert isinstance(fact.outcome, Finding) and isinstance(work.outcome, Finding)
    assert fact.outcome.severity_points == 36.0 and "XXX102" in fact.outcome.evidence[-1].name
    assert work.outcome.confidence == HINT


@pytest.mark.parametrize(
    "pair",
    [
        [sure("draw", 1.0, 5.0), named("update", 36.0, 0.65, "XXX102")],  # more than it could do
        [named("draw", 8.0, 0.95), named("update", 36.0, 0.65, "XXX102")],  # its own cost is measured
        [sure("choose", 8.0, 80.0), named("update", 36.0, 0.65, "XXX102")],  # it comes after it
    ],
    ids=["too little", "measured", "later"],
)
def test_what_it_cannot_have_brought_about_stays(pair: list[Judged]) -> None:
    assert settle(pair, Known()) == pair


def test_what_costs_loss_alone_is_no_rival_of_what_costs_accuracy() -> None:
    sure = named("loss", 0.0, 0.85, "XXX105")
    sure = replace(sure, check=replace(sure.check, loss_alone=True))
    told = settle([sure, named("read_val", 5.0, 0.6)], Known())
    assert [j.outcome.confidence for j in told if isinstance(j.outcome, Finding)] == [HINT, 0.6]
    assert settle([sure], Known()) == [sure]
    assert next(c for c in CATALOGUE if c.name == "overconfidence").loss_alone


def test_re_runs_have_the_last_word_on_a_stage() -> None:
    points, nats = Measured(11.0, 8.0, 14.0), Measured(0.4, 0.3, 0.5)
    own = Effect(18.0, 12.0, 24.0, 0.001, 3, 100, Measured(0.9, 0.7, 1.1))
    proved = replace(named("draw", 18.0, 0.7), verdict="confirmed", effect=own)
    alone = account([proved], Known(draw=FAULT))[0]
    assert (alone.points, alone.nats) == (Measured(18.0, 12.0, 24.0), own.nats)
    shares = [
        StageShare("draw", points, nats, "cost"),
        StageShare("read_train", Measured(-6.0, -8.0, -4.0), None, "gain"),
        StageShare("choose", Measured(0.2, -1.0, 1.4), None, "none", ("choose", "read_val")),
        StageShare("read_val", Measured(0.2, -1.0, 1.4), None, "none", ("choose", "read_val")),
    ]
    lines = {x.stage: x for x in account([proved], Known(draw=FAULT, read_val=FAULT), shares)}
    assert (lines["draw"].points, lines["draw"].nats, lines["draw"].proved) == (points, nats, True)
    assert lines["read_train"].verdict == "gain" and "gain" in lines["read_train"].summary
    assert lines["choose"].verdict == "sound" and "read_val" in lines["choose"].summary
    assert lines["read_val"].verdict == "at fault", "what is suspected is not cleared by a look at many at once"


def test_a_cost_that_nobody_knows_is_not_told_as_none() -> None:
    fault = Compared("at fault", "weights were changed", None, None, 0.97)
    check = next(c for c in UNNAMED if c.stage == "forward")
    outcome = check.detect(replace(healthy(), stages=Known(forward=fault)))
    assert isinstance(outcome, Finding) and not outcome.cost_known
    line = next(x for x in account([Judged(check, outcome)], Known(forward=fault)) if x.stage == "forward")
    assert line.verdict == "at fault" and line.points is None
    assert Finding("", 3.0, 0.9, (), "", most_points=50.0).cost_known and Finding("", 0.0, 0.9, (), "").cost_known


@pytest.mark.parametrize(("pairing", "labels", "folders"), [(FAULT, "pair", None), (SOUND, None, "files"), (None, None, None)])
def test_where_wrong_labels_come_from(pairing: Compared | None, labels: Stage | None, folders: Stage | None) -> None:
    """Labels unlike the files' folders come of the pairing; where they are as the folders say, the folders are."""
    case = replace(healthy(), stages=Known(pair=pairing) if pairing is not None else None)
    assert (of_pairing(case), of_folders(case)) == (labels, folders)
