"""What the record holds of one pass: its samples, inputs, losses, optimizer steps and module modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from valgap.types.arrays import FloatArray, IntArray, Phase

# One image's loss counts no more than this, so that no single one decides; its label then had a chance of 2 in 10^9.
MAX_LOSS = 20.0
MOST_CHANNELS = 4  # of an image


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
    def answered(self) -> bool:
        """Whether any labelled sample has an answer of the model; where logits were not seen, none has."""
        return bool((self.prediction[self.labelled] >= 0).any())

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the prediction equals the target, for labelled samples only, shape (n labelled,)."""
        keep = self.labelled
        return np.asarray(self.prediction[keep] == self.target[keep])

    @property
    def accuracy(self) -> float:
        """Sample-weighted accuracy over labelled samples, 0..1; nan when there is none, or no answer to any."""
        return float(self.correct.mean()) if self.answered else float("nan")

    @property
    def bounded_loss(self) -> FloatArray:
        """Cross-entropy in nats of each labelled sample, (n labelled,), at most ``MAX_LOSS``; nan where no answer was seen.

        Answers that hold no number cost as much as one image can.
        """
        keep = self.labelled
        loss = np.nan_to_num(self.loss[keep].astype(np.float64), nan=MAX_LOSS, posinf=MAX_LOSS)
        return np.where(self.prediction[keep] == -1, np.nan, np.clip(loss, 0.0, MAX_LOSS))

    @property
    def mean_loss(self) -> float:
        """Sample-weighted mean cross-entropy in nats; nan when there is no labelled sample."""
        return float(self.loss[self.labelled].mean()) if self.labelled.any() else float("nan")


def same_samples(first: SampleTable, second: SampleTable) -> tuple[IntArray, IntArray]:
    """Places (n,) in both tables of the samples that both know, by sample; of one that comes more than once, the last."""
    here, there = ({s: i for i, s in enumerate(t.sample.tolist()) if s >= 0} for t in (first, second))
    both = sorted(here.keys() & there.keys())
    return np.array([here[s] for s in both], np.int64), np.array([there[s] for s in both], np.int64)


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

    @property
    def of_images(self) -> bool:
        """Whether they are images by their channels, not maps that another network made of them."""
        return len(self.shape) != 3 or self.shape[0] <= MOST_CHANNELS


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
    weights: Sequence[float] = ()  # (C,) those of the classes, where the loss was given some


@dataclass(frozen=True)
class GradientStats:
    """The gradient at the logits in some batches of a training pass, against that of the mean cross-entropy there."""

    cosine: float  # mean; 1: the same direction
    ratio: float  # median of its norm over the other's
    batches: int
    silent: float = 0.0  # share of the samples whose own gradient is nothing where the other's is not, 0..1
    over_batch: float = 0.0  # share of the batches where it sums to nothing over the batch, and not over the classes, 0..1
    unheard: float = 0.0  # share of the samples that are of classes of which none has a gradient, 0..1


@dataclass(frozen=True)
class MixStats:
    """Training images that are mixed of two classes' images of their batch, and what the loss asks for them, in some batches."""

    images: float  # how many
    neither: float  # of what is asked for, the part for classes of neither image, summed over them
    uneven: float  # images one part of which is clearly larger
    reversed: float  # of these, those for which the smaller part's class is asked for more
    large: float  # images whose smaller part is large
    single: float  # of these, those for which hardly anything is asked of its class


@dataclass(frozen=True)
class OwnAnswers:
    """What an evaluation took for its answers, where it compared them with its labels, beside the argmax of its scores."""

    images: int
    differ: int  # of these, those for which the two are not the same class
    right: int  # by the program's own answers
    scores_right: int  # by the argmax of the scores
    only_own: int  # right where the other is wrong
    only_scores: int


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
    # (S,) how far the program itself moved some weights between a step and the next one, over how far the step did
    outside_ratio: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    # (S,) share of what the last pass's steps moved that the program had undone when this pass's first step began; nan elsewhere
    taken_back: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    # (S,) the last layer's weight gradient at the step against what the gradient at the logits makes of it: cosine, ratio of
    # norms; nan unknown
    head_cosine: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    head_ratio: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

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
    gradient: GradientStats | None = None  # None: none was seen at the logits
    mix: MixStats | None = None  # None: no mixed images were seen beside what was asked for them
    own: OwnAnswers | None = None  # None: it compared no answers with labels where it can be seen
    processes: int = 1  # that shared it; `samples` then holds each known sample of theirs once
    repeated: int = 0  # samples left out of `samples` because another process, or padding, had shown them before
    # Seconds of it that went into "loading" (waiting for batches), "forward", "backward" (to the step) and "step", as the
    # program's thread sees them; empty where the record does not tell. The rest is the program's own.
    spent: Mapping[str, float] = field(default_factory=dict)
    loops: tuple[tuple[int, int], ...] = ()  # (turn from 0, turns) of the counted loops around it, innermost first
    began: float = -1.0  # seconds from the record's beginning on; -1 where it does not tell


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


@dataclass(frozen=True)
class KeptRows:
    """Rows of numbers of one pass, in its order: what the model was given, or (``made``) what it made of images."""

    pass_index: int  # position in RunRecord.passes
    sample: IntArray  # (n,) int32 sample ids, -1 unknown
    values: FloatArray  # (n, d) float16: d of the ``width`` numbers of each row, evenly spaced
    width: int
    made: bool


@dataclass(frozen=True)
class KeptInputs:
    """Images of one pass as the model was given them, spread over its batches: what a stage's reading is judged by."""

    pass_index: int  # position in RunRecord.passes
    sample: IntArray  # (n,) int32 sample ids, all known
    images: IntArray  # (n, C, h, w) uint8 of at most 96 pixels: value = low + image / 255 * (high - low)
    low: FloatArray  # (C,)
    high: FloatArray  # (C,)

    @property
    def values(self) -> FloatArray:
        """The tensors' values, (n, C, h, w) float32, to within 1/255 of their range."""
        span = (self.high - self.low)[None, :, None, None]
        return np.asarray(self.low[None, :, None, None] + self.images / np.float32(255) * span, np.float32)
