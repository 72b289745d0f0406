"""What was measured in the recorded process after its program had ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from valgap.types.passes import SampleTable


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
    weights, those of the validated model; ``val_trained`` is on those of the trained one, where a copy of it was validated.

    ``numbers`` keys. Probes are ridge classifiers fitted on train features (the inputs of the last linear layer, val
    transform, eval mode) and scored on val: ``probe_final`` (under the last state), ``probe_initial`` (under the first
    BatchNorm statistics, where those of frozen layers moved), ``probe_middle`` (features of an earlier layer),
    ``probe_start`` and ``probe_end`` (under the whole first and the last state, on the same images, where weights moved),
    ``probe_plain`` and ``probe_augmented`` (held-out training images, plain and as the script augments them); ``probe_n``,
    ``probe_train_n``, ``probe_start_n``, ``probe_augmented_n``; ``*_se`` standard errors of the paired differences.
    ``curve_SHARE_DRAW`` (under the first weights, fitted on so many percent of few training images, ``curve_SHARE_n`` of
    ``curve_n``).
    ``replay_NAME`` and ``replay_NAME_p`` (val accuracy of the head trained again on the last features, and its paired
    p-value against ``replay_recorded``), see seams/closing/head_replay.py. ``val_temperature``, ``val_nll``,
    ``val_nll_tempered``, ``val_nll_gain_se``, ``val_ece``, ``val_ece_tempered``, ``calibration_n``, see
    seams/looking/calibration.py.
    ``mode_logit_change`` (mean absolute logit difference train against eval mode / logit std), ``batch_mate_change`` (the
    same for ``batch_mate_n`` images among other batch mates, in the mode in which the program validates).
    """

    rescores: Mapping[str, SampleTable] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    twins: tuple[Twin, ...] | None = None  # None: not looked for
    skipped: Mapping[str, str] = field(default_factory=dict)  # name -> reason
    seconds: float = 0.0
    cut: tuple[str, ...] = ()  # what is missing or rests on fewer images than planned for want of time; see experiments/rebuild
    planned: int = 0  # images of training, and of validation, to be read at most
