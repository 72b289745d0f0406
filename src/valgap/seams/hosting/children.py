"""The processes that a recorded program starts: each that calls a model records a part of its own.

- A fork has our hooks already. It gets a recorder of its own at the first thing it does with torch.
- A spawned process, or one out of multiprocessing's fork server, is a fresh interpreter. What it is given to prepare
  itself holds one entry more, which begins the recording when it is unpickled.
- A command that runs a Python script of the user's, or a launcher of such scripts, with this interpreter is run by
  ``follow.py``. ``Popen.args`` and the child's own ``sys.argv`` are as the program wrote them.

Workers of a DataLoader stay what they are. A process in which no model is called leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from valgap.seams.hosting.session import Session

PACKAGE_HOME = str(Path(__file__).parents[3])
FOLLOW = str(Path(__file__).with_name("follow.py"))
WORKERS = "torch.utils.data._utils.worker"
# Programs that start training scripts with the interpreter that they run in.
LAUNCHER_COMMANDS = ("torchrun", "accelerate", "accelerate-launch", "lightning", "fabric")
LAUNCHER_MODULES = ("torch.distributed.run", "torch.distributed.launch", "accelerate.commands", "lightning.fabric.cli")
VALUED_OPTIONS = ("-W", "-X", "--check-hash-based-pycs")
ARRIVE = """
try:
    import sys
    sys.path.append({home!r})
    try:
        from valgap.seams.hosting.children import arrive
    finally:
        sys.path.remove({home!r})
    arrive({origin!r})
except Exception:
    pass
"""


class Origin(NamedTuple):
    """Where a process comes from: what it must know to record its part."""

    out: str  # the run directory, absolute
    root: int  # the process that was recorded first
    parent: int
    how: str  # "fork", "spawn" or "command"
    closing: float  # share of its time that closing measurements may take

    @property
    def text(self) -> str:
        """As one argument of a command."""
        import json

        return json.dumps(self._asdict())

    @classmethod
    def read(cls, text: str) -> Origin:
        """The inverse of ``text``."""
        import json

        return cls(**json.loads(text))

    @classmethod
    def of(cls, session: Session, how: str) -> Origin:
        """For a process that the one recorded by ``session`` starts."""
        parent = os.getppid() if how == "fork" else os.getpid()
        return cls(str(session.writer.path.absolute()), session.root, parent, how, session.closing)


class _Arrival:
    """Unpickled in another process, it begins the recording there."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (ARRIVE.format(home=PACKAGE_HOME, origin=self.origin.text), {})


_own_program: list[str] = []  # script or -m module with its arguments, where this process runs it for a recorded one


