"""Interventions on the steps of learning-rate schedules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from valgap.seams.acting.act import Act
from valgap.seams.acting.seeds import Patch


def attach_schedules(patch: Patch, now: Callable[[], list[Act]], note: Callable[[str], None]) -> None:
    """Replace every schedule class's own ``step``; one that steps others (SequentialLR) counts as one.

    Args:
        patch: puts a replacement in place.
        now: what acts at the moment.
        note: told that a schedule has ``stepped``.
    """
    stepping = False  # inside a schedule's own step

    def make_step(original: Any) -> Any:
        def step(schedule: Any, *args: Any, **kwargs: Any) -> Any:
            made = hasattr(schedule, "_valgap_made")
            if made:
                note("stepped")

            def do() -> Any:
                nonlocal stepping
                stepping = True
                try:
                    return original(schedule, *args, **kwargs)
                finally:
                    stepping = False

            call: Callable[[], Any] = do
            for act in now() if made and not stepping else ():
                call = functools.partial(act.schedule_step, schedule, call)
            return call()

        return step

    def make_init(original: Any) -> Any:
        def __init__(schedule: Any, *args: Any, **kwargs: Any) -> None:
            original(schedule, *args, **kwargs)
            schedule.__dict__["_valgap_made"] = True  # the first step is the constructor's own

        return __init__

    for kind in [v for v in vars(torch.optim.lr_scheduler).values() if isinstance(v, type) and "step" in v.__dict__]:
        patch(kind, "step", make_step)
    patch(torch.optim.lr_scheduler.LRScheduler, "__init__", make_init)
