"""Libraries that open files in C, C++ or Rust: their functions get paths that lead through the overlay."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from valgap.experiments.databases import redirect_databases
from valgap.experiments.overlay import Overlay

Lead = Callable[[Overlay, Any], Any]


def reading(overlay: Overlay, path: Any) -> Any:
    """Where a file is read."""
    return overlay.found(path)


def writing(overlay: Overlay, path: Any) -> Any:
    """Where a file is made anew."""
    return _or_as_given(overlay, path, keep=False)


def changing(overlay: Overlay, path: Any) -> Any:
    """Where a file is changed; its content is there."""
    return _or_as_given(overlay, path, keep=True)


def _or_as_given(overlay: Overlay, path: Any, keep: bool) -> Any:
    path = overlay.followed(path)
    absolute = overlay.covered(path)
    if absolute is not None and not overlay.visible(os.path.dirname(absolute)):
        return path  # there is no such folder: the library says so in its own words
    return overlay.write(path, keep=keep)


class Function(NamedTuple):
    """A function, or a method of a class, one of whose arguments is a path."""

    name: str  # below its module; Class.method
    place: int  # of the path among the arguments, self included
    lead: Lead
    mode: int = 0  # place of the argument after whose letters (r, w, a, +) the path is led instead; 0: there is none


# By module, after whose import they are replaced. A class whose methods cannot be replaced is called through a function.
FUNCTIONS: Mapping[str, tuple[Function, ...]] = {
    "torch": (
        Function("_C.PyTorchFileWriter.__init__", 1, writing),
        Function("_C.PyTorchFileReader.__init__", 1, reading),
        Function("_C.ScriptModule.save", 1, writing),
        Function("_C.ScriptModule._save_for_mobile", 1, writing),
        Function("_C.ScriptFunction.save", 1, writing),
        Function("_C.import_ir_module", 1, reading),
        Function("_C._autograd._ProfilerResult.save", 1, writing),
        Function("_C._distributed_c10d.FileStore.__init__", 1, changing),
        Function("from_file", 0, changing),
    ),
    "torch.serialization": (Function("save", 1, writing), Function("load", 0, reading)),
    "safetensors": (Function("serialize_file", 1, writing), Function("safe_open", 0, reading)),
    "safetensors.torch": (Function("save_file", 1, writing), Function("load_file", 0, reading)),
    "safetensors.numpy": (Function("save_file", 1, writing), Function("load_file", 0, reading)),
    "torchvision.io.image": (Function("write_file", 0, writing), Function("read_file", 0, reading)),
    "cv2": (
        *(Function(n, 0, reading) for n in ("imread", "imreadmulti", "imreadWithMetadata", "imreadanimation", "imcount")),
        Function("haveImageReader", 0, reading),
        *(Function(n, 0, writing) for n in ("imwrite", "imwritemulti", "imwriteWithMetadata", "imwriteanimation")),
        Function("VideoWriter.__init__", 1, writing),
        Function("VideoWriter.open", 1, writing),
        Function("VideoCapture.__init__", 1, reading),
        Function("VideoCapture.open", 1, reading),
    ),
    "av": (Function("open", 0, reading, mode=1),),
    "pyarrow": (
        Function("memory_map", 0, reading, mode=1),
        Function("create_memory_map", 0, writing),
        Function("OSFile", 0, reading, mode=1),
        Function("input_stream", 0, reading),
        Function("output_stream", 0, writing),
    ),
    "pyarrow.parquet": (
        Function("ParquetWriter.__init__", 1, writing),
        Function("ParquetFile.__init__", 1, reading),
        Function("read_table", 0, reading),
    ),
    "pyarrow.feather": (
        Function("write_feather", 1, writing),
        Function("read_feather", 0, reading),
        Function("read_table", 0, reading),
    ),
    "pyarrow.csv": (Function("write_csv", 1, writing), Function("read_csv", 0, reading)),
    "pyarrow.ipc": (
        Function("new_file", 0, writing),
        Function("new_stream", 0, writing),
        Function("open_file", 0, reading),
        Function("open_stream", 0, reading),
    ),
    "onnxruntime": (Function("InferenceSession.__init__", 1, reading),),
}
# By which a path may be given.
KEYWORDS = (
    "f",
    "filename",
    "path",
    "file",
    "where",
    "source",
    "dest",
    "sink",
    "output_file",
    "input_file",
    "path_or_bytes",
    "name",
)


def redirect_libraries(overlay: Overlay) -> None:
    """Replace these functions, now or as soon as their module is there."""
    _redirect_raw_files(overlay)
    redirect_databases(overlay, after_import)
    for module, functions in FUNCTIONS.items():
        after_import(module, functools.partial(_replace, overlay, functions))


def after_import(name: str, call: Callable[[Any], None]) -> None:
    """Call with the module now, or once it has been imported."""
    if name in sys.modules:
        call(sys.modules[name])
        return
    from valgap.seams.hosting.after_import import AfterImport

    sys.meta_path.insert(0, AfterImport({name: lambda: call(sys.modules[name])}))


def _replace(overlay: Overlay, functions: tuple[Function, ...], module: Any) -> None:
    for one in functions:
        *way, name = one.name.split(".")
        owner = module
        for step in way:
            owner = getattr(owner, step, None)
        original = getattr(owner, name, None)
        if owner is None or original is None:
            continue  # of another version
        wrapped = _led(overlay, one, original)
        setattr(owner, name, wrapped)
        parent = sys.modules.get(module.__name__.rpartition(".")[0])
        if owner is module and parent is not None and getattr(parent, name, None) is original:
            setattr(parent, name, wrapped)


def _led(overlay: Overlay, one: Function, original: Any) -> Any:
    @functools.wraps(original, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        lead = one.lead
        if one.mode:
            mode = args[one.mode] if len(args) > one.mode else kwargs.get("mode", "r")
            if isinstance(mode, str) and set(mode) & set("wax+"):
                lead = writing if "w" in mode and "+" not in mode else changing
        given = list(args)
        if len(given) > one.place:
            given[one.place] = _path(overlay, lead, given[one.place])
        else:
            kwargs = {k: _path(overlay, lead, v) if k in KEYWORDS else v for k, v in kwargs.items()}
        return original(*given, **kwargs)

    return wrapped


def _path(overlay: Overlay, lead: Lead, given: Any) -> Any:
    return lead(overlay, given) if isinstance(given, (str, os.PathLike)) else given


def _redirect_raw_files(overlay: Overlay) -> None:
    """``io.FileIO`` opens by itself; what open returns has it inside, and is still one of its kind."""
    original = io.FileIO

    class Kind(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, original)

    class FileIO(original, metaclass=Kind):  # type: ignore[misc,valid-type]
        def __init__(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> None:
            if not isinstance(file, int):
                lead = reading if not set(mode) & set("wax+") else writing if "w" in mode else changing
                if "x" in mode and overlay.exists(file):
                    raise FileExistsError(17, os.strerror(17), os.fsdecode(file))
                file = lead(overlay, file)
            super().__init__(file, mode, *args, **kwargs)

    io.FileIO = FileIO  # type: ignore[misc]
