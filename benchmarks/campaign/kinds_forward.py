"""Faults of the forward pass: the logits are not what a sound network says of this image alone."""

from campaign.draft import SIDES, Draft, NotHereError
from campaign.kind import Dose, Shelf

forward = Shelf("forward")


@forward("EVA501")
def no_eval(p: Draft) -> Dose:
    p.needs("trained layers")
    p.sub("val_mode", r"\.eval\(\)", ".train()")
    return {}


@forward("EVA501")
def some_layers_train_at_val(p: Draft) -> Dose:
    p.needs("batchnorm")
    k = p.rng.choice((2, 3))
    p.after(
        "val_mode",
        "for j, m in enumerate($model.modules()):\n"
        f"    if isinstance(m, nn.BatchNorm2d) and j % {k} == 0:\n        m.training = True",
    )
    return {"every": k}


@forward("EVA503", "DAT102")
def val_logits_permuted(p: Draft) -> Dose:
    change = p.rng.choice(("z.roll(1, 1)", "z.flip(1)", "z[:, np.random.default_rng(2).permutation(z.shape[1])]"))
    p.forward(change, ("val",))
    return {"change": change}


@forward("EVA509", "DAT113")
def val_logits_of_others(p: Draft) -> Dose:
    p.forward("z[torch.randperm(len(z))]", ("val",))
    return {}


@forward()
def features_centred_in_the_batch(p: Draft) -> Dose:
    p.before_head("Center", "return f - f.mean(0)")
    return {}


@forward("MOD302", "EVA501", "MOD308")
def features_scaled_in_the_batch(p: Draft) -> Dose:
    p.before_head("Standardize", "return (f - f.mean(0, keepdim=True)) / (f.std(0, keepdim=True, unbiased=False) + 1e-5)")
    return {}


@forward("EVA501", "MOD309")
def dropout_always_on(p: Draft) -> Dose:
    rate = p.rng.choice((0.9, 0.95, 0.98))
    p.before_head("Drop", f"return F.dropout(f, {rate})")
    return {"rate": rate}


@forward("MOD309")
def almost_all_dropped(p: Draft) -> Dose:
    rate = p.rng.choice((0.97, 0.99, 0.995))
    p.after("after_net", f"$head = nn.Sequential(nn.Dropout({rate}), $head)")
    return {"rate": rate}


@forward("MOD306")
def relu_on_logits(p: Draft) -> Dose:
    p.after_head("Positive", "return F.relu(f - 1)")
    return {}


@forward("MOD306")
def logits_squashed(p: Draft) -> Dose:
    how = p.rng.choice(("f.softmax(1)", "torch.sigmoid(f)", "torch.tanh(f)", "F.normalize(f, dim=1)"))
    p.after_head("Output", f"return {how}")
    return {"how": how}


@forward()
def neighbours_mixed_in(p: Draft) -> Dose:
    share = p.rng.choice((0.5, 0.7))
    p.before_head("Blend", f"return {1 - share:.1f} * f + {share} * f.roll(1, 0)")
    return {"share": share}


@forward()
def few_features_left(p: Draft) -> Dose:
    k = p.rng.choice((2, 4, 8))
    p.before_head("Select", f"return f * (torch.arange(f.shape[1]) < {k})")
    return {"features": k}


@forward()
def features_reshaped(p: Draft) -> Dose:
    p.before_head("Rearrange", "return f.t().reshape(f.shape)")
    return {}


@forward()
def features_shuffled_each_time(p: Draft) -> Dose:
    p.before_head("Reorder", "return f[:, torch.randperm(f.shape[1])]")
    return {}


@forward()
def features_rounded(p: Draft) -> Dose:
    how = p.rng.choice(("f.sign()", "(2 * f).round().clamp(0, 1)", "f.round().clamp(-1, 1)"))
    p.before_head("Quantize", f"return {how}")
    return {"how": how}


@forward("MOD306")
def features_tiny(p: Draft) -> Dose:
    k = p.rng.choice((100, 1000))
    p.before_head("Scale", f"return f / {k}")
    return {"divided by": k}


