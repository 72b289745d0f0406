"""Put on the path of every run of the shelf, bare and recorded alike: seeds, and no digests of downloads that are not made.

Scripts without a seed option are seeded when numpy and torch are imported. The small stand-ins of CIFAR and MNIST lie where
torchvision and Keras look, but cannot have the digests of the real files: these are not compared.
"""

import importlib.abc
import os
import random
import sys
import time

SEED = int(os.environ.get("SHELF_SEED", "0"))


def _numpy(module):
    module.random.seed(SEED)


def _torch(module):
    module.manual_seed(SEED)


def _torchvision(module):
    from pathlib import Path

    module.check_integrity = lambda fpath, md5=None: Path(fpath).is_file()


SPENT = [0.0]  # processor seconds inside the recorder


def _hooks(module):
    """The time of every call of valgap's listener, by the clock of its thread."""
    tell = module.Seams.tell

    def timed(self, *args):
        begun = time.thread_time()
        try:
            return tell(self, *args)
        finally:
            SPENT[0] += time.thread_time() - begun

    module.Seams.tell = timed


def _launch(module):
    """Processor seconds at the program's end, before any closing measurement, and those inside the recorder."""
    if "SHELF_CPU" not in os.environ or not hasattr(module, "_close"):
        return
    close = module._close

    def _close(*args):
        from pathlib import Path

        Path(os.environ["SHELF_CPU"]).write_text(f"{sum(os.times()[:4])} {SPENT[0]}", encoding="utf-8")
        return close(*args)

    module._close = _close


def _keras(module):
    module.validate_file = lambda *args, **kwargs: True


class _After(importlib.abc.MetaPathFinder):
    def __init__(self, actions):
        self.actions, self.asking = actions, set()

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in self.actions or fullname in self.asking:
            return None
        self.asking.add(fullname)
        try:
            spec = next(filter(None, (f.find_spec(fullname, path, target) for f in sys.meta_path if f is not self)), None)
        finally:
            self.asking.discard(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute, action = spec.loader.exec_module, self.actions[fullname]

        def exec_module(module):
            execute(module)
            action(module)

        spec.loader.exec_module = exec_module
        return spec


random.seed(SEED)
ACTIONS = {
    "numpy": _numpy,
    "torch": _torch,
    "torchvision.datasets.utils": _torchvision,
    "keras.src.utils.file_utils": _keras,
    "valgap.cli.launch": _launch,
    "valgap.seams.attaching.hooks": _hooks,
}
sys.meta_path.insert(0, _After(ACTIONS))
