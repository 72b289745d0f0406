"""Faults of reading: the tensor is not what the file shows, in training, in validation or on both sides."""

from campaign.draft import SIDES, Draft, NotHereError
from campaign.kind import Dose, Kind, Shelf

_one = Shelf("read")


def sides(p: Draft) -> tuple[str, ...]:
    return p.rng.choice((("train",), ("val",), ("val",), SIDES))


def changed(p: Draft, where: tuple[str, ...] | None = None, **levels: str) -> Dose:
    """The dose of images that are read so."""
    where = sides(p) if where is None else where
    return {"sides": where, "level": p.read(where, **levels)}


@_one("PRE205", "DAT106")
def quarter_turn(p: Draft) -> Dose:
    k = p.rng.choice((1, 3))
    return changed(
        p, pil=f"$v.rotate({90 * k}, expand=True)", array=f"np.rot90($v, {k})", float=f"torch.rot90($v, {k}, (-2, -1))"
    )


@_one("PRE205", "DAT106")
def upside_down(p: Draft) -> Dose:
    return changed(p, pil="$v.transpose(Image.FLIP_TOP_BOTTOM)", array="$v[::-1]", float="$v.flip(-2)")


@_one("PRE205", "DAT106")
def axes_swapped(p: Draft) -> Dose:
    return changed(p, pil="$v.transpose(Image.TRANSPOSE)", array="$v.transpose(1, 0, 2)", float="$v.transpose(-1, -2)")


@_one("PRE205", "DAT106")
def mirrored(p: Draft) -> Dose:
    return changed(p, pil="ImageOps.mirror($v)", array="$v[:, ::-1]", float="$v.flip(-1)")


@_one("PRE205", "DAT106")
def corner_only(p: Draft) -> Dose:
    d = p.rng.choice((2, 3))
    grown = f".repeat_interleave({d}, -1).repeat_interleave({d}, -2)"
    return {"part": d} | changed(
        p,
        pil=f"$v.crop((0, 0, $v.width // {d}, $v.height // {d})).resize($v.size)",
        array=f"np.array(Image.fromarray($v[:$size // {d}, :$size // {d}].copy()).resize(($size, $size)))",
        float=f"$v[..., :$size // {d}, :$size // {d}]{grown}",
    )


@_one("DAT108", "DAT106")
def blurred(p: Draft) -> Dose:
    k = p.rng.choice((2, 3, 5))
    return {"radius": k} | changed(
        p,
        pil=f"$v.filter(ImageFilter.GaussianBlur({k}))",
        float=f"F.avg_pool2d($v.unsqueeze(0) if $v.ndim == 3 else $v, {2 * k + 1}, 1, {k}).view_as($v)",
    )


@_one("PRE201", "PRE202", "DAT106")
def negative(p: Draft) -> Dose:
    return changed(p, pil="ImageOps.invert($v)", array="255 - $v", float="-$v")


@_one("PRE201", "DAT106", "PRE202")
def gamma(p: Draft) -> Dose:
    g = p.rng.choice((0.2, 0.3, 4, 6))
    return {"gamma": g} | changed(
        p,
        pil=f"$v.point(lambda c: int(255 * (c / 255) ** {g}))",
        array=f"(255 * ($v / 255.0) ** {g}).astype(np.uint8)",
    )


@_one("PRE203", "DAT106", "DAT108")
def one_channel(p: Draft) -> Dose:
    k = p.rng.choice((0, 2))
    name = "RGB"[k]
    return changed(
        p,
        pil=f'$v.getchannel("{name}").convert("RGB")',
        array=f"np.repeat($v[:, :, {k}:{k + 1}], 3, 2)",
        float=f"$v[..., [{k}, {k}, {k}], :, :]",
    )


@_one("PRE203")
def channels_reordered(p: Draft) -> Dose:
    order = p.rng.choice(("[2, 1, 0]", "[1, 2, 0]", "[2, 0, 1]"))
    return {"order": order} | changed(
        p,
        pil=f"Image.fromarray(np.array($v)[:, :, {order}])",
        array=f"$v[:, :, {order}]",
        float=f"$v[..., {order}, :, :]",
    )


@_one("PRE208", "DAT106")
def channels_shuffled_each_time(p: Draft) -> Dose:
    return changed(
        p, array="$v[:, :, np.random.permutation(3)]", float="$v[..., torch.randperm(3), :, :] * torch.randint(0, 2, (3, 1, 1))"
    )


