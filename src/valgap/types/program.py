"""What a recorded program is made of: data sets, loaders, models and their weights, optimizers and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from valgap.types.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class TransformStep:
    """One step of a transform, flattened out of Compose and its like."""

    name: str  # class name, e.g. "Normalize"
    text: str  # its repr, at most 300 characters
    random: bool  # whether it draws random numbers
    mean: tuple[float, ...] | None = None  # of Normalize
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """A data set as a loader was given it (after Subset, ConcatDataset and the like)."""

    id: int
    kind: str  # class name of the outermost data set, e.g. "Subset"
    source: str  # class name of the innermost one, e.g. "ImageFolder"
    size: int  # -1 for an iterable one
    root: str | None
    class_to_idx: Mapping[str, int] | None
    # (N,) declared target of each position, where it can be read without loading images
    targets: IntArray | None
    sample: IntArray | None  # (N,) sample ids of each position, where known
    transform: tuple[TransformStep, ...] | None  # None: no transform found
    transform_text: str
    learnt: bool = False  # whether its files became known only by watching it read, after the program's end


@dataclass(frozen=True)
class Provenance:
    """How the samples of a data set are named, as far as watching it read a few of them could tell."""

    dataset: int
    # "declared": paths that it lists, which are what it opens; "watched": files that it was seen to open; "archive": members of
    # one file; "memory": it opens nothing; "content": a stream, known by its images; "mixed" of several parts, or "unknown"
    how: str
    checked: int  # items that were read whole
    agreed: int  # of them, those that opened the file that was expected
    named: float  # share of samples whose file is known, 0..1
    note: str  # what could not be known, in words; "" where all is


@dataclass(frozen=True)
class LoaderInfo:
    """A DataLoader's settings."""

    id: int
    dataset: int
    batch_size: int  # -1 with a custom batch sampler
    sampler: str  # class name
    shuffled: bool | None  # None: a custom sampler, cannot be told from its class
    drop_last: bool
    num_workers: int
    length: int  # batches, -1 unknown


@dataclass(frozen=True)
class ModelInfo:
    """A module that was called on image batches."""

    id: int
    kind: str  # class name
    trained: bool  # whether an optimizer stepped on its parameters
    tensor_names: tuple[str, ...]  # parameters and buffers; T of them
    is_parameter: npt.NDArray[np.bool_]  # (T,)
    numel: IntArray  # (T,)
    requires_grad: npt.NDArray[np.bool_]  # (T,) at the last training pass; False for buffers
    in_optimizer: npt.NDArray[np.bool_]  # (T,) in a group of any optimizer that stepped
    got_gradient: npt.NDArray[np.bool_]  # (T,) had a non-None, non-zero .grad at a sampled step
    layer_kind: tuple[str, ...]  # (T,) class name of the module that owns the tensor, e.g. "BatchNorm2d"
    num_outputs: int  # columns of its output, -1 unknown
    expected_mean: tuple[float, ...] | None  # what its pretrained weights expect, when they say so
    expected_std: tuple[float, ...] | None
    expected_size: tuple[int, ...] | None  # (C, H, W)
    pretrained: bool | None  # None: cannot be told
    # Evidence for `pretrained`: fraction of BatchNorm layers still at their initial statistics and the
    # largest load_state_dict's share of matched keys, at the first training step; nan unknown.
    fresh_batchnorm: float
    loaded_fraction: float
    dropout: tuple[float, ...] = ()
    layer_groups: tuple[str, ...] = ()  # (G,) modules by which step norms are grouped
    group_of: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))  # (T,) the group of each tensor
    # (T,) each; empty in records of before. The highest learning rate at any step, nan for what no torch optimizer held.
    highest_rate: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    newness: IntArray = field(default_factory=lambda: np.zeros(0, np.int8))  # 1 as it was made, 0 given, -1 unknown
    altered: IntArray = field(default_factory=lambda: np.zeros(0, np.int8))  # 1 loaded, then changed, 0 as loaded, -1 not loaded
    on_path: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))  # its module works when the model is called
    released: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))  # required no gradient earlier, does now
    held_in_vain: int = 0  # parameters in the optimizers that belong to no model and get no gradient
    # Class names of layers that work when the model is called, are no parts of it, and never move though gradients reach them.
    strays: tuple[str, ...] = ()
    stray_numbers: int = 0  # in all their parameters
    expected_crop: float | None = None  # share of the shorter side that the weights' centre crop keeps
    expected_interpolation: str | None = None  # "bilinear", "bicubic", ...
    expected_whole: bool = False  # the module itself is that architecture; a module around it may prepare the images


@dataclass(frozen=True)
class StateSnapshot:
    """Sum and L2 norm of every tensor of a model at one moment: equal pairs mean unmoved tensors."""

    model: int
    moment: str  # "start" (before the first step), "pass", "end"
    sums: FloatArray  # (T,) float64
    norms: FloatArray  # (T,) float64

    def moved(self, other: StateSnapshot) -> npt.NDArray[np.bool_]:
        """Which tensors differ between the two moments, shape (T,)."""
        same = (self.sums == other.sums) & (self.norms == other.norms)
        both_nan = np.isnan(self.norms) & np.isnan(other.norms)
        return np.asarray(~(same | both_nan))


@dataclass(frozen=True)
class OptimizerInfo:
    id: int
    kind: str
    groups: tuple[Mapping[str, float | str | bool | None], ...]  # settings without "params"
    num_parameters: tuple[int, ...]  # tensors per group


@dataclass(frozen=True)
class WeightsLoaded:
    """One load_state_dict call on a module."""

    model_kind: str
    before_training: bool
    strict: bool
    given: int  # keys offered
    matched: int  # keys that exist in the module
    missing: int
    unexpected: int
    examples: tuple[str, ...]  # some missing and unexpected keys
    after_pass: int = -1  # index of the pass that had begun last
    changed: bool | None = None  # whether a trained model's weights differ after it; None: of no trained model, or not told
    own_tensors: bool = False  # whether what was loaded were the trained model's living tensors themselves
    state_of_pass: int = -1  # the last pass that had ended in the state that the model then has; -1 none, -2 the first state


@dataclass(frozen=True)
class ScheduleState:
    """Where a learning-rate schedule stood at the end of a training pass."""

    pass_index: int
    optimizer: int
    kind: str  # "StepLR", ...
    steps: int  # how often it had been stepped
    settings: Mapping[str, object]  # T_max, total_steps, step_size, milestones, ... as far as it has them
