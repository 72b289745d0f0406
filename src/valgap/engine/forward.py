"""Ways to run a frozen network, and which of them is fastest here: chosen by measurement, gated on agreeing with fp32."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from valgap.engine.quiet_openvino import quiet_openvino

Pixels = npt.NDArray[np.uint8]
Outputs = tuple[npt.NDArray[np.float32], ...]

# A faster way must give the same features: the smallest cosine to fp32 over the tried images.
MIN_COSINE = 0.999
TRIED_IMAGES = 8
# Seconds that it takes to build and try a way, about: a way is tried when the whole job takes longer than this many times
# as long by the fastest way so far. Measured on two x86-64 cores with ResNet-50 and EfficientNet-Lite0.
BUILD_S = {"openvino": 2.0, "openvino bf16": 2.0, "bf16": 2.0, "compiled": 45.0}
PAYS_AT = 2.0
# The same where OpenVINO finds the network that it converted earlier, if only for its other precision.
FOUND_S = 0.5
# Converted networks that are kept, 14 MB (EfficientNet-Lite0) to 100 MB (ResNet-50) each.
MOST_KEPT = 4
# A way is timed again until it ran for so long, or so often. Once took OpenVINO for slower than fp32 in some fresh processes,
# where it is twice as fast.
TIMED_S, MOST_REPEATS = 0.5, 8
# OpenVINO runs one stream per core; each request takes this many images.
REQUEST_IMAGES = 4
# The ways that it offers, by the precision of its arithmetic.
OPENVINO = {"f32": "openvino", "bf16": "openvino bf16"}
# Where it agrees and is faster than fp32, no other way needs to be tried (ResNet-50, EfficientNet-Lite0, 96 and 224 px).
SECOND_TO_NONE = "openvino bf16"


class Forward(Protocol):
    """Pixels (B, H, W, 3) -> the network's outputs, each (B, ...) float32."""

    name: str

    def __call__(self, pixels: Pixels) -> Outputs: ...


class TorchForward:
    """The network as torch runs it: channels-last, on its device, in fp32 or under autocast."""

    def __init__(self, network: nn.Module, device: torch.device, autocast: torch.dtype | None, name: str) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.device, self.autocast, self.name = device, autocast, name

    def __call__(self, pixels: Pixels) -> Outputs:
        with torch.inference_mode(), torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            found = self.network(torch.from_numpy(pixels).to(self.device, non_blocking=True))
        tensors = found if isinstance(found, tuple) else (found,)
        return tuple(t.float().cpu().contiguous().numpy() for t in tensors)


class OpenVinoForward:
    """The network compiled by OpenVINO for the CPU: several requests at a time."""

    def __init__(
        self, network: nn.Module, example: Pixels, kept: Path | None = None, precision: Literal["f32", "bf16"] = "f32"
    ) -> None:
        """``kept``: where the converted network is looked for, and left for the next time."""
        ov = quiet_openvino()

        self.name = OPENVINO[precision]

        converted = ov.Core().read_model(kept) if kept is not None and kept.is_file() else _converted(network, example)
        if kept is not None and not kept.is_file():
            _keep(converted, kept)
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # By itself it takes what the processor is fastest at, which moves the features of some networks too far.
            "INFERENCE_PRECISION_HINT": precision,
        }
        self.queue = ov.AsyncInferQueue(ov.Core().compile_model(converted, "CPU", settings))
        self.queue.set_callback(self._done)
        self.found: dict[int, list[npt.NDArray[np.float32]]] = {}

    def _done(self, request: Any, number: int) -> None:
        self.found[number] = [np.array(t.data, np.float32) for t in request.output_tensors]

    def __call__(self, pixels: Pixels) -> Outputs:
        self.found = {}
        for number, start in enumerate(range(0, len(pixels), REQUEST_IMAGES)):
            self.queue.start_async(pixels[start : start + REQUEST_IMAGES], number)
        self.queue.wait_all()
        parts = [self.found[i] for i in sorted(self.found)]
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _converted(network: nn.Module, example: Pixels) -> Any:
    """The network as OpenVINO's own graph, for any number of images of this size."""
    ov = quiet_openvino()

    given = torch.from_numpy(example[:1])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO still uses torch.jit.trace
        # Traced here, since OpenVINO would let the trace be checked, by running and comparing it: half of the time.
        traced = torch.jit.trace(network, given, check_trace=False)
        converted = ov.convert_model(traced, example_input=given)
    converted.reshape([-1, *example.shape[1:]])
    return converted


def kept_network(network: nn.Module, sample: Pixels, folder: Path) -> Path:
    """The file in ``folder`` for the converted network: another one for other weights, another size, another OpenVINO."""
    ov = quiet_openvino()

    digest = hashlib.blake2b(repr((ov.__version__, torch.__version__, sample.shape[1:], str(network))).encode(), digest_size=12)
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return folder / f"network-{digest.hexdigest()}.xml"


