"""Faults of the loss: not the mean cross-entropy of logits z and targets t."""

from campaign.draft import Draft, NotHereError
from campaign.kind import Dose, Shelf

loss = Shelf("loss")
# Where other targets are given to the loss: the pairing is by definition the target that the loss sees.
TARGETS = ("loss", "pair")
ENTROPY = "F.cross_entropy(z, t)"


@loss("TRN401", "TRN409")
def summed(p: Draft) -> Dose:
    p.loss("F.cross_entropy(z, t, reduction='sum')")
    return {}


@loss("MOD306")
def softmax_twice(p: Draft) -> Dose:
    p.loss(p.rng.choice(("F.cross_entropy(z.softmax(1), t)", "F.cross_entropy(z.softmax(dim=-1).softmax(dim=-1), t)")))
    return {}


@loss()
def softmax_over_the_batch(p: Draft) -> Dose:
    p.loss("F.nll_loss(z.log_softmax(0), t)")
    return {}


@loss()
def no_log(p: Draft) -> Dose:
    p.loss("F.nll_loss(z.softmax(1), t)")
    return {}


@loss()
def raw_logits_as_log(p: Draft) -> Dose:
    p.loss("F.nll_loss(z, t)")
    return {}


@loss()
def smoothed_away(p: Draft) -> Dose:
    k = p.rng.choice((0.9, 0.97, 1.0))
    p.loss(f"F.cross_entropy(z, t, label_smoothing={k})")
    return {"smoothing": k}


@loss("DAT103")
def bent_class_weights(p: Draft) -> Dose:
    k = p.rng.choice((3, 5, 8))
    p.loss(f"F.cross_entropy(z, t, weight=torch.arange(1.0, z.shape[1] + 1) ** {k})")
    return {"power": k}


@loss("DAT111", "DAT103")
def class_ignored(p: Draft) -> Dose:
    k = p.rng.choice((0, 1))
    p.loss(f"F.cross_entropy(z, t, ignore_index={k})")
    return {"class": k}


@loss("DAT107")
def first_of_the_batch(p: Draft) -> Dose:
    k = p.rng.choice((1, 2))
    p.loss(f"F.cross_entropy(z[:{k}], t[:{k}])")
    return {"images": k}


@loss("TRN402")
def logits_cooled(p: Draft) -> Dose:
    k = p.rng.choice((0.001, 0.01, 0.03))
    p.loss(f"F.cross_entropy({k} * z, t)")
    return {"factor": k}


@loss()
def clamped(p: Draft) -> Dose:
    k = p.rng.choice((0.3, 0.7))
    p.loss(f"F.cross_entropy(z, t, reduction='none').clamp(max={k}).mean()")
    return {"max": k}


@loss()
def worst_only(p: Draft) -> Dose:
    p.loss("F.cross_entropy(z, t, reduction='none').max()")
    return {}


@loss()
def easy_ones_weighted(p: Draft) -> Dose:
    k = p.rng.choice((2, 4))
    p.loss(f"(z.softmax(1).gather(1, t[:, None])[:, 0] ** {k} * F.cross_entropy(z, t, reduction='none')).mean()")
    return {"power": k}


@loss("TRN401", "TRN406")
def large_logits_punished(p: Draft) -> Dose:
    k = p.rng.choice((3, 10, 30))
    p.loss(f"{ENTROPY} + {k} * z.pow(2).mean()")
    return {"weight": k}


@loss()
def entropy_rewarded(p: Draft) -> Dose:
    k = p.rng.choice((1.2, 2.0))
    p.loss(f"{ENTROPY} + {k} * (z.softmax(1) * z.log_softmax(1)).sum(1).mean()")
    return {"weight": k}


@loss()
def one_against_the_others_flipped(p: Draft) -> Dose:
    k = p.rng.choice((20, 60))
    p.loss(
        f"F.binary_cross_entropy_with_logits(z, F.one_hot(t, z.shape[1]).float(), pos_weight=torch.full((z.shape[1],), {k}.0))"
    )
    return {"weight": k}


@loss()
def squared_distance_to_index(p: Draft) -> Dose:
    p.loss("F.mse_loss((z.softmax(1) * torch.arange(z.shape[1])).sum(1), t.float())")
    return {}


@loss(stages=TARGETS)
def target_logit_left_out(p: Draft) -> Dose:
    if p.base.setup.data == "bees":
        raise NotHereError
    k = p.rng.choice((4, 6))
    p.loss(f"F.cross_entropy(z[:, :{k}], t.clamp(max={k - 1}))")
    return {"classes": k}


@loss("DAT104", "DAT113", stages=TARGETS)
def targets_turned_in_the_loss(p: Draft) -> Dose:
    p.loss(p.rng.choice(("F.cross_entropy(z, t.flip(0))", "F.cross_entropy(z.flip(0), t)", "F.cross_entropy(z.roll(1, 0), t)")))
    return {}


@loss("TRN401", "TRN409")
def scaled_up(p: Draft) -> Dose:
    k = p.rng.choice((50, 300))
    p.loss(f"{k} * {ENTROPY}")
    return {"factor": k}


@loss()
def negated_sometimes(p: Draft) -> Dose:
    share = p.rng.choice((0.35, 0.45))
    p.loss(f"{ENTROPY} * (1 if torch.rand(()) > {share} else -1)")
    return {"share": share}


@loss()
def only_right_answers(p: Draft) -> Dose:
    p.loss("(F.cross_entropy(z, t, reduction='none') * (z.argmax(1) == t)).mean()")
    return {}


@loss()
def batch_mean_logits(p: Draft) -> Dose:
    p.loss("F.cross_entropy(z.mean(0, keepdim=True), t[:1])")
    return {}


@loss()
def margin_only(p: Draft) -> Dose:
    k = p.rng.choice((0.05, 0.2))
    p.loss(f"F.multi_margin_loss(z, t, margin={k}) * 0.1")
    return {"margin": k}