@_one("PRE208", "DAT106")
def patches_shuffled(p: Draft) -> Dose:
    k = p.rng.choice((2, 4))
    size = p.base.setup.size // k
    order = p.rng.sample(range(k), k)
    while order == sorted(order):
        order = p.rng.sample(range(k), k)
    rows = [o * size + j for o in order for j in range(size)]
    return {"grid": k} | changed(p, array=f"$v[{rows}][:, {rows}]", float=f"$v[..., {rows}, :][..., {rows}]")


@_one("PRE208", "DAT106")
def pixels_permuted(p: Draft) -> Dose:
    order = "torch.randperm($v.shape[-1] * $v.shape[-2], generator=torch.Generator().manual_seed(3))"
    return changed(
        p,
        array="$v.reshape(-1, 3)[np.random.default_rng(3).permutation($size * $size)].reshape($v.shape)",
        float=f"$v.flatten(-2)[..., {order}].view_as($v)",
    )


@_one("PRE208", "DAT106")
def rows_rolled(p: Draft) -> Dose:
    k = p.rng.choice((3, 7))
    turned = f"np.stack([np.roll(r, {k} * j, 0) for j, r in enumerate(np.array($v))])"
    return {"step": k} | changed(p, pil=f"Image.fromarray({turned})", array=turned)


@_one("PRE205", "PRE208", "DAT106")
def rolled_by_half(p: Draft) -> Dose:
    return changed(p, array="np.roll($v, ($size // 2, $size // 2), (0, 1))", float="$v.roll(($size // 2, $size // 2), (-2, -1))")


@_one("PRE201", "PRE202", "PRE208")
def bytes_wrapped(p: Draft) -> Dose:
    k = p.rng.choice((60, 128, 200))
    return {"added": k} | changed(p, array=f"$v + np.uint8({k})", pil=f"Image.fromarray(np.array($v) + np.uint8({k}))")


@_one("PRE201", "PRE202")
def bytes_multiplied(p: Draft) -> Dose:
    k = p.rng.choice((2, 3, 5))
    return {"times": k} | changed(p, array=f"$v * np.uint8({k})", pil=f"Image.fromarray(np.array($v) * np.uint8({k}))")


@_one("PRE202", "PRE201")
def scaled_wrongly(p: Draft) -> Dose:
    k = p.rng.choice(("* 255", "/ 255", "* 12", "/ 30"))
    return {"factor": k} | changed(p, float=f"$v {k}")


@_one("PRE201", "PRE202")
def shifted_values(p: Draft) -> Dose:
    k = p.rng.choice((-3.0, -1.5, 2.0, 4.0))
    return {"added": k} | changed(p, float=f"$v + {k}")


@_one("PRE201", "PRE202")
def normalised_twice(p: Draft) -> Dose:
    return changed(p, float="($v - 0.45) / 0.22")


@_one("PRE202", "PRE201", "DAT108")
def clamped_values(p: Draft) -> Dose:
    low, high = p.rng.choice(((0, 1), (0.5, 3), (-0.1, 0.1)))
    return {"range": [low, high]} | changed(p, float=f"$v.clamp({low}, {high})")


@_one("PRE202", "DAT108")
def cut_to_integers(p: Draft) -> Dose:
    return changed(p, float="$v.long().float()")


@_one("DAT108", "PRE202")
def few_grey_levels(p: Draft) -> Dose:
    k = p.rng.choice((128, 200))
    return {"step": k} | changed(p, array=f"$v // np.uint8({k}) * np.uint8({k})", pil=f"$v.point(lambda c: c // {k} * {k})")


@_one("DAT108", "DAT106", "PRE204")
def noise_added(p: Draft) -> Dose:
    k = p.rng.choice((0.8, 1.5, 3.0))
    return {"sd": k} | changed(p, float=f"$v + {k} * torch.randn_like($v)")


@_one("PRE205", "DAT106", "DAT108")
def far_away(p: Draft) -> Dose:
    d = p.rng.choice((2, 3))
    pad = f"($size - $size // {d})"
    return {"smaller by": d} | changed(
        p,
        pil=f"ImageOps.expand($v.resize(($size // {d}, $size // {d})), {pad} // 2).resize(($size, $size))",
        float=f"F.pad($v[..., ::{d}, ::{d}][..., :$size // {d}, :$size // {d}], (0, {pad}, 0, {pad}))",
    )


