"""A module that was called on images: its tensors, modes, snapshots and what its weights expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from valgap.seams.looking.dropouts import drop_probability
from valgap.seams.looking.newness import looks_new, newness
from valgap.seams.looking.tensors import readable, sums_and_norms

if TYPE_CHECKING:
    from valgap.seams.looking.routes import Given, Route

# torchvision's classification weights were all trained with these (docs of torchvision.models).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_CROP = 224 / 256
# A copy of the first state lets a closing measurement compare features before and after; larger models go without.
MAX_KEPT_STATE_BYTES = 1 << 29
MAX_GROUPS = 16


def unwrap(module: Any) -> Any:
    """The user's own module below torch.compile and the parallel wrappers."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and type(module).__name__ in ("DataParallel", "DistributedDataParallel", "_FabricModule"):
            inner = getattr(module, "module", None)
        if inner is None or not isinstance(inner, nn.Module):
            return module
        module = inner


@dataclass(frozen=True)
class Expected:
    """How an architecture's published weights want their images: see `models.Preprocessing`; size is (C, H, W) or None.

    ``whole``: the program calls that architecture itself; where it is part of another module, that one may prepare the images.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, ...] | None
    crop_share: float
    interpolation: str
    whole: bool


@dataclass(frozen=True)
class FirstValue:
    """A tensor before training: its sum, its norm, and a copy on the CPU where the whole model is not too large."""

    total: float
    norm: float
    copy: torch.Tensor | None


class Stray:
    """A layer that a module calls without having it as a part: in a plain list, say."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.parameters = [p for p in layer.parameters(recurse=False) if p.requires_grad]
        self.first = sums_and_norms(self.parameters)
        self.new = looks_new(layer)

    @property
    def idle(self) -> bool:
        """Whether it is as it was made, gradients reach it, and nothing has moved it."""
        if not self.new or all(p.grad is None or not bool(p.grad.any()) for p in self.parameters):
            return False
        return all(torch.equal(a, b) for a, b in zip(self.first, sums_and_norms(self.parameters), strict=True))


