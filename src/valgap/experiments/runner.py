"""Runs arms side by side in processes of their own, within a time limit, and reads what came of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from valgap.experiments.arm import FEATURES, RESULT_FILE, SPEC_FILE, ArmSpec
from valgap.experiments.arm_result import OUT_OF_TIME, ArmResult, failed, read_arm
from valgap.experiments.forks import Fork, WaitingProgram, can_fork, waiting_spec
from valgap.experiments.janitor import FOLDER, GROUP, Janitor
from valgap.experiments.offline import environment
from valgap.experiments.plan import recorded_terminal, recorded_threads
from valgap.experiments.temporary import temporary_folder
from valgap.experiments.terminal import StandardInput
from valgap.types import RunRecord

POLL_S = 0.03
FORK_S = 20.0  # in which a waiting program must have forked
# glibc gives every large tensor back to the kernel and takes it anew: on the reference script that was half of an arm's
# time (37 s against 18 s an epoch on one thread, the same numbers to the last bit). Other systems ignore these.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2 << 30), "MALLOC_TRIM_THRESHOLD_": str(4 << 30)}
GRACE_S = 3.0
MEMORY_POLL_S = 1.0
# An arm that takes this many times what is expected of it hangs.
PATIENCE = 5.0
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Limits:
    """What one arm may take; it is stopped beyond that. None: no limit."""

    seconds: float | None = None
    memory_bytes: int | None = None


class Runner:
    """Starts arms below ``folder``; finished ones stay there and are used again.

    Args:
        folder: where the arms live.
        parallel: how many run at once.
        deadline: ``time.monotonic()`` value after which nothing is started.
        grace: seconds after it in which what runs may still finish; then it is stopped.
        progress: told at the start and after each finished arm (done, of how many, seconds left by estimate).
        planned: how many arms there will be in all, as far as one can tell.
        expected_s: seconds that one is expected to take.
        limits: of each arm.
        gpus: how many there are; each arm sees one of them.
        warm: fork arms from a program that waits at its first loader, where that can be; ``close`` then ends it.
        like: the recorded run. Arms have no more threads than it had (with more, sums are rounded in another way), and a
            terminal of the size of its own.
    """

    def __init__(
        self,
        folder: Path,
        parallel: int,
        deadline: float,
        progress: Callable[[int, int, float], None] | None = None,
        grace: float = 0.0,
        limits: Limits = Limits(),
        gpus: int = 0,
        planned: int = 0,
        expected_s: float = 0.0,
        warm: bool = False,
        like: RunRecord | None = None,
    ) -> None:
        own = max(1, (os.cpu_count() or 1) // max(1, parallel))
        self.threads = min(own, (recorded_threads(like) if like is not None else None) or own)
        self._input = StandardInput(recorded_terminal(like) if like is not None else None)
        self.planned, self.expected_s = planned, expected_s
        self.limits, self.gpus = limits, gpus
        self.folder, self.parallel, self.deadline, self.grace = folder, max(1, parallel), deadline, grace
        self.progress = progress
        self._temporary: dict[Path, Path] = {}
        self._looked = 0.0
        self._done = 0
        self._janitor = Janitor()
        self._warm = warm and not gpus and can_fork()
        self._programs: dict[Path, WaitingProgram] = {}
        self._forked: set[Path] = set()
        self.weight: Callable[[ArmSpec], float] = lambda spec: 1.0  # how long one takes, beside an arm of full length
        self.cold: list[str] = []  # why arms could not be forked
        self.unguarded: list[str] = []  # what the kernel did not keep them from
        self.forks = 0

    def plan(self, arms: int, seconds: float) -> None:
        """Expect so many arms in all, each of so many seconds; one that takes several times as long hangs."""
        self.planned, self.expected_s = arms, seconds
        self.limits = replace(self.limits, seconds=PATIENCE_S + PATIENCE * seconds)

    def place(self, spec: ArmSpec) -> Path:
        """The arm's folder, by its content."""
        text = json.dumps(spec.to_json(), sort_keys=True)
        return self.folder / hashlib.blake2b(text.encode(), digest_size=10).hexdigest()

    def finished(self, spec: ArmSpec) -> ArmResult | None:
        """The result of an equal arm that finished before."""
        folder = self.place(spec)
        if not (folder / "record" / RESULT_FILE).is_file():
            return None
        old = read_arm(spec, folder, reused=True)
        return old if old.error is None else None  # what failed is tried again

    def run(self, specs: Sequence[ArmSpec]) -> list[ArmResult]:
        """The results, in order. Ctrl-C stops the arms that run and is raised again; finished arms stay."""
        results: dict[int, ArmResult] = {}
        for i, spec in enumerate(specs):
            old = self.finished(spec)
            if old is not None:
                results[i] = old
        waiting = [i for i in range(len(specs)) if i not in results]
        running: dict[int, _Running] = {}
        self._tell(len(waiting))
        try:
            self.wait_at_loaders([specs[i] for i in waiting])
            while waiting or running:
                while waiting and len(running) < self.parallel and time.monotonic() < self.deadline:
                    i = waiting.pop(next_arm(specs, waiting, running))
                    slot = next(k for k in range(self.parallel) if all(r.slot != k for r in running.values()))
                    running[i] = _Running(self._start(specs[i], slot), time.monotonic(), slot)
                if time.monotonic() >= self.deadline:
                    for i in waiting:
                        results[i] = failed(specs[i], f"{OUT_OF_TIME} before it began")
                    waiting = []
                if time.monotonic() >= self.deadline + self.grace:
                    for i, one in running.items():
                        _stop(one.process)
                        self._tidy(self.place(specs[i]))
                        results[i] = failed(specs[i], f"{OUT_OF_TIME} while it ran")
                    break
                ended: dict[int, str | None] = {i: None for i, one in running.items() if one.process.poll() is not None}
                ended |= self._beyond_limits({i: one for i, one in running.items() if i not in ended})
                for i, reason in ended.items():
                    one = running.pop(i)
                    process = one.process
                    self._janitor.forgets(GROUP, process.pid)
                    if reason is None:
                        results[i] = self._collect(specs[i], process.poll() or 0)
                        took = (time.monotonic() - one.begun) / self.weight(specs[i])  # of a fork, without what it shares
                        self.expected_s = (self.expected_s + took) / 2 if self.expected_s else took
                    else:
                        _stop(process)
                        self._tidy(self.place(specs[i]))
                        results[i] = failed(specs[i], reason)
                    self._done += 1
                    self._tell(len(waiting) + len(running))
                if not ended:
                    time.sleep(POLL_S)
        except BaseException:
            for i, one in running.items():
                _stop(one.process)
                self._tidy(self.place(specs[i]))
            raise
        return [results[i] for i in range(len(specs))]

    def _tell(self, open_now: int) -> None:
        if self.progress is not None and open_now:
            total = max(self.planned, self._done + open_now)
            left = self.expected_s * -(-(total - self._done) // self.parallel)
            self.progress(self._done, total, min(left, max(0.0, self.deadline - time.monotonic())))

    def _beyond_limits(self, running: dict[int, _Running]) -> dict[int, str | None]:
        """Those that take more time or memory than an arm may, with the reason."""
        now = time.monotonic()
        if now - self._looked < MEMORY_POLL_S:
            return {}
        self._looked = now
        beyond: dict[int, str | None] = {}
        for i, one in running.items():
            if self.limits.seconds is not None and now - one.begun > self.limits.seconds:
                beyond[i] = f"it took more than {self.limits.seconds:.0f} s, several times what the recorded run lets expect"
            elif self.limits.memory_bytes is not None and resident_bytes(one.process.pid) > self.limits.memory_bytes:
                beyond[i] = f"it took more than {self.limits.memory_bytes / 2**30:.1f} GiB of memory"
        return beyond

    def _share(self) -> None:
        """Make the folder of what arms share; it goes with a diagnosis that is killed."""
        (self.folder / FEATURES).mkdir(parents=True, exist_ok=True)
        self._janitor.knows(FOLDER, self.folder / FEATURES)

    def forget_features(self) -> None:
        """Remove what arms shared."""
        shutil.rmtree(self.folder / FEATURES, ignore_errors=True)

    def close(self) -> None:
        """End the programs that wait to be forked; nothing of what arms wrote in their worlds is left."""
        for program in self._programs.values():
            program.close()
        self._programs.clear()
        self._janitor.forgets(FOLDER, self.folder / FEATURES)
        self._janitor.leave()
        self._input.close()

    def wait_at_loaders(self, specs: Sequence[ArmSpec]) -> None:
        """Have a program run up to its first loader for each kind of which more than one arm is to be run, and wait for them."""
        self._begin_waiting(specs)
        self._wait_for(list(self._programs.values()))

    def _begin_waiting(self, specs: Sequence[ArmSpec]) -> None:
        kinds = [self.place(waiting_spec(s)) for s in specs if _forkable(s)] if self._warm else []
        for spec in specs:
            kind = self.place(waiting_spec(spec))
            if (
                kind in kinds
                and max(kinds.count(kind), self.planned) > 1
                and kind not in self._programs
                and time.monotonic() < self.deadline
            ):
                self._share()
                folder, temporary = kind.with_name(f"warm-{kind.name}"), temporary_folder(self._janitor)
                variables = self._variables(folder, temporary, threads=1)
                self._programs[kind] = WaitingProgram(
                    waiting_spec(spec), folder, variables, temporary, self._janitor, self._input.file
                )

    def _wait_for(self, programs: Sequence[WaitingProgram]) -> None:
        begun = time.monotonic()
        for program in programs:
            while not program.ready and not program.gone:
                program.listen()
                late = time.monotonic() >= self.deadline + self.grace
                if late or (self.limits.seconds is not None and time.monotonic() - begun > self.limits.seconds):
                    program.gone = True
                time.sleep(POLL_S / 4)
            if program.gone and program.reason and program.reason not in self.cold:
                self.cold.append(program.reason)

    def warmed_up(self, spec: ArmSpec, others: Sequence[ArmSpec] = ()) -> float | None:
        """Seconds in which a program that arms like this one are forked from reached its first loader; None where none waits.

        Those that ``others`` are forked from begin as well; nobody waits for them yet.
        """
        begun = time.monotonic()
        self._begin_waiting([spec, *others])
        program = self._programs.get(self.place(waiting_spec(spec)))
        if program is None:
            return None
        self._wait_for([program])
        return time.monotonic() - begun if program.ready and not program.gone else None

    def _variables(self, folder: Path, temporary: Path, threads: int) -> dict[str, str]:
        """The environment of an arm that lives in ``folder``."""
        variables = arm_variables(folder, temporary)
        variables.update({"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)})
        return variables

    def _start(self, spec: ArmSpec, slot: int) -> subprocess.Popen[bytes] | Fork:
        folder = self.place(spec)
        shutil.rmtree(folder, ignore_errors=True)  # an arm that was cut off
        program = self._programs.get(self.place(waiting_spec(spec))) if self._warm and _forkable(spec) else None
        if program is not None and program.ready and not program.gone:
            _make(program.place(folder.name), spec)
            temporary = Path(tempfile.mkdtemp(dir=program.temporary))  # its sandbox lets it write to no other folder
            forked = program.fork(folder.name, temporary, self.folder / FEATURES, self.threads, FORK_S)
            if isinstance(forked, Fork):
                self._forked.add(folder)
                self._temporary[folder] = temporary
                self.forks += 1
                return forked
            shutil.rmtree(program.place(folder.name), ignore_errors=True)
            if forked not in self.cold:
                self.cold.append(forked)
        self._temporary[folder] = temporary_folder(self._janitor)
        self._share()
        _make(folder, spec)
        self._janitor.knows(FOLDER, folder / "scratch")
        variables = self._variables(folder, self._temporary[folder], self.threads)
        if self.gpus > 1:
            variables["CUDA_VISIBLE_DEVICES"] = _one_gpu(slot % self.gpus)
        with (folder / "output.txt").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "valgap.experiments.arm", str(folder.resolve())],
                stdin=self._input.file,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )
        self._janitor.knows(GROUP, process.pid)
        return process

    def _collect(self, spec: ArmSpec, status: int) -> ArmResult:
        folder = self.place(spec)
        self._tidy(folder)
        if not (folder / "record" / RESULT_FILE).is_file():
            return failed(spec, f"its process ended with status {status}: {last_line(folder / 'output.txt')}")
        found = read_arm(spec, folder, reused=False)
        self.unguarded = list(dict.fromkeys((*self.unguarded, *found.unguarded)))
        return found

    def _tidy(self, folder: Path) -> None:
        """Remove what an arm wrote in its world; its record stays."""
        if folder in self._forked:
            self._forked.discard(folder)
            for program in self._programs.values():
                if program.place(folder.name).is_dir():
                    program.place(folder.name).rename(folder)
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        self._janitor.forgets(FOLDER, folder / "scratch")
        temporary = self._temporary.pop(folder, None)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
            self._janitor.forgets(FOLDER, temporary)


@dataclass(frozen=True)
class _Running:
    """An arm under way; ``begun`` by ``time.monotonic()``."""

    process: subprocess.Popen[bytes] | Fork
    begun: float
    slot: int


def next_arm(specs: Sequence[ArmSpec], waiting: Sequence[int], running: Collection[int]) -> int:
    """Which of the arms that wait begins, as a place in ``waiting``: the first of a seed that no arm under way has.

    Arms of one seed have batches and features in common; side by side each would compute them for itself. So the last seed of
    all is begun early, while others have arms to run beside it.
    """
    busy = {specs[i].seed for i in running}
    begun = {s.seed for i, s in enumerate(specs) if i not in waiting}
    new = {specs[i].seed for i in waiting} - begun
    wanted = new if busy and len(new) == 1 else {specs[i].seed for i in waiting} - busy
    return next((place for place, i in enumerate(waiting) if specs[i].seed in wanted), 0)


def resident_bytes(pid: int) -> int:
    """Memory of a process and all below it; 0 when it has ended."""
    try:
        whole = psutil.Process(pid)
        return int(sum(_resident(p) for p in (whole, *whole.children(recursive=True))))
    except psutil.Error:
        return 0


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def arm_variables(folder: Path, temporary: Path) -> dict[str, str]:
    """The environment of a program in the sandbox that lives in ``folder``, with its temporary files in another one."""
    variables = {**os.environ, **environment((folder / "scratch").resolve(), temporary)}
    return {**KEEP_MEMORY, **variables, "TORCHDYNAMO_DISABLE": "1"}


def _one_gpu(number: int) -> str:
    """What CUDA_VISIBLE_DEVICES is for the GPU with this number among those that we see ourselves."""
    seen = [g for g in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if g]
    return seen[number] if number < len(seen) else str(number)


def _forkable(spec: ArmSpec) -> bool:
    """Whether arms of this kind may begin warm; an edited program is run once."""
    return not spec.edited and not spec.measured_for


def _make(folder: Path, spec: ArmSpec) -> None:
    """An arm's folder, with nothing in it but what it is."""
    (folder / "scratch").mkdir(parents=True)
    (folder / "record").mkdir()
    (folder / SPEC_FILE).write_text(json.dumps(spec.to_json()))


def last_line(file: Path) -> str:
    """The last line that a program printed into a file."""
    lines = file.read_text(errors="replace").strip().splitlines() if file.is_file() else []
    return lines[-1][:200] if lines else "it printed nothing"


def _stop(process: subprocess.Popen[bytes] | Fork) -> None:
    """End an arm and its workers."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(GRACE_S)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