@_one("DAT108", "DAT106")
def coarse(p: Draft) -> Dose:
    d = p.rng.choice((6, 10))
    return {"pixels": d} | changed(
        p,
        pil=f"$v.resize(({d}, {d})).resize(($size, $size))",
        array=f"np.array(Image.fromarray(np.ascontiguousarray($v)).resize(({d}, {d})).resize(($size, $size)))",
    )


@_one("PRE201", "PRE202", "DAT106")
def standardised_per_image(p: Draft) -> Dose:
    where = sides(p)
    return changed(p, where, float="($v - $v.mean((-2, -1), keepdim=True)) / $v.std((-2, -1), keepdim=True) * 0.1")


@_one("DAT108", "DAT106", "PRE205")
def half_hidden(p: Draft) -> Dose:
    cut = p.rng.choice(("$size // 2", "2 * $size // 3"))
    return {"hidden": cut} | changed(p, float=f"F.pad($v[..., {cut}:, :], (0, 0, {cut}, 0))")


@_one("PRE207", "DAT108")
def hole_in_the_middle(p: Draft) -> Dose:
    d = p.rng.choice((8, 12))
    return changed(p, float=f"$v * (torch.linspace(-1, 1, $size).abs().sub(0.8).relu() > 0).float().mul({d}).clamp(max=1)")


@_one("PRE208", "PRE201")
def pixels_sorted(p: Draft) -> Dose:
    return changed(p, array="np.sort($v, 1)", float="$v.sort(-1).values")


@_one("PRE201", "PRE208", "PRE202")
def cumulated(p: Draft) -> Dose:
    return changed(p, float="$v.cumsum(-1) / 8")


@_one("DAT106", "DAT108", "PRE201")
def differences(p: Draft) -> Dose:
    return changed(p, float="$v - $v.roll(1, -1)")


@_one("PRE208")
def reshaped_not_moved(p: Draft) -> Dose:
    return changed(
        p,
        array="np.moveaxis($v.reshape(3, $size, $size), 0, 2)",
        float="$v.movedim(-3, -1).reshape($v.shape)",
    )


@_one("PRE207")
def almost_all_erased(p: Draft) -> Dose:
    k = p.rng.choice((0.85, 0.93, 0.97))
    return {"share": k} | changed(p, ("train",), float=f"$v * (torch.rand_like($v[..., :1, :, :]) > {k})")


@_one("PRE207")
def tiny_crops(p: Draft) -> Dose:
    for slot in p.slots:
        if "scale=(" in p.slots[slot]:
            p.sub(slot, r"scale=\(0\.\d, 1\.0\)", "scale=(0.01, 0.03)")
    if not p.changed():
        p.read(
            ("train",),
            array="np.kron($v[4:4 + $size // 4, 4:4 + $size // 4], np.ones((4, 4, 1), np.uint8))[:$size, :$size]",
            pil="$v.crop((4, 4, 14, 14)).resize(($size, $size))",
        )
    return {"sides": ("train",)}


@_one("PRE209", "PRE207")
def crops_kept(p: Draft) -> Dose:
    if p.base.style.name != "arrays":
        raise NotHereError
    p.after("train_read", "self.x[i] = img")
    return {"sides": ("train",)}


@_one("PRE202", "PRE201", "PRE204")
def darker_each_time(p: Draft) -> Dose:
    if p.base.style.name == "arrays":
        p.after("train_read", f"self.x[i] //= {p.rng.choice((2, 3))}")
    elif p.base.style.name == "indices":
        p.after("train_batch", "train_x[rows] = train_x[rows] // 2")
    else:
        raise NotHereError
    return {"sides": ("train",)}


@_one("DAT106", "PRE208")
def mixed_with_the_batch(p: Draft) -> Dose:
    k = p.rng.choice((0.7, 0.85))
    where = sides(p)
    for side, x in (("train", "$x"), ("val", "$vx")):
        if side in where:
            p.after(f"{side}_batch", f"{x} = {1 - k:.2f} * {x} + {k} * {x}.mean(0)")
    return {"sides": where, "share": k}


@_one("PRE204", "PRE207", "PRE205")
def turned_at_random(p: Draft) -> Dose:
    where = p.rng.choice((("val",), SIDES))
    return changed(p, where, pil="$v.rotate(float(np.random.uniform(-180, 180)))", array="np.rot90($v, np.random.randint(4))")


def kinds() -> list[Kind]:
    """All of them; which of the two stages it is follows from the sides of each program."""
    return [Kind(k.name, ("read_train", "read_val"), k.codes, k.apply) for k in _one.kinds]
