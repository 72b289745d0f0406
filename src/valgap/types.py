"""The nouns of valgap: frozen dataclasses and nothing else. Imports nothing of ours, and no torch.

Notation (docs/notation.md): N samples, C classes (or channels where an image is meant), K parameter
groups, S steps. Fractions and accuracies are 0..1; ``*_points`` are percentage points of validation
accuracy. A sample id is an index into ``RunRecord.sample_names``; -1 means that it is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
Phase = Literal["train", "validation", "other"]
Verdict = Literal["confirmed", "refuted", "inconclusive", "untested"]


# ---------------------------------------------------------------------------------------------
# The record: what the five seams saw
# ---------------------------------------------------------------------------------------------


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


# ---------------------------------------------------------------------------------------------
# Images: what is measured on the files themselves
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageRows:
    """The images of train and validation whose files are there; N of them, train first."""

    names: tuple[str, ...]  # (N,) as the record, the folder or the list names them
    paths: tuple[str, ...]  # (N,) where the files are
    labels: IntArray  # (N,) int64 index into ``classes``, -1 unknown
    is_val: npt.NDArray[np.bool_]  # (N,)
    classes: tuple[str, ...]
    absent: int = 0  # further images that were named but whose files are not there

    def part(self, val: bool) -> IntArray:
        """Places of one split, (n,)."""
        return np.flatnonzero(self.is_val == val)


@dataclass(frozen=True)
class Attributes:
    """By-products of each image file, (N,) each; nan (or "") where the file could not be read.

    ``numbers`` keys: ``width``, ``height`` (pixels), ``aspect`` (width / height), ``bytes``, ``bits_per_pixel``, ``brightness``
    (mean grey, 0..1), ``contrast`` (standard deviation of grey, 0..1), ``sharpness`` (log10 of the variance of the Laplacian on a
    grey image of 128 px), ``colourfulness`` (Hasler and Suesstrunk 2003, of values 0..255), ``jpeg_quality`` (1..100, nan for
    other formats), ``border`` (share of rows and columns at the edges that are of one colour, 0..1), ``rotated`` (1 where
    EXIF turns the image), ``grey`` (1 where all channels agree).
    ``words`` keys: ``format``, ``mode``, ``camera``.
    """

    numbers: Mapping[str, FloatArray]
    words: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class ImagePair:
    """Two images that show the same picture; places in ImageRows, ``first`` in train where the pair spans the split."""

    first: int
    second: int
    kind: Literal["same_bytes", "same_pixels", "near"]
    similarity: float  # 0..1; 1 for the exact kinds


@dataclass(frozen=True)
class HeldOut:
    """Class probabilities of each image by probes that never saw its label: out of fold on train, train-fitted on val."""

    probabilities: FloatArray  # (N, C) float64; nan where there is no embedding
    correct: npt.NDArray[np.bool_]  # (N,) argmax equals the label
    folds: IntArray  # (N,) fold of each train image, -1 for val and for unlabelled images
    train_accuracy: float  # held-out accuracy on train, 0..1
    val_accuracy: float  # nan without labelled validation images


@dataclass(frozen=True)
class LabelErrors:
    """What held-out probes that allow for wrong labels say of each label."""

    wrong: FloatArray  # (N,) probability that the label is wrong, 0..1; nan where it cannot be said
    likely: IntArray  # (N,) most probable class; -1 where it cannot be said
    train_rate: float  # estimated share of wrong labels among the training images, 0..1
    val_rate: float  # the same for val; nan without labelled validation images
    train_interval: tuple[float, float]  # 90 % interval of train_rate
    val_interval: tuple[float, float]  # of val_rate


@dataclass(frozen=True)
class Shift:
    """How well a classifier tells validation images from training images of the same class. F features, A attributes."""

    auc: float  # held-out area under the curve of the features; 0.5: not at all
    p_value: float  # against labels of the split permuted within classes
    foreign: FloatArray  # (n val,) held-out score of each validation image, high: unlike train
    attribute_auc: Mapping[str, float]  # per attribute: share of (val, train) pairs of a class where val's is larger
    attribute_p: Mapping[str, float]  # permutation p-value of each
    share_p: float  # p-value of equal class shares (permutation chi-square); nan without labels on both sides
    shares: FloatArray  # (2, C) class shares of train and val
    within_class: bool  # False: some images have no label, so classes are not held apart


@dataclass(frozen=True)
class LearningCurve:
    """Validation accuracy (held-out train where there is no val) of probes fitted on growing shares of train."""

    sizes: IntArray  # (S,) training images
    accuracies: FloatArray  # (S, R) over R random subsets
    on_val: bool


class CaseImages(Protocol):
    """The images of a Case. Each part is measured when it is first asked for, and once.

    A part is None where it cannot be had; ``missing`` then says why under the part's name.
    """

    @property
    def rows(self) -> ImageRows: ...
    @property
    def missing(self) -> Mapping[str, str]: ...
    @property
    def unreadable(self) -> Mapping[int, str]:
        """Place of each file that cannot be decoded -> why."""

    @property
    def attributes(self) -> Attributes: ...
    @property
    def oddities(self) -> Mapping[str, IntArray]:
        """Kind of oddity (palette, CMYK, alpha, EXIF-rotated, truncated, wrongly named...) -> places."""

    @property
    def embeddings(self) -> FloatArray | None:
        """(N, D) float32 features of the bundled backbone; rows of unreadable files are nan."""

    @property
    def held_out(self) -> HeldOut | None: ...
    @property
    def label_errors(self) -> LabelErrors | None: ...
    @property
    def shift(self) -> Shift | None: ...
    @property
    def pairs(self) -> tuple[ImagePair, ...] | None: ...
    @property
    def learning_curve(self) -> LearningCurve | None: ...


@dataclass(frozen=True)
class Case:
    """All that a check may see. Read-only."""

    run: RunRecord  # RunRecord.empty(...) where only images are judged
    images: CaseImages | None = None  # None: no image file of this run is there

    @property
    def num_classes(self) -> int | None:
        """Number of classes by the training data set's map, else by the largest training target seen."""
        last = self.run.last_train
        if last is None:
            return None
        dataset = self.run.datasets.get(last.dataset)
        if dataset is not None and dataset.class_to_idx:
            return len(dataset.class_to_idx)
        top = max((int(p.samples.target.max(initial=-1)) for p in self.run.of_phase("train")), default=-1)
        return top + 1 if top >= 0 else None


