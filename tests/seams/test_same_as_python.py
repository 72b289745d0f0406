"""`valgap run` differs from `python` in nothing that a script can see but what docs/same_as_python.md lists."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.takes(25), pytest.mark.skipif(os.name == "nt", reason="written with a shell's words")]
SEEN = Path(__file__).parent / "same" / "seen.py"
# What a shell does with the command, and what is compared: exit status, standard output, standard error.
Ended = tuple[int, str, str]


def both(
    folder: Path, arguments: Sequence[str], options: Sequence[str] = (), shell: str = "", valgap: Sequence[str] = ("-m", "valgap")
) -> tuple[Ended, Ended]:
    """How ``python ARGUMENTS...`` ends, and how ``valgap run ARGUMENTS...`` does, started at the same time."""
    record = folder.parent / f"record of {folder.name}"
    commands = (
        [sys.executable, *options, *arguments],
        [sys.executable, *options, *valgap, "run", "--out", str(record), *arguments],
    )
    # PIPESTATUS: the program's status, not that of what reads its output.
    lines = [
        f"{shlex.join(command)} {shell}; exit ${{PIPESTATUS[0]}}" if shell else f"exec {shlex.join(command)}"
        for command in commands
    ]
    running = [
        subprocess.Popen(
            ["bash", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
        )
        for line in lines
    ]
    plain, ours = [(p.communicate("first line\nsecond line", 60), p.returncode) for p in running]
    return _compared(*plain, ()), _compared(*ours, ("valgap: ",))


def _compared(output: tuple[str, str], status: int, left_out: tuple[str, ...]) -> Ended:
    lines = [line for line in output[1].splitlines() if not line.startswith(left_out)] if left_out else output[1].splitlines()
    if left_out and status == 2 and any("never imported torch" in line for line in output[1].splitlines()):
        status = 0  # nothing recorded, the one status that is ours
    return status, re.sub(r" at 0x[0-9a-f]+", "", output[0]), re.sub(r" at 0x[0-9a-f]+", "", "\n".join(lines))


def as_script(folder: Path) -> list[str]:
    return ["seen.py", "--a b", "ü"]


def elsewhere(folder: Path) -> list[str]:
    (folder / "a ü").mkdir()
    shutil.move(folder / "seen.py", folder / "a ü" / "seen it.py")
    (folder / "link.py").symlink_to("a ü/seen it.py")
    return ["./a ü/../link.py", "-m", "x"]


def as_module(folder: Path) -> list[str]:
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("import sys\nargv = list(sys.argv)\n")
    shutil.move(folder / "seen.py", folder / "package" / "seen.py")
    return ["-m", "package.seen", "--out", "mine", "--help"]


def as_folder(folder: Path) -> list[str]:
    (folder / "program").mkdir()
    shutil.move(folder / "seen.py", folder / "program" / "__main__.py")
    return ["./program/", "run"]


@pytest.mark.parametrize(
    ("start", "options", "command"),
    [
        (as_script, [], "module"),
        (elsewhere, ["-O", "-B", "-W", "ignore::ResourceWarning", "-X", "dev"], "console"),
        (as_module, [], "module"),
        (as_folder, ["-u", "-s", "-P"], "module"),
    ],
)
def test_a_script_sees_what_it_sees_under_python(
    start: Callable[[Path], list[str]], options: list[str], command: str, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(SEEN, folder)
    console = tmp_path / "bin" / "valgap"
    console.parent.mkdir()
    console.write_text("import sys\nfrom valgap.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    options = [option for option in options if option != "-P" or sys.version_info >= (3, 11)]
    plain, ours = both(folder, start(folder), options, valgap=("-m", "valgap") if command == "module" else (str(console),))
    assert plain[0] == ours[0] == 0, plain[2] + ours[2]
    bare, seen = json.loads(plain[1]), json.loads(ours[1])
    # What docs/same_as_python.md lists, and no more of it than it says.
    more = {name.partition(".")[0] for name in set(seen.pop("modules")) - set(bare.pop("modules"))}
    assert more <= sys.stdlib_module_names | {"valgap"}
    assert not more & {"logging", "multiprocessing", "concurrent", "random", "subprocess", "inspect", "argparse"}
    assert seen["meta_path"].startswith("[<valgap.seams.hosting.after_import.AfterImport object>, ")
    seen["meta_path"] = seen["meta_path"].replace("<valgap.seams.hosting.after_import.AfterImport object>, ", "")
    for name in ("stdout", "stderr"):
        seen["streams"][name]["vars"] = [key for key in seen["streams"][name]["vars"] if key != "write"]
    assert len(seen.pop("descriptors")) - len(bare.pop("descriptors")) == 1
    assert seen.pop("handlers") - bare.pop("handlers") == 1
    frames = bare.pop("frames")
    assert seen.pop("frames")[: len(frames)] == frames
    assert {key: value for key, value in seen.items() if value != bare[key]} == {}
    assert seen.keys() == bare.keys()


# Each program is run under both; what it is about stands in its name.
ENDINGS = {
    "status 3": "import sys; print('out'); sys.exit(3)",
    "status -1": "raise SystemExit(-1)",
    "status 256": "import sys; sys.exit(256)",
    "status of a text": "import sys; print('out'); sys.exit('words')",
    "os._exit": "import os; print('lost'); os._exit(7)",
    "SIGTERM": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "Ctrl-C": """