class TrackedModel:
    """Watches what maps images to logits: one module, or several that the program calls one after the other.

    Holds the modules themselves, so that they live until the closing measurements.
    """

    def __init__(self, model_id: int, module: nn.Module) -> None:
        self.id = model_id
        self.parts: list[nn.Module] = [module]
        self.owner: nn.Module | None = None  # whose method calls the parts, if they are several
        self.core: Given | None = None  # how it was called inside a module around it
        self.head: str | None = None  # which of several class scores in its output the loss used first
        self.route: Route | None = None  # how the program's last validation came from images to logits
        self.start_taken = False
        self.first: dict[int, FirstValue] = {}  # by id() of the tensor
        self.steps = 0
        self.own_updates = 0  # steps that no torch optimizer made
        self.optimized: set[int] = set()  # id() of every parameter in an optimizer that stepped
        self.rates: dict[int, float] = {}  # the highest learning rate that each of them ever had
        self.foreign = 0  # parameters in its optimizers that belong to no model
        self.loaded: set[int] = set()  # id() of every tensor that load_state_dict gave a value
        self.altered: set[int] = set()  # of those, the ones that had other values when training began
        self.num_outputs = -1
        self.embeds = False  # whether its training compares what it gives for some images with what it gives for others
        self.newness: dict[int, int] = {}  # by id() of the tensor: see ``newness``
        self.called: set[int] | None = None  # id() of every module at work in the first calls; None: not looked into
        self.once_frozen: set[int] = set()  # id() of parameters that required no gradient when the model was written
        self.strays: dict[int, Stray] = {}  # by id(): layers at work in its call that are none of its own
        self._fresh: dict[int, bool] = {}  # of each BatchNorm layer, by id()
        self.describe()

    def describe(self) -> None:
        """List the tensors as they are now."""
        self.tensors: list[tuple[str, torch.Tensor, bool, str]] = []
        seen: set[int] = set()
        for number, part in enumerate(self.parts):
            prefix = self._prefix(number, part)
            for owner_name, owner in unwrap(part).named_modules():
                kind = type(owner).__name__
                for own, is_parameter in ((owner._parameters, True), (owner._buffers, False)):
                    for name, tensor in own.items():
                        if tensor is None or id(tensor) in seen or not readable(tensor):
                            continue
                        seen.add(id(tensor))
                        full = f"{prefix}{owner_name}.{name}" if owner_name else f"{prefix}{name}"
                        self.tensors.append((full, tensor, is_parameter, kind))
        self.position = {id(t): i for i, (_, t, _, _) in enumerate(self.tensors)}
        everything = [m for part in self.parts for m in part.modules()]
        self.batchnorms = [m for m in everything if isinstance(m, _BatchNorm)]
        self.dropouts = [m for m in everything if drop_probability(m) > 0]
        self._got_gradient = torch.zeros(len(self.tensors), dtype=torch.bool)
        self._alive: dict[tuple[int, ...], torch.Tensor] = {}
        self.layer_groups, self.group_of = layer_groups([t[0] for t in self.tensors])

    def _prefix(self, number: int, part: nn.Module) -> str:
        """What stands before the names of a part's tensors: its name in what calls it, where that is known."""
        if len(self.parts) == 1:
            return ""
        if self.owner is not None:
            name = next((n for n, m in self.owner.named_modules() if m is part), None)
            if name:
                return f"{name}."
        return "" if number == 0 else f"part{number}."

    def is_current(self) -> bool:
        """Whether the listed tensors are still those of the module (no layer was replaced, none added)."""
        known = 0
        for part in self.parts:
            for parameter in part.parameters():
                if id(parameter) in self.position:
                    known += 1
                elif readable(parameter):
                    return False
        return known == sum(t[2] for t in self.tensors)

    def renew(self) -> bool:
        """List the tensors anew where some layers were replaced since; whether that was so.

        Where nearly all are others, the program hands weights over at each call, and the module's own are not what it trains.
        """
        if self.is_current():
            return False
        before = {id(t): t for _, t, _, _ in self.tensors}
        now = {id(t) for p in self.parts for t in p.parameters()}
        if 2 * len(now & before.keys()) < len(now):
            return False
        self.describe()
        gone = before.keys() - self.position.keys()  # a new tensor may come to have the number of an old one
        for known in (self.first, self.rates, self.newness):
            for number in gone & known.keys():
                del known[number]
        for numbers in (self.optimized, self.loaded, self.altered):
            numbers -= gone
        self.called = None
        return True

    def join(self, module: nn.Module, owner: nn.Module | None = None, ahead: bool = False) -> None:
        """Take in a module that is called on what this model gave; ``ahead``: this model is called on what it gave."""
        if any(module is p for p in self.parts):
            return
        self.parts.insert(0 if ahead else len(self.parts), module)
        self.owner = owner if owner is not None else self.owner
        self.describe()

    def narrow(self, module: nn.Module) -> None:
        """Only this part of the module maps images to logits: the rest is a loss, a teacher, an averaged copy."""
        self.parts = [module]
        self.describe()

    def widen(self, module: nn.Module) -> None:
        """The called module is more than was known of it: a part had been called alone."""
        self.parts = [module]
        self.num_outputs = -1
        self.called = None
        self.forget_start()
        self.describe()

    def is_part_of(self, module: nn.Module) -> bool:
        """Whether this model, on which nothing has been trained, is only a part of ``module``."""
        if self.steps or self.holds(module):
            return False
        inside = {id(p) for p in module.parameters()}  # not its modules: the trial may have put them together in another way
        return all(id(t) in inside for _, t, is_parameter, _ in self.tensors if is_parameter)

    def shares(self, module: nn.Module) -> bool:
        """Whether a parameter of ``module`` is one of this model's."""
        return any(id(p) in self.position for p in module.parameters())

    def is_shared(self) -> bool:
        """Whether its parameters lie in memory that other processes may write to."""
        return all(t.device.type == "cpu" and t.is_shared() for _, t, is_parameter, _ in self.tensors if is_parameter)

    def is_alike(self, other: TrackedModel) -> bool:
        """Whether the other has tensors of the same shapes in the same order, as a copy has."""
        return [t[1].shape for t in self.tensors if t[2]] == [t[1].shape for t in other.tensors if t[2]]

    def holds(self, module: nn.Module) -> bool:
        """Whether all parameters of ``module`` are this model's."""
        return all(id(p) in self.position for p in module.parameters() if readable(p))

    def on_path(self) -> list[bool]:
        """Of each tensor, whether the module that owns it was at work in the model's first call."""
        if self.called is None:
            return [True] * len(self.tensors)
        working = {
            id(tensor)
            for part in self.parts
            for module in part.modules()
            if id(module) in self.called or module is part
            for tensor in (*module._parameters.values(), *module._buffers.values())
            if tensor is not None
        }
        return [id(t) in working for _, t, _, _ in self.tensors]

    def note_strays(self, module: nn.Module, working: Sequence[nn.Module]) -> None:
        """Keep what works in a call of ``module`` and is no part of it."""
        own = {id(p) for p in module.parameters()}
        for layer in working:
            new = [p for p in layer._parameters.values() if p is not None and p.requires_grad]
            if new and id(layer) not in self.strays and not any(id(p) in own for p in new):
                self.strays[id(layer)] = Stray(layer)

    def roots(self) -> list[nn.Module]:
        """The modules whose modes decide how the model answers."""
        called = self.route.modules() if self.route is not None else []
        return list({id(m): m for m in (*self.parts, *called)}.values())

    def contains(self, module: Any) -> bool:
        """Whether ``module`` is this model, a part of it, or a wrapper of it."""
        inner = unwrap(module)
        return any(inner is unwrap(p) for p in self.parts)

    def modes(self) -> tuple[bool, float, float]:
        """(root.training, share of BatchNorm layers on batch statistics, share of active Dropout layers)."""
        # Lightning says of frozen layers that they track no statistics; in eval mode those that they have are used all the same.
        norm = [m.training or (m.running_mean is None and m.running_var is None) for m in self.batchnorms]
        drop = [m.training for m in self.dropouts]
        return (
            unwrap(self.parts[0]).training,
            sum(norm) / len(norm) if norm else 0.0,
            sum(drop) / len(drop) if drop else 0.0,
        )

    def snapshot(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(sums, norms), each (T,) float64 on the CPU, of all tensors as they are now."""
        return sums_and_norms([t for _, t, _, _ in self.tensors])

    def take_start(self) -> None:
        """Remember the first state of every tensor of which it is not known yet, for comparison with later ones."""
        self.start_taken = True
        new = [t for _, t, _, _ in self.tensors if id(t) not in self.first]
        for layer in self.batchnorms:
            if layer.track_running_stats and id(layer) not in self._fresh:
                self._fresh[id(layer)] = _is_fresh(layer)
        if not new:
            return
        unknown = {id(t) for t in new}
        layers = [m for r in self.parts for m in r.modules() if any(id(p) in unknown for p in m._parameters.values())]
        self.newness.update(newness(self.tensors, layers, self.loaded))
        sums, norms = sums_and_norms(new)
        small = sum(t.numel() * t.element_size() for _, t, _, _ in self.tensors) <= MAX_KEPT_STATE_BYTES
        for tensor, total, norm in zip(new, sums.tolist(), norms.tolist(), strict=True):
            copy = tensor.detach().to("cpu", copy=True) if small else None
            self.first[id(tensor)] = FirstValue(total, norm, copy)

    def forget_start(self) -> None:
        """The first state is yet to come: weights were loaded."""
        self.start_taken = False
        self.first, self._fresh = {}, {}

    def inherit(self, other: TrackedModel) -> None:
        """Take over what is known of another model's tensors, which have become this one's."""
        self.first = {**other.first, **self.first}
        self._fresh = {**other._fresh, **self._fresh}
        self.optimized |= other.optimized
        self.rates = {**other.rates, **self.rates}
        self.loaded |= other.loaded
        self.newness = {**other.newness, **self.newness}
        self.steps += other.steps
        self.start_taken = self.start_taken or other.start_taken

    @property
    def initial_state(self) -> dict[str, torch.Tensor] | None:
        """The first state by name; None where it was not kept."""
        kept = {name: self.first[id(t)].copy for name, t, _, _ in self.tensors if id(t) in self.first}
        whole = {name: copy for name, copy in kept.items() if copy is not None}
        return whole if len(whole) == len(self.tensors) and whole else None

    def start_snapshot(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(sums, norms) as ``snapshot``, of the first state."""
        first = [self.first[id(t)] for _, t, _, _ in self.tensors]
        return torch.tensor([f.total for f in first], dtype=torch.float64), torch.tensor(
            [f.norm for f in first], dtype=torch.float64
        )

    @property
    def fresh_batchnorm(self) -> float:
        """Share of the BatchNorm layers that began with the statistics of new layers; nan without any."""
        own = [self._fresh[id(m)] for m in self.batchnorms if id(m) in self._fresh]
        return sum(own) / len(own) if own else float("nan")

    def mark_gradients(self, parameters: list[torch.Tensor], norms: torch.Tensor) -> None:
        """Note which parameters have a gradient that is not zero; ``norms`` (P,) stays on its device until it is asked for."""
        places = tuple(self.position.get(id(p), -1) for p in parameters)
        alive, known = norms > 0, self._alive.get(places)
        self._alive[places] = alive if known is None else known | alive

    def note_moved(self) -> None:
        """What differs from the first state was trained by the program itself."""
        for place, ((_, tensor, is_parameter, _), total, norm) in enumerate(
            zip(self.tensors, *(values.tolist() for values in self.snapshot()), strict=True)
        ):
            first = self.first.get(id(tensor))
            if is_parameter and first is not None and (first.total, first.norm) != (total, norm):
                self.optimized.add(id(tensor))
                self._got_gradient[place] = True

    def gradients_seen(self) -> torch.Tensor:
        """(T,) bool on the CPU: which tensors had a gradient that is not zero at a sampled step."""
        for places, alive in self._alive.items():
            seen = [place for place, moved in zip(places, alive.tolist(), strict=True) if moved and place >= 0]
            self._got_gradient[torch.tensor(seen, dtype=torch.long)] = True
        self._alive = {}
        return self._got_gradient

    def expected(self) -> Expected | None:
        """What the architecture's published weights expect; None where unknown."""
        for part in self.parts:
            for module in (unwrap(part), *unwrap(part).children()):
                config = getattr(module, "pretrained_cfg", None)
                if isinstance(config, dict) and config.get("mean") is not None:
                    share, mode = config.get("crop_pct") or IMAGENET_CROP, config.get("interpolation") or "bilinear"
                    size = tuple(config.get("input_size") or ()) or None
                    whole = module is unwrap(self.parts[0])
                    return Expected(tuple(config["mean"]), tuple(config["std"]), size, float(share), str(mode), whole)
                if type(module).__module__.startswith("torchvision.models."):
                    whole = module is unwrap(self.parts[0])
                    return Expected(IMAGENET_MEAN, IMAGENET_STD, (3, 224, 224), IMAGENET_CROP, "bilinear", whole)
        return None


def _is_fresh(layer: Any) -> bool:
    """Whether a BatchNorm layer's statistics are those of a new layer: mean 0 and variance 1, exactly."""
    if layer.running_mean is None:
        return False
    return not bool(layer.running_mean.any()) and bool((layer.running_var == 1).all())


def layer_groups(names: Sequence[str], most: int = MAX_GROUPS) -> tuple[list[str], list[int]]:
    """(names of the groups, group of each tensor): modules, as deep as leaves at most ``most`` groups, in order."""
    modules = [n.rsplit(".", 1)[0] if "." in n else "" for n in names]
    chosen = [""] * len(names)
    for depth in range(1, 5):
        cut = [".".join(m.split(".")[:depth]) for m in modules]
        if len(set(cut)) > most:
            break
        chosen = cut
    groups = list(dict.fromkeys(chosen))
    return groups, [groups.index(c) for c in chosen]