def _keep(converted: Any, file: Path) -> None:
    """Save a converted network; of those in its folder, the ones unused for longest make room."""
    ov = quiet_openvino()

    part = file.with_name(f"part-{os.getpid()}-{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        others = sorted(file.parent.glob("network-*.xml"), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in others[MOST_KEPT - 1 :]:
            old.unlink(missing_ok=True)
            old.with_suffix(".bin").unlink(missing_ok=True)
        ov.save_model(converted, part, compress_to_fp16=False)
        part.with_suffix(".bin").replace(file.with_suffix(".bin"))
        part.replace(file)
    except (OSError, RuntimeError):  # a full or read-only disk: it is converted again next time
        part.with_suffix(".bin").unlink(missing_ok=True)
        part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Choice:
    """The way that was chosen for one network on one machine, and what was measured."""

    name: str
    images_per_s: dict[str, float] = field(default_factory=dict)
    cosine: dict[str, float] = field(default_factory=dict)


def choose_forward(network: nn.Module, device: torch.device, sample: Pixels, num_images: int, memory: Path) -> Forward:
    """The fastest way to run ``network`` (pixels -> outputs) over ``num_images``, remembered in the file ``memory``.

    A way whose trying would take longer than it can save is not tried. ``sample`` holds real images, at most 8 are used.
    """
    sample = sample[:TRIED_IMAGES]
    plain = TorchForward(network, device, None, "fp32")
    if device.type == "mps":
        return plain
    key = _key(network, device, sample)
    known = _remembered(memory).get(key)
    kept = kept_network(network, sample, memory.parent) if "openvino" in candidates(device) else None
    if known is not None:
        return _build(known.name, network, device, sample, plain, kept) or plain
    expected, speed = _timed(plain, sample)
    choice = Choice("fp32", {"fp32": speed}, {"fp32": 1.0})
    forwards: dict[str, Forward] = {"fp32": plain}
    best = "fp32"
    for name in candidates(device):
        if best == SECOND_TO_NONE:
            break
        found_again = name in OPENVINO.values() and kept is not None and kept.is_file()
        if num_images / choice.images_per_s[best] <= PAYS_AT * (FOUND_S if found_again else BUILD_S[name]):
            continue
        forward = _build(name, network, device, sample, plain, kept)
        if forward is None:
            continue
        found, choice.images_per_s[name] = _timed(forward, sample)
        choice.cosine[name] = agreement(expected[0], found[0])
        if choice.cosine[name] > MIN_COSINE:
            forwards[name] = forward
        best = max(forwards, key=lambda n: choice.images_per_s[n])
    if len(choice.images_per_s) > 1:
        _remember(memory, key, Choice(best, choice.images_per_s, choice.cosine))
    return forwards[best]


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16 by itself; False where torch cannot tell (before 2.6)."""
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(asked()) if asked is not None else False


def candidates(device: torch.device) -> list[str]:
    """The ways that this machine offers beside fp32, in the order in which they are tried."""
    if device.type == "cuda":
        return ["bf16"]
    bf16 = has_bfloat16()  # emulated elsewhere, and slower than fp32
    if importlib.util.find_spec("openvino") is not None:
        return [SECOND_TO_NONE, "openvino", "bf16"] if bf16 else ["openvino"]
    return ["bf16", "compiled"] if bf16 else ["compiled"]


@dataclass(frozen=True)
class Timed:
    """One way to run a network, measured: images a second, and how well its outputs agree with fp32's."""

    images_per_s: float
    cosine: float


def time_forward(name: str, network: nn.Module, device: torch.device, sample: Pixels) -> Timed | None:
    """The way called ``name`` over ``sample``, as it would be used; None where it cannot be built here. Remembers nothing."""
    plain = TorchForward(network, device, None, "fp32")
    forward = _build(name, network, device, sample, plain, None)
    if forward is None:
        return None
    found, speed = _timed(forward, sample)
    return Timed(speed, agreement(plain(sample)[0], found[0]))


def _build(
    name: str, network: nn.Module, device: torch.device, sample: Pixels, plain: Forward, kept: Path | None
) -> Forward | None:
    """The way called ``name``; None where it cannot be built here."""
    makers: dict[str, Callable[[], Forward]] = {
        "fp32": lambda: plain,
        "bf16": lambda: TorchForward(network, device, torch.bfloat16, "bf16"),
        "openvino": lambda: OpenVinoForward(network, sample, kept, "f32"),
        "openvino bf16": lambda: OpenVinoForward(network, sample, kept, "bf16"),
        "compiled": lambda: TorchForward(_compiled(network), device, None, "compiled"),
    }
    try:
        forward = makers[name]()
        forward(sample[:1])
    except Exception:  # compilers fail in their own ways (no C++ compiler, an unknown layer): fp32 then does it
        return None
    return forward


def _compiled(network: nn.Module) -> nn.Module:
    compiled: nn.Module = torch.compile(network, options={"freezing": True})  # type: ignore[assignment]
    return compiled


def _timed(forward: Forward, sample: Pixels) -> tuple[Outputs, float]:
    """What it finds, and images per second: the best of several times, for the first ones of a process may be far slower."""
    forward(sample[:1])
    taken: list[float] = []
    while not taken or (len(taken) < MOST_REPEATS and sum(taken) < TIMED_S):
        started = time.perf_counter()
        found = forward(sample)
        taken.append(time.perf_counter() - started)
    return found, len(sample) / min(taken)


def agreement(expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """The smallest cosine between rows (N, D) of the two, -1..1."""
    a, b = expected.reshape(len(expected), -1).astype(np.float64), found.reshape(len(found), -1).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / np.maximum(norms, 1e-30)).min())


# -- memory -----------------------------------------------------------------------------------


def _key(network: nn.Module, device: torch.device, sample: Pixels) -> str:
    shapes = [(name, tuple(t.shape)) for name, t in network.state_dict().items()]
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    facts = (shapes, sample.shape[1:], place, torch.get_num_threads(), torch.__version__, candidates(device))
    return hashlib.blake2b(repr(facts).encode(), digest_size=12).hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _remembered(memory: Path) -> dict[str, Choice]:
    try:
        return {k: Choice(**v) for k, v in json.loads(memory.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _remember(memory: Path, key: str, choice: Choice) -> None:
    body = {k: asdict(v) for k, v in {**_remembered(memory), key: choice}.items()}
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        part = memory.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(body, indent=1), encoding="utf-8")
        part.replace(memory)
    except OSError:
        pass  # it is measured again next time