# ---------------------------------------------------------------------------------------------
# Diagnosis
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """One measured value beside what it would be in a sound run."""

    name: str
    value: float | str | None
    reference: float | str | None = None
    unit: str = ""
    n: int | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Ranked:
    path: str
    score: float
    given: str | None = None
    likely: str | None = None


@dataclass(frozen=True)
class Finding:
    """A suspected cause. Severity (points of validation accuracy) and confidence are separate things."""

    summary: str  # one line, in words about this run: "val images are not normalised"
    severity_points: float  # expected gain in validation accuracy when removed; < 0: val is too good
    confidence: float  # 0..1 that the fault is there, as calibrated in the check's file
    evidence: tuple[Evidence, ...]
    remedy: str
    subjects: tuple[str, ...] = ()
    ranking: tuple[Ranked, ...] = ()


@dataclass(frozen=True)
class Clear:
    """The cause was looked for and is not there."""

    summary: str
    evidence: tuple[Evidence, ...] = ()
    ranking: tuple[Ranked, ...] = ()


@dataclass(frozen=True)
class NotApplicable:
    """The cause cannot be judged here; ``missing`` says what would be needed."""

    missing: str


@dataclass(frozen=True)
class Crashed:
    """The check itself failed. Made by the runner alone."""

    traceback: str


Outcome = Finding | Clear | NotApplicable | Crashed


