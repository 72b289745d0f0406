"""Faults of the update: what moves, how far, and when."""

from campaign.draft import Draft, NotHereError
from campaign.kind import Dose, Shelf

update = Shelf("update")
GRADED = "for w in $model.parameters():\n    if w.grad is not None:\n        "
ALL = "with torch.no_grad():\n    for w in $model.parameters():\n        if w.requires_grad:\n            "


@update("TRN401", "TRN410", "TRN409")
def rate_too_high(p: Draft) -> Dose:
    k = p.rng.choice((30, 100, 300))
    p.sub("optimizer", r"lr=\$lr", f"lr={float(p.base.setup.lr) * k:g}")
    return {"times": k}


@update("TRN402", "TRN411")
def rate_too_low(p: Draft) -> Dose:
    k = p.rng.choice((50, 300, 2000))
    p.sub("optimizer", r"lr=\$lr", f"lr={float(p.base.setup.lr) / k:.2g}")
    return {"divided by": k}


@update("TRN407")
def gradients_never_zeroed(p: Draft) -> Dose:
    slot = "step_head" if "step_head" in p.slots else "step"
    p.sub(slot, r"\S+\.zero_grad\(\)\n?", "")
    return {}


@update("TRN413", "MOD303")
def zeroed_before_the_step(p: Draft) -> Dose:
    p.after_backward("$opt.zero_grad()")
    return {}


@update("TRN402", "TRN411")
def clipped_to_nothing(p: Draft) -> Dose:
    if "SGD" not in p.slots["optimizer"]:
        raise NotHereError
    k = p.rng.choice((0.0001, 0.001, 0.01))
    name = p.rng.choice(("norm", "value"))
    p.after_backward(f"torch.nn.utils.clip_grad_{name}_($model.parameters(), {k / (1 if name == 'norm' else 10):g})")
    return {"max": k}


@update("TRN406")
def decay_too_strong(p: Draft) -> Dose:
    k = p.rng.choice((0.5, 2, 10))
    if "AdamW" in p.slots["optimizer"]:
        p.sub("optimizer", r"weight_decay=0\.01", f"weight_decay={20 * k:g}")
    elif "SGD" in p.slots["optimizer"]:
        p.sub("optimizer", r"weight_decay=1e-4", f"weight_decay={k / 5:g}")
    else:
        p.sub("optimizer", r"lr=\$lr", f"lr=$lr, weight_decay={k:g}")
    return {"decay": k}


@update("TRN401")
def weights_grow(p: Draft) -> Dose:
    k = p.rng.choice((1.02, 1.05))
    p.after_step(ALL + f"w.mul_({k})")
    return {"factor": k}


@update("TRN406")
def weights_shrink(p: Draft) -> Dose:
    k = p.rng.choice((0.8, 0.9))
    p.after_step(ALL + f"w.mul_({k})")
    return {"factor": k}


@update("MOD303", "MOD305")
def head_new_after_optimizer(p: Draft) -> Dose:
    p.after("optimizer", "$head = nn.Linear($width, $C)")
    return {}


@update("MOD303", "MOD305")
def only_small_parameters(p: Draft) -> Dose:
    p.sub("optimizer", r"\$trained", "[w for w in $model.parameters() if w.requires_grad and w.ndim == 1]")
    return {}


@update("MOD303", "MOD305")
def head_frozen(p: Draft) -> Dose:
    p.needs("trained layers")
    p.after("after_net", "for w in $head.parameters():\n    w.requires_grad = False")
    return {}


@update("MOD303", "MOD305")
def first_parameters_only(p: Draft) -> Dose:
    p.needs("scratch")
    k = p.rng.choice((1, 3))
    p.sub("optimizer", r"\$trained", f"list($model.parameters())[:{k}]")
    return {"tensors": k}


@update()
def head_reset_each_epoch(p: Draft) -> Dose:
    p.after("epoch_end", "$head.reset_parameters()")
    return {}


@update()
def head_reset_now_and_then(p: Draft) -> Dose:
    k = p.rng.choice((3, 5))
    p.after_step(f"if $count % {k} == 0:\n    $head.reset_parameters()")
    return {"every": k}


@update("TRN414", "TRN402")
def schedule_each_batch(p: Draft) -> Dose:
    k = p.rng.choice((0.3, 0.5, 0.7))
    p.put("scheduler", f"$sched = torch.optim.lr_scheduler.StepLR($opt, 1, gamma={k})")
    p.put("epoch_end", "")
    p.after("after_step", "$sched.step()")
    return {"gamma": k}


@update("TRN414", "TRN402")
def rate_falls_at_once(p: Draft) -> Dose:
    k = p.rng.choice((0.001, 0.01))
    p.put("scheduler", f"$sched = torch.optim.lr_scheduler.ExponentialLR($opt, gamma={k})")
    p.put("epoch_end", "$sched.step()")
    return {"gamma": k}


@update("TRN414", "TRN402")
def warm_up_never_ends(p: Draft) -> Dose:
    k = p.rng.choice((500, 5000))
    p.put("scheduler", f"$sched = torch.optim.lr_scheduler.LambdaLR($opt, lambda n: min(1.0, (n + 1) / {k}))")
    p.put("epoch_end", "$sched.step()")
    return {"length": k}


