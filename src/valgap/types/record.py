"""What the five seams saw: a run directory, read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from valgap.types.arrays import FloatArray, IntArray, Phase


@dataclass(frozen=True)
class SampleTable:
    """What one pass said of each sample, in the order in which the model saw them. All arrays (N,)."""

    sample: IntArray  # int32 sample ids, -1 unknown
    target: IntArray  # int32 class index as given to the loss (or by the loader); -1 unknown
    prediction: IntArray  # int32 argmax of the logits
    loss: FloatArray  # float32 cross-entropy (nats) of the target under the logits; nan without target
    margin: FloatArray  # float32 logit of the target minus the best other logit; nan without target
    label_prob: FloatArray  # float32 softmax probability of the target, 0..1; nan without target
    batch: IntArray  # int32 number of the batch within the pass, from 0
    fingerprint: FloatArray  # float32 fixed projection of the input tensor: equal input, equal number

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Which samples have a known target, shape (N,)."""
        return self.target >= 0

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the prediction equals the target, for labelled samples only, shape (n labelled,)."""
        keep = self.labelled
        return np.asarray(self.prediction[keep] == self.target[keep])

    @property
    def accuracy(self) -> float:
        """Sample-weighted accuracy over labelled samples, 0..1; nan when there is none."""
        return float(self.correct.mean()) if self.labelled.any() else float("nan")

    @property
    def mean_loss(self) -> float:
        """Sample-weighted mean cross-entropy in nats; nan when there is no labelled sample."""
        return float(self.loss[self.labelled].mean()) if self.labelled.any() else float("nan")


@dataclass(frozen=True)
class InputStats:
    """Statistics of the image batches that reached the model in one pass (over the sampled batches)."""

    shape: tuple[int, ...]  # (C, H, W) of the first batch
    shapes: tuple[tuple[int, ...], ...]  # all distinct (C, H, W) seen, at most 16
    dtype: str  # "float32", "uint8", ...
    minimum: FloatArray  # (C,) over all sampled batches
    maximum: FloatArray  # (C,)
    mean: FloatArray  # (C,)
    std: FloatArray  # (C,) over pixels and samples
    batch_means: FloatArray  # (B, C) mean of each sampled batch: their spread is the null of `mean`
    # Step between neighbouring grey levels per channel, (C,); nan where the values are on no lattice.
    # An 8-bit image after ToTensor and Normalize(m, s) has quantum 1 / (255 s): s can be read off.
    quantum: FloatArray
    # Mean autocorrelation of pixel rows and columns at lags 1..4, (2, 4): [horizontal, vertical].
    # Falls with the lag in a real image; scrambled layouts rise at the lag of the interleaving.
    autocorrelation: FloatArray
    nonfinite: int  # NaN or infinite input values seen in the sampled batches
    sampled_batches: int


@dataclass(frozen=True)
class LossStats:
    """What went into and came out of the loss in one pass."""

    name: str  # "cross_entropy", "nll_loss", "binary_cross_entropy_with_logits", "custom", ...
    target_kind: Literal["index", "soft", "onehot", "unknown"]
    label_smoothing: float
    class_weights: bool
    logit_min: float
    logit_max: float
    row_sum_min: float  # over samples, of the sum over C of the loss's input
    row_sum_max: float
    zero_fraction: float  # exact zeros among the loss's inputs, 0..1
    num_outputs: int  # C of the loss's input
    calls_per_batch: float


@dataclass(frozen=True)
class StepTable:
    """Per optimizer step of a training pass, in order."""

    loss: FloatArray  # (S,) value that was back-propagated last before the step; nan unknown
    optimizer: IntArray  # (S,) optimizer id
    backwards: IntArray  # (S,) backward calls since the previous step
    # 1 where gradients were still there (non-zero) when the first backward after the last step began, 0
    # where they were clean, -1 where not observed. Gradient accumulation within one step is not counted.
    stale_gradients: IntArray  # (S,)
    learning_rate: FloatArray  # (S, K) per parameter group of that optimizer, nan-padded
    grad_norm: FloatArray  # (S,) global L2 norm before the step; nan where not sampled
    update_ratio: FloatArray  # (S,) norm of the update / norm of the weights; nan where not sampled
    nonfinite_grad: IntArray  # (S,) 1 if the sampled gradient norm is NaN or infinite, 0 not, -1 unsampled
    # (S, G) the same two norms for each of the model's ``layer_groups``; nan where not sampled or nothing moves there
    group_grad_norm: FloatArray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    group_update_ratio: FloatArray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def __len__(self) -> int:
        return len(self.loss)


@dataclass(frozen=True)
class ModeStats:
    """Module modes while batches of one pass went through the model. Fractions 0..1 over batches."""

    training_flag: float  # root module .training
    batchnorm_training: float  # BatchNorm layers using batch statistics, over layers and batches
    dropout_training: float  # active Dropout layers (p > 0), over layers and batches
    grad_enabled: float  # torch.is_grad_enabled() at the call
    batchnorm_layers: int
    dropout_layers: int  # with p > 0


@dataclass(frozen=True)
class Pass:
    """One walk over a loader (or a run of calls without loader) in which the model was called."""

    index: int  # position in RunRecord.passes
    phase: Phase  # inferred from what happened, see record/phases.py
    epoch: int  # training passes completed before this one (its own number for a training pass)
    loader: int  # id of LoaderInfo, -1 without a loader
    dataset: int  # id of DatasetInfo, -1 unknown
    model: int  # id of ModelInfo that was called
    complete: bool  # the loader ran to its end
    seconds: float
    num_batches: int
    backwards: int
    optimizer_steps: int
    zero_grads: int
    batch_sizes: IntArray  # (B,) images per batch
    samples: SampleTable
    inputs: InputStats | None
    loss: LossStats | None
    steps: StepTable
    modes: ModeStats
    state: int  # position in RunRecord.states of the snapshot at its end, -1 if none


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


@dataclass(frozen=True)
class PrintedNumber:
    """A number that the script printed or logged, with the words before it."""

    label: str  # the words before the number in that line, lower case, at most 60 characters
    value: float
    after_pass: int  # index of the pass that had begun last; -1 before any
    line: str


@dataclass(frozen=True)
class Twin:
    """A validation image that is (nearly) the same as a training image."""

    train: int  # sample id
    validation: int  # sample id
    kind: Literal["same_file", "same_bytes", "same_pixels", "near"]
    similarity: float  # 1 for the exact kinds


@dataclass(frozen=True)
class Closing:
    """Measurements made in the recorded process after the script had ended.

    ``rescores`` keys: ``val_eval`` (val as the script reads it, eval mode), ``val_train`` (the same in train
    mode, in the script's batch size; no statistics are updated), ``train_eval`` (train images through the
    val transform, eval mode), ``train_dropout`` (the same with only the Dropout layers active),
    ``train_augmented`` (train as the script reads it, eval mode), ``val_fixed`` (val through a fixed transform
    where the script's is random), ``val_train_norm`` (val with the normalisation of the training phase),
    ``val_weights_norm`` (with the normalisation that the weights expect), ``val_weights`` (prepared from the file on as
    the weights expect: size, crop, interpolation and normalisation), ``val_flipped_channels``. All are on the same final
    weights.

    ``numbers`` keys. Probes are ridge classifiers fitted on train features (the inputs of the last linear layer, val
    transform, eval mode) and scored on val: ``probe_final`` (under the last state), ``probe_initial`` (under the first
    BatchNorm statistics, where those of frozen layers moved), ``probe_middle`` (features of an earlier layer),
    ``probe_start`` and ``probe_end`` (under the whole first and the last state, on the same images, where weights moved),
    ``probe_plain`` and ``probe_augmented`` (held-out training images, plain and as the script augments them); ``probe_n``,
    ``probe_train_n``, ``probe_start_n``, ``probe_augmented_n``; ``*_se`` standard errors of the paired differences.
    ``replay_NAME`` and ``replay_NAME_p`` (val accuracy of the head trained again on the last features, and its paired
    p-value against ``replay_recorded``), see seams/head_replay.py. ``val_temperature``, ``val_nll``, ``val_nll_tempered``,
    ``val_nll_gain_se``, ``val_ece``, ``val_ece_tempered``, ``calibration_n``, see seams/calibration.py.
    ``mode_logit_change`` (mean absolute logit difference train against eval mode / logit std), ``batch_mate_change`` (the
    same for ``batch_mate_n`` images among other batch mates, in the mode in which the program validates).
    """

    rescores: Mapping[str, SampleTable] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    twins: tuple[Twin, ...] | None = None  # None: not looked for
    skipped: Mapping[str, str] = field(default_factory=dict)  # name -> reason
    seconds: float = 0.0


@dataclass(frozen=True)
class SeenInputs:
    """Small copies of the first image tensors of a pass, as they reached the model."""

    pass_index: int  # position in RunRecord.passes; its first samples are these
    images: IntArray  # (n, C, h, w) uint8, at most 8 of at most 64 pixels: value = low + image / 255 * (high - low)
    low: FloatArray  # (C,)
    high: FloatArray  # (C,)

    @property
    def values(self) -> FloatArray:
        """The tensors' values, (n, C, h, w) float32, to within 1/255 of their range."""
        span = (self.high - self.low)[None, :, None, None]
        return np.asarray(self.low[None, :, None, None] + self.images / np.float32(255) * span, np.float32)


# What the records of `valgap train` have for a script.
TRAINED = "valgap train"


@dataclass(frozen=True, repr=False)
class RunRecord:
    """A run directory, read."""

    path: str
    schema: int
    header: Mapping[str, object]  # argv, cwd, versions, seeds, git, environment, started
    sample_names: tuple[str, ...]  # path, or "dataset3[17]" where a sample has none
    datasets: Mapping[int, DatasetInfo]
    loaders: Mapping[int, LoaderInfo]
    models: Mapping[int, ModelInfo]
    optimizers: Mapping[int, OptimizerInfo]
    passes: tuple[Pass, ...]
    states: tuple[StateSnapshot, ...]
    weights_loaded: tuple[WeightsLoaded, ...]
    printed: tuple[PrintedNumber, ...]
    closing: Closing | None
    recorder_errors: tuple[str, ...]
    exit_status: int | None  # None: the program was killed or is still running
    stopped: str | None  # why the record is not whole, in words
    seconds: float
    seen: tuple[SeenInputs, ...] = ()  # of the first pass over each data set
    schedules: tuple[ScheduleState, ...] = ()

    def __repr__(self) -> str:
        return f"RunRecord({self.path!r}: {len(self.passes)} passes, exit status {self.exit_status})"

    @classmethod
    def empty(cls, path: str) -> RunRecord:
        """The record of no run at all: images are judged that no program was seen to train on."""
        return cls(path, 1, {}, (), {}, {}, {}, {}, (), (), (), (), None, (), None, None, 0.0)

    def of_phase(self, phase: Phase) -> tuple[Pass, ...]:
        """All passes of one phase with the trained model's data, in order."""
        return tuple(p for p in self.passes if p.phase == phase)

    @property
    def last_train(self) -> Pass | None:
        """The last training pass."""
        return next(iter(reversed(self.of_phase("train"))), None)

    @property
    def last_validation(self) -> Pass | None:
        """The last validation pass that has labelled samples (else the last one at all)."""
        passes = self.of_phase("validation")
        labelled = [p for p in passes if p.samples.labelled.any()]
        return next(iter(reversed(labelled or list(passes))), None)

    @property
    def best_validation(self) -> Pass | None:
        """The validation pass with the highest accuracy (the earliest of equals)."""
        labelled = [p for p in self.of_phase("validation") if p.samples.labelled.any()]
        return max(labelled, key=lambda p: (p.samples.accuracy, -p.index), default=None)

    @property
    def trained_model(self) -> ModelInfo | None:
        """The model that the training passes trained."""
        last = self.last_train
        return self.models.get(last.model) if last else None
