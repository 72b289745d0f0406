"""A module that was called on images: its tensors, modes, snapshots and what its weights expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

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


class TrackedModel:
    """Watches one model. Holds the module itself, so that it lives until the closing measurements."""

    def __init__(self, model_id: int, module: nn.Module) -> None:
        self.id = model_id
        self.parts: list[nn.Module] = [module]
        self.start_taken = False
        self.initial_state: dict[str, torch.Tensor] | None = None
        self.steps = 0
        self.optimized: set[int] = set()  # id() of every parameter in an optimizer that stepped
        self.num_outputs = -1
        self.input_name: str | None = None  # keyword under which the images are passed; None: first position
        self.fresh_batchnorm = float("nan")
        self.describe()

    def describe(self) -> None:
        """List the tensors as they are now."""
        self.tensors: list[tuple[str, torch.Tensor, bool, str]] = []
        seen: set[int] = set()
        for number, part in enumerate(self.parts):
            prefix = "" if number == 0 else f"part{number}."
            for owner_name, owner in unwrap(part).named_modules():
                kind = type(owner).__name__
                for own, is_parameter in ((owner._parameters, True), (owner._buffers, False)):
                    for name, tensor in own.items():
                        if tensor is None or id(tensor) in seen:
                            continue
                        seen.add(id(tensor))
                        full = f"{prefix}{owner_name}.{name}" if owner_name else f"{prefix}{name}"
                        self.tensors.append((full, tensor, is_parameter, kind))
        self.position = {id(t): i for i, (_, t, _, _) in enumerate(self.tensors)}
        everything = [m for part in self.parts for m in part.modules()]
        self.batchnorms = [m for m in everything if isinstance(m, _BatchNorm)]
        self.dropouts = [m for m in everything if isinstance(m, _DropoutNd) and m.p > 0]
        self._got_gradient = torch.zeros(len(self.tensors), dtype=torch.bool)
        self._alive: dict[tuple[int, ...], torch.Tensor] = {}
        self.layer_groups, self.group_of = layer_groups([t[0] for t in self.tensors])

    def is_current(self) -> bool:
        """Whether the listed tensors are still those of the module (no layer was replaced, none added)."""
        return sum(1 for p in self.parts for _ in p.parameters()) == sum(t[2] for t in self.tensors) and all(
            id(parameter) in self.position for p in self.parts for parameter in p.parameters()
        )

    def add_part(self, module: nn.Module) -> None:
        """Take in a module that is called on this model's output (a separate head)."""
        if self.start_taken or any(module is p for p in self.parts):
            return
        self.parts.append(module)
        self.describe()

    def contains(self, module: Any) -> bool:
        """Whether ``module`` is this model, a part of it, or a wrapper of it."""
        inner = unwrap(module)
        return any(inner is unwrap(p) for p in self.parts)

    def modes(self) -> tuple[bool, float, float]:
        """(root.training, share of BatchNorm layers on batch statistics, share of active Dropout layers)."""
        norm = [m.training or not m.track_running_stats for m in self.batchnorms]
        drop = [m.training for m in self.dropouts]
        return (
            unwrap(self.parts[0]).training,
            sum(norm) / len(norm) if norm else 0.0,
            sum(drop) / len(drop) if drop else 0.0,
        )

    def snapshot(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(sums, norms), each (T,) float64 on the CPU, of all tensors as they are now."""
        # Of tensors that processes share out, this process's own part: the whole would make every process wait for all.
        values = [t.detach().to_local() if hasattr(t, "to_local") else t.detach() for _, t, _, _ in self.tensors]
        if not values:
            return torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
        real = [v if v.is_floating_point() else v.double() for v in values]
        device = real[0].device
        sums = torch.stack([v.sum().double().to(device, non_blocking=True) for v in real])
        norms = torch.stack([v.norm().double().to(device, non_blocking=True) for v in real])
        both = torch.stack([sums, norms]).cpu()
        return both[0], both[1]

    def take_start(self) -> None:
        """Remember the first state, for comparison with later ones."""
        self.start_taken = True
        if self.batchnorms:
            fresh = [_is_fresh(m) for m in self.batchnorms if m.track_running_stats]
            self.fresh_batchnorm = sum(fresh) / len(fresh) if fresh else float("nan")
        size = sum(t.numel() * t.element_size() for _, t, _, _ in self.tensors)
        if size <= MAX_KEPT_STATE_BYTES:
            self.initial_state = {name: t.detach().to("cpu", copy=True) for name, t, _, _ in self.tensors}

    def mark_gradients(self, parameters: list[torch.Tensor], norms: torch.Tensor) -> None:
        """Note which parameters have a gradient that is not zero; ``norms`` (P,) stays on its device until it is asked for."""
        places = tuple(self.position.get(id(p), -1) for p in parameters)
        alive, known = norms > 0, self._alive.get(places)
        self._alive[places] = alive if known is None else known | alive

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
