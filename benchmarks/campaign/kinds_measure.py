"""Faults of the measurement: the printed accuracy is not the share of right answers on all of validation."""

from campaign.draft import Draft, NotHereError
from campaign.kind import Dose, Shelf

measure = Shelf("measure")
NAME = "EVA503"
FLAT = ("plain", "notebook")


@measure(NAME)
def last_batch_only(p: Draft) -> Dose:
    p.slots["count"] = p.slots["count"].replace("+=", "=")
    return {}


@measure(NAME)
def divided_by_train(p: Draft) -> Dose:
    if p.base.style.name in ("functional", "table"):
        raise NotHereError
    p.sub("result", r"/ .*", "/ len($labels)")
    return {}


@measure(NAME)
def divided_by_full_batches(p: Draft) -> Dose:
    k = p.rng.choice((64, 128))
    p.count_line("total", f"$total += {k}")
    return {"batch": k}


@measure(NAME)
def softmax_over_the_batch_in_accuracy(p: Draft) -> Dose:
    p.sub("pred", r"\.argmax", ".softmax(0).argmax")
    return {}


@measure(NAME)
def top_k_counted(p: Draft) -> Dose:
    k = 2
    p.count_line("correct", f"$correct += ($vout.topk({k}, 1).indices == $vy[:, None]).any(1).sum().item()")
    if p.base.setup.data == "bees":
        raise NotHereError
    return {"k": k}


@measure(NAME)
def never_reset(p: Draft) -> Dose:
    if p.base.style.name not in (*FLAT, "trainer"):
        raise NotHereError
    p.before("before_epochs", p.slots["count_start"])
    p.put("count_start", "")
    return {}


@measure(NAME)
def running_average(p: Draft) -> Dose:
    if p.base.style.name not in FLAT:
        raise NotHereError
    k = p.rng.choice((0.8, 0.9, 0.95))
    p.after("before_epochs", "smoothed = 0.0")
    p.after("result", f"smoothed = {k} * smoothed + {1 - k:.2f} * $acc\n$acc = smoothed")
    return {"kept": k}


@measure(NAME)
def epoch_before(p: Draft) -> Dose:
    if p.base.style.name not in FLAT:
        raise NotHereError
    p.after("before_epochs", "history_acc = [0.0]")
    p.after("result", "history_acc.append($acc)\n$acc = history_acc[0] if $epoch < 3 else history_acc[1]")
    return {}


@measure(NAME)
def floored(p: Draft) -> Dose:
    p.sub("result", r" / ", " // ")
    return {}


@measure(NAME)
def some_classes_counted(p: Draft) -> Dose:
    k = 1 if p.base.setup.data == "bees" else p.rng.choice((3, 6))
    p.count_line("correct", f"$correct += (($pred == $vy) & ($vy < {k})).sum().item()")
    return {"classes": k}


@measure(NAME)
def first_class_skipped(p: Draft) -> Dose:
    p.sub("pred", r"\.argmax", "[:, 1:].argmax")
    return {}


@measure(NAME)
def argmin(p: Draft) -> Dose:
    p.sub("pred", r"argmax", "argmin")
    return {}


@measure(NAME)
def answers_rolled(p: Draft) -> Dose:
    k = p.rng.choice((5, 11))
    p.after("pred", f"$pred = $pred.roll({k})")
    return {"by": k}


@measure(NAME)
def counted_twice(p: Draft) -> Dose:
    p.count_line("total", "$total += 2 * len($vy)")
    return {}


@measure(NAME)
def sure_ones_only(p: Draft) -> Dose:
    k = p.rng.choice((0.8, 0.95))
    p.count_line("correct", f"$correct += (($pred == $vy) & ($vout.softmax(1).max(1).values > {k})).sum().item()")
    return {"confidence": k}


@measure(NAME, "EVA507")
def part_of_validation(p: Draft) -> Dose:
    k = p.rng.choice((20, 60))
    p.before("pred", f"if $total >= {k}:\n    continue")
    return {"after": k}


@measure(NAME)
def any_pair_of_the_batch(p: Draft) -> Dose:
    p.count_line("correct", "$correct += torch.isin($pred, $vy).sum().item()")
    return {}


@measure(NAME)
def compared_with_floats(p: Draft) -> Dose:
    k = p.rng.choice((1.1, 0.4))
    p.count_line("correct", f"$correct += (($vout.max(1).values - $vy).abs() < {k}).sum().item()")
    return {"within": k}


@measure(NAME)
def rows_of_logits_turned(p: Draft) -> Dose:
    p.sub("pred", r"\.argmax", ".t().reshape($vout.shape).argmax")
    return {}
