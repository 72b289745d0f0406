"""One arm: a program once more, in a process and a world of its own. Run as ``python -m valgap.experiments.arm SPEC``.

Imports neither torch nor numpy before the program does, like the recording itself.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valgap.experiments.edited import edited_target, put_in_place
from valgap.experiments.sandbox import Sandbox
from valgap.seams.hosting import host
from valgap.seams.hosting.session import Session
from valgap.types import Intervention

if TYPE_CHECKING:
    from valgap.experiments.warm import Nest
    from valgap.seams.acting.act import Act
    from valgap.seams.acting.acting import Acting

RESULT_FILE = "result.json"
SPEC_FILE = "spec.json"
WEIGHTS_FILE = "final.safetensors"  # of a recorded run
FEATURES = "features"  # beside the arms: what they share, see seams/acting/feature_replay.py


@dataclass(frozen=True)
class ArmSpec:
    """What distinguishes one arm; equal specs give equal arms, so a finished one is used again."""

    script: str
    module: str | None
    argv: list[str]
    cwd: str
    seed: int
    epochs: int  # training passes after which it ends; 0: all
    fraction: float  # share of the training samples
    train: list[int]  # data set ids by role
    validation: list[int]
    interventions: list[Intervention] = field(default_factory=list)
    closing: float = 0.0  # share of the arm's time for the closing measurements
    edited: dict[str, str] = field(default_factory=dict)  # source file of the program -> the file to run in its place
    rescore: list[Intervention] = field(default_factory=list)  # under which the finished model is scored again
    # Weights to validate with, a safetensors file: nothing is trained then, one batch an epoch passes by.
    weights: str = ""
    ask_training: bool = False  # with ``weights``: the training images that are drawn are answered in eval mode as well
    # The run directory whose closing measurements are made here in its program's place, and the images planned for them.
    measured_for: str = ""
    planned: int = 0
    answers_only: bool = False  # answers are all that is read of it: no images are kept

    def to_json(self) -> dict[str, Any]:
        """As it is written for the arm's process."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ArmSpec:
        """The other way round."""
        changes: dict[str, Any] = {
            k: [Intervention(i["name"], i["settings"]) for i in data.pop(k)] for k in ("interventions", "rescore")
        }
        return cls(**data, **changes)


def run_arm(spec: ArmSpec, folder: Path, nest: Nest | None = None) -> int:
    """Run the arm into ``folder``: record, world, and result.json when it has finished. Returns its exit status.

    With ``nest``, the program waits at its first loader, and what goes on from there are forks of it, each an arm of its own.
    """
    os.chdir(spec.cwd)
    given = spec.argv[1:]
    put_in_place(spec.edited)
    target = host.module_target(spec.module, given) if spec.module else host.script_target(spec.script, given)
    target = edited_target(target, spec.edited)
    record = folder / "record"
    features = folder.parent / FEATURES
    session = Session(record, target.argv, spec.script, spec.module, make_acting=lambda: _acting(spec, features, nest))
    shared = (features,) if features.is_dir() else ()
    arms = (folder / "arms",) if nest is not None else ()
    sandbox = Sandbox(folder / "scratch", (record, Path(tempfile.gettempdir()), *arms, *shared))
    guards = sandbox.enter()
    if nest is not None:
        nest.session, nest.sandbox = session, sandbox
    ending = host.execute(target, session)
    if nest is not None and not ending.elsewhere:
        if nest.arm is None:
            nest.unfit("it ended before it drew from a loader or called a model")
        assert nest.arm is not None
        spec, folder = nest.arm
        record = folder / "record"
    if ending.elsewhere:
        ending.leave()
    status = ending.status
    with ending.once_more():
        seconds = session.finish(status, ending.error)
        if status == 0 and spec.rescore:
            _rescore(session, spec.rescore)
        if spec.measured_for and session.recorder is not None:
            session.recorder.passes.steps.rates_elsewhere = _rates(spec.measured_for)
        session.close(seconds, spec.closing if status == 0 else 0.0, planned=spec.planned)
    result = {
        "status": status,
        "error": ending.error,
        "acted": session.acting.acted() if session.acting is not None else [],
        "replayed": session.acting.replayed() if session.acting is not None else 0,
        "copied": session.acting.decoded.copied if session.acting is not None and session.acting.decoded is not None else 0,
        "batches": session.acting.batches.copied if session.acting is not None and session.acting.batches is not None else 0,
        "guards": asdict(guards),
        "seconds": round(seconds, 3),
    }
    (record / RESULT_FILE).write_text(json.dumps(result))
    return status


def _rescore(session: Session, interventions: list[Intervention]) -> None:
    if session.recorder is None:
        return
    from valgap.seams.acting.interventions import make
    from valgap.seams.closing.closing import ClosingMeasurements

    measurements = ClosingMeasurements(session.recorder, session.writer, float("inf"))
    measurements.rescore_under([make(i) for i in interventions])


def _rates(run: str) -> dict[int, Any]:
    """By optimizer, the rates (S, K) of every step of a recorded run."""
    import numpy as np

    from valgap.record.reader import read_record

    tables = [p.steps for p in read_record(run).passes if len(p.steps)]
    numbers = {int(o) for t in tables for o in t.optimizer}
    rows = {o: [t.learning_rate[t.optimizer == o] for t in tables if (t.optimizer == o).any()] for o in numbers}
    width = {o: min(r.shape[1] for r in found) for o, found in rows.items()}
    return {o: np.concatenate([r[:, : width[o]] for r in found]) for o, found in rows.items()}


def make_acts(spec: ArmSpec, at_work: Sequence[tuple[Intervention, Act]] = ()) -> list[Act]:
    """What acts in this arm; what is ``at_work`` already goes on."""
    from valgap.seams.acting.interventions import make, without_training

    acts = [next((act for known, act in at_work if known == i), None) or make(i) for i in spec.interventions]
    return acts + without_training(Path(spec.weights), spec.ask_training) if spec.weights else acts


def _acting(spec: ArmSpec, features: Path, nest: Nest | None) -> Acting:
    from valgap.seams.acting.acting import Acting
    from valgap.seams.acting.decoded import DecodedFiles
    from valgap.seams.acting.feature_replay import FeatureReplay
    from valgap.seams.acting.shared_batches import SharedBatches

    replay, decoded, batches = (
        (FeatureReplay(features), DecodedFiles(features), SharedBatches(features)) if features.is_dir() else (None, None, None)
    )
    at_first_loader = nest.wait if nest is not None else None
    return Acting(
        make_acts(spec),
        spec.train,
        spec.validation,
        spec.seed,
        spec.epochs,
        spec.fraction,
        replay,
        at_first_loader,
        decoded,
        batches,
        spec.answers_only,
    )


def main() -> None:
    """The arm's process: the spec lies in the folder given as the only argument."""
    folder = Path(sys.argv[1]).resolve()
    spec = ArmSpec.from_json(json.loads((folder / SPEC_FILE).read_text()))
    sys.exit(run_arm(spec, folder))


if __name__ == "__main__":
    main()
