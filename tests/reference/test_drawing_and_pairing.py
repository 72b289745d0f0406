"""STG601, STG602: which samples are drawn, and which target goes with which file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.reference.pictures_seen import KINDS, run_on
from valgap.features import Measurements, images_of_run
from valgap.reference import Stages, drawing, pairing
from valgap.reference.drawing import _within_classes
from valgap.reference.probing import Answers
from valgap.types import Intervention, LoaderInfo, Measured, RunRecord

pytestmark = pytest.mark.takes(20)

EACH = 12


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecord, Measurements]:
    return run_on(tmp_path_factory.mktemp("pictures"), each=EACH)


def with_train(run: RunRecord, places: list[int]) -> RunRecord:
    """The run, its training passes made of these of their samples."""
    passes = []
    for one in run.passes:
        table = one.samples
        if one.phase == "train":
            table = replace(table, **{k: v[places] for k, v in vars(table).items()})
        passes.append(replace(one, samples=table))
    return replace(run, passes=tuple(passes))


def test_classes_that_are_never_drawn_cost_what_a_probe_says(seen: tuple[RunRecord, Measurements]) -> None:
    run = with_train(seen[0], [*range(2 * EACH)] * 2)
    found = Stages(run, images_of_run(run, 1000)).compared("draw")
    assert found.verdict == "at fault" and found.points is not None and found.points.low > 0
    assert "2 of 4 classes" in found.summary and "24 of 48" in found.summary


@pytest.mark.parametrize("complete", [True, False])
def test_loops_that_break_off_within_the_first_epoch_draw_few_classes_by_that(
    complete: bool, seen: tuple[RunRecord, Measurements]
) -> None:
    run = with_train(seen[0], [*range(2 * EACH)])
    trained = run.of_phase("train")[:1]
    run = replace(run, passes=(*(replace(p, complete=complete) for p in trained), *run.of_phase("validation")))
    assert Stages(run, None).compared("draw").verdict == ("at fault" if complete else "unknown")


@pytest.mark.parametrize(
    ("points", "nats", "new", "verdict"),
    [
        ((7.0, -2.0, 16.0), (0.32, 0.09, 0.55), False, "at fault"),  # of few validation images the loss tells
        ((1.0, -8.0, 10.0), (0.02, -0.1, 0.14), False, "sound"),
        ((-1.0, -9.0, 7.0), (0.32, 0.09, 0.55), False, "sound"),
        ((1.0, -8.0, 10.0), (0.02, -0.1, 0.14), True, "at fault"),  # a network from nothing needs more than a probe
    ],
)
def test_what_is_hardly_drawn_costs_what_the_loss_or_the_network_says(
    points: tuple[float, float, float],
    nats: tuple[float, float, float],
    new: bool,
    verdict: str,
    seen: tuple[RunRecord, Measurements],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fifth of the images of each class, again and again."""
    nothing, whole = (Answers(np.full(40, right), np.zeros(40)) for right in (False, True))
    run = with_train(seen[0], [EACH * c + i for c in range(4) for i in range(EACH // 5)] * 5)
    monkeypatch.setattr(drawing, "_measured", lambda run, rows, passes: (Measured(*points), Measured(*nats), nothing))
    scratch = Measured(9.0, 4.0, 16.0) if new else None
    monkeypatch.setattr(drawing, "_from_nothing", lambda run, share: scratch)
    found = Stages(run, images_of_run(run, 1000)).compared("draw")
    assert found.verdict == verdict and found.points is not None
    assert found.points.value == (9.0 if new else points[0])
    monkeypatch.setattr(drawing, "_measured", lambda run, rows, passes: (Measured(*points), Measured(*nats), whole))
    monkeypatch.setattr(drawing, "all_new", lambda model: False)
    monkeypatch.setattr(RunRecord, "trained_model", property(lambda run: object()))
    told = Stages(run, images_of_run(run, 1000)).compared("draw").points
    assert run.last_validation is not None and told is not None
    lag = 100 * (1 - run.last_validation.samples.accuracy)
    # With given weights it has lost all by which it lags behind a probe taught by all images: it learnt few of them by heart.
    assert told.value == (max(found.points.value, lag) if verdict == "at fault" else found.points.value)


def test_what_is_drawn_in_its_place_leaves_out_what_others_draw(seen: tuple[RunRecord, Measurements]) -> None:
    """One data set serves both phases: validation's samples are not trained on."""
    run = with_train(seen[0], [*range(2 * EACH)] * 2)
    half = 4 * EACH
    own = Stages(run, images_of_run(run, 1000)).compared("draw").treatment
    assert isinstance(own, Intervention) and own.name == "draw_all" and "positions" not in own.settings
    targets = np.concatenate([d.targets for d in run.datasets.values() if d.targets is not None])
    whole = replace(run.datasets[0], size=2 * half, sample=np.arange(2 * half), targets=targets)
    passes = tuple(replace(p, dataset=0) for p in run.passes)
    run = replace(run, datasets={0: whole}, passes=passes)
    own = Stages(run, images_of_run(run, 1000)).compared("draw").treatment
    assert isinstance(own, Intervention) and own.settings["positions"] == list(range(half))


def test_a_sampler_with_replacement_costs_nothing(seen: tuple[RunRecord, Measurements]) -> None:
    rng = np.random.default_rng(0)
    run = with_train(seen[0], rng.integers(0, 4 * EACH, 4 * EACH).tolist())
    assert Stages(run, images_of_run(run, 1000)).compared("draw").verdict == "sound"
    assert Stages(*seen).compared("draw").verdict == "sound"


def answering(run: RunRecord, classes: range) -> RunRecord:
    """The run, its validation passes answering these classes and taking all others for the first."""
    passes = []
    for one in run.passes:
        if one.phase == "validation":
            target = one.samples.target
            known = np.where(np.isin(target, classes), target, 0).astype(one.samples.prediction.dtype)
            one = replace(one, samples=replace(one.samples, prediction=known))
        passes.append(one)
    return replace(run, passes=tuple(passes))


def test_classes_that_are_drawn_seldom_cost_what_a_probe_says(seen: tuple[RunRecord, Measurements]) -> None:
    """Every sample is drawn, those of two classes a hundred times as often; the model answers only these."""
    run = with_train(seen[0], [*range(4 * EACH), *[*range(2 * EACH)] * 100])
    images = images_of_run(run, 1000)
    assert Stages(answering(run, range(4)), images).compared("draw").verdict == "sound"
    found = Stages(answering(run, range(2)), images).compared("draw")
    assert found.verdict == "at fault" and found.points is not None and found.points.low > 0
    assert "far more often" in found.summary
    evenly = with_train(seen[0], [*range(4 * EACH)] * 50)
    assert Stages(answering(evenly, range(2)), images).compared("draw").verdict == "sound"


def test_a_sampler_that_makes_up_for_rare_classes_is_no_fault(seen: tuple[RunRecord, Measurements]) -> None:
    labels = np.repeat([0, 1, 2], [4, 16, 12])
    evened = (16 / np.bincount(labels))[labels]
    assert np.allclose(_within_classes(evened, labels), 1)
    bent = np.where(labels == 1, 9.0, 1.0)
    assert np.array_equal(_within_classes(bent, labels), bent)


def test_a_loader_that_gives_nothing_is_a_fault_of_the_drawing(seen: tuple[RunRecord, Measurements]) -> None:
    run = seen[0]
    empty = LoaderInfo(9, 0, 4 * EACH + 1, "RandomSampler", True, True, 0, 0)
    val = tuple(p for p in run.passes if p.phase == "validation")
    untrained = replace(
        run, passes=val, loaders={**{p.loader: replace(empty, id=p.loader, drop_last=False) for p in val}, 9: empty}
    )
    found = Stages(untrained, None).compared("draw")
    assert found.verdict == "at fault" and "drops its last" in found.summary
    kept = replace(untrained, loaders={**untrained.loaders, 9: replace(empty, drop_last=False)})
    assert Stages(kept, None).compared("draw").verdict == "unknown"


def test_a_training_pass_may_last_several_epochs(seen: tuple[RunRecord, Measurements]) -> None:
    """A loop whose images never come twice, validated every third epoch: one pass each, begun in the first of the three."""
    run, images = seen
    train, val = run.of_phase("train")[-1], run.of_phase("validation")[-1]
    turns = [replace(p, loops=((t, 12),)) for i in range(0, 12, 3) for p, t in ((train, i), (val, i + 2))]
    assert "went by without" not in Stages(replace(run, passes=tuple(turns)), images).compared("draw").summary


@pytest.mark.parametrize(("idle", "fault"), [(1, False), (3, True)])
def test_epochs_that_go_by_without_a_batch_are_a_fault_of_the_drawing(
    seen: tuple[RunRecord, Measurements], idle: int, fault: bool
) -> None:
    run = seen[0]
    train, val = (next(p for p in run.passes if p.phase == phase) for phase in ("train", "validation"))
    turns = [replace(train, loops=((0, 5),)), *(replace(val, loops=((i, 5),)) for i in range(idle + 1)), replace(val, loops=())]
    run = replace(run, passes=tuple(replace(p, index=i) for i, p in enumerate(turns)))
    found = Stages(run, None).compared("draw")
    assert (found.verdict == "at fault") == fault
    assert not fault or f"{idle} of 5 epochs" in found.summary


def shuffled(run: RunRecord, phase: str, share: float) -> RunRecord:
    """The run, a share of the targets of one phase mixed among its samples."""
    passes = []
    for one in run.passes:
        table = one.samples
        if one.phase == phase:
            rng = np.random.default_rng(1)
            places = rng.permutation(len(table))[: round(share * len(table))]
            target = table.target.copy()
            target[places] = target[rng.permutation(places)]
            table = replace(table, target=target)
        passes.append(replace(one, samples=table))
    return replace(run, passes=tuple(passes))


@pytest.mark.parametrize("phase", ["train", "validation"])
def test_targets_of_other_files_are_found_by_their_folders(seen: tuple[RunRecord, Measurements], phase: str) -> None:
    run = shuffled(seen[0], phase, 1.0)
    found = Stages(run, images_of_run(run, 1000)).compared("pair")
    assert found.verdict == "at fault" and found.points is not None and found.points.value > 15
    assert {"train": "training", "validation": "validation"}[phase] in found.summary
    by_folder = np.repeat(np.arange(len(KINDS)), EACH).tolist()
    targets = {"0" if phase == "train" else "1": by_folder}
    assert found.treatment == Intervention("pair_by_file", {"phase": phase, "targets": targets})


def test_other_names_of_the_classes_are_no_fault(seen: tuple[RunRecord, Measurements]) -> None:
    run = seen[0]
    turned = tuple(replace(p, samples=replace(p.samples, target=(p.samples.target + 1) % len(KINDS))) for p in run.passes)
    run = replace(run, passes=turned)
    assert Stages(run, images_of_run(run, 1000)).compared("pair").verdict == "sound"


def test_folders_that_are_no_classes_are_not_believed(tmp_path: Path) -> None:
    run, _ = run_on(tmp_path, each=EACH)
    names = []
    for i, name in enumerate(run.sample_names):  # by day, whatever they show
        new = f"{name.split('/')[0]}/day{i % 3}/{i}.png"
        (tmp_path / new).parent.mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / new)
        names.append(new)
    run = replace(run, sample_names=tuple(names))
    assert Stages(run, images_of_run(run, 1000)).compared("pair").verdict == "unknown"


def test_arrays_read_from_a_folder_are_its_files(seen: tuple[RunRecord, Measurements]) -> None:
    run, images = seen
    sets = {n: replace(d, class_to_idx=None, size=4 * EACH) for n, d in run.datasets.items()}
    root = str(run.header["cwd"])
    in_memory = replace(
        run,
        sample_names=tuple(f"Arrays[{i}]" for i in range(len(run.sample_names))),
        datasets=sets,
        header={**run.header, "argv": ["train.py", root]},
    )
    found = images_of_run(in_memory, 1000)
    assert found is not None
    # Folders in the order of their names, as whoever fills an array goes through them.
    assert [p.removeprefix(f"{root}/train/").split("/")[0] for p in found.rows.paths[: 4 * EACH : EACH]] == sorted(KINDS)
    other = replace(in_memory, header={**run.header, "argv": ["train.py", "elsewhere"]})
    assert images_of_run(other, 1000) is None
    del images


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_arrays_whose_labels_were_mixed_are_told_by_their_looks(seen: tuple[RunRecord, Measurements], share: float) -> None:
    run = shuffled(seen[0], "train", share)
    in_order = {n: np.array(sorted(d.sample.tolist(), key=lambda s: run.sample_names[s])) for n, d in run.datasets.items()}
    sets = {n: replace(d, class_to_idx=None, size=4 * EACH, sample=in_order[n], targets=None) for n, d in run.datasets.items()}
    in_memory = replace(
        run,
        sample_names=tuple(f"Arrays[{i}]" for i in range(len(run.sample_names))),
        datasets=sets,
        header={**run.header, "argv": ["train.py", str(run.header["cwd"])]},
    )
    found = Stages(in_memory, images_of_run(in_memory, 1000)).compared("pair")
    assert found.verdict == "at fault" and "training" in found.summary
    assert isinstance(found.treatment, Intervention)
    # Without images that the model was given, nothing tells the files.
    unseen = replace(in_memory, kept=())
    assert Stages(unseen, images_of_run(unseen, 1000)).compared("pair").verdict != "at fault"


def test_validation_alone_under_other_targets_costs_what_its_own_answers_say(seen: tuple[RunRecord, Measurements]) -> None:
    """Every answer that was right before is wrong now, and the other way round: no probe knows that better."""
    run = shuffled(seen[0], "validation", 1.0)
    found = Stages(run, images_of_run(run, 1000)).compared("pair")
    last, before = run.last_validation, seen[0].last_validation
    assert found.verdict == "at fault" and found.own and found.points is not None
    assert last is not None and before is not None
    assert found.points.value == pytest.approx(100 * (before.samples.accuracy - last.samples.accuracy), abs=1e-6)
    run = shuffled(seen[0], "train", 0.5)
    assert not Stages(run, images_of_run(run, 1000)).compared("pair").own


@pytest.mark.parametrize(("share", "fault"), [(0.0, False), (0.05, False), (0.6, True)])
def test_targets_that_change_from_time_to_time_are_a_fault_of_the_pairing(
    seen: tuple[RunRecord, Measurements], share: float, fault: bool
) -> None:
    """Whatever the files: as where a batch is extended by copies of its images in one order, of its targets in another."""
    run, rng = seen[0], np.random.default_rng(0)
    passes = []
    for one in run.passes:
        if one.phase == "train":
            others = np.where(rng.random(len(one.samples)) < share, rng.permutation(one.samples.target), one.samples.target)
            one = replace(one, samples=replace(one.samples, target=others.astype(np.int32)))
        passes.append(one)
    found = pairing.compare(replace(run, passes=tuple(passes)), None)
    assert (found.verdict == "at fault") == fault
    assert not fault or "several targets" in found.summary
    soft = [replace(p, loss=replace(p.loss, target_kind="soft")) for p in passes if p.loss is not None]
    assert pairing.compare(replace(run, passes=tuple(soft)), None).verdict != "at fault"