@dataclass(frozen=True)
class Intervention:
    """One change at one seam of an unmodified program; what it does stands in seams/interventions.py."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)  # JSON-ready


@dataclass(frozen=True)
class Untreatable:
    """No intervention can remove this cause from this program; ``reason`` completes "cannot be tried: ..."."""

    reason: str


@dataclass(frozen=True)
class Check:
    """One cause of the catalogue, with the function that looks for it and the one that removes it."""

    code: str
    name: str
    detect: Callable[[Case], Finding | Clear | NotApplicable]
    doc: str
    # None: the catalogue knows no treatment, so the cause is judged on evidence alone.
    treat: Callable[[Case, Finding], Intervention | Untreatable] | None = None


@dataclass(frozen=True)
class Effect:
    """Paired gain in validation accuracy of a treatment, in points, over seeds and validation samples."""

    value: float
    low: float  # 95 % interval, not corrected for the number of causes tried
    high: float
    p_value: float  # corrected for the number of causes tried
    seeds: int
    samples: int


@dataclass(frozen=True)
class Judged:
    """A check with what it said, and what the controlled re-runs said of it."""

    check: Check
    outcome: Outcome
    verdict: Verdict = "untested"
    effect: Effect | None = None
    reason: str = ""  # why the verdict is what it is, in words


@dataclass(frozen=True)
class LedgerLine:
    """One line of the account, in points; the lines up to a total add up to it."""

    name: str
    points: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    # "cause" and "rest" lead from the run's validation accuracy on; "measurement" leads to it from what the script reports.
    kind: Literal["cause", "measurement", "rest"] = "cause"


@dataclass(frozen=True)
class Experiments:
    """How the re-runs were made, for the report."""

    arms: int  # finished, those reused included
    reused: int
    seeds: int
    epochs: int  # training passes per arm
    recorded_epochs: int
    train_fraction: float  # of the training samples, 0..1
    fidelity: str  # how well the control reproduced the record, in words
    reproduced: bool
    seconds: float
    replayed: int = 0  # model calls, over all arms, whose frozen part was read and not computed
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Accuracy:
    """A share of correct answers with its 95 % interval, all 0..1."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What `valgap diagnose` says of a run."""

    run: RunRecord
    judged: tuple[Judged, ...]  # findings first, in the order of the report
    train_reported: float | None
    train_rescored: float | None
    validation: Accuracy | None
    ledger: tuple[LedgerLine, ...] = ()
    experiments: Experiments | None = None
    images: CaseImages | None = None  # what was looked at beside the record

    def __repr__(self) -> str:
        found = ", ".join(f"{j.check.name} ({j.verdict})" for j in self.findings)
        return f"Diagnosis({self.run.path!r}: {found or 'no finding'})"

    @property
    def findings(self) -> tuple[Judged, ...]:
        return tuple(j for j in self.judged if isinstance(j.outcome, Finding))

    @property
    def sources(self) -> str:
        """What the diagnosis rests on, in words."""
        if self.experiments is not None:
            return "record and re-runs"
        return "the record alone" if self.run.passes else "the images alone"

    @property
    def crashed(self) -> tuple[Judged, ...]:
        return tuple(j for j in self.judged if isinstance(j.outcome, Crashed))


# ---------------------------------------------------------------------------------------------
# Exhibits: what a report shows beside the diagnosis, made ready by valgap.exhibits
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """One line of a chart; all tuples have the same length, ``low`` and ``high`` may be empty."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class ClassResult:
    """One class on the last validation pass."""

    name: str
    recall: Accuracy
    answers: int  # how often the model answered with it


@dataclass(frozen=True)
class Confusion:
    """Counts of (given, answered) on the last validation pass; of many classes, those most often confused."""

    classes: tuple[str, ...]
    counts: IntArray  # (C, C): rows as given, columns as answered
    left_out: int  # classes that are not shown


@dataclass(frozen=True)
class CalibrationBin:
    """Validation images whose answer was given with a probability within (low, high], all 0..1."""

    low: float
    high: float
    n: int
    confidence: float  # mean probability of the answers
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities of the last validation pass can be believed."""

    bins: tuple[CalibrationBin, ...]
    error: float  # expected calibration error, 0..1


@dataclass(frozen=True)
class Picture:
    """One image on a page."""

    title: str  # its path, as recorded
    lines: tuple[str, ...]  # what is said of it: labels, score, role
    source: str  # a data: address; empty where there is no picture
    problem: str = ""  # why there is none


@dataclass(frozen=True)
class Gallery:
    """Pictures that one statement is about; those of a row belong together."""

    title: str
    rows: tuple[tuple[Picture, ...], ...]
    total: int  # rows that there are; no more than a page holds are shown


@dataclass(frozen=True)
class Setting:
    """One thing that was set, in words."""

    group: str
    name: str
    value: str


@dataclass(frozen=True)
class Exhibits:
    """Everything a report shows beside the diagnosis. A part that the record does not hold is empty or None."""

    answer: str  # what happened, in two sentences
    accuracy: tuple[Series, ...]  # fractions over epochs
    loss: tuple[Series, ...]  # nats over epochs
    confusion: Confusion | None
    classes: tuple[ClassResult, ...]
    calibration: Calibration | None
    data_size: tuple[Series, ...]  # accuracy over the number of training images
    galleries: Mapping[str, Gallery]  # by the code of a cause
    seen: tuple[Gallery, ...]  # what the network saw in training and in validation
    mistakes: Gallery | None  # confident wrong answers on validation
    remedies: Mapping[str, str]  # code (or a unified diff) by the code of a cause
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Difference:
    """A setting that two runs do not share; None where a run has none of that name."""

    group: str
    name: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class DataDifference:
    """How the samples of one phase differ between two runs. Examples are names, at most a handful."""

    phase: Phase
    common: int
    only_first: int
    only_second: int
    other_label: int  # common samples whose label differs
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side; gains are second minus first, on the validation samples that both have, in points."""

    paths: tuple[str, str]
    accuracy: tuple[Accuracy | None, Accuracy | None]
    settings: tuple[Difference, ...]
    data: tuple[DataDifference, ...]
    gain: Effect | None  # paired over common validation samples; None where there are none
    why_no_gain: str
