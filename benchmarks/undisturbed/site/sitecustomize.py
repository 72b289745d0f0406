"""On the path of each run, bare and recorded alike: as the process ends, digests of weights and random states go to a file.

A module is digested as it dies, or at the end if it still lives: a model that is local to `main()` is gone by then. Variants
change torch before the program can see it, as if it came so: loaders with workers, everything under autocast.
"""

import atexit
import gc
import hashlib
import importlib.abc
import json
import os
import sys
import time
from collections import Counter

GIVEN = {}
SEEN = Counter()
ENDED = []


def own_digest(module):
    """A name for the class of a module and what its own parameters and buffers hold; None where it has none."""
    torch = sys.modules["torch"]
    held = [*module._parameters.items(), *module._buffers.items()]
    state = hashlib.blake2b(digest_size=12)
    count = 0
    for name, tensor in held:
        if tensor is None:
            continue
        with torch.no_grad():
            plain = tensor.detach().cpu().contiguous().reshape(-1)
            body = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad}".encode())
        state.update(body)
        count += 1
    return f"{type(module).__name__} {state.hexdigest()}" if count else None


def seen(module):
    """Count one module."""
    try:
        name = own_digest(module)
    except Exception:  # one that is only half made, or holds no real tensors
        return
    if name is not None:
        SEEN[name] += 1


def died(module):
    """What a module's finaliser does."""
    if not ENDED and os.getpid() == GIVEN.get("process"):
        seen(module)


def text_digest(value):
    return hashlib.blake2b(repr(value).encode(), digest_size=12).hexdigest()


def random_states():
    """Digests of the random states of those libraries that the program has."""
    found = {}
    if "random" in sys.modules:
        found["random"] = text_digest(sys.modules["random"].getstate())
    if "numpy.random" in sys.modules:
        kind, keys, *rest = sys.modules["numpy.random"].get_state()
        found["numpy"] = text_digest((kind, keys.tolist(), rest))
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        found["torch"] = text_digest(torch.get_rng_state().numpy().tobytes())
        found["torch seed"] = str(torch.initial_seed())
        found["grad enabled"] = str(torch.is_grad_enabled())
        found["deterministic"] = str(torch.are_deterministic_algorithms_enabled())
        found["threads"] = str(torch.get_num_threads())
        found["default dtype"] = str(torch.get_default_dtype())
    return found


def at_the_end():
    """The last exit handler of all: it was the first to be registered."""
    if os.getpid() != GIVEN.get("process"):
        return
    states = random_states()
    ENDED.append(True)
    if "torch" in sys.modules:
        kind = sys.modules["torch"].nn.Module
        for one in gc.get_objects():
            if issubclass(type(one), kind):
                seen(one)
    with open(GIVEN["out"], "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump({"modules": SEEN, "random": states}, file)


def faster(clock):
    """That clock, going so many times as fast from now on."""
    start, times = clock(), GIVEN["clock"]
    return lambda: start + times * (clock() - start)


def with_torch(torch):
    """Watch modules die; set the variant."""
    torch.nn.Module.__del__ = died
    name, _, value = GIVEN["variant"].partition("=")
    if name == "workers":
        start = torch.utils.data.DataLoader.__init__
        names = start.__code__.co_varnames[: start.__code__.co_argcount]
        defaults = list(start.__defaults__)
        defaults[names.index("num_workers") - (len(names) - len(defaults))] = int(value)
        start.__defaults__ = tuple(defaults)
    elif name == "autocast":
        torch.set_autocast_dtype("cpu", getattr(torch, value))
        torch.set_autocast_cache_enabled(False)  # it is emptied only where a program leaves autocast itself
        torch.set_autocast_enabled("cpu", True)


class After(importlib.abc.MetaPathFinder):
    """Acts once torch has been imported, before anybody else."""

    asking = False

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "torch" or self.asking:
            return None
        self.asking = True
        try:
            spec = next(filter(None, (f.find_spec(fullname, path, target) for f in sys.meta_path if f is not self)), None)
        finally:
            self.asking = False
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            with_torch(module)

        spec.loader.exec_module = exec_module
        return spec


def begin():
    """Take what this process is told; its own children find nothing of it."""
    GIVEN.update(out=os.environ.pop("UNDISTURBED_OUT"), variant=os.environ.pop("UNDISTURBED_VARIANT"), process=os.getpid())
    GIVEN["clock"] = float(os.environ.pop("UNDISTURBED_CLOCK"))
    if GIVEN["clock"] != 1:
        time.time, time.perf_counter = faster(time.time), faster(time.perf_counter)
    if "torch" in sys.modules:  # a fork of a process that has it
        with_torch(sys.modules["torch"])
    else:
        sys.meta_path.insert(0, After())


atexit.register(at_the_end)
if "UNDISTURBED_OUT" in os.environ:
    begin()