import atexit, os, signal, time
class Kept:
    def __del__(self): print('finalised')
kept = Kept()
atexit.register(print, 'exit handler')
def train():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
train()
""",
    "chained errors": """
def f():
    try: {}['a']
    except KeyError as error: raise ValueError('mine') from error
try: f()
except ValueError as error: raise ExceptionGroup('several', [error, OSError(2)]) from None
""",
    "a hint": "printt(1)",
    "error in an import": "import broken",
    "syntax": "x = 1\nprint('a'\ny = (2\n",
    "null byte": "x = 1\0\n",
    "not UTF-8": b"x = '\xe9'\n",
    "cookie, BOM and CRLF": b"\xef\xbb\xbf# -*- coding: utf-8 -*-\r\nprint('''a\r\nb'''.encode(), '\xc3\xa9')\r\n",
    "syntax warning": "x = 'a\\d'\nprint(x is 'b')\n",
    "excepthook": """
import sys
def hook(kind, error, trace):
    print(kind, error, trace.tb_lineno, trace.tb_frame.f_code.co_name, sys.exc_info(), sys.last_value is error)
    raise KeyError('in the hook')
sys.excepthook = hook
1 / 0
""",
    "threads": """
import atexit, threading, time
atexit.register(print, 'exit handler')
def late():
    time.sleep(0.2)
    print('late', '__file__' in globals())
    1 / 0
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
threading.Thread(target=late).start()
print('end')
""",
    "exit handlers": """
import atexit, sys, weakref
class Kept:
    def __del__(self): print('finalised', __name__)
kept = Kept()
weakref.finalize(kept, print, 'finalize')
atexit.register(lambda: print(sys.modules['__main__'].__dict__ is globals(), '__file__' in globals()))
atexit.register(lambda: sys.exit(4))
print('end')
""",
    "exec": "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'raise SystemExit(6)'])",
    "fork": """
import atexit, os
atexit.register(print, 'exit handler', flush=True)
child = os.fork()
if child: print(os.waitpid(child, 0)[1], flush=True)
print('end', bool(child), flush=True)
""",
    "start methods": """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
def work(how):
    print(__name__, __file__, how, multiprocessing.process.current_process().name, flush=True)
    if how == 'fork': raise SystemExit(3)
class Of:
    pass
if __name__ == '__main__':
    for how in ('spawn', 'fork', 'forkserver'):
        child = multiprocessing.get_context(how).Process(target=work, args=(how,))
        child.start(); child.join(); print(child.exitcode, flush=True)
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool: print(type(pool.submit(Of).result()) is Of)
""",
    "relaunch": """
import subprocess, sys
print(sys.argv)
if len(sys.argv) == 1: print(subprocess.run([*sys.orig_argv, 'again'], capture_output=True, text=True).stdout)
""",
    "words on standard input": "print(input('? '), input())\ntry: input()\nexcept EOFError as error: print(error)",
    "names of ours": """
import calendar, click, rich, types, typing, valgap
from valgap import record
print(calendar.x, click.x, rich.x, types.x, typing.x, valgap.x, record.y)
""",
}  # fmt: skip
SHELL = {
    "| head -1": "for i in range(100000): print(i)",
    "| true": "import sys, time; time.sleep(0.2); print('x' * 100000); sys.stdout.flush()",
    ">&-": "import sys; print(sys.stdout, file=sys.stderr)",
    "<&-": "import sys; print(sys.stdin)",
    "2>&-": "import sys; print(sys.stderr); 1 / 0",
}


def program(folder: Path, text: str | bytes) -> list[str]:
    folder.mkdir()
    (folder / "program.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "broken.py").write_text("def f():\n    1 / 0\nf()\n")
    return ["program.py"]


@pytest.mark.parametrize("name", ENDINGS)
def test_it_ends_as_under_python(name: str, tmp_path: Path) -> None:
    arguments = program(tmp_path / "work", ENDINGS[name])
    console = tmp_path / "valgap"
    console.write_text("from valgap.cli import main\nmain()\n")
    if name == "names of ours":  # by the console script: `python -m valgap` itself would import those
        for own in ("calendar", "click", "rich", "types", "typing"):
            (tmp_path / "work" / f"{own}.py").write_text("x = 1\n")
        (tmp_path / "work" / "valgap").mkdir()
        (tmp_path / "work" / "valgap" / "__init__.py").write_text("x = 1\n")
        (tmp_path / "work" / "valgap" / "record.py").write_text("y = 2\n")
    plain, ours = both(tmp_path / "work", arguments, valgap=(str(console),))
    assert ours == plain


@pytest.mark.parametrize("shell", SHELL)
def test_with_pipes_and_closed_streams(shell: str, tmp_path: Path) -> None:
    plain, ours = both(tmp_path / "work", program(tmp_path / "work", SHELL[shell]), shell=shell)
    assert ours == plain


def test_a_module_that_fails_shows_the_frames_of_python(tmp_path: Path) -> None:
    program(tmp_path / "work", "")
    plain, ours = both(tmp_path / "work", ["-m", "broken"])
    assert plain[0] == 1 and "<frozen runpy>" in plain[2]
    assert ours == plain


WITH_TORCH = """
import atexit, io, random, sys, warnings
print('torch' in sys.modules, 'numpy' in sys.modules)
warnings.filters_before = list(warnings.filters)
random.seed(1)
import numpy, torch
print([type(finder).__name__ for finder in sys.meta_path], type(torch.__spec__).__name__, type(torch.__loader__).__name__)
print(warnings.filters == warnings.filters_before, torch.get_num_threads(), random.random())
torch.manual_seed(0)
print(torch.rand(1).item(), torch.get_default_dtype(), torch.is_grad_enabled())
class Net(torch.nn.Linear):
    pass