@forward()
def features_absolute_means(p: Draft) -> Dose:
    p.before_head("Pool", "return f.mean(1, keepdim=True).expand_as(f)")
    return {}


@forward("MOD308", "MOD302")
def batchnorm_forgets(p: Draft) -> Dose:
    p.needs("trained layers")
    p.after("after_net", "for m in $model.modules():\n    if isinstance(m, nn.BatchNorm2d):\n        m.momentum = 1.0")
    return {}


@forward("MOD302")
def batchnorm_never_learns(p: Draft) -> Dose:
    p.needs("scratch")
    p.after("after_net", "for m in $model.modules():\n    if isinstance(m, nn.BatchNorm2d):\n        m.momentum = 0.0005")
    return {}


@forward("MOD302", "EVA501")
def statistics_reset_at_val(p: Draft) -> Dose:
    p.needs("batchnorm")
    p.after("val_mode", "for m in $model.modules():\n    if isinstance(m, nn.BatchNorm2d):\n        m.reset_running_stats()")
    return {}


@forward("MOD301")
def weights_forgotten(p: Draft) -> Dose:
    p.needs("pretrained")
    p.sub("net", r"(state = .*\n)?\S+\.load_state_dict\(.*\n", "")
    return {}


@forward("MOD301")
def weights_half_loaded(p: Draft) -> Dose:
    p.needs("pretrained")
    k = p.rng.choice((60, 150, 220))
    p.sub("net", r"state\.values\(\)\)\)\)", f"list(state.values())[:{k}])), strict=False)")
    return {"tensors": k}


@forward("MOD301", "MOD304")
def first_layer_new(p: Draft) -> Dose:
    p.needs("pretrained")
    stem = "$model.backbone.conv_stem" if p.base.setup.network == "features" else "$model.conv_stem"
    p.after("after_net", f"nn.init.normal_({stem}.weight, std=0.1)")
    return {}


@forward("MOD301")
def weights_noisy(p: Draft) -> Dose:
    p.needs("pretrained")
    k = p.rng.choice((0.3, 0.5, 0.8))
    p.after(
        "after_net",
        "with torch.no_grad():\n    for w in $model.parameters():\n        if w.ndim == 4:\n"
        f"            w += {k} * w.std() * torch.randn_like(w)",
    )
    return {"sd": k}


@forward()
def val_logits_noisy(p: Draft) -> Dose:
    k = p.rng.choice((1, 2, 4))
    p.forward(f"z + {k} * z.std() * torch.randn_like(z)", ("val",))
    return {"sd": k}


@forward()
def val_logits_centred(p: Draft) -> Dose:
    p.forward("z - z.mean(0)", ("val",))
    return {}


@forward("MOD306")
def val_logits_clipped(p: Draft) -> Dose:
    top = p.rng.choice((0.2, 0.5))
    p.forward(f"z.clamp(max={top})", ("val",))
    return {"max": top}


@forward()
def logits_of_a_batch_averaged(p: Draft) -> Dose:
    share = p.rng.choice((0.6, 0.9))
    p.forward(f"{1 - share:.1f} * z + {share} * z.mean(0)", SIDES)
    return {"share": share}


@forward()
def one_logit_lost(p: Draft) -> Dose:
    if p.base.setup.data == "bees":
        raise NotHereError
    k = p.rng.choice((1, 3))
    p.forward(f"torch.cat([z[:, :-{k}], torch.zeros(len(z), {k})], 1)", p.rng.choice((("val",), SIDES)))
    return {"lost": k}


@forward()
def small_images_inside(p: Draft) -> Dose:
    side = p.rng.choice((8, 12))
    p.put("forward", f"$out = $model(F.interpolate($x, {side}).repeat(1, 1, 2, 2))")
    p.put("val_forward", f"$vout = $model(F.interpolate($vx, {side}).repeat(1, 1, 2, 2))")
    return {"side": side}
