"""A network cut into what is frozen and what is trained: body and head, or front and last stage."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx, nn

# The last stage begins at the latest boundary that leaves this share of the body's parameters behind it. That is layer4
# of a ResNet (64 % of ResNet-50), the blocks after the last halving of an EfficientNet, the later half of a transformer.
LAST_STAGE_SHARE = 0.5
# A map that is halved once may fall from 5 to 3 pixels or from 4 to 2, one that is halved twice from 5 to 2.
MORE_THAN_HALVED = 2


@dataclass(frozen=True)
class Cut:
    """A network in two parts that share its parameters: ``tail(front(images))`` is the network."""

    front: nn.Module  # images (N, 3, H, W) -> activations (N, ...)
    tail: nn.Module  # activations -> logits (N, C)
    name: str  # the first module of the tail
    stages: Literal[1, 2]  # how many of the last ones the tail holds


def body_of(model: nn.Module, head: nn.Module) -> nn.Module:
    """A frozen copy of the network in eval mode that returns what goes into its head: images -> features (N, D)."""
    path = next((name for name, module in model.named_modules() if module is head), None)
    if path is None:
        raise ValueError("the head is no part of the model")
    body = copy.deepcopy(model).eval().requires_grad_(False)
    owner, _, last = path.rpartition(".")
    setattr(body.get_submodule(owner), last, nn.Identity())
    return body


def cut_before_last(stages: Literal[1, 2], model: nn.Module, head: nn.Module, size: int = 224) -> Cut | None:
    """The network cut before its last stage, or its last two; ``size`` is the side of its images in pixels.

    None where it cannot: not traceable, several tensors cross, or, for two stages, it does not work at several resolutions.
    """
    training = model.training
    try:
        model.eval()
        name = last_stage(model, head) if stages == 1 else last_two_stages(model, head, size)
        if name is None:
            return None
        graph = _PieceTracer(model).trace(model)
        _settle_options(graph)
        return _cut(model, graph, name, stages, size)
    except Exception:  # tracing fails in as many ways as there are programs
        return None
    finally:
        model.train(training)


def _cut(model: nn.Module, graph: fx.Graph, name: str, stages: Literal[1, 2], size: int) -> Cut | None:
    """The traced network cut before the first call of the module ``name``; its modules are shared, not copied.

    One tensor may cross. What else does and is the same for all images of this size, such as the rotary positions of a
    transformer, becomes a constant of the tail.
    """
    nodes = list(graph.nodes)
    first = next(i for i, n in enumerate(nodes) if n.op == "call_module" and n.target == name)
    before, behind = nodes[:first], nodes[first:]
    crossing = [n for n in before if any(user in behind for user in n.users)]
    constant = _constants(model, before, crossing, size) if len(crossing) > 1 else {}
    varying = [n for n in crossing if n not in constant]
    if len(varying) != 1:
        return None
    front, tail = fx.Graph(), fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in before:
        copied[node] = front.node_copy(node, copied.__getitem__)
    front.output(copied[varying[0]])
    copied = {varying[0]: tail.placeholder("activations")}
    kept: dict[str, torch.Tensor] = {}
    for node, value in constant.items():
        if isinstance(value, torch.Tensor):
            kept[f"_valgap_{node.name}"] = value
            copied[node] = tail.get_attr(f"_valgap_{node.name}")
    plain = {node: value for node, value in constant.items() if node not in copied}
    for node in behind:
        new = tail.node_copy(node, lambda n: copied.get(n, n))
        new.args = tuple(fx.node.map_arg(a, lambda n: plain.get(n, n)) for a in new.args)
        new.kwargs = {k: fx.node.map_arg(a, lambda n: plain.get(n, n)) for k, a in new.kwargs.items()}
        copied[node] = new
    return Cut(fx.GraphModule(model, front), _module(model, tail, kept), name, stages)


def _module(model: nn.Module, graph: fx.Graph, kept: dict[str, torch.Tensor]) -> fx.GraphModule:
    """The graph as a module that shares the network's, with tensors of its own."""
    try:
        for name, value in kept.items():
            object.__setattr__(model, name, value)
        return fx.GraphModule(model, graph)
    finally:
        for name in kept:
            object.__delattr__(model, name)


