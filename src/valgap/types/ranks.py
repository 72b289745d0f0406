"""What each process of a training did: rank, children of the program, and how far they were one training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from valgap.types.arrays import IntArray, Phase
from valgap.types.passes import SampleTable, StepTable


@dataclass(frozen=True)
class RankPass:
    """One process's own share of a pass. Ids (samples, data sets, models) are those of the merged record."""

    merged: int  # position in RunRecord.passes of the pass that this is a share of; -1: of none
    phase: Phase
    epoch: int  # this process's own training passes before it
    dataset: int  # -1 unknown
    model: int
    complete: bool
    batch_sizes: IntArray  # (B,) images per batch of this process
    samples: SampleTable  # in the order in which this process drew them
    steps: StepTable
    device: str  # of the model, e.g. "cpu", "cuda:1"; empty unknown
    # Digests of sums and norms, by tensor, at the end of the pass: equal states, equal texts. Empty: not known.
    weights: str  # of the parameters
    buffers: str  # of the BatchNorm layers' statistics; empty as well where there are none
    # Outermost calls with gradients, where a DistributedDataParallel wrapper exists in this process; else 0.
    calls: int
    unsynced_calls: int  # of those, under no_sync or past the wrapper: their gradients are not synchronised
    calls_past_wrapper: int  # of those, of a module that is in no wrapper (`model.module(x)`)
    wrapped_steps: int  # optimizer steps after such calls
    unsynced_steps: int  # of those, after calls of which none was synchronised


@dataclass(frozen=True)
class Wrapping:
    """How a model stood to its parallel wrapper after a training pass (the last word of the record)."""

    model: int
    wrapper: str | None  # class name of the wrapper that the program calls; None where it calls the bare model
    wrapped: bool  # its parameters are in some wrapper that synchronises gradients
    called_wrapper: bool  # the program calls the DistributedDataParallel wrapper, or a module around it
    outside: tuple[str, ...]  # trained parameters of the model that are in no wrapper, at most 20 names
    num_outside: int
    num_elsewhere: int  # trained tensors that are in neither the model nor a wrapper (a head apart)
    broadcast_buffers: bool | None  # the wrapper's own setting; None without wrapper
    sync_batchnorm: int  # SyncBatchNorm layers among the model's


@dataclass(frozen=True)
class RankInfo:
    """One process of the program: its first one, a rank, or a child that called a model."""

    name: str  # file below RUN/parts without its suffix; "" for RUN/events.jsonl
    rank: int | None  # None: belongs to no group of processes
    local_rank: int | None
    world_size: int  # 1 where it belongs to no group
    backend: str  # "gloo", "nccl", ...; empty where the program had joined no group when a model was called
    pid: int
    parent: int  # pid of the process that started it; -1 unknown
    how: str  # "fork", "spawn" or "command" for a process that a recorded one started; else empty
    started: float  # seconds since 1970
    seconds: float
    exit_status: int | None  # None: killed, or still running
    error: str | None
    stopped: str | None  # why its part has no end, in words
    passes: tuple[RankPass, ...]
    first_weights: Mapping[int, str]  # model -> digest of its parameters before the first call with gradients
    first_buffers: Mapping[int, str]  # model -> the same of its BatchNorm statistics
    wrappings: tuple[Wrapping, ...]
    printed: tuple[str, ...]  # lines with numbers, as this process printed them

    def training(self) -> tuple[RankPass, ...]:
        """Its training passes, in order."""
        return tuple(p for p in self.passes if p.phase == "train")