class Children:
    """Follows the processes that the program of one session starts."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.started = 0
        self.unseen = ""  # the last Python command that was not followed
        self._undo: list[Callable[[], None]] = []
        self._followed_modules: set[str] = set()

    def attach(self) -> None:
        """Prepare what starts processes, as far as it is imported."""
        for name, follow in self._starters().items():
            if name in sys.modules:
                follow()

    def after_imports(self) -> dict[str, Callable[[], None]]:
        """What is to be prepared once it has been imported."""
        return {name: follow for name, follow in self._starters().items() if name not in sys.modules}

    def _starters(self) -> dict[str, Callable[[], None]]:
        return {"subprocess": self._follow_commands, "multiprocessing.spawn": self._follow_spawned}

    def detach(self) -> None:
        """Start processes as ever."""
        while self._undo:
            self._undo.pop()()

    def facts(self) -> dict[str, Any]:
        """What the record says of the processes that were started."""
        return {"started": self.started, "unseen": self.unseen}

    def _follow_spawned(self) -> None:
        if "spawn" in self._followed_modules:
            return
        self._followed_modules.add("spawn")
        spawn: Any = sys.modules["multiprocessing.spawn"]
        original = spawn.get_preparation_data

        def get_preparation_data(name: str) -> dict[str, Any]:
            data: dict[str, Any] = original(name)
            process = sys._getframe(1).f_locals.get("process_obj")
            target = getattr(process, "_target", None)
            if process is not None and getattr(target, "__module__", "") != WORKERS:
                self.started += 1
                data = {"valgap": _Arrival(Origin.of(self.session, "spawn")), **data}
            return data

        spawn.get_preparation_data = get_preparation_data

        def undo() -> None:
            if spawn.get_preparation_data is get_preparation_data:
                spawn.get_preparation_data = original

        self._undo.append(undo)

    def _follow_commands(self) -> None:
        if "subprocess" in self._followed_modules:
            return
        self._followed_modules.add("subprocess")
        subprocess: Any = sys.modules["subprocess"]
        original = subprocess.Popen._execute_child

        def _execute_child(process: Any, args: Any, executable: Any, *rest: Any, **named: Any) -> Any:
            followed = None
            with contextlib.suppress(Exception):  # the command then runs as it is
                # preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell
                followed = self._followed(process.args, executable, rest[3], rest[7])
            if followed is not None:
                args, executable = followed, followed[0]
            return original(process, args, executable, *rest, **named)

        subprocess.Popen._execute_child = _execute_child

        def undo() -> None:
            if subprocess.Popen.__dict__.get("_execute_child") is _execute_child:
                subprocess.Popen._execute_child = original

        self._undo.append(undo)

    def _followed(self, given: Any, executable: Any, cwd: Any, shell: bool) -> list[str] | None:
        """The command that also records; None for one that is left as it is."""
        if shell or not isinstance(given, (list, tuple)):
            text = given if isinstance(given, str) else str(given)
            self._not_followed(text if any(w in text for w in ("python", *LAUNCHER_COMMANDS)) else "")
            return None
        words = [os.fsdecode(w) for w in given]
        if executable is not None and os.fsdecode(executable) != words[0]:
            return None  # its name is not the program's
        split = split_command(words)
        if split is None:
            return None
        options, program = split
        if not program or not is_training(program, Path(os.fsdecode(cwd)) if cwd is not None else Path()):
            self._not_followed(" ".join(words) if program and program[0] != "-m" else "")
            return None
        if list(program) == _own_program:
            return None  # a program that starts itself would go on doing so
        self.started += 1
        return [sys.executable, *options, FOLLOW, Origin.of(self.session, "command").text, *program]

    def _not_followed(self, text: str) -> None:
        self.unseen = text[:200] or self.unseen

    def end_with_process(self, session: Session) -> None:
        """The part ends when its process does: before multiprocessing ends a child, or at exit."""
        import atexit

        util: Any = sys.modules.get("multiprocessing.util")
        if util is not None:
            original = util._exit_function

            def _exit_function(*args: Any, **kwargs: Any) -> None:
                util._exit_function = original
                end(session, sys.exc_info()[1])
                original(*args, **kwargs)

            util._exit_function = _exit_function
        atexit.register(end, session, None)


def end(session: Session, error: BaseException | None) -> None:
    """Write the end of a part, once, and make the closing measurements where this process makes them."""
    if session.ended or session.writer.waiting:
        return
    status, text = 0, None
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        cause = error.__context__
        text = f"{type(cause).__name__}: {cause}" if status and cause is not None else None
    elif error is not None:
        status, text = 1, f"{type(error).__name__}: {error}"
    seconds = session.finish(status, text)
    session.close(seconds, session.closing if status == 0 else 0.0)


def arrive(origin: str) -> None:
    """In a spawned process, before it imports the program: record its part."""
    from valgap.seams.hosting.after_import import AfterImport
    from valgap.seams.hosting.session import Session

    came = Origin.read(origin)
    session = Session(Path(came.out), list(sys.argv), "", origin=came)
    sys.meta_path.insert(0, AfterImport(session.after_imports()))
    session.start()
    assert session.children is not None
    session.children.end_with_process(session)


def run_command(origin: str, words: Sequence[str]) -> NoReturn:
    """Run a script, or ``-m MODULE``, that a recorded program has started, and end as it ended."""
    from valgap.record.place import place_of
    from valgap.seams.hosting import host
    from valgap.seams.hosting.session import Session

    _own_program.extend(words)
    came = Origin.read(origin)
    module = words[1] if words[0] == "-m" else None
    target = host.module_target(module, words[2:]) if module is not None else host.script_target(words[0], words[1:])
    session = Session(Path(came.out), target.argv, module or words[0], module, place=place_of(), origin=came)
    ending = host.execute(target, session)
    if not ending.elsewhere:
        with ending.once_more():
            seconds = session.finish(ending.status, ending.error)
            session.close(seconds, session.closing if ending.status == 0 else 0.0)
    ending.leave()


def split_command(words: Sequence[str]) -> tuple[list[str], list[str]] | None:
    """(the interpreter's options, script or -m module with its arguments) of a command of this interpreter; None for others.

    The second list is empty for code given otherwise, such as with ``-c``.
    """
    import shutil

    found = shutil.which(words[0]) or words[0]
    if not _is_this_python(found):
        return ([], [found, *words[1:]]) if _is_launcher(found) else None
    place = 1
    while place < len(words):
        word = words[place]
        if word == "-m":
            return list(words[1:place]), list(words[place:])
        if not word.startswith("-"):
            return list(words[1:place]), list(words[place:])
        if word in ("-c", "-", "-i", "-h", "-V", "-I", "-S") or word.startswith(("-c", "--")):
            return list(words[1:place]), []
        place += 2 if word in VALUED_OPTIONS else 1
    return list(words[1:]), []


def _is_this_python(path: str) -> bool:
    return path == sys.executable or (os.path.basename(path).startswith("python") and _same(path, sys.executable))  # noqa: PTH119


def _same(one: str, other: str) -> bool:
    """Whether both are one program of one environment: a virtual environment's link is another than what it points at."""
    return os.path.realpath(one) == os.path.realpath(other) and Path(one).parent.resolve() == Path(other).parent.resolve()


def _is_launcher(path: str) -> bool:
    if Path(path).name not in LAUNCHER_COMMANDS or not Path(path).is_file():
        return False
    with Path(path).open("rb") as stream:
        first = stream.readline(4096)
    return first.startswith(b"#!") and _is_this_python(os.fsdecode(first[2:].strip()).split(" ")[0])


def is_training(program: Sequence[str], cwd: Path) -> bool:
    """Whether a script or module may train: it is the user's own, or a launcher."""
    if program[0] != "-m":
        script = cwd / program[0]
        return _is_launcher(str(script)) or (script.is_file() and not _belongs_to_library(script))
    name = program[1] if len(program) > 1 else ""
    if not name or name.split(".")[0] == "valgap":
        return False  # that one records itself
    if any(name == m or name.startswith(f"{m}.") for m in LAUNCHER_MODULES):
        return True
    below = cwd / Path(*name.split("."))
    return below.with_suffix(".py").is_file() or below.is_dir()


def _belongs_to_library(script: Path) -> bool:
    import site
    import sysconfig

    whole = str(script.resolve())
    homes = {sysconfig.get_path(n) for n in ("stdlib", "platstdlib", "purelib", "platlib")} | set(site.getsitepackages())
    return any(whole.startswith(str(Path(h).resolve()) + os.sep) for h in homes if h)
