"""Neighbours: faults that strangers told of in issue trackers, each with its stage and thread.

Here those of files, draw, pair, reading and forward; the later stages are in kinds_neighbours_late. They are in
no half: nothing may be fitted on them.
"""

from campaign.draft import Draft, NotHereError
from campaign.kind import Dose, Kind, Shelf
from campaign.kinds_files import spoil
from campaign.kinds_read import changed

files, draw, pair, read, forward = (Shelf(s) for s in ("files", "draw", "pair", "read", "forward"))
LONG = 5
MEAN, STD = "torch.tensor($mean).view(3, 1, 1)", "torch.tensor($std).view(3, 1, 1)"


def ten_classes(p: Draft) -> None:
    """Raises NotHereError where there are two classes only."""
    if p.base.setup.data == "bees":
        raise NotHereError


def written_as(p: Draft, *styles: str) -> None:
    """Raises NotHereError in another style."""
    if p.base.style.name not in styles:
        raise NotHereError


def long_enough(p: Draft) -> None:
    """Raises NotHereError where there are a few epochs only."""
    if p.base.setup.epochs < LONG:
        raise NotHereError


@files()
def placeholder_photos(p: Draft) -> Dose:
    """Files: dead links gave one "no longer available" picture. https://github.com/dusty-nv/jetson-inference/issues/124"""
    return spoil(p, "files_changed", split="train", share=p.rng.choice((0.9, 0.95)), change="placeholder")


@files()
def copied_into_other_folders(p: Draft) -> Dose:
    """Files: the script that split the data put images of others in each folder. https://github.com/Reza-Zhu/SUES-200-Benchmark/issues/6"""
    return spoil(p, "files_copied", others=1)


@draw()
def nothing_drawn(p: Draft) -> Dose:
    """Draw: the last incomplete batch is dropped, and is the only one. https://github.com/RasmussenLab/vamb/pull/425"""
    written_as(p, "plain", "notebook", "collate", "trainer")
    p.sub("loader", r"\$batch|cfg\.batch_size", "1024")
    p.sub("loader", r"shuffle=True", "shuffle=True, drop_last=True")
    return {}


@draw()
def small_shuffle_buffer(p: Draft) -> Dose:
    """Draw: a stream in order of class, mixed in a small buffer. https://github.com/webdataset/webdataset/issues/62"""
    p.needs("scratch")
    k = p.rng.choice((5, 10))
    p.draw(f"np.argsort(np.arange(len(L)) + np.random.uniform(0, {k}, len(L))).tolist()")
    return {"buffer": k}


@draw()
def iterator_used_up(p: Draft) -> Dose:
    """Draw: an iterator that is not reset gives nothing after the first epoch. https://github.com/NVIDIA/DALI/issues/1471"""
    written_as(p, "plain", "notebook", "collate", "trainer", "arrays")
    long_enough(p)
    p.draw("iter(np.random.permutation(len(L)).tolist())")
    return {}


@draw()
def samples_of_one_batch(p: Draft) -> Dose:
    """Draw: num_samples of the weighted sampler is taken for the batch's. https://github.com/pytorch/pytorch/issues/9171"""
    p.draw("torch.utils.data.WeightedRandomSampler(torch.ones(len(L)), $batch)")
    return {}


@pair("DAT102")
def classes_sorted_as_text(p: Draft) -> Dose:
    """Pair: folders 1, 10, 2... on one side, 1, 2, 3... on the other. https://github.com/CSAILVision/places365/issues/22"""
    ten_classes(p)
    where = p.rng.choice(("train", "val"))
    p.relabel(where, "{0: 0, 9: 1}.get(y, y + 1)")
    return {"side": where}


@pair("DAT102")
def folders_in_the_order_of_the_disk(p: Draft) -> Dose:
    """Pair: each side lists its folders unsorted. https://github.com/uzh-rpg/rpg_event_representation_learning/issues/2"""
    ten_classes(p)
    p.relabel("val", f"{p.rng.sample(range(10), 10)}[y]")
    return {}


@pair("DAT102")
def val_folder_missing(p: Draft) -> Dose:
    """Pair: validation lacks a class, so that later ones move up. https://github.com/ultralytics/ultralytics/issues/13936"""
    ten_classes(p)
    k = p.rng.choice((1, 2, 3))
    p.keep("val", f"y != {k}")
    p.relabel("val", f"y - (y > {k})")
    return {"class": k}


@pair(stages=("pair", "loss"))
def mixed_by_two_permutations(p: Draft) -> Dose:
    """Pair: mixup draws its partners twice, for images and for labels. https://github.com/xudonmao/VMT/issues/1"""
    p.after(
        "train_batch",
        "lam = float(np.random.beta(0.2, 0.2))\n$x = lam * $x + (1 - lam) * $x[torch.randperm(len($x))]\n"
        "partner = $y[torch.randperm(len($y))]",
    )
    p.loss("lam * F.cross_entropy(z, t) + (1 - lam) * F.cross_entropy(z, partner)")
    return {}


