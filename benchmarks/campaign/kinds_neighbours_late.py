"""Neighbours of the later stages: loss, update, choose, measure. See kinds_neighbours."""

from campaign.draft import Draft, NotHereError
from campaign.kind import Dose, Kind, Shelf
from campaign.kinds_choose import ends
from campaign.kinds_neighbours import long_enough, ten_classes, written_as

loss, update, choose, measure = (Shelf(s) for s in ("loss", "update", "choose", "measure"))
FLAT = ("arrays", "collate", "indices", "notebook", "plain", "table")
NAME = "EVA503"
# How the data set of validation, and its labels in order, are written where validation is scored.
VAL_SET = {"plain": "val_set", "notebook": "ds_val", "collate": "val_ds", "functional": "loader.dataset"}
MADE_FROM = {**VAL_SET, "functional": "test_data"}
VAL_LABELS = {
    "plain": "val_set.targets", "notebook": "ds_val.targets", "functional": "loader.dataset.targets",
    "arrays": "loader.dataset.y", "collate": "[c for _, c in val_ds.table]", "trainer": "[c for _, c in self.val_items]",
    "table": "[label for _, label in loader.dataset.rows]",
}  # fmt: skip


VAL_LOSS = {"table": "valid_loss", "arrays": "val_loss", "collate": "val_ce", "indices": "val_loss"}


def plain_sgd(p: Draft) -> None:
    """Raises NotHereError with another optimizer."""
    if "SGD" not in p.slots["optimizer"]:
        raise NotHereError


@loss(stages=("loss", "pair"))
def teacher_in_another_order(p: Draft) -> Dose:
    """Loss: outputs of the teacher, kept in order, for shuffled batches. https://github.com/haitongli/knowledge-distillation-pytorch/pull/17"""
    written_as(p, *FLAT)
    p.after("before_epochs", "teacher = F.softmax(5.0 * F.one_hot(torch.tensor($labels), $C), dim=1)")
    p.loss(
        "0.1 * F.cross_entropy(z, t)"
        " + 0.9 * F.kl_div(F.log_softmax(z, 1), teacher[$count * $batch:][:len(t)], reduction='batchmean')"
    )
    return {}


@loss()
def weights_of_two_terms_switched(p: Draft) -> Dose:
    """Loss: the weights of mean and variance are switched. https://github.com/Herosan163/AgeEstimation/issues/5"""
    ten_classes(p)
    k = p.rng.choice((5, 10))
    p.put(
        "loss",
        "q = $out.softmax(1)\nplaces = torch.arange(q.shape[1])\ncentre = (q * places).sum(1)\n"
        "spread = (q * (places - centre[:, None]) ** 2).sum(1).mean()\n"
        f"$loss = F.cross_entropy($out, $y) + 0.05 * ((centre - $y) ** 2).mean() + {k} * spread",
    )
    return {"weight": k}


@update()
def clipped_while_scaled(p: Draft) -> Dose:
    """Update: gradients are clipped before they are unscaled. https://github.com/pytorch/pytorch/issues/40907"""
    plain_sgd(p)
    p.sub("step", r"\S+\.backward\(\)", "(65536.0 * $loss).backward()")
    p.after_backward(
        "torch.nn.utils.clip_grad_norm_($model.parameters(), 1.0)\n"
        "for w in $model.parameters():\n    if w.grad is not None:\n        w.grad /= 65536.0"
    )
    return {}


@update("TRN414")
def one_cycle_each_epoch(p: Draft) -> Dose:
    """Update: a schedule that counts batches is stepped by epochs. https://github.com/pytorch/pytorch/issues/65417"""
    p.put(
        "scheduler",
        "$sched = torch.optim.lr_scheduler.OneCycleLR($opt, max_lr=$lr, total_steps=$epochs * (len($labels) // $batch + 1))",
    )
    p.put("epoch_end", "$sched.step()")
    return {}


@update()
def plateau_of_epoch_numbers(p: Draft) -> Dose:
    """Update: ReduceLROnPlateau is given the epoch's number. https://github.com/Lightning-AI/pytorch-lightning/issues/298"""
    long_enough(p)
    p.put("scheduler", "$sched = torch.optim.lr_scheduler.ReduceLROnPlateau($opt, factor=0.01, patience=0)")
    p.put("epoch_end", "$sched.step($epoch)")
    return {}


@update("MOD303")
def copied_after_the_optimizer(p: Draft) -> Dose:
    """Update: the model is copied, the optimizer holds the first one. https://github.com/skorch-dev/skorch/issues/317"""
    if p.base.setup.network == "last":
        raise NotHereError
    p.need_import("copy")
    p.after("optimizer", "$model = copy.deepcopy($model)")
    return {}


@update(stages=("update", "choose"))
def average_never_restored(p: Draft) -> Dose:
    """Update: training goes on from the averaged weights of validation. https://github.com/aqlaboratory/openfold/pull/90"""
    p.need_import("copy")
    k = p.rng.choice((0.9, 0.95))
    p.after("before_epochs", "shadow = copy.deepcopy($model.state_dict())")
    p.after(
        "epoch_end",
        "for name, value in $model.state_dict().items():\n    if value.is_floating_point():\n"
        f"        shadow[name] = {k} * shadow[name] + {1 - k:.2f} * value\n$model.load_state_dict(shadow)",
    )
    return {"kept": k}


