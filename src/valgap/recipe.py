"""The known-good recipe: each number with its source.

Expected on clothing_mini (500 / 186 photographs, 10 classes) with EfficientNet-Lite0 at 224 px: val 83 % by the probe alone
(benchmarks/results/accuracy.md has what was measured, and the settings in circulation beside it).
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from valgap.errors import ConfigError

SHOWN = 80  # characters of a senseless value
# PyYAML takes minutes for some ten thousand opening brackets.
MOST_BYTES, MOST_BRACKETS = 1 << 16, 1_000


class Recipe(BaseModel):
    """Settings of `valgap train`. Rates and shares are 0..1; the fields are the keys of a --config file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # What learns: the head alone (a probe on frozen features), the last stage as well, the last two, or all layers. ``auto``
    # means the last two (or one, where their activations would fill the cache), unless held-out train speaks against it.
    unfreeze: Literal["auto", "head", "last", "last2", "all"] = "auto"
    # How the head begins. LP-FT: from the probe's optimum, since a random head distorts the features in its first steps.
    # Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", section 3.
    start: Literal["probe", "random"] = "probe"

    # Inverse L2 strengths of the probe, swept by cross-validation on train, on standardised features. Kornblith, Shlens, Le
    # 2019, "Do Better ImageNet Models Transfer Better?", appendix A.4: L-BFGS, L2 swept logarithmically.
    probe_inverse_l2: tuple[float, ...] = Field(default=(1e-4, 1e-3, 1e-2, 1e-1, 1.0), min_length=1)
    probe_folds: int = Field(default=5, ge=2, le=20)

    # What chooses how far to go from the probe's weights to the fine-tuned ones, after which epoch to stop, and the
    # temperature. ``held_out``: a part of train that is held out from a first training; val only measures. ``val``: the best
    # epochs on val and their mean, so that val's figures are a little optimistic. Without a probe to begin with it is val.
    select: Literal["held_out", "val"] = "held_out"
    # None: as many epochs as make about 100 steps, at least 2; for all layers, on fresh crops, 200, at least 3; from a random
    # head 600, at least 6; at most 20. Big Transfer (Kolesnikov et al. 2020, section 3.3) counts in steps as well, 500 for
    # its smallest tasks from a random head.
    epochs: int | None = Field(default=None, ge=0)
    # 100 steps of 16 images gain nearly what 100 of 32 do, and more than 50 of 32 (benchmarks/results/budget.md).
    batch_size: int = Field(default=16, ge=1)
    # SGD with Nesterov momentum .9 and cosine: Kornblith et al. 2019, A.5. The rate is the one knob that matters: Li et al.
    # 2020, "Rethinking the Hyperparameters for Fine-tuning", find 1e-2 .. 1e-3 for ImageNet backbones.
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(default=1e-2, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    # Of the pretrained layers, as a share of the head's rate. None: three times, from the probe's head; it is at its optimum
    # already, and what has to move in few steps are the layers (benchmarks/results/budget.md: 1 and .1 gain less, 10 throws
    # the features of two sets of six away). From a random head a tenth: Howard and Ruder 2018, section 3.2.
    backbone_rate: float | None = Field(default=None, ge=0)
    # Li et al. 2020 use 1e-4; on no BatchNorm and no bias: He et al. 2019, "Bag of Tricks", section 3.1.
    weight_decay: float = Field(default=1e-4, ge=0)
    decay_norm_and_bias: bool = False
    # Gradients are cut to this norm. Pascanu et al. 2013. Without it the first steps on 45 images threw the probe's head away.
    clip_norm: float = Field(default=1.0, gt=0)
    # Goyal et al. 2017, section 2.2: warm-up. 100 steps, but at most a tenth of all.
    warmup_steps: int = Field(default=100, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    # Steps in bfloat16 where the processor or GPU computes it faster than float32 (weights, sums and scores stay float32):
    # Micikevicius et al. 2018, "Mixed Precision Training"; Kalamkar et al. 2019, "A Study of BFLOAT16 for Deep Learning".
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # BatchNorm's statistics are those of the pretraining: with few images and batches of 32 they would only become noisy.
    # Kornblith et al. 2019, A.5, had to lower the momentum; the seed of this project lost ten points to moving statistics.
    hold_batchnorm: bool = True

    # ``light``: crop of at least this share, and a flip where it keeps the class (Szegedy et al. 2015 crop from .08; small
    # sets lose objects that way). ``reference``: the chain in circulation, with colour and rotation. ``none``: no change.
    augment: Literal["light", "reference", "none"] = "light"
    crop_share: float = Field(default=0.35, gt=0, le=1)
    # None: flipped images are used where the probe gives them their class as often as the unflipped (digits lose it).
    flip: bool | None = None
    # Mueller et al. 2019: smoothing hurts calibration and distillation; a temperature does better afterwards.
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    # Off by default below 20,000 images: Zhang et al. 2018 report gains on large sets trained for long.
    mixup: float = Field(default=0.0, ge=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    ema: float = Field(default=0.0, ge=0, lt=1)
    # Logit adjustment, Menon et al. 2021, section 4.1 (post hoc). ``auto``: where classes differ by 3 to 1 or more and the
    # balanced accuracy of held-out train gains by it.
    imbalance: Literal["auto", "adjust", "none"] = "auto"
    # Guo et al. 2017: one temperature, fitted on what selects.
    temperature: bool = True

    # Stop after so many epochs without a lower loss on what selects. Prechelt 1998.
    patience: int = Field(default=5, ge=1)
    # Where val selects, the weights of the best few epochs are averaged, and kept where that is no worse: Wortsman et al. 2022.
    average_best: int = Field(default=3, ge=1)

    @staticmethod
    def changed(recipe: Recipe, changes: Mapping[str, object]) -> Recipe:
        """The recipe with these settings changed. Raises ConfigError for a value that does not fit."""
        try:
            return Recipe.model_validate({**recipe.model_dump(), **changes})
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (given: {e['input']!r})" for e in error.errors()]
            raise ConfigError("; ".join(problems)) from error


RECIPE = Recipe()
# What is in circulation: examples/reference_resnet50.py.
REFERENCE = Recipe(
    select="val",
    unfreeze="head",
    start="random",
    epochs=20,
    batch_size=32,
    optimizer="adam",
    learning_rate=1e-3,
    weight_decay=1e-5,
    clip_norm=1e9,
    decay_norm_and_bias=True,
    precision="fp32",
    warmup_steps=0,
    schedule="constant",
    hold_batchnorm=False,
    augment="reference",
    imbalance="none",
    temperature=False,
    patience=1000,
    average_best=1,
)
PRESETS = {"recipe": RECIPE, "reference": REFERENCE}


def preset(name: str) -> Recipe:
    """The recipe called ``name``. Raises ConfigError for an unknown one."""
    if name not in PRESETS:
        raise ConfigError(f"no preset is called {name!r}: there are {', '.join(PRESETS)}")
    return PRESETS[name]


def read_config(path: Path, base: Recipe = RECIPE) -> Recipe:
    """``base`` with what a YAML file changes. Raises ConfigError that names the file, the line and what was expected."""
    try:
        text = path.read_bytes()
        if len(text) > MOST_BYTES:
            raise ConfigError(f"{path} has {len(text):,} bytes: too long for a recipe ({MOST_BYTES:,} at most)")
        if text.count(b"[") + text.count(b"{") > MOST_BRACKETS:
            raise ConfigError(f"{path} nests lists in lists: too deep for a recipe")
        tree = yaml.compose(text, yaml.SafeLoader)
        given = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}{where}: no YAML ({getattr(error, 'problem', error)})") from error
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:  # PyYAML's, of senseless values
        raise ConfigError(f"{path}: a value is none that YAML has ({str(error)[:SHOWN]})") from error
    if given is None:
        return base
    if not isinstance(given, dict) or not isinstance(tree, yaml.MappingNode):
        raise ConfigError(f"{path}, line 1: expected settings such as `unfreeze: last`, one a line")
    strange = [key for key in given if not isinstance(key, str)]
    if strange:
        raise ConfigError(f"{path}: no setting is called {_shown(strange[0])}; there are {', '.join(Recipe.model_fields)}")
    lines = {key.value: key.start_mark.line + 1 for key, _ in tree.value}
    try:
        return Recipe(**{**base.model_dump(), **given})
    except ValidationError as error:
        raise ConfigError("; ".join(_problem(path, dict(e), lines) for e in error.errors())) from error


def _problem(path: Path, error: dict[str, object], lines: dict[str, int]) -> str:
    place = error["loc"]
    name = str(place[0]) if isinstance(place, tuple) and place else "?"
    if error["type"] == "extra_forbidden":
        known = ", ".join(Recipe.model_fields)
        return f"{path}, line {lines.get(name, 1)}: no setting is called {_shown(name)}; there are {known}"
    return f"{path}, line {lines.get(name, 1)}: {name}: {error['msg']} (given: {_shown(error['input'])})"


def _shown(value: object) -> str:
    """A value in a few characters: names that stand for each other (``&a [*a, *a]``) make endless ones of a few lines."""
    short = reprlib.Repr()
    short.maxlevel = 2
    return short.repr(value)[:SHOWN]