@pair()
def targets_not_arrived(p: Draft) -> Dose:
    """Pair: a copy that does not block leaves older values here and there. https://github.com/pytorch/pytorch/issues/139550"""
    share = p.rng.choice((0.7, 0.9))
    p.after(
        "train_batch",
        f"if $count == 0:\n    buffer = $y\nbuffer, $y = $y, torch.where(torch.rand(len($y)) < {share}, buffer[:len($y)], $y)",
    )
    return {"share": share}


@pair()
def classes_of_one_name(p: Draft) -> Dose:
    """Pair: two classes are called alike and share an index. https://github.com/pytorch/vision/issues/1734"""
    ten_classes(p)
    a, b, c, d = p.rng.sample(range(10), 4)
    p.relabel("train", f"{{{a}: {b}, {c}: {d}}}.get(y, y)")
    return {"classes": [a, b, c, d]}


@read()
def tensors_made_pictures(p: Draft) -> Dose:
    """Read: normalised tensors become PIL images, whose bytes wrap. https://github.com/pytorch/vision/issues/8235"""
    return changed(p, float="($v * 255).int().remainder(256).float() / 255")


@read()
def jitter_clamps(p: Draft) -> Dose:
    """Read: colour jitter takes 1 for the most that a float can be. https://github.com/pytorch/vision/issues/4915"""
    return changed(p, ("train",), float=f"((($v * {STD} + {MEAN}) * 255).clamp(0, 1) / 255 - {MEAN}) / {STD}")


@read("PRE202")
def scaled_before_normalisation(p: Draft) -> Dose:
    """Read: a normalisation that divides by 255 itself. https://github.com/albumentations-team/albumentations/issues/302"""
    return changed(p, float=f"(($v * {STD} + {MEAN}) / 255 - {MEAN}) / {STD}")


@read()
def sixteen_bits_clipped(p: Draft) -> Dose:
    """Read: images of 16 bits are cut at 255, so that all is white. https://github.com/pytorch/vision/issues/2218"""
    return changed(p, pil="$v.point(lambda c: min(255, 256 * c))", array="np.minimum(255, 256 * $v.astype(int)).astype(np.uint8)")


@read("PRE205")
def smaller_when_scored(p: Draft) -> Dose:
    """Read: validation has the input size of another network. https://github.com/IntelLabs/distiller/issues/422"""
    k = p.rng.choice((2, 3))
    return {"smaller by": k} | changed(p, ("val",), float=f"$v[..., ::{k}, ::{k}]")


@forward()
def attention_over_the_batch(p: Draft) -> Dose:
    """Forward: attention takes the batch for the sequence. https://github.com/om-ai-lab/OmDet/issues/19"""
    p.before_head(
        "Mixer",
        "f = f.unsqueeze(1)\nreturn self.attention(f, f, f, need_weights=False)[0].squeeze(1)",
        "self.attention = nn.MultiheadAttention($width, 4)",
    )
    return {}


@forward()
def no_running_statistics(p: Draft) -> Dose:
    """Forward: BatchNorm tracks no statistics. https://github.com/TengdaHan/DPC/issues/21"""
    p.needs("scratch")
    p.after(
        "after_net",
        "for m in $model.modules():\n    if isinstance(m, nn.BatchNorm2d):\n        m.track_running_stats = False\n"
        "        m.running_mean = m.running_var = m.num_batches_tracked = None",
    )
    return {}


@forward()
def initialised_after_loading(p: Draft) -> Dose:
    """Forward: the initialisation comes after the published weights. https://github.com/ImCharlesY/AdaInt/pull/12"""
    p.needs("pretrained")
    p.after(
        "after_net",
        "for m in $model.modules():\n    if isinstance(m, nn.Conv2d):\n        nn.init.kaiming_normal_(m.weight)",
    )
    return {}


@forward()
def summary_before_validation(p: Draft) -> Dose:
    """Forward: a summary's passes over noise move BatchNorm. https://github.com/sksq96/pytorch-summary/issues/67"""
    if p.base.setup.network == "features":
        raise NotHereError
    k = p.rng.choice((10, 20))
    passes = f"$model.train()\nwith torch.no_grad():\n    for _ in range({k}):\n        $model(torch.rand(2, 3, $size, $size))"
    if p.base.setup.network == "frozen":
        passes = passes.replace("$model.train()", "nn.Module.train($model)")
    p.before("val_mode", passes)
    return {"passes": k}


def early() -> list[Kind]:
    """All of them; the stages of those of reading follow from the sides of each program."""
    reading = [Kind(k.name, ("read_train", "read_val"), k.codes, k.apply) for k in read.kinds]
    return [*files.kinds, *draw.kinds, *pair.kinds, *reading, *forward.kinds]
