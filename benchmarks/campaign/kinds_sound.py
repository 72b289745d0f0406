"""Habits that look unusual and are sound: programs with one of them are healthy."""

from campaign.draft import SIDES, Draft, NotHereError
from campaign.kind import Dose, Shelf

sound = Shelf()


@sound()
def accumulated_gradients(p: Draft) -> Dose:
    lines = [line for line in p.slots["step"].split("\n") if line.endswith(".step()")]
    if "step_head" in p.slots:
        p.put("step_head", "")
    opt = "$opt"
    p.put("step", f"($loss / 2).backward()\nif $count % 2 == 1:\n    {lines[0]}\n    {opt}.zero_grad()")
    if p.base.setup.network != "frozen" and p.base.setup.network != "features":
        raise NotHereError
    p.sub("optimizer", r"lr=\$lr", f"lr={float(p.base.setup.lr) * 1.5:g}")
    return {}


@sound()
def smoothed_labels(p: Draft) -> Dose:
    p.loss("F.cross_entropy(z, t, label_smoothing=0.1)")
    return {}


@sound()
def balanced_sampler(p: Draft) -> Dose:
    p.draw("torch.utils.data.WeightedRandomSampler((1.0 / np.bincount(L))[L], len(L))")
    return {}


@sound()
def drawn_with_replacement(p: Draft) -> Dose:
    p.draw(
        "torch.randint(len(L), (len(L),)).tolist()"
        if p.base.style.name == "indices"
        else "torch.utils.data.RandomSampler(L, replacement=True)"
    )
    return {}


@sound()
def own_permutation(p: Draft) -> Dose:
    p.draw("torch.utils.data.SubsetRandomSampler(np.random.permutation(len(L)).tolist())")
    return {}


@sound()
def ema_of_weights(p: Draft) -> Dose:
    if p.base.style.name not in ("table", "indices", "functional", "arrays", "collate") or p.base.best:
        raise NotHereError
    p.need_import("copy")
    p.after("before_epochs", "ema = copy.deepcopy($model.state_dict())")
    p.after(
        "epoch_end",
        "for name, value in $model.state_dict().items():\n    if value.is_floating_point():\n"
        "        ema[name] = value.clone() if $epoch == 0 else 0.3 * ema[name] + 0.7 * value",
    )
    p.after("finish", "$model.load_state_dict(ema)\n$again")
    return {}


@sound()
def warm_up(p: Draft) -> Dose:
    p.put("scheduler", "$sched = torch.optim.lr_scheduler.LambdaLR($opt, lambda n: min(1.0, (n + 1) / 10))")
    p.put("epoch_end", "")
    p.after("after_step", "$sched.step()")
    return {}


@sound()
def cosine_each_batch(p: Draft) -> Dose:
    p.put("scheduler", "$sched = torch.optim.lr_scheduler.CosineAnnealingLR($opt, $epochs * (len($labels) // $batch + 1))")
    if p.base.style.name == "functional":
        p.put("scheduler", "scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(train_loader))")
    p.put("epoch_end", "")
    p.after("after_step", "$sched.step()")
    return {}


@sound()
def summed_at_a_small_rate(p: Draft) -> Dose:
    if "SGD" not in p.slots["optimizer"]:
        raise NotHereError
    p.loss("F.cross_entropy(z, t, reduction='sum')")
    p.sub("optimizer", r"lr=\$lr", f"lr={float(p.base.setup.lr) / p.base.setup.batch:g}")
    p.sub("optimizer", r"weight_decay=1e-4", f"weight_decay={1e-4 * p.base.setup.batch:g}")
    return {}


@sound()
def mixup(p: Draft) -> Dose:
    p.need_import("random")
    p.after(
        "train_batch",
        "lam = random.betavariate(0.3, 0.3)\nother = torch.randperm(len($x))\n$x = lam * $x + (1 - lam) * $x[other]",
    )
    p.loss("lam * F.cross_entropy(z, t) + (1 - lam) * F.cross_entropy(z, t[other])")
    return {}