def _constants(model: nn.Module, before: list[fx.Node], crossing: list[fx.Node], size: int) -> dict[fx.Node, Any]:
    """Values of the crossing nodes that other images, and another number of them, do not change."""
    probe = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in before:
        copied[node] = probe.node_copy(node, copied.__getitem__)
    probe.output(tuple(copied[n] for n in crossing))
    network, device = fx.GraphModule(model, probe), next(model.parameters()).device
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        seen = [network(torch.rand(n, 3, size, size, generator=draw).to(device)) for n in (2, 3)]
    return {node: one for node, one, other in zip(crossing, *seen, strict=True) if _alike(one, other)}


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and isinstance(one, (int, float, bool, str)) and one == other


class _PieceTracer(fx.Tracer):
    """Follows the network's own forward and leaves its pieces whole: whatever they do inside needs no tracing."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._pieces = {name for name, _ in stages(model)}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether the module is one of the pieces, or one of torch's own."""
        return module_qualified_name in self._pieces or super().is_leaf_module(m, module_qualified_name)


def _settle_options(graph: fx.Graph) -> None:
    """Put the defaults of the forward's optional arguments in their place: the images alone stay an input."""
    defaults = {n: n.args[0] for n in graph.nodes if n.op == "placeholder" and n.args}

    def settled(node: fx.Node) -> Any:
        return defaults.get(node, node)

    for node in graph.nodes:
        if node not in defaults:
            node.args, node.kwargs = fx.node.map_arg(node.args, settled), fx.node.map_arg(node.kwargs, settled)
    for node in defaults:
        graph.erase_node(node)


def last_stage(model: nn.Module, head: nn.Module) -> str | None:
    """The name of the module with which the last stage begins; None for a network of one piece."""
    inside_head = {id(p) for p in head.parameters()}
    pieces = [(name, sum(p.numel() for p in m.parameters() if id(p) not in inside_head)) for name, m in stages(model)]
    total = sum(size for _, size in pieces)
    behind = 0
    for name, size in reversed(pieces[1:]):
        behind += size
        if behind >= LAST_STAGE_SHARE * total:
            return name
    return None


def last_two_stages(model: nn.Module, head: nn.Module, size: int) -> str | None:
    """The name of the module with which the last stage but one begins: the latest whose maps are halved twice on their way
    to the last stage's. layer3 of a ResNet, blocks.3 of an EfficientNet; None for a network without maps of several sizes.
    """
    last = last_stage(model, head)
    given, made = _map_sides(model, size)
    before = list(given)[1 : list(given).index(last)] if last in given else []  # the first piece takes the images themselves
    found = [name for name in before if given[name] > MORE_THAN_HALVED * made.get(str(last), math.inf)]
    return found[-1] if found else None


def _map_sides(model: nn.Module, size: int) -> tuple[dict[str, int], dict[str, int]]:
    """Sides of the maps that go into each piece, and that come out of it, in pixels; in order, of pieces with maps alone."""
    given: dict[str, int] = {}
    made: dict[str, int] = {}

    def note(name: str, inputs: Any, output: Any) -> None:
        if inputs and isinstance(output, torch.Tensor) and inputs[0].ndim == output.ndim == 4:
            # The third is a side of (N, C, H, W) as well as of (N, H, W, C).
            given.setdefault(name, inputs[0].shape[2])
            made.setdefault(name, output.shape[2])

    hooks = [m.register_forward_hook(lambda _, i, o, name=name: note(name, i, o)) for name, m in stages(model)]
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return given, made


def stages(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The network's pieces in order: its children, with the children of plain sequences and lists in their place."""
    for name, child in model.named_children():
        if type(child) in (nn.Sequential, nn.ModuleList) and len(list(child.children())) > 1 and _is_deep(child):
            yield from ((f"{name}.{n}", c) for n, c in child.named_children())
        else:
            yield name, child


def _is_deep(child: nn.Module) -> bool:
    return any(next(c.children(), None) is not None for c in child.children())


class Normalised(nn.Module):
    """Pixels (N, H, W, 3) uint8 -> what ``network`` makes of them, normalised as its weights expect."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        shape = (1, 3, 1, 1)
        self.register_buffer("scale", (1 / (255 * torch.tensor(std, dtype=torch.float64))).float().reshape(shape))
        self.register_buffer("shift", (torch.tensor(mean, dtype=torch.float64) / torch.tensor(std)).float().reshape(shape))

    def forward(self, pixels: torch.Tensor) -> Any:
        """The network's output."""
        return self.network(pixels.permute(0, 3, 1, 2).float() * self.scale - self.shift)


class FrontAndFeatures(nn.Module):
    """Images -> (features (N, D), activations before the cut (N, ...)), in one pass."""

    def __init__(self, front: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.front, self.rest = front, rest

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both."""
        activations = self.front(images)
        return self.rest(activations), activations
