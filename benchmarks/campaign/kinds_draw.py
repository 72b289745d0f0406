"""Faults of drawing: which training images come, how often, in which order. n is their number, L their labels."""

from campaign.draft import Draft
from campaign.kind import Dose, Shelf

draw = Shelf("draw")
SUBSET = "torch.utils.data.SubsetRandomSampler({})"
WEIGHTED = "torch.utils.data.WeightedRandomSampler({}, len(L))"


@draw("TRN408")
def sorted_order(p: Draft) -> Dose:
    p.draw("range(len(L))")
    return {}


@draw("TRN408")
def class_after_class(p: Draft) -> Dose:
    p.draw("np.argsort(np.random.permutation($C)[L], kind='stable').tolist()")
    return {}


@draw("DAT111", "DAT107")
def first_images(p: Draft) -> Dose:
    share = p.rng.choice((0.1, 0.2, 0.35, 0.5))
    p.draw(SUBSET.format(f"range(int(len(L) * {share}))"))
    return {"share": share}


@draw("DAT111", "DAT107")
def last_images(p: Draft) -> Dose:
    share = p.rng.choice((0.1, 0.2, 0.4))
    p.draw(SUBSET.format(f"range(len(L) - int(len(L) * {share}), len(L))"))
    return {"share": share}


@draw("DAT107")
def every_kth(p: Draft) -> Dose:
    k = p.rng.choice((8, 15, 25))
    p.draw(SUBSET.format(f"range(0, len(L), {k})"))
    return {"k": k}


@draw("DAT111", "DAT109")
def class_weights_for_samples(p: Draft) -> Dose:
    p.draw(WEIGHTED.format("torch.ones($C)"))
    return {}


@draw("DAT103")
def falling_weights(p: Draft) -> Dose:
    k = p.rng.choice((2, 3, 5))
    p.draw(WEIGHTED.format(f"[1.0 / (1 + y) ** {k} for y in L]"))
    return {"power": k}


@draw("DAT103", "DAT111")
def labels_as_weights(p: Draft) -> Dose:
    p.draw(WEIGHTED.format("[float(y) ** 2 for y in L]"))
    return {}


@draw("DAT111")
def dropped_classes(p: Draft) -> Dose:
    condition = p.rng.choice(("y % 2 == 0", "y < $C // 2", "y != 0", "y % 3 > 0"))
    p.draw(SUBSET.format(f"[i for i, y in enumerate(L) if {condition}]"))
    return {"kept": condition}


@draw("DAT111", "DAT107", "DAT109")
def low_indices(p: Draft) -> Dose:
    k = p.rng.choice((3, 5, 8))
    p.draw(SUBSET.format(f"(np.random.rand(len(L)) ** {k} * len(L)).astype(int).tolist()"))
    return {"power": k}


@draw("DAT109", "DAT111")
def divided_index(p: Draft) -> Dose:
    k = p.rng.choice((3, 6, 12))
    p.draw(SUBSET.format(f"[i // {k} for i in range(len(L))]"))
    return {"k": k}


@draw("DAT109", "DAT107")
def multiples_only(p: Draft) -> Dose:
    k = p.rng.choice((7, 13, 31))
    p.draw(SUBSET.format(f"[i * {k} % 60 * len(L) // 60 for i in range(len(L))]").replace("% 60", f"% {3 * k}"))
    return {"k": k}


@draw("TRN403", "DAT107")
def few_batches(p: Draft) -> Dose:
    k = p.rng.choice((1, 2, 3))
    p.before("train_batch", f"if $count >= {k}:\n    break")
    return {"batches": k}


@draw("DAT107", "DAT109")
def first_batch_again(p: Draft) -> Dose:
    p.before("train_batch", "if $count == 0:\n    first = $x, $y\n$x, $y = first")
    return {}


@draw("DAT107")
def same_small_subset(p: Draft) -> Dose:
    k = p.rng.choice((10, 20, 30))
    p.draw(SUBSET.format(f"np.random.default_rng(1).choice(len(L), {k}).tolist() * 4"))
    return {"images": k}
