"""The interventions: each changes exactly one thing at one seam of a program that is being re-run.

An intervention is named by a ``types.Intervention``; the class of that name here carries it out. ``acting.Acting`` puts
them into a program.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from valgap.seams.acting.act import Act
from valgap.seams.acting.loader_acts import (
    BalancedSampling,
    DrawAll,
    DrawHalf,
    DropSamples,
    FirstBatch,
    FixedTransform,
    RelabelSamples,
    RemapLabels,
    Shuffle,
    TrainLonger,
    WeightsTransform,
)
from valgap.seams.acting.loading import KeepLoaded, LoadWeights
from valgap.seams.acting.model_acts import (
    Affine,
    Augment,
    EvalMode,
    EvaluateTrained,
    FlipChannels,
    HoldBatchNorm,
    NoDropout,
    PlainForward,
    RecordedWeights,
    Resize,
    RestoreStart,
    TrainMode,
    Unscramble,
)
from valgap.seams.acting.reference_acts import MixedTargets, ReferenceLoss
from valgap.seams.acting.reference_update import ReferenceUpdate
from valgap.seams.acting.sample_acts import PairByFile, ReadSoundly
from valgap.seams.acting.step_acts import (
    AddMissingParameters,
    FreezeBackbone,
    NoStep,
    OptimizerSettings,
    ScaleRate,
    ScheduleSteps,
    StepOnce,
    UndoSoftmax,
    UnfreezeLast,
    ZeroGradients,
)
from valgap.types import Intervention


class Nothing(Act):
    """Does nothing: the A/A experiment."""

    def iterating(self, loader: Any) -> None:
        self.acted += 1


KINDS: dict[str, Callable[..., Act]] = {
    "nothing": Nothing,
    "eval_mode": EvalMode,
    "train_mode": TrainMode,
    "hold_batchnorm": HoldBatchNorm,
    "affine": Affine,
    "flip_channels": FlipChannels,
    "resize": Resize,
    "unscramble": Unscramble,
    "fixed_transform": FixedTransform,
    "weights_transform": WeightsTransform,
    "remap_labels": RemapLabels,
    "drop_samples": DropSamples,
    "relabel_samples": RelabelSamples,
    "pair_by_file": PairByFile,
    "read_soundly": ReadSoundly,
    "shuffle": Shuffle,
    "train_longer": TrainLonger,
    "draw_all": DrawAll,
    "draw_half": DrawHalf,
    "balanced_sampling": BalancedSampling,
    "load_weights": LoadWeights,
    "add_missing_parameters": AddMissingParameters,
    "scale_rate": ScaleRate,
    "zero_gradients": ZeroGradients,
    "no_step": NoStep,
    "undo_softmax": UndoSoftmax,
    "step_once": StepOnce,
    "optimizer_settings": OptimizerSettings,
    "freeze_backbone": FreezeBackbone,
    "unfreeze_last": UnfreezeLast,
    "no_dropout": NoDropout,
    "augment": Augment,
    "schedule_steps": ScheduleSteps,
    "evaluate_trained": EvaluateTrained,
    "restore_start": RestoreStart,
    "keep_loaded": KeepLoaded,
    "plain_forward": PlainForward,
    "reference_loss": ReferenceLoss,
    "mixed_targets": MixedTargets,
    "reference_update": ReferenceUpdate,
}


def make(intervention: Intervention) -> Act:
    """The act of this name. Raises ValueError for an unknown one."""
    if intervention.name not in KINDS:
        raise ValueError(f"no intervention is called {intervention.name!r}")
    return KINDS[intervention.name](**intervention.settings)


def without_training(weights: Path, ask_training: bool = False) -> list[Act]:
    """What turns a program into the evaluation of recorded weights: one batch an epoch, which moves nothing.

    ``ask_training``: the weights are asked about the training images too, in eval mode, as many as the arm draws.
    """
    if ask_training:
        return [NoStep("train"), EvalMode("train"), RecordedWeights(weights, "both")]
    return [FirstBatch(), NoStep("train"), HoldBatchNorm("train", only_frozen=False), RecordedWeights(weights)]