@sound()
def clipped_gradients(p: Draft) -> Dose:
    p.after_backward("torch.nn.utils.clip_grad_norm_($model.parameters(), 5.0)")
    return {}


@sound()
def dropout(p: Draft) -> Dose:
    p.needs("pretrained")
    if "evaluating" in p.base.network.traits:
        raise NotHereError
    p.after("after_net", "$head = nn.Sequential(nn.Dropout(0.3), $head)")
    return {}


@sound()
def flips_averaged_at_val(p: Draft) -> Dose:
    if p.base.setup.data == "digits":
        raise NotHereError
    p.put("val_forward", "$vout = ($model($vx) + $model($vx.flip(-1))) / 2")
    return {}


@sound()
def class_weights(p: Draft) -> Dose:
    p.loss("F.cross_entropy(z, t, weight=torch.full((z.shape[1],), 0.7))")
    return {}


@sound()
def shuffled_validation(p: Draft) -> Dose:
    if p.base.style.name == "indices":
        raise NotHereError
    p.sub("val_loader", r"(?<=[\d2e])\)$|(?<=stack)\)$", ", shuffle=True)")
    return {}


@sound()
def last_batch_dropped(p: Draft) -> Dose:
    p.sub("loader", r"shuffle=True", "shuffle=True, drop_last=True")
    return {}


@sound()
def noise_augmentation(p: Draft) -> Dose:
    p.after("train_batch", "$x = $x + 0.1 * torch.randn_like($x)")
    return {}


@sound()
def erased_patch(p: Draft) -> Dose:
    p.after(
        "train_batch",
        "cy, cx = torch.randint(0, 3 * $size // 4, (2,)).tolist()\n$x = $x.clone()\n"
        "$x[:, :, cy:cy + $size // 4, cx:cx + $size // 4] = 0",
    )
    return {}


@sound()
def grey_on_both_sides(p: Draft) -> Dose:
    p.needs("scratch")
    p.after("train_batch", "$x = $x.mean(1, keepdim=True).expand(-1, 3, -1, -1)")
    p.after("val_batch", "$vx = $vx.mean(1, keepdim=True).expand(-1, 3, -1, -1)")
    return {}


@sound()
def own_cross_entropy(p: Draft) -> Dose:
    p.loss(p.rng.choice(("-z.log_softmax(1).gather(1, t.unsqueeze(1)).mean()", "F.nll_loss(F.log_softmax(z, dim=-1), t)")))
    return {}


@sound()
def one_against_the_rest(p: Draft) -> Dose:
    p.loss("F.binary_cross_entropy_with_logits(z, F.one_hot(t, z.shape[1]).float(), reduction='sum') / len(t)")
    return {}


@sound()
def mirrored_on_both_sides(p: Draft) -> Dose:
    if p.base.setup.data == "digits" and "pretrained" in p.base.network.traits:
        raise NotHereError
    p.after("train_batch", "$x = $x.flip(-1)")
    p.after("val_batch", "$vx = $vx.flip(-1)")
    return {}


@sound()
def scaled_logits(p: Draft) -> Dose:
    p.forward("z / 0.8", SIDES)
    return {}


@sound()
def decayed_a_little(p: Draft) -> Dose:
    p.put("optimizer", "$opt = torch.optim.AdamW($trained, lr=$lr, weight_decay=0.05)")
    if "Adam" not in p.base.setup.optimizer:
        raise NotHereError
    return {}


@sound()
def scored_twice(p: Draft) -> Dose:
    if "finish" not in p.slots or p.base.best:
        raise NotHereError
    p.after("finish", "$again")
    return {}


@sound()
def saved_each_epoch(p: Draft) -> Dose:
    p.after("epoch_end", "torch.save($model.state_dict(), os.devnull)")
    return {}


@sound()
def patient_stop(p: Draft) -> Dose:
    p.after("before_epochs", "top_acc, waited = 0.0, 0")
    p.after(
        "remember",
        "waited = 0 if $acc > top_acc else waited + 1\ntop_acc = max(top_acc, $acc)\nif waited >= 8:\n    break",
    )
    return {}