whole = io.BytesIO()
torch.save(Net(2, 2), whole)
whole.seek(0)
print(type(torch.load(whole, weights_only=False)) is Net)
atexit.register(print, 'exit handler')
torch.ones(1, 3) @ torch.ones(2, 2)
"""


def test_with_torch(tmp_path: Path) -> None:
    plain, ours = both(tmp_path / "work", program(tmp_path / "work", WITH_TORCH))
    assert plain[0] == 1 and "shapes cannot be multiplied" in plain[2]
    assert ours == plain


LATER = """
import sys, traceback
import valgap.seams.hosting.after_import as after_import
def failed():
    try: import waited.fails
    except ZeroDivisionError: print([frame.name for frame in traceback.extract_tb(sys.exc_info()[2])])
def told(name): print('told', name, sys.modules[name].x, type(sys.modules[name].__spec__).__name__)
failed()
before = list(sys.meta_path)
sys.meta_path.insert(0, after_import.AfterImport({'waited.first': lambda: told('waited.first')}))
import importlib.util
importlib.util.find_spec('waited.first')
import waited.first
print(sys.meta_path == before)
import waited
after_import.when_imported(waited, 'deep.second', lambda: told('waited.deep.second'))
after_import.when_imported(waited, 'fails', lambda: told('waited.fails'))
print(sys.meta_path == before)
import waited.deep, waited.third
failed()
import waited.deep.second
"""


def test_the_moment_after_an_import_is_caught_without_a_frame_of_ours(tmp_path: Path) -> None:
    files = {"first": "x = 1", "third": "x = 3", "fails": "1 / 0", "deep/second": "x = 2", "deep/__init__": "", "__init__": ""}
    for name, text in files.items():
        (tmp_path / "waited" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "waited" / f"{name}.py").write_text(text)
    (tmp_path / "program.py").write_text(LATER)
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    frames = done.stdout.splitlines()[0]
    assert frames == "['failed', '<module>']" or "exec_module" in frames
    assert done.stdout.splitlines()[1:] == [
        "told waited.first 1 ModuleSpec",
        "True",
        "True",
        frames,
        "told waited.deep.second 2 ModuleSpec",
    ], done.stdout + done.stderr


def test_valgap_finds_its_libraries_past_the_scripts_own(tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("x = 1")
    (tmp_path / "yaml.py").write_text("x = 2")
    (tmp_path / "mine.py").write_text("x = 3")
    (tmp_path / "program.py").write_text(
        "import sys\nfrom valgap.seams.hosting.backstage import Backstage\nimport rich, yaml, mine\n"
        "with Backstage(sys.path[0]).alone():\n"
        "    from rich.console import Console\n    import yaml as installed\n"
        "    print(hasattr(installed, 'safe_load'), 'mine' in sys.modules)\n"
        "print(sys.modules['rich'] is rich, sys.modules['yaml'] is yaml, rich.x, yaml.x)\n"
    )
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.splitlines() == ["True True", "True True 1 2"], done.stderr


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_valgaps_own_words_come_last(tmp_path: Path) -> None:
    """After the script's exit handlers, and with the status that Ctrl-C has in a shell."""
    program(
        tmp_path / "work", "import atexit, sys\natexit.register(print, 'handler', file=sys.stderr)\nraise KeyboardInterrupt\n"
    )
    command = [sys.executable, "-m", "valgap", "run", "--out", "../record", "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "work", check=False)
    assert done.returncode == -2
    words = done.stderr.splitlines()
    assert words.index("handler") < words.index(
        "valgap: the script never imported torch: valgap records PyTorch training scripts"
    )
    assert events(tmp_path / "record")[-1]["exit_status"] == 130


def test_what_cannot_be_run_is_said_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, words in ((["-"], "standard input"), (["empty"], "__main__"), (["nothing.py"], "no file")):
        command = [sys.executable, "-m", "valgap", "run", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
