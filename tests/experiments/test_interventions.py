"""Each intervention changes exactly one thing: records of control and treated arm, compared seam by seam."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.processes import ForkedPopen
from valgap.experiments.arm import ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.experiments.runner import Runner
from valgap.types import Intervention, RunRecord

pytestmark = pytest.mark.takes(22)
PROGRAM = Path(__file__).with_name("program.py")
COLOURS = ("white", "black")
COLOURED = {"scale": [0.01] * 3, "shift": [0.5] * 3}
PLAIN = {"targets": {"0": [i % 3 for i in range(48)]}, "classes": 3}
STEPS = {"steps": 12, "rate": 0.03, "given_rate": 0.003}

# name, fault of the program, settings, the seams that may and must differ
CASES: list[tuple[str, str, dict[str, Any], set[str]]] = [
    ("nothing", "", {}, set()),
    ("eval_mode", "train_validation", {"phase": "validation"}, {"validation modes"}),
    ("train_mode", "eval_training", {"phase": "train"}, {"train modes"}),
    ("hold_batchnorm", "frozen", {"only_frozen": True}, {"train modes"}),
    ("hold_batchnorm", "", {"only_frozen": False}, {"train modes"}),
    ("affine", "", {"phase": "validation", "scale": [2.0], "shift": [0.1]}, {"validation inputs"}),
    ("affine", "", {"phase": "both", "scale": [1, 2, 3], "shift": [0, 0, 1]}, {"validation inputs", "train inputs"}),
    ("flip_channels", "", {"phase": "validation"}, {"validation inputs"}),
    ("resize", "", {"phase": "validation", "size": [12, 12]}, {"validation inputs", "validation shape"}),
    ("unscramble", "", {"phase": "train"}, {"train inputs"}),
    ("fixed_transform", "random_val", {}, {"validation inputs"}),
    ("remap_labels", "", {"mapping": [1, 2, 0]}, {"validation targets"}),
    ("drop_samples", "unshuffled", {"positions": [0, 5]}, {"train samples", "train inputs", "train targets"}),
    ("shuffle", "unshuffled", {"phase": "train"}, {"train samples", "train inputs", "train targets"}),
    ("draw_all", "few_drawn", {"batch_size": 8}, {"train samples", "train inputs", "train targets"}),
    ("draw_half", "unshuffled", {"draw": 1}, {"train samples", "train inputs"}),
    ("pair_by_file", "", {"phase": "validation", "targets": {"1": [2] * 30}}, {"validation targets"}),
    (
        "read_soundly",
        "ahead",
        {"files": {"0": ["white", "black"] * 24}, "scale": [0.01] * 3, "shift": [0.5] * 3},
        {"train inputs"},
    ),
    ("balanced_sampling", "unshuffled", {"phase": "train"}, {"train samples", "train inputs", "train targets"}),
    ("add_missing_parameters", "missing", {}, {"optimized"}),
    ("scale_rate", "", {"factor": 0.1}, {"rates"}),
    ("optimizer_settings", "", {"values": {"weight_decay": 0.1}}, {"decay"}),
    ("zero_gradients", "no_zero_grad", {}, {"stale gradients"}),
    ("no_step", "steps_on_val", {"phase": "validation"}, {"validation moves weights"}),
    ("undo_softmax", "softmax", {"phase": "train"}, {"train loss input", "gradient at the logits"}),
    ("reference_loss", "summed", PLAIN, {"gradient at the logits"}),
    ("reference_loss", "bent", PLAIN, {"gradient at the logits"}),
    ("reference_loss", "scaled", PLAIN, {"gradient at the logits"}),
    ("reference_loss", "parts", PLAIN, {"gradient at the logits"}),
    ("reference_update", "clipped", STEPS, {"rates"}),
    ("reference_update", "hot", STEPS, {"rates"}),
    ("reference_update", "shrunk", STEPS, {"rates"}),
    ("reference_update", "no_step", {**STEPS, "each_backward": True}, {"rates", "stale gradients", "optimized", "decay"}),
    ("schedule_steps", "schedule", {"every": "epoch"}, {"rates"}),
    ("evaluate_trained", "averaged", {}, {"validated model"}),
]


def spec(fault: str, *interventions: Intervention, seed: int = 0, epochs: int = 0, fraction: float = 1.0) -> ArmSpec:
    return ArmSpec(
        script=str(PROGRAM),
        module=None,
        argv=[str(PROGRAM), fault],
        cwd=str(PROGRAM.parent),
        seed=seed,
        epochs=epochs,
        fraction=fraction,
        train=[0],
        validation=[1],
        interventions=list(interventions),
    )


def with_files(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The settings, with files in the place of colours."""
    files = {k: [str(folder / f"{colour}.png") for colour in v] for k, v in settings.get("files", {}).items()}
    return {**settings, "files": files} if files else settings


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ArmResult]:
    """Control of every fault and all treated arms, by name."""
    runner = Runner(tmp_path_factory.mktemp("arms"), 2, time.monotonic() + 560)
    pictures = tmp_path_factory.mktemp("pictures")
    for colour in COLOURS:
        Image.new("RGB", (20, 30), colour).save(pictures / f"{colour}.png")
    wanted = {f"control {fault}": spec(fault) for _, fault, _, _ in CASES}
    wanted |= {f"{n} {i}": spec(f, Intervention(n, with_files(s, pictures))) for i, (n, f, s, _) in enumerate(CASES)}
    wanted["seed 1"] = spec("", seed=1)
    wanted["seed 1 again"] = spec("", Intervention("nothing"), seed=1)
    wanted["no softmax"] = spec("", Intervention("undo_softmax"))
    wanted["none missing"] = spec("", Intervention("add_missing_parameters"))
    wanted["short"] = spec("", epochs=1)
    wanted["few"] = spec("", fraction=0.5)
    wanted["longer"] = spec("", Intervention("train_longer", {"times": 3}))
    wanted["longer, of few"] = spec("", Intervention("train_longer", {"times": 3}), fraction=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subprocess.Popen", ForkedPopen)  # the arms of test_diagnose.py are fresh processes
        return dict(zip(wanted, runner.run(list(wanted.values())), strict=True))


def seams(record: RunRecord) -> dict[str, Any]:
    """What the seams saw in the first training and the first validation pass, apart from what the weights decide."""
    found: dict[str, Any] = {}
    train, val = (next(p for p in record.passes if p.dataset == i) for i in (0, 1))
    for phase, one in (("train", train), ("validation", val)):
        samples = one.samples
        assert one.inputs is not None
        found[f"{phase} inputs"] = samples.fingerprint
        found[f"{phase} shape"] = np.array(one.inputs.shape)
        found[f"{phase} targets"] = samples.target
        found[f"{phase} samples"] = samples.sample
        found[f"{phase} modes"] = np.array([one.modes.training_flag, one.modes.batchnorm_training, one.modes.dropout_training])
    told = train.loss  # None where no loss function of torch was called
    found["train loss input"] = np.array([told is not None and told.logit_max <= 1 and abs(told.row_sum_max - 1) < 1e-3])
    assert train.gradient is not None
    found["gradient at the logits"] = np.round([train.gradient.cosine, train.gradient.ratio], 3)
    found["validated model"] = np.array([val.model == train.model])
    found["rates"] = train.steps.learning_rate
    found["stale gradients"] = train.steps.stale_gradients[1:]
    model = record.trained_model
    assert model is not None
    found["optimized"] = model.in_optimizer
    found["decay"] = np.array([g.get("weight_decay", 0.0) for o in record.optimizers.values() for g in o.groups], float)
    before, after = record.states[train.state], record.states[val.state]
    if val.model == train.model:
        found["validation moves weights"] = before.moved(after) & model.is_parameter
    else:
        found["validation moves weights"] = np.zeros(len(model.is_parameter), bool)
    return found


@pytest.mark.parametrize("place", range(len(CASES)), ids=[f"{n}-{f or 'sound'}-{i}" for i, (n, f, _, _) in enumerate(CASES)])
def test_changes_exactly_one_thing(place: int, results: dict[str, ArmResult]) -> None:
    name, fault, _, expected = CASES[place]
    control, treated = results[f"control {fault}"], results[f"{name} {place}"]
    assert control.error is None and treated.error is None, (control.error, treated.error)
    assert treated.acted[0] > 0
    assert control.record is not None and treated.record is not None
    assert not control.record.recorder_errors and not treated.record.recorder_errors
    first, second = seams(control.record), seams(treated.record)
    differ = {k for k in first if first[k].shape != second[k].shape or not np.array_equal(first[k], second[k])}
    assert differ == expected


def test_an_intervention_that_finds_nothing_says_so(results: dict[str, ArmResult]) -> None:
    softmax, missing = results["no softmax"], results["none missing"]
    assert softmax.error is None and missing.error is None
    assert not any(softmax.acted) and not any(missing.acted)


@pytest.mark.parametrize("fault", ["summed", "bent", "scaled", "parts"])
def test_the_reference_loss_makes_the_training_that_of_the_sound_program(fault: str, results: dict[str, ArmResult]) -> None:
    place = next(i for i, case in enumerate(CASES) if case[:2] == ("reference_loss", fault))
    sound, faulty, treated = (results[n] for n in ("control ", f"control {fault}", f"reference_loss {place}"))
    records = [r.record for r in (sound, faulty, treated)]
    assert all(r is not None for r in records)
    ends = [r.states[-1].norms for r in records if r is not None]
    assert not np.allclose(ends[0], ends[1], rtol=1e-2)
    assert np.allclose(ends[0], ends[2], rtol=1e-4)
    assert sound.correct() == treated.correct()


@pytest.mark.parametrize("fault", ["clipped", "hot", "shrunk"])
def test_the_reference_update_learns_where_the_program_does_not(fault: str, results: dict[str, ArmResult]) -> None:
    place = next(i for i, case in enumerate(CASES) if case[:2] == ("reference_update", fault))
    faulty, treated = results[f"control {fault}"].record, results[f"reference_update {place}"]
    assert faulty is not None and treated.record is not None and treated.acted == (12,)
    first, last = (treated.record.of_phase("train")[i].samples.mean_loss for i in (0, -1))
    assert last < 0.9 * first and last < 0.9 * faulty.of_phase("train")[-1].samples.mean_loss
    ratios = [p.steps.update_ratio for p in (faulty.of_phase("train")[0], treated.record.of_phase("train")[0])]
    assert not np.allclose(ratios[0][0], ratios[1][0], rtol=0.5)  # the record tells of the steps that were made


def test_the_reference_update_steps_where_the_program_never_does(results: dict[str, ArmResult]) -> None:
    place = next(i for i, case in enumerate(CASES) if case[:2] == ("reference_update", "no_step"))
    faulty, treated = results["control no_step"].record, results[f"reference_update {place}"]
    assert faulty is not None and treated.record is not None and treated.acted == (12,)
    last = [r.of_phase("train")[-1].samples.mean_loss for r in (faulty, treated.record)]
    assert last[1] < 0.9 * last[0]


def test_schedules_are_stepped_at_the_other_place(results: dict[str, ArmResult]) -> None:
    place = next(i for i, case in enumerate(CASES) if case[0] == "schedule_steps")
    treated = results[f"schedule_steps {place}"].record
    assert treated is not None
    rates = [p.steps.learning_rate[:, 0] for p in treated.passes if p.phase == "train"]
    assert np.allclose(rates[0], 0.05)
    assert np.allclose(rates[1], 0.025)


def test_each_sample_is_drawn_once(results: dict[str, ArmResult]) -> None:
    place = next(i for i, case in enumerate(CASES) if case[0] == "draw_all")
    treated = results[f"draw_all {place}"].record
    assert treated is not None
    orders = [p.samples.sample.tolist() for p in treated.of_phase("train")]
    assert all(sorted(o) == list(range(48)) for o in orders)
    assert orders[0] != orders[1] and orders[0] != sorted(orders[0])


def test_each_sample_is_given_its_own_file(results: dict[str, ArmResult]) -> None:
    place = next(i for i, case in enumerate(CASES) if case[0] == "read_soundly")
    treated = results[f"read_soundly {place}"].record
    assert treated is not None
    for one in treated.of_phase("train"):
        assert one.inputs is not None and one.inputs.minimum[0] == 0.5 and one.inputs.maximum[0] == pytest.approx(3.05)
        marks = [set(np.round(one.samples.fingerprint[one.samples.sample % 2 == k], 4).tolist()) for k in (0, 1)]
        assert len(marks[0]) == len(marks[1]) == 1 and marks[0] != marks[1]


def test_seeds_move_the_order_and_keep_the_data(results: dict[str, ArmResult]) -> None:
    zero, one, again = results["control "], results["seed 1"], results["seed 1 again"]
    assert zero.record is not None and one.record is not None and again.record is not None
    first, second, third = seams(zero.record), seams(one.record), seams(again.record)
    assert not np.array_equal(first["train samples"], second["train samples"])
    assert np.array_equal(first["validation inputs"], second["validation inputs"])
    assert np.array_equal(zero.record.states[0].norms, one.record.states[0].norms)
    assert all(np.array_equal(second[k], third[k]) for k in second)
    assert one.correct() == again.correct()


def test_shorter_arms(results: dict[str, ArmResult]) -> None:
    whole, short, few = results["control "], results["short"], results["few"]
    assert whole.record is not None and short.record is not None and few.record is not None
    assert [p.phase for p in short.record.passes] == ["train", "validation"]
    assert short.record.exit_status == 0
    assert np.array_equal(short.record.passes[1].samples.prediction, whole.record.passes[1].samples.prediction)
    assert len(few.record.passes[0].samples) == 24
    assert len(few.record.passes[1].samples) == 30


def test_training_goes_through_its_samples_more_often(results: dict[str, ArmResult]) -> None:
    control, longer, few = (results[name].record for name in ("control ", "longer", "longer, of few"))
    assert control is not None and longer is not None and few is not None
    assert [p.num_batches for p in longer.passes] == [18, 4, 18, 4] and results["longer"].acted == (2,)
    first, once = longer.passes[0].samples.sample, control.passes[0].samples.sample
    assert first[:48].tolist() == once.tolist() != first[48:96].tolist()
    assert sorted(first.tolist()) == sorted(3 * list(range(48)))
    assert [p.num_batches for p in few.passes] == [9, 4, 9, 4] and len(set(few.passes[0].samples.sample.tolist())) == 24
