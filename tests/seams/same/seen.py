"""Prints, as JSON, what a program can see of the interpreter that runs it. Run by plain Python and by `valgap run`."""

names_at_start = list(vars())
values_at_start = dict(vars())

import sys

modules_at_start = sorted(sys.modules)

import argparse
import atexit
import gc
import inspect
import json
import linecache
import locale
import os
import pickle
import random
import re
import signal
import threading
import traceback
import typing
import warnings

number: int = 3


class Kept:
    """Defined in __main__."""

    def method(self) -> int:
        return 1


def shown(value):
    """A text that two processes agree on."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def stream(one):
    if one is None:
        return None
    names = ("encoding", "errors", "line_buffering", "write_through", "newlines", "mode", "name", "closed")
    facts = {name: shown(getattr(one, name, None)) for name in names}
    return facts | {"type": shown(type(one)), "isatty": one.isatty(), "fileno": one.fileno(), "vars": sorted(vars(one))}


def warned():
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("by default only shown in __main__", DeprecationWarning, stacklevel=1)
    return [(str(w.message), w.filename, w.lineno) for w in caught]


def usage():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    return parser.format_usage()


def failed(call):
    try:
        call()
    except Exception:
        return traceback.format_exc()


def relative():
    from . import nothing  # noqa: F401


def thread():
    found = []
    one = threading.Thread(target=lambda: found.append((threading.current_thread().name, __name__)))
    one.start()
    one.join()
    return found


def handlers():
    return {str(number): shown(signal.getsignal(number)) for number in sorted(signal.valid_signals())}


def umask():
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


facts = {
    "names": names_at_start,
    "values": {k: shown(v) for k, v in values_at_start.items()},
    "modules": modules_at_start,
    "name": __name__,
    "main": sys.modules["__main__"].__dict__ is globals(),
    "file": globals().get("__file__"),
    "spec": shown(__spec__),
    "loader": [shown(type(__loader__)), getattr(__loader__, "name", None), getattr(__loader__, "path", None)],
    "builtins": [shown(__builtins__), __builtins__ is sys.modules["builtins"]],
    "annotations": shown(__annotations__),
    "hints": shown(typing.get_type_hints(sys.modules["__main__"])),
    "argv": sys.argv,
    "orig_argv": sys.orig_argv,
    "path": sys.path,
    "executable": [sys.executable, sys.prefix, sys.base_prefix, sys._base_executable],
    "flags": shown(sys.flags),
    "xoptions": shown(sys._xoptions),
    "warnoptions": sys.warnoptions,
    "filters": shown(warnings.filters),
    "registry": shown(globals().get("__warningregistry__")),
    "warned": warned(),
    "meta_path": shown(sys.meta_path),
    "path_hooks": shown(sys.path_hooks),
    "hooks": [
        sys.excepthook is sys.__excepthook__,
        sys.unraisablehook is sys.__unraisablehook__,
        sys.displayhook is sys.__displayhook__,
        sys.breakpointhook is sys.__breakpointhook__,
        threading.excepthook is threading.__excepthook__,
        shown(sys.gettrace()),
        shown(sys.getprofile()),
        hasattr(sys, "last_value"),
    ],
    "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), sys.getdlopenflags(), sys.get_int_max_str_digits()],
    "gc": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), gc.get_debug(), shown(gc.callbacks)],
    "streams": {name: stream(getattr(sys, name)) for name in ("stdin", "stdout", "stderr")},
    "same_streams": [getattr(sys, name) is getattr(sys, f"__{name}__") for name in ("stdin", "stdout", "stderr")],
    "stdin": sys.stdin.read() if sys.stdin is not None else None,
    "environment": dict(os.environ),
    "place": [os.getcwd(), umask(), os.getppid() > 0, sys.getfilesystemencoding(), shown(locale.setlocale(locale.LC_ALL))],
    "descriptors": sorted(int(n) for n in os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None,
    "signals": handlers(),
    "blocked": shown(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "threads": [(t.name, t.daemon, type(t).__name__) for t in threading.enumerate()],
    "main_thread": threading.current_thread() is threading.main_thread(),
    "thread": thread(),
    "code": [sys._getframe().f_code.co_filename, sys._getframe().f_code.co_name, sys._getframe().f_code.co_flags],
    "asserts": __debug__,
    "source": [inspect.getsource(Kept), inspect.getfile(Kept), inspect.getsourcefile(thread), shown(inspect.getmodule(thread))],
    "line": linecache.getline(__file__, 3),
    "pickled": type(pickle.loads(pickle.dumps(Kept()))) is Kept,
    "qualified": [Kept.__module__, Kept.__qualname__, shown(Kept.method)],
    "usage": usage(),
    "relative": failed(relative),
    "failed": failed(lambda: {}["missing"]),
    "hash": hash("text") if os.environ.get("PYTHONHASHSEED") else None,
    "random": random.Random(3).random(),
    "import_main": __import__("__main__").__dict__ is globals(),
    "display": shown(sys.ps1) if hasattr(sys, "ps1") else None,
    "exit": [shown(type(exit)), shown(type(quit))],
    "asyncgen": shown(sys.get_asyncgen_hooks()),
    "handlers": atexit._ncallbacks(),
    "frames": [frame.filename for frame in inspect.stack()],
}
print(json.dumps(facts))
