"""What the body of one event says, as a noun of ``types``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from valgap.record.known_samples import with_new_ids
from valgap.types import (
    CutPass,
    DatasetInfo,
    InputStats,
    ModelInfo,
    OptimizerInfo,
    Shortened,
    TransformStep,
    WeightsLoaded,
    WrittenFile,
)

# A model's weights count as given when at least this share of its keys came out of one load_state_dict.
LOADED_SHARE = 0.5
# Fields of a model that are tuples; JSON has lists.
LISTED = {
    "tensor_names",
    "layer_kind",
    "expected_mean",
    "expected_std",
    "expected_size",
    "dropout",
    "layer_groups",
    "strays",
}


def small_images(event: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """(images (n, C, h, w) uint8, values of 0 and of 255 per channel, (C,) each)."""
    images, low, high = (np.asarray(event[k]) for k in ("images", "low", "high"))
    if images.ndim != 4 or images.dtype != np.uint8 or not (low.shape == high.shape == images.shape[1:2]):
        raise ValueError(f"no small images have the shape {images.shape}")
    return images, low.astype(np.float32), high.astype(np.float32)


def fields_of(kind: Any, event: dict[str, Any]) -> dict[str, Any]:
    """What a dataclass takes of an event: newer records may hold more."""
    return {name: event[name] for name in kind.__dataclass_fields__ if name in event}


def joined(kind: Any, parts: list[dict[str, Any]]) -> Any:
    """One table out of its parts; matrices with fewer columns are widened with nan."""
    columns: dict[str, Any] = {}
    for name in kind.__dataclass_fields__:
        if any(name not in p for p in parts):
            continue  # written before this column was: its default stands
        arrays = [np.asarray(p[name]) for p in parts]
        if arrays[0].ndim == 2:
            width = max(a.shape[1] for a in arrays)
            arrays = [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=np.nan) for a in arrays]
        columns[name] = np.concatenate(arrays)
    return kind(**columns)


def dataset_of(event: dict[str, Any], renamed: Mapping[int, int]) -> DatasetInfo:
    """A data set, its samples under the names that were learnt later."""
    learnt = event["sample"] is not None and any(i in renamed for i in np.asarray(event["sample"])[:1].tolist())
    if event["sample"] is not None:
        event = {**event, "sample": with_new_ids(event["sample"], renamed)}
    steps = event["transform"]
    transform = None
    if steps is not None:
        transform = tuple(TransformStep(**{**s, "mean": _tuple(s["mean"]), "std": _tuple(s["std"])}) for s in steps)
    return DatasetInfo(**{**fields_of(DatasetInfo, event), "transform": transform, "learnt": learnt})


def _tuple(value: Any) -> tuple[float, ...] | None:
    return None if value is None else tuple(float(v) for v in value)


def model_of(event: dict[str, Any], loaded: float) -> ModelInfo:
    """A model, of whose tensors the share ``loaded`` came out of a file; nan where nothing was loaded."""
    fresh = float(event["fresh_batchnorm"])
    pretrained: bool | None = None
    if loaded >= LOADED_SHARE or fresh < LOADED_SHARE:
        pretrained = True
    elif fresh >= LOADED_SHARE or loaded < LOADED_SHARE:
        pretrained = False
    fields = fields_of(ModelInfo, event)
    for name in LISTED & fields.keys():
        fields[name] = tuple(fields[name]) if fields[name] is not None else None
    return ModelInfo(**{**fields, "pretrained": pretrained, "loaded_fraction": loaded})


def loaded_of(event: dict[str, Any]) -> WeightsLoaded:
    """What ``load_state_dict`` did."""
    return WeightsLoaded(**{**fields_of(WeightsLoaded, event), "examples": tuple(event["examples"])})


def optimizer_of(event: dict[str, Any]) -> OptimizerInfo:
    """An optimizer as it was made."""
    return OptimizerInfo(event["id"], event["kind"], tuple(event["groups"]), tuple(event["num_parameters"]))


def inputs_of(event: dict[str, Any] | None) -> InputStats | None:
    """Statistics of the batches of a pass; None where none was looked at."""
    if event is None:
        return None
    shapes = tuple(tuple(s) for s in event["shapes"])
    return InputStats(**{**event, "shape": tuple(event["shape"]), "shapes": shapes})


def shortened_of(
    told: Sequence[Mapping[str, Any]], cuts: Sequence[Mapping[str, Any]], places: Mapping[int, int]
) -> Shortened | None:
    """How a program was cut short; None where it was not. ``places``: a pass's number in the record -> its position."""
    if not told:
        return None
    body = {name: value for event in told for name, value in fields_of(Shortened, dict(event)).items()}
    files = tuple(WrittenFile(str(path), int(size)) for path, size in body.pop("files", ()))
    passes = {places[int(e["pass"])]: CutPass(**fields_of(CutPass, dict(e))) for e in cuts if int(e["pass"]) in places}
    return Shortened(**body, passes=passes, files=files)