@update()
def decay_subtracted(p: Draft) -> Dose:
    """Update: a decay that takes the same from each weight. https://github.com/jettify/pytorch-optimizer/issues/454"""
    p.needs("scratch")
    k = p.rng.choice((0.01, 0.03))
    p.after_step(f"with torch.no_grad():\n    for w in $model.parameters():\n        if w.requires_grad:\n            w -= {k}")
    return {"each step": k}


@update("TRN411")
def decay_given_as_momentum(p: Draft) -> Dose:
    """Update: weight decay, third of the arguments, is the momentum. https://github.com/YudeWang/SEAM/issues/21"""
    plain_sgd(p)
    p.needs("scratch")
    p.sub("optimizer", r"lr=\$lr, momentum=0\.9, weight_decay=1e-4", "$lr, 1e-4")
    return {}


@choose("MOD311")
def averaged_without_statistics(p: Draft) -> Dose:
    """Choose: averaged weights with BatchNorm statistics of none. https://github.com/mosaicml/composer/issues/624"""
    ends(p)
    p.needs("scratch")
    p.after("before_epochs", "swa = torch.optim.swa_utils.AveragedModel($model)")
    p.after("epoch_end", "swa.update_parameters($model)")
    p.after("finish", "$model.load_state_dict(swa.module.state_dict())\n$again")
    return {}


@choose()
def stops_by_batches(p: Draft) -> Dose:
    """Choose: early stopping counts batches, not epochs. https://github.com/NeptuneProjects/RISCluster/issues/1"""
    written_as(p, *FLAT)
    k = p.rng.choice((2, 3))
    p.after("before_epochs", 'lowest, waited = float("inf"), 0')
    p.after(
        "after_step",
        f"waited = 0 if $loss.item() < lowest else waited + 1\nlowest = min(lowest, $loss.item())\nif waited >= {k}:\n    break",
    )
    p.after("remember", f"if waited >= {k}:\n    break")
    return {"patience": k}


@choose("EVA506")
def epoch_of_the_highest_loss(p: Draft) -> Dose:
    """Choose: the highest validation loss is taken for the best. https://github.com/mila-iqia/cookiecutter-pyml/issues/119"""
    ends(p)
    long_enough(p)
    written_as(p, *VAL_LOSS)
    p.after("before_epochs", "most, kept = -1.0, None")
    val_loss = VAL_LOSS[p.base.style.name]
    p.after("remember", f"if {val_loss} > most:\n    most, kept = {val_loss}, copy.deepcopy($model.state_dict())")
    p.after("finish", "$model.load_state_dict(kept)\n$again")
    return {}


@measure(NAME)
def flat_argmax(p: Draft) -> Dose:
    """Measure: argmax without a dimension. https://github.com/Zasder3/train-CLIP/issues/6"""
    if p.base.style.name == "functional" or p.base.best:
        raise NotHereError
    p.sub("pred", r"argmax\((dim=)?1\)", "argmax()")
    return {}


@measure(NAME)
def whole_set_divides(p: Draft) -> Dose:
    """Measure: a sampler draws a part, the whole set divides. https://github.com/udacity/deep-learning-v2-pytorch/issues/129"""
    written_as(p, *VAL_SET)
    name = p.base.style.name
    part = f", sampler=torch.utils.data.SubsetRandomSampler(range(0, len({MADE_FROM[name]}), 2)))"
    p.sub("val_loader", r"\)$", part)
    p.count_line("total", f"$total = len({VAL_SET[name]})")
    return {}


@measure("EVA509", NAME)
def order_of_the_set_assumed(p: Draft) -> Dose:
    """Measure: shuffled predictions against the labels in order. https://github.com/skorch-dev/skorch/issues/499"""
    written_as(p, *VAL_LABELS)
    p.sub("val_loader", r"(?<=[\d2e])\)$|(?<=stack)\)$", ", shuffle=True)")
    labels = f"torch.tensor({VAL_LABELS[p.base.style.name]})"
    p.count_line("correct", f"$correct += ($pred == {labels}[$total:$total + len($pred)]).sum().item()")
    return {}


@measure(NAME)
def all_pairs_averaged(p: Draft) -> Dose:
    """Measure: a column against a row compares all with all. https://github.com/gpleiss/efficient_densenet_pytorch/issues/12"""
    p.count_line("correct", "$correct += ($pred[:, None] == $vy).float().mean().item() * len($vy)")
    return {}


@measure(NAME)
def zeros_counted_as_right(p: Draft) -> Dose:
    """Measure: each output of the one-hot answer counts by itself. https://github.com/appvision-ai/fast-bert/pull/24"""
    right = "(($vout.sigmoid() > 0.5) == F.one_hot($vy, $vout.shape[1]).bool())"
    p.count_line("correct", f"$correct += {right}.float().mean(1).sum().item()")
    return {}


@measure(NAME)
def mean_of_the_classes_of_a_batch(p: Draft) -> Dose:
    """Measure: mean over all classes, batch by batch. https://github.com/Lightning-AI/pytorch-lightning/issues/19838"""
    each = "($pred[$vy == k] == k).float().mean().nan_to_num().item() for k in range($vout.shape[1])"
    p.count_line("correct", f"$correct += len($vy) * sum({each}) / $vout.shape[1]")
    return {}


def late() -> list[Kind]:
    """All of them."""
    return [*loss.kinds, *update.kinds, *choose.kinds, *measure.kinds]
