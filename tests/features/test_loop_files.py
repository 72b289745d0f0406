"""Files of images that a loop takes from arrays by itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.reference.pictures_seen import Seen, run_on
from valgap.features import images_of_run
from valgap.features.listed import image_folders
from valgap.features.loop_files import with_loop_files
from valgap.reference import Stages, drawing
from valgap.seams.looking.inputs import quantized
from valgap.seams.recording.kept_inputs import KEPT, InputKeeper
from valgap.types import KeptInputs, RunRecord

EACH = 16


def from_arrays(
    root: Path, mirrored: bool = False, shuffled: bool = False, listed: bool = True, see: Seen | None = None
) -> tuple[RunRecord, tuple[str, ...]]:
    """A record whose samples are known by their contents alone, and the files that they truly are."""

    def turned(values: np.ndarray, place: int) -> np.ndarray:
        return values[:, ::-1] if mirrored and place % 2 else values

    run, _ = run_on(root, train=see or turned, each=EACH)
    passes = []
    for one in run.passes:
        table = one.samples
        if listed:  # class folders by their names
            order = np.argsort([run.sample_names[s] for s in table.sample])
            table = replace(table, **{k: v[order] for k, v in vars(table).items()})
        if one.phase == "train" and shuffled:
            table = replace(table, target=np.random.default_rng(0).permutation(table.target))
        passes.append(replace(one, dataset=-1, loader=-1, samples=table))
    names = tuple(f"content[{i:x}]" for i in range(len(run.sample_names)))
    header = {**run.header, "argv": ["train.py", "--data", str(root)]}
    return replace(run, passes=tuple(passes), datasets={}, sample_names=names, header=header), run.sample_names


def named(run: RunRecord, found: RunRecord, truth: tuple[str, ...], root: Path) -> tuple[int, int]:
    """(kept training images that are told to be a file, those that are told rightly)."""
    kept = next(k for k in found.kept if found.passes[k.pass_index].phase == "train")
    before = next(k for k in run.kept if k.pass_index == kept.pass_index)
    assert np.array_equal(kept.images, before.images)
    pairs = zip(kept.sample.tolist(), before.sample.tolist(), strict=True)
    told = [(found.sample_names[new], str(root / truth[old])) for new, old in pairs if new != old]
    return len(told), sum(a == b for a, b in told)


def shifted(values: np.ndarray, place: int) -> np.ndarray:
    return np.roll(values, np.random.default_rng(place).integers(-6, 7, 2).tolist(), (0, 1))


def test_images_that_are_shifted_are_known_by_their_looks_and_targets(tmp_path: Path) -> None:
    """Stripes that are shifted are those of another file of their kind; of no other kind, and no word on the targets."""
    run, truth = from_arrays(tmp_path, see=shifted)
    found = with_loop_files(run)
    kept = next(k for k in found.kept if found.passes[k.pass_index].phase == "train")
    before = next(k for k in run.kept if k.pass_index == kept.pass_index)
    pairs = [(found.sample_names[a], truth[b]) for a, b in zip(kept.sample, before.sample, strict=True) if a != b]
    assert len(pairs) > 0.6 * 4 * EACH and found.unlisted_told < len(pairs)
    assert all(Path(told).parent.name == Path(true).parent.name for told, true in pairs)
    wrong = with_loop_files(from_arrays(tmp_path, see=shifted, shuffled=True)[0])
    assert Stages(wrong, images_of_run(wrong, 1_000)).compared("pair").verdict in ("unknown", "at fault")


def test_all_of_a_file_or_its_middle_is_looked_at(tmp_path: Path) -> None:
    """Wide pictures, squeezed into squares on both sides."""
    run, truth = from_arrays(tmp_path)
    for path in tmp_path.rglob("*.png"):
        image = Image.open(path).convert("RGB").resize((72, 48))
        wide = np.concatenate([np.asarray(image)[:, ::-1], np.asarray(image)], axis=1)  # the middle square is another picture
        Image.fromarray(wide).save(path)
    kept = []
    for one in run.kept:
        values = np.stack([np.asarray(Image.open(tmp_path / truth[s]).resize((48, 48)), float) / 255 for s in one.sample])
        small = quantized(torch.from_numpy(((values - 0.45) / 0.25).transpose(0, 3, 1, 2)))
        kept.append(KeptInputs(one.pass_index, one.sample, small["images"], small["low"], small["high"]))
    run = replace(run, kept=tuple(kept))
    told, right = named(run, with_loop_files(run), truth, tmp_path)
    assert right == told > 0.6 * 4 * EACH


def test_a_part_of_the_opened_files_that_comes_in_every_epoch_is_a_fault_of_the_drawing(tmp_path: Path) -> None:
    run, truth = from_arrays(tmp_path)
    opened = [str(tmp_path / name) for name in truth]
    run = replace(run, header={**run.header, "opened": opened})
    passes = []
    for one in run.passes:
        if one.phase == "train":  # one image of each kind
            few = np.tile(np.flatnonzero(np.arange(len(one.samples)) % EACH < 1), 20)
            one = replace(one, samples=replace(one.samples, **{k: v[few] for k, v in vars(one.samples).items()}))
        passes.append(one)
    shown = set(passes[0].samples.sample.tolist())
    kept = []
    for k in run.kept:
        own = np.array([run.passes[k.pass_index].phase != "train" or s in shown for s in k.sample.tolist()])
        kept.append(replace(k, sample=k.sample[own], images=k.images[own]))
    part = with_loop_files(replace(run, passes=tuple(passes), kept=tuple(kept)))
    assert len(part.unlisted) == 4 * EACH
    images = images_of_run(part, 1_000)
    assert drawing.compare(part, images).verdict == "sound"  # shapes that a published network tells by one image of each
    part = replace(part, models={i: replace(m, pretrained=False) for i, m in part.models.items()})
    found = drawing.compare(part, images)
    assert found.verdict == "at fault" and "4 of the 64 training images that the program opened" in found.summary
    assert found.kind == "few" and found.points is not None and found.points.value > 4
    unopened = with_loop_files(replace(run, passes=tuple(passes), kept=tuple(kept), header={**run.header, "opened": []}))
    assert drawing.compare(unopened, None).verdict == "unknown"
    whole = with_loop_files(run)
    assert drawing.compare(whole, None).verdict == "sound"


def test_images_beyond_recognition_are_held_against_files_of_their_classes(tmp_path: Path) -> None:
    """No image is told to be a file, so that its reading is judged by what all of them teach."""
    mixed = np.random.default_rng(0).permutation(48 * 48)
    run, _ = from_arrays(tmp_path, see=lambda values, place: values.reshape(-1, 3)[mixed].reshape(values.shape))
    found = with_loop_files(run)
    reading = Stages(found, images_of_run(found, 1_000)).compared("read_train")
    assert reading.verdict == "at fault" and reading.points is not None and reading.points.low > 0
    sound = with_loop_files(from_arrays(tmp_path)[0])
    assert Stages(sound, images_of_run(sound, 1_000)).compared("read_train").verdict == "sound"


@pytest.mark.parametrize("mirrored", [False, True])
def test_images_are_known_by_order_and_by_looks(tmp_path: Path, mirrored: bool) -> None:
    run, truth = from_arrays(tmp_path, mirrored)
    found = with_loop_files(run)
    val = found.last_validation
    assert val is not None and [found.sample_names[s] for s in val.samples.sample] == [
        str(tmp_path / truth[s]) for s in val.samples.sample
    ]
    told, right = named(run, found, truth, tmp_path)
    assert right == told > 0.6 * 4 * EACH
    assert len(found.unlisted) == 4 * EACH and found.unlisted_told >= told
    images = images_of_run(found, 1_000)
    assert images is not None and len(images.rows.names) == 8 * EACH and images.rows.is_val.sum() == 4 * EACH
    assert Stages(found, images).compared("pair").verdict == "sound"


def test_targets_are_those_that_the_loss_saw(tmp_path: Path) -> None:
    found = with_loop_files(from_arrays(tmp_path, shuffled=True)[0])
    pair = Stages(found, images_of_run(found, 1_000)).compared("pair")
    assert pair.verdict == "at fault" and "training" in pair.summary


def test_nothing_is_made_up(tmp_path: Path) -> None:
    run, _ = from_arrays(tmp_path / "a")
    assert with_loop_files(replace(run, header={**run.header, "argv": ["train.py"]})) == replace(
        run, header={**run.header, "argv": ["train.py"]}
    )
    other, _ = from_arrays(tmp_path / "b", listed=False)  # classes in an order of the program's own
    assert with_loop_files(other) is other
    (tmp_path / "a" / "val" / "ring" / "0.png").unlink()
    assert with_loop_files(run) is run
    told = replace(run, unlisted=(("a.png", 0),), unlisted_told=3)
    assert Stages(told, images_of_run(run_on(tmp_path / "other", each=EACH)[0], 1_000)).compared("pair").verdict == "unknown"


@pytest.mark.parametrize(("batches", "size"), [(1, 300), (5, 40), (30, 50), (400, 2)])
def test_a_pass_of_unknown_length_is_kept_evenly(batches: int, size: int) -> None:
    keeper = InputKeeper(-1)
    for n in range(batches):
        values = torch.arange(n * size, (n + 1) * size).float().reshape(-1, 1, 1, 1).expand(-1, 3, 4, 4)
        keeper.add(values, n)
        keeper.name(np.arange(n * size, (n + 1) * size), n * size)
    kept = keeper.result()
    assert kept is not None and min(40, batches * size) <= len(kept["sample"]) <= KEPT
    values = kept["low"][0] + kept["images"][:, 0, 0, 0] / 255 * (kept["high"][0] - kept["low"][0])
    assert np.allclose(values, kept["sample"], atol=batches * size / 250)
    last, middle = (batches - 1) * size, batches * size / 2
    assert (kept["sample"].max() >= 0.9 * last and abs(np.median(kept["sample"]) - middle) < 0.2 * batches * size) or batches == 1


def test_files_are_found_by_the_order_of_their_opening_and_images_that_look_the_wrong_way_round(tmp_path: Path) -> None:
    """No argument names the folder; validation lies in one tensor; its values are turned over (a negative)."""
    run, truth = from_arrays(tmp_path)
    passes = tuple(replace(p, dataset=5) if p.phase == "validation" else p for p in run.passes)
    files = sorted(str(p) for p in tmp_path.rglob("*.png") if p.parent.parent.name == "train")
    files += sorted(str(p) for p in tmp_path.rglob("*.png") if p.parent.parent.name == "val")
    kept = tuple(replace(k, low=k.high, high=k.low) if run.passes[k.pass_index].phase == "validation" else k for k in run.kept)
    unnamed = replace(run, passes=passes, kept=kept, header={**run.header, "argv": ["train.py"]})
    assert not with_loop_files(unnamed).unlisted
    found = with_loop_files(replace(unnamed, header={**unnamed.header, "opened": files}))
    assert len(found.unlisted) == len(files) // 2
    told, right = named(unnamed, found, truth, tmp_path)
    assert told == right > 0.6 * len(found.unlisted)


def test_folders_are_walked_where_classes_lie_and_not_around_a_single_picture(tmp_path: Path) -> None:
    for name in ("data/train/cat", "data/train/dog", "home"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.png").touch()
    run = RunRecord.empty(str(tmp_path))
    opened = [str(tmp_path / n / "a.png") for n in ("data/train/cat", "data/train/dog", "home")]
    found = set(image_folders(replace(run, header={"cwd": str(tmp_path), "opened": opened})))
    assert tmp_path / "data" / "train" in found and tmp_path / "home" in found
    assert tmp_path not in found and tmp_path / "data" not in found


def test_arrays_with_copies_of_each_image_are_of_so_many_fewer_files(tmp_path: Path) -> None:
    """Mirrored copies behind the images: their targets are told by their looks, as those of the images are."""
    run, _ = from_arrays(tmp_path)
    for wrong in (False, True):
        passes, kept = [], list(run.kept)
        for one in run.passes:
            if one.phase == "train":
                table = one.samples
                more = {k: np.concatenate([v, v]) for k, v in vars(table).items()}
                first = int(table.sample.max()) + 1_000
                more["sample"] = np.concatenate([table.sample, table.sample + first]).astype(np.int32)
                # Repeated one by one, not one after the other.
                more["target"] = np.repeat(table.target, 2) if wrong else more["target"]
                one = replace(one, samples=replace(table, **more))
                own = next(k for k in kept if k.pass_index == one.index)
                both = np.concatenate([own.images, own.images[:, :, :, ::-1]])
                ids = np.concatenate([own.sample, own.sample + first]).astype(np.int32)
                kept[kept.index(own)] = replace(own, images=both, sample=ids)
            passes.append(one)
        names = (*run.sample_names, *(f"content[{i:x}]" for i in range(2_000)))
        found = with_loop_files(replace(run, passes=tuple(passes), kept=tuple(kept), sample_names=names))
        assert len(found.unlisted) >= 20 and found.unlisted_told >= 20
        pair = Stages(found, images_of_run(found, 1_000)).compared("pair")
        assert pair.verdict == ("at fault" if wrong else "sound")


def test_a_pass_that_lasts_several_epochs_is_of_so_many_fewer_files(tmp_path: Path) -> None:
    """Where images are changed at random, no image comes twice, and the whole training is one pass of its loop's epochs."""
    run, _ = from_arrays(tmp_path)
    train, *others = run.passes
    table = train.samples
    many = replace(table, **{k: np.tile(v, 36) for k, v in vars(table).items()})
    val = next(p for p in others if p.phase == "validation")
    for turns, known in ((36, True), (1, False)):
        passes = replace(train, samples=many, loops=((0, turns),)), replace(val, index=1)
        found = with_loop_files(replace(run, passes=passes, kept=tuple(k for k in run.kept if k.pass_index == 0)))
        assert len(found.unlisted) == known * len(table)


def test_validation_from_memory_beside_a_training_that_a_loader_feeds(tmp_path: Path) -> None:
    run, truth = from_arrays(tmp_path)
    fed = [replace(p, dataset=0, loader=0) if p.phase == "train" else p for p in run.passes]
    found = with_loop_files(replace(run, passes=tuple(fed)))
    val = next(p for p in fed if p.phase == "validation")
    assert [found.sample_names[i] for i in val.samples.sample] == [str(tmp_path / truth[i]) for i in val.samples.sample]
    assert found.unlisted == run.unlisted  # training's files are its loader's
