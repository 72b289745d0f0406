"""The errors that are the user's to mend. Our own faults stay tracebacks.

ValgapError              one line: what was expected, what came, what to do; exit status 2
├── DataError            a folder, file or class map that cannot be used
│   └── UnreachableError an address that does not answer, or does not let us in
├── WeightsError         weights that cannot be found, downloaded or fitted to the model
├── ConfigError          a recipe file or preset that cannot be read or has a setting that does not exist
├── RecordError          a RUN that is none, is damaged, or has a newer schema
├── ScriptError          a script or module that does not exist or cannot be started
└── NothingRecordedError the script ran, but nothing can be said: no loader, no model, no validation
"""

from __future__ import annotations


class ValgapError(Exception):
    """Base of all errors that end a command with one line and exit status 2."""


class DataError(ValgapError):
    """A folder, file or class map that cannot be used."""


class UnreachableError(DataError):
    """An address that does not answer, or does not let us in: its images are not damaged, nobody saw them."""


class WeightsError(ValgapError):
    """Weights that cannot be found, downloaded or fitted to the model."""


class ConfigError(ValgapError):
    """A recipe file or preset that cannot be read, or has a setting that does not exist."""


class RecordError(ValgapError):
    """A run directory that is none, is damaged, or was written by a newer valgap."""


class ScriptError(ValgapError):
    """A script or module that does not exist or cannot be started."""


class NothingRecordedError(ValgapError):
    """The script ran to its end but passed no loader, no model or no validation."""


class StoppedOnWarning(KeyboardInterrupt):
    """Ends a program after a warning, as Ctrl-C would: what it does then (a checkpoint, a summary) it does now."""


class SuspectedWarning(UserWarning):
    """What a running program is suspected of. No error: nothing is ended by it."""
