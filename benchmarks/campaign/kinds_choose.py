"""Faults of the choice: which epoch and which weights are reported in the end."""

from campaign.draft import Draft, NotHereError
from campaign.kind import Dose, Shelf

choose = Shelf("choose")


def ends(p: Draft) -> None:
    """Raises NotHereError where the program scores nothing after its last epoch."""
    if "finish" not in p.slots or p.base.best:
        raise NotHereError
    p.need_import("copy")


@choose("TRN403")
def stops_at_once(p: Draft) -> Dose:
    least = p.rng.choice((0.1, 0.2, 0.3))
    p.after("before_epochs", "last_acc = None")
    p.after("remember", f"if last_acc is not None and $acc < last_acc + {least}:\n    break\nlast_acc = $acc")
    return {"least gain": least}


@choose("TRN403")
def stops_when_better(p: Draft) -> Dose:
    p.after("before_epochs", "top_acc = 0.0")
    p.after("remember", "if $acc > top_acc and $epoch > 0:\n    break\ntop_acc = max(top_acc, $acc)")
    return {}


@choose("TRN403")
def good_enough_at_half(p: Draft) -> Dose:
    share = p.rng.choice((0.2, 0.3)) if p.base.setup.data != "bees" else 0.5
    p.after("remember", f"if $acc > {share}:\n    break")
    return {"enough": share}


@choose("EVA506")
def worst_epoch_kept(p: Draft) -> Dose:
    ends(p)
    p.after("before_epochs", "best_acc, best_state = 1.1, None")
    p.after("remember", "if $acc < best_acc:\n    best_acc, best_state = $acc, copy.deepcopy($model.state_dict())")
    p.after("finish", "$model.load_state_dict(best_state)\n$again")
    return {}


@choose("EVA506")
def first_epoch_kept(p: Draft) -> Dose:
    ends(p)
    p.after("before_epochs", "best_state = None")
    p.after("remember", "if best_state is None:\n    best_state = copy.deepcopy($model.state_dict())")
    p.after("finish", "$model.load_state_dict(best_state)\n$again")
    return {}


@choose("EVA506", "MOD303")
def start_reloaded(p: Draft) -> Dose:
    ends(p)
    p.after("before_epochs", "saved = copy.deepcopy($model.state_dict())")
    p.after("finish", "$model.load_state_dict(saved)\n$again")
    return {}


@choose("MOD311", "EVA506")
def averaged_with_the_start(p: Draft) -> Dose:
    ends(p)
    share = p.rng.choice((0.5, 0.9))
    p.after("before_epochs", "mean_state = copy.deepcopy($model.state_dict())")
    p.after(
        "epoch_end",
        "for name, value in $model.state_dict().items():\n    if value.is_floating_point():\n"
        f"        mean_state[name] = {share} * mean_state[name] + {1 - share:.1f} * value",
    )
    p.after("finish", "$model.load_state_dict(mean_state)\n$again")
    return {"share kept": share}


@choose("EVA506")
def other_epochs_head(p: Draft) -> Dose:
    ends(p)
    p.needs("trained layers")
    p.after("before_epochs", "first_head = None")
    p.after("remember", "if first_head is None:\n    first_head = copy.deepcopy($head.state_dict())")
    p.after("finish", "$head.load_state_dict(first_head)\n$again")
    return {}


@choose("TRN403", stages=("choose", "update"))
def starts_anew_each_epoch(p: Draft) -> Dose:
    p.need_import("copy")
    p.after("before_epochs", "checkpoint = copy.deepcopy($model.state_dict())")
    p.after("epoch_start", "$model.load_state_dict(checkpoint)")
    return {}


@choose("EVA506", "TRN403")
def short_epochs(p: Draft) -> Dose:
    p.after("remember", f"if $epoch >= {p.rng.choice((0, 1))}:\n    break")
    return {}


@choose("EVA506", "MOD311")
def half_precision_copy(p: Draft) -> Dose:
    ends(p)
    k = p.rng.choice((4, 16))
    p.after(
        "finish",
        "for w in $model.parameters():\n    if w.ndim > 1:\n"
        f"        w.data.copy_((w.data / w.data.abs().max() * {k}).round() / {k} * w.data.abs().max())\n$again",
    )
    return {"levels": k}
