"""The place of a process among those of one training job, and how they agree on one run directory."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from valgap.errors import RecordError
from valgap.record.location import RUNS, new_run_directory

CLAIMS = ".jobs"
WAIT_S = 60.0  # ranks of one job begin within seconds of each other
POLL_S = 0.02
KEEP_CLAIMS_S = 600.0  # older claims are of jobs that have begun long ago
# (rank, world size, rank on this machine, what names the job) as launchers tell them.
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", ("OMPI_MCA_ess_base_jobid", "PMIX_NAMESPACE")),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", ("PMI_FD", "PMI_ID_JOB", "SLURM_JOB_ID", "SLURM_STEP_ID")),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", ("SLURM_JOB_ID", "SLURM_STEP_ID")),
)


class Place(NamedTuple):
    """Which of the processes of a job this one is, as its launcher said before it began."""

    rank: int
    local_rank: int
    world_size: int
    job: str  # hex digits, equal in all processes of one start and in no others
    attempt: int = 0  # how often the launcher has started the job again

    @property
    def facts(self) -> dict[str, Any]:
        """As the header of a part tells it."""
        return self._asdict()


def place_of(variables: Mapping[str, str] = os.environ) -> Place | None:
    """The place that the launcher's environment variables tell; None for a process alone."""
    for rank_name, size_name, local_name, named_by in LAUNCHERS:
        rank, size = _whole(variables.get(rank_name)), _whole(variables.get(size_name))
        if rank is None or size is None or not 0 <= rank < size or size < 2:
            continue
        if rank_name.startswith("SLURM") and "SLURM_STEP_ID" not in variables:
            continue  # a batch script's own variables: nothing was started with srun
        local = _whole(variables.get(local_name))
        attempt = _whole(variables.get("TORCHELASTIC_RESTART_COUNT")) or 0
        names = [variables.get(n, "") for n in named_by]
        # On one machine the launcher's process tells jobs apart that have the same address and port.
        on_one_machine = variables.get("LOCAL_WORLD_SIZE") == variables.get(size_name)
        names += [str(os.getppid()), _started(os.getppid())] if on_one_machine else []
        job = hashlib.blake2b(repr((names, size, attempt)).encode(), digest_size=8).hexdigest()
        return Place(rank, rank if local is None else local, size, job, attempt)
    return None


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _started(pid: int) -> str:
    """When a process was started, in the system's own words; empty where it does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def shared_run_directory(out: Path | None, name: str, place: Place | None, say: Callable[[str], None] | None = None) -> Path:
    """Where this process records: ``out``, else ``runs/DATE-TIME-NAME``, the same for all processes of a job.

    Raises:
        RecordError: it cannot be created.
    """
    if out is not None:
        return out if place is None or not place.attempt else out.with_name(f"{out.name}-{place.attempt + 1}")
    if place is None:
        return new_run_directory(name)
    claim = Path(RUNS) / CLAIMS / place.job
    try:
        claim.parent.mkdir(parents=True, exist_ok=True)
        _drop_old(claim.parent)
        handle = os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        found = _read_claim(claim)
        if found is not None:
            return found
        return new_run_directory(f"{name}-rank-{place.rank}")  # whoever claimed it has gone: a record of its own
    except OSError as error:
        raise RecordError(f"cannot write to {claim.parent}: {error.strerror}; choose a place with --out") from error
    with os.fdopen(handle, "w") as stream:
        folder = new_run_directory(name)
        stream.write(f"{folder.name}\n")
    return folder


def _read_claim(claim: Path) -> Path | None:
    """The directory that another process of this job has made; None where it never said."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        text = claim.read_text() if claim.exists() else ""
        if text.endswith("\n"):
            return Path(RUNS) / text.strip()
        time.sleep(POLL_S)
    return None


def _drop_old(folder: Path) -> None:
    for claim in folder.iterdir():
        try:
            if time.time() - claim.stat().st_mtime > KEEP_CLAIMS_S:
                claim.unlink()
        except OSError:
            pass  # another process was faster