@update("TRN414", "TRN401")
def rate_rises(p: Draft) -> Dose:
    k = p.rng.choice((4, 8))
    p.put("scheduler", f"$sched = torch.optim.lr_scheduler.ExponentialLR($opt, gamma={k})")
    p.put("epoch_end", "$sched.step()")
    return {"gamma": k}


@update("TRN401")
def momentum_near_one(p: Draft) -> Dose:
    if "SGD" in p.slots["optimizer"]:
        p.sub("optimizer", r"momentum=0\.9", "momentum=0.999")
    elif "AdamW" not in p.slots["optimizer"]:
        p.sub("optimizer", r"lr=\$lr", "lr=$lr, betas=(0.9999, 0.9)")
    else:
        raise NotHereError
    return {}


@update()
def noisy_gradients(p: Draft) -> Dose:
    k = p.rng.choice((5, 20, 60))
    p.after_backward(GRADED + f"w.grad += {k} * w.grad.norm() / w.numel() ** 0.5 * torch.randn_like(w)")
    return {"noise": k}


@update()
def gradients_of_another_step(p: Draft) -> Dose:
    p.after_backward(GRADED + "w.grad = w.grad[torch.randperm(len(w))]")
    return {}


@update()
def ascent(p: Draft) -> Dose:
    p.sub("optimizer", r"lr=\$lr", "lr=$lr, maximize=True")
    return {}


@update()
def weights_kept_small(p: Draft) -> Dose:
    k = p.rng.choice((0.0005, 0.003))
    p.after_step(ALL + f"w.clamp_(-{k}, {k})")
    return {"max": k}


@update()
def weights_kept_coarse(p: Draft) -> Dose:
    k = p.rng.choice((0.05, 0.2))
    p.after_step(ALL + f"w.copy_((w / {k}).round() * {k})")
    return {"step": k}


@update("TRN413", "TRN403")
def seldom_a_step(p: Draft) -> Dose:
    k = p.rng.choice((8, 16))
    lines = [line for line in p.slots["step"].split("\n") if line.endswith(".step()")]
    p.sub("step", r"\S+\.step\(\)", f"if $count % {k} == {k} - 1:\n    {lines[0]}")
    return {"every": k}


@update("TRN403", "TRN413")
def only_the_first_epoch_trains(p: Draft) -> Dose:
    p.before("train_batch", "if $epoch > 0 and $count > 0:\n    continue")
    return {}


@update("MOD304", "TRN406")
def pulled_back_to_the_start(p: Draft) -> Dose:
    k = p.rng.choice((0.3, 0.6))
    p.after_step(f"with torch.no_grad():\n    for w in $head.parameters():\n        w.lerp_(torch.full_like(w, 0.01), {k})")
    return {"share": k}


@update("TRN402", "TRN411")
def huge_epsilon(p: Draft) -> Dose:
    if "Adam" not in p.slots["optimizer"]:
        raise NotHereError
    k = p.rng.choice((1, 10))
    p.sub("optimizer", r"lr=\$lr", f"lr=$lr, eps={k}.0")
    return {"eps": k}


@update("MOD303")
def some_rows_never_move(p: Draft) -> Dose:
    k = p.rng.choice((1, 3, 5))
    if p.base.setup.data == "bees":
        raise NotHereError
    p.after_backward(f"$head.weight.grad[{k}:] = 0\n$head.bias.grad[{k}:] = 0")
    return {"rows that move": k}


@update("TRN401")
def steps_by_sign(p: Draft) -> Dose:
    if "SGD" not in p.slots["optimizer"]:
        raise NotHereError
    p.after_backward(GRADED + "w.grad.sign_()")
    return {}


@update("TRN411", "TRN402")
def plain_sgd_at_adams_rate(p: Draft) -> Dose:
    if "Adam" not in p.slots["optimizer"]:
        raise NotHereError
    p.sub("optimizer", r"AdamW?\(", "SGD(")
    if "weight_decay" in p.slots["optimizer"]:
        p.sub("optimizer", r"lr=\$lr, weight_decay=0\.01", "lr=$lr / 3")
    else:
        p.sub("optimizer", r"lr=\$lr", "lr=$lr / 3")
    return {}


@update()
def weights_swapped_for_older(p: Draft) -> Dose:
    k = p.rng.choice((2, 3))
    p.after_step(
        f"if $count % {k} == 0:\n    old = [w.detach().clone() for w in $head.parameters()]\n"
        f"if $count % {k} == {k} - 1:\n    for w, o in zip($head.parameters(), old):\n        w.data.copy_(o)"
    )
    return {"every": k}


@update("TRN401", "TRN410")
def one_image_batches(p: Draft) -> Dose:
    p.needs("pretrained")
    k = p.rng.choice((20, 40))
    p.loss("F.cross_entropy(z[-1:], t[-1:])")
    p.sub("optimizer", r"lr=\$lr", f"lr={float(p.base.setup.lr) * k:g}")
    return {"rate times": k}
