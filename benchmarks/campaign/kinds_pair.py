"""Faults of pairing: the target that an image gets is not its own. i is the item's place, y its label."""

from campaign.draft import Draft, NotHereError
from campaign.kind import Dose, Shelf

pair = Shelf("pair")


def side(p: Draft) -> str:
    return p.rng.choice(("train", "train", "val"))


@pair("DAT113", "DAT104")
def targets_rolled(p: Draft) -> Dose:
    p.after("train_batch", f"$y = $y.roll({p.rng.choice((1, -1, 3))})")
    return {}


@pair("DAT113", "DAT104")
def targets_sorted(p: Draft) -> Dose:
    p.after("train_batch", "$y = $y.sort().values")
    return {}


@pair("DAT113", "DAT104")
def images_turned_round_sometimes(p: Draft) -> Dose:
    share = p.rng.choice((0.5, 0.8, 1.0))
    p.after("train_batch", f"if torch.rand(()) < {share}:\n    $x = $x.flip(0)")
    return {"share": share}


@pair("DAT104", "DAT113")
def random_labels(p: Draft) -> Dose:
    share = p.rng.choice((0.4, 0.6, 0.8))
    p.relabel("train", f"y if np.random.rand() > {share} else int(np.random.randint($C))")
    return {"share": share}


@pair("DAT105", "DAT113")
def random_val_labels(p: Draft) -> Dose:
    share = p.rng.choice((0.2, 0.4, 0.8))
    p.relabel("val", f"y if np.random.rand() > {share} else int(np.random.randint($C))")
    return {"share": share}


@pair("DAT113", "DAT104")
def neighbours_label(p: Draft) -> Dose:
    k = p.rng.choice((10, 20, 40))
    labels = "$labels"
    p.relabel("train", f"({labels})[(i + {k}) % len({labels})]")
    return {"shift": k}


@pair("DAT113", "DAT104", "DAT102")
def equal_groups_assumed(p: Draft) -> Dose:
    per = p.rng.choice((15, 25, 40))
    p.relabel("train", f"min(i // {per}, $C - 1)")
    return {"per class": per}


@pair("DAT102")
def two_classes_swapped(p: Draft) -> Dose:
    where = side(p)
    a, b = (0, 1) if p.base.setup.data == "bees" else p.rng.sample(range(10), 2)
    p.relabel(where, f"{{{a}: {b}, {b}: {a}}}.get(y, y)")
    return {"side": where, "classes": [a, b]}


@pair("DAT102")
def order_reversed(p: Draft) -> Dose:
    where = side(p)
    p.relabel(where, "$C - 1 - y")
    return {"side": where}


@pair("DAT102")
def next_class(p: Draft) -> Dose:
    where = side(p)
    p.relabel(where, "(y + 1) % $C")
    return {"side": where}


@pair("DAT102")
def order_multiplied(p: Draft) -> Dose:
    if p.base.setup.data == "bees":
        raise NotHereError
    where = side(p)
    p.relabel(where, f"y * {p.rng.choice((3, 7))} % $C")
    return {"side": where}


@pair("DAT102", "DAT111", "DAT104")
def classes_clamped(p: Draft) -> Dose:
    if p.base.setup.data == "bees":
        raise NotHereError
    top = p.rng.choice((3, 5, 7))
    p.relabel("train", f"min(y, {top})")
    return {"top": top}


@pair("DAT102", "DAT111", "DAT104")
def classes_modulo(p: Draft) -> Dose:
    if p.base.setup.data == "bees":
        raise NotHereError
    k = p.rng.choice((4, 5, 7))
    where = side(p)
    p.relabel(where, f"y % {k}")
    return {"modulo": k, "side": where}


@pair("DAT104", "DAT102", "DAT113")
def alternating_shift(p: Draft) -> Dose:
    k = p.rng.choice((2, 3))
    p.relabel("train", f"(y + (i % {k} == 0)) % $C")
    return {"every": k}


@pair("DAT104", "DAT113", "DAT103")
def rest_is_first_class(p: Draft) -> Dose:
    k = p.rng.choice((2, 3))
    p.relabel("train", f"y if i % {k} else 0")
    return {"every": k}


@pair("DAT113", "DAT104")
def targets_of_batch_before(p: Draft) -> Dose:
    p.after("train_batch", "if $count == 0:\n    held = $y\n$y, held = held[:len($y)], $y")
    return {}


@pair("DAT104", "DAT113", "PRE207")
def mixed_images_one_label(p: Draft) -> Dose:
    share = p.rng.choice((0.6, 0.75, 0.9))
    p.after("train_batch", f"mix = torch.randperm(len($x))\n$x = {1 - share:.2f} * $x + {share} * $x[mix]")
    return {"share of the other": share}


@pair("DAT105", "DAT113", "EVA509")
def val_targets_shuffled(p: Draft) -> Dose:
    p.after("val_batch", "$vy = $vy[torch.randperm(len($vy))]")
    return {}


@pair("DAT104", "DAT102", "DAT113")
def one_class_scattered(p: Draft) -> Dose:
    every = p.rng.choice((2, 3))
    p.relabel("train", f"i % $C if y % {every} == 0 else y")
    return {"classes": f"every {every}."}


@pair("DAT113", "DAT104")
def images_of_batch_before(p: Draft) -> Dose:
    p.after("train_batch", "if $count == 0:\n    kept = $x\n$x, kept = kept[:len($x)], $x")
    return {}
