"""One recording: the run directory, the seams and the printed lines, from first to last."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valgap.record.writer import RecordWriter
from valgap.seams import environment
from valgap.seams.prints import Moment, PrintTap

if TYPE_CHECKING:
    from valgap.seams.acting import Acting
    from valgap.seams.hooks import Seams
    from valgap.seams.recorder import Recorder

# The closing measurements take at most this share of the script's own time.
CLOSING_SHARE = 0.2


class Session:
    """Records from ``start`` to ``finish``. torch is hooked when it is there, or as soon as it is imported."""

    def __init__(
        self,
        out: Path,
        argv: list[str],
        script: str,
        module: str | None = None,
        make_acting: Callable[[], Acting] | None = None,
    ) -> None:
        self.writer = RecordWriter(out)
        self.recorder: Recorder | None = None
        self.acting: Acting | None = None
        self._make_acting = make_acting
        self._seams: Seams | None = None
        self._prints = PrintTap(self._printed, self._moment)
        self._started = time.perf_counter()
        self.writer.write("environment", {**environment.describe(argv, script), "module": module})

    def start(self) -> None:
        """Begin to listen."""
        self._started = time.perf_counter()
        self._prints.attach()
        if "torch" in sys.modules:
            self.hook_torch()

    def hook_torch(self) -> None:
        """Put the hooks on torch, which has just been imported."""
        if self._seams is not None:
            return
        from valgap.seams.hooks import Seams
        from valgap.seams.recorder import Recorder

        self.recorder = Recorder(self.writer)
        self._seams = Seams(self.recorder)
        if self._make_acting is not None:
            self.acting = self._make_acting()
            self.acting.attach(self.recorder)
        self._seams.attach()
        if self.acting is not None:
            self.acting.attach_outside()

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
        return (recorder.num_passes, recorder.pass_running) if recorder is not None else (0, False)

    def _printed(self, line: str, moment: Moment) -> None:
        passes, running = moment
        self.writer.write("printed", {"line": line, "after_pass": passes - 1, "running": running})

    def finish(self, exit_status: int, error: str | None = None) -> float:
        """Stop listening and write the end; returns the program's seconds."""
        seconds = time.perf_counter() - self._started
        self._prints.detach()
        if self.acting is not None:
            self.acting.detach_outside()
        if self._seams is not None:
            self._seams.detach()
        if self.acting is not None:
            self.acting.detach()
        if self.recorder is not None:
            try:
                self.recorder.finish()
            except Exception as failure:
                self.recorder.failed("finish", failure)
            self.writer.write("environment", environment.torch_facts())
        self.writer.write("end", {"exit_status": exit_status, "error": error, "seconds": round(seconds, 3)})
        return seconds

    def close(self, seconds: float, share: float = CLOSING_SHARE, say: Callable[[str], None] | None = None) -> None:
        """Make the closing measurements within ``share`` of ``seconds`` (none with share 0), and close the record."""
        started = time.perf_counter()
        try:
            if share > 0 and self.recorder is not None and self.recorder.num_passes:
                from valgap.seams.closing import ClosingMeasurements

                if say is not None:
                    say(f"closing measurements on the finished model, at most {max(1.0, share * seconds):.0f} s")
                ClosingMeasurements(self.recorder, self.writer, share * seconds, started).run()
        finally:
            self.writer.close()

    @property
    def problem(self) -> str | None:
        """Why nothing can be said of this run, in one line; None when something can."""
        recorder: Any = self.recorder
        if recorder is None:
            return "the script never imported torch: valgap records PyTorch training scripts"
        if not recorder.num_passes and recorder.loaders.count == 0:
            return "no DataLoader was iterated and no model was called: there is nothing to diagnose"
        if not recorder.num_passes:
            return "batches were loaded, but no model with parameters was called on them"
        return None
