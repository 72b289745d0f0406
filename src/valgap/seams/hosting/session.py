"""One recording: the run directory, the seams and the printed lines, from first to last."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valgap.record.location import has_parts
from valgap.record.place import Place
from valgap.record.writer import RecordWriter
from valgap.seams.hosting import environment
from valgap.seams.hosting.between_lines import between_lines, write_between
from valgap.seams.hosting.children import Children, Origin
from valgap.seams.hosting.images_opened import ImagesOpened
from valgap.seams.hosting.live import Live, words_of
from valgap.seams.hosting.prints import Moment, PrintTap
from valgap.seams.hosting.program_text import ProgramText

if TYPE_CHECKING:
    from valgap.seams.acting.acting import Acting
    from valgap.seams.acting.shortening import Shortening
    from valgap.seams.attaching.hooks import Seams
    from valgap.seams.recording.recorder import Recorder

# The closing measurements take at most this share of the script's own time.
CLOSING_SHARE = 0.2
# Nor, unless more was asked for, longer than this: after ten hours of training nobody waits two more.
MOST_CLOSING_S = 300.0
# So many batches of the first training pass are written at once where a run is judged while it goes on.
FIRST_BATCHES = 8
# What a forked process has of its parent's: it must neither use nor free it.
_inherited: list[Any] = []


class Session:
    """Records from ``start`` to ``finish``. torch is hooked when it is there, or as soon as it is imported.

    Args:
        out: the run directory.
        argv: the program's arguments, its name first.
        script: what was run, by name.
        module: the module that was run, with ``-m``.
        make_acting: for arms: what is done to the program. Processes that an arm starts are not followed.
        make_shortening: for a program that is cut short, likewise.
        place: of this process in its job, where it is one of several.
        origin: for a process that a recorded one has started.
        live: told of warnings while the program runs; of several processes only the first one's is used.
    """

    def __init__(
        self,
        out: Path,
        argv: list[str],
        script: str,
        module: str | None = None,
        make_acting: Callable[[], Acting] | None = None,
        place: Place | None = None,
        origin: Origin | None = None,
        make_shortening: Callable[[], Shortening] | None = None,
        live: Live | None = None,
    ) -> None:
        self.place = place
        self.root = origin.root if origin is not None else os.getpid()
        self.closing = origin.closing if origin is not None else CLOSING_SHARE  # of processes that it starts
        self.writer = _writer(out, place, origin)
        self.recorder: Recorder | None = None
        self.acting: Acting | None = None
        self.shortening: Shortening | None = None
        self.live = live
        self._make_acting, self._make_shortening = make_acting, make_shortening
        self._seams: Seams | None = None
        self._prints = PrintTap(self._printed, self._moment)
        self._images_opened = ImagesOpened()
        self.children = Children(self) if make_acting is None and make_shortening is None else None
        self._started = time.perf_counter()
        self._pid = os.getpid()
        self.process = self._pid  # whose end is the program's
        self.ended = False
        self._first = origin is None and (place is None or place.rank == 0)
        self.writer.write("environment", {**environment.describe(argv, script), "module": module})
        self._text = ProgramText(script, module) if self._first and make_acting is None else None
        for line in self._text.first() if self._text is not None else ():
            self.writer.write("source", line)

    @property
    def leads(self) -> bool:
        """Whether this process stands for its job: it is the first one, or the only one."""
        return self.place is None or self.place.rank == 0

    def start(self) -> None:
        """Begin to listen."""
        self._started = time.perf_counter()
        self._prints.attach()
        self._images_opened.start()
        if self.children is not None:
            self.children.attach()
        if "torch" in sys.modules:
            self.hook_torch()

    def after_imports(self) -> dict[str, Callable[[], None]]:
        """What is to be done right after a module has been imported, by its name."""
        hooks = {"torch": self.hook_torch, "torch._dynamo.eval_frame": self.hook_compiler}
        return {**hooks, **(self.children.after_imports() if self.children is not None else {})}

    def hook_torch(self) -> None:
        """Put the hooks on torch, which has just been imported."""
        if self._seams is not None:
            return
        if self.children is not None:
            import multiprocessing.spawn  # noqa: F401 (torch has imported all but this of what starts processes)
            import subprocess  # noqa: F401

            self.children.attach()
        from valgap.seams.attaching.hooks import Seams
        from valgap.seams.recording.recorder import Recorder

        if os.getpid() == self._pid:
            self.writer.write("environment", environment.surroundings(with_git=self._first))
            self.recorder = Recorder(self.writer)
            self._watch_live(self.recorder)
        elif (own := self._forked()) is None:
            return
        else:
            self.recorder = own
        self._seams = Seams(self.recorder, self._forked)
        if self._make_acting is not None:
            self.acting = self._make_acting()
            self.acting.attach(self.recorder)
        if self._make_shortening is not None:
            self.shortening = self._make_shortening()
            self.shortening.attach(self.recorder)
        self._seams.attach()
        if self.acting is not None:
            self.acting.attach_outside()

    def _watch_live(self, recorder: Recorder) -> None:
        if self.live is not None and self.leads:
            self.live.start()
            recorder.between, recorder.early = self.live.look, FIRST_BATCHES

    def warn(self, warning: Mapping[str, Any]) -> None:
        """Write a warning between the program's own lines."""
        write_between(self._prints, words_of(warning))

    def tell_live(self, tell: Callable[[str], None]) -> Callable[[Mapping[str, Any]], None]:
        """What hands a warning as text to ``tell``, which may write it to where the program's lines go."""

        def told(warning: Mapping[str, Any]) -> None:
            with between_lines(self._prints):
                tell("\n".join(words_of(warning)))

        return told

    def _forked(self) -> Recorder | None:
        """The recorder of a forked process that works with torch; None where such processes are not followed."""
        if self.children is None or self.ended:
            return None
        from valgap.seams.recording.recorder import Recorder

        _inherited.append((self.writer, self.recorder))
        origin = Origin.of(self, "fork")
        self.place, self._pid = None, os.getpid()
        self._started = time.perf_counter()
        self.writer = _writer(self.writer.path, None, origin)
        self.recorder = Recorder(self.writer)
        self.children.end_with_process(self)
        return self.recorder

    def move(self, out: Path, waited: float) -> None:
        """This process is a fork that goes on in the program's place; its record holds what was recorded so far.

        ``waited``: seconds since the program stood still to be forked.
        """
        self.writer.move(out, waited)
        self.process = self._pid = os.getpid()
        self._started += waited
        if self._seams is not None:
            self._seams.move()

    def hear_no_files(self) -> None:
        """Which image files the program opens from now on is of no interest."""
        self._images_opened.stop()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Listen to nothing inside: for what a program that knows of its recorder does beside its training."""
        if self._seams is None:
            yield
            return
        self._seams.detach()
        try:
            yield
        finally:
            self._seams.attach()

    def hook_compiler(self) -> None:
        """Put the hooks on torch.compile, which has just been imported."""
        if self._seams is not None:
            self._seams.attach_compiled()

    def _moment(self) -> Moment:
        recorder = self.recorder
        return (recorder.passes.count, recorder.pass_running) if recorder is not None else (0, False)

    def _printed(self, line: str, moment: Moment) -> None:
        passes, running = moment
        self.writer.write("printed", {"line": line, "after_pass": passes - 1, "running": running})

    def finish(self, exit_status: int, error: str | None = None) -> float:
        """Stop listening and write the end; returns the program's seconds."""
        seconds = time.perf_counter() - self._started
        self.ended = True
        if self.live is not None:
            self.live.end()
        self._prints.detach()
        self._images_opened.stop()
        if self.acting is not None:
            self.acting.detach_outside()
        if self._seams is not None:
            self._seams.detach()
        if self.acting is not None:
            self.acting.detach()
        if self.shortening is not None:
            self.shortening.detach()
        if self.children is not None:
            self.children.detach()
            if (self.children.started or self.children.unseen) and not self.writer.waiting:
                self.writer.write("children", self.children.facts())
        if self.recorder is not None:
            try:
                self.recorder.finish()
            except Exception as failure:
                self.recorder.failed("finish", failure)
            if not self.writer.waiting:
                self.writer.write("environment", {**environment.torch_facts(), **self._images_opened.facts()})
        for line in self._text.rest() if self._text is not None and not self.writer.waiting else ():
            self.writer.write("source", line)
        self.writer.write("end", {"exit_status": exit_status, "error": error, "seconds": round(seconds, 3)})
        return seconds

    def close(
        self,
        seconds: float,
        share: float = CLOSING_SHARE,
        say: Callable[[str], None] | None = None,
        planned: int = 0,
    ) -> None:
        """Make the closing measurements within ``share`` of ``seconds`` (none with share 0), and close the record.

        ``planned``: images that they read, of training and of validation; 0 for as many as the program's own work allows.
        """
        started = time.perf_counter()
        try:
            if share > 0 and self.recorder is not None and self.recorder.passes.count and self._measures:
                from valgap.seams.closing.closing import ClosingMeasurements
                from valgap.seams.looking.ranks import apart

                budget_s = share * seconds if share > CLOSING_SHARE else min(MOST_CLOSING_S, share * seconds)
                if say is not None:
                    say(f"closing measurements on the finished model, at most {max(1.0, budget_s):.0f} s")
                with apart():
                    ClosingMeasurements(self.recorder, self.writer, budget_s, started, planned).run()
        finally:
            self.writer.close()

    @property
    def _measures(self) -> bool:
        """One process of a job measures: that of rank 0."""
        rank = self.recorder.passes.ranks.rank if self.recorder is not None else None
        return self.leads and not rank

    @property
    def problem(self) -> str | None:
        """Why nothing can be said of this run, in one line; None when something can."""
        recorder: Any = self.recorder
        if recorder is not None and recorder.passes.count:
            return None
        if has_parts(self.writer.path):
            return None
        if self.children is not None and self.children.unseen:
            return f"the training ran in a process that was not recorded: {self.children.unseen}"
        if recorder is None:
            return "the script never imported torch: valgap records PyTorch training scripts"
        if recorder.loaders.count == 0:
            return "no DataLoader was iterated and no model was called: there is nothing to diagnose"
        return "batches were loaded, but no model with parameters was called on them"


def _writer(out: Path, place: Place | None, origin: Origin | None) -> RecordWriter:
    """The file of this process in the run directory."""
    facts: dict[str, Any] = {"parent": os.getppid()}
    if place is not None:
        facts |= place.facts
    if origin is not None:
        facts |= {"how": origin.how, "root": origin.root}
        return RecordWriter(out, f"rank-{place.rank}" if place is not None else f"child-{os.getpid()}", facts, waits=True)
    if place is not None and place.rank > 0:
        return RecordWriter(out, f"rank-{place.rank}", facts)
    return RecordWriter(out, facts=facts)
