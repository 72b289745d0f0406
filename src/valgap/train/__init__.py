"""The training program: frozen features, a probe, then a plain loop; and what its checkpoints can do."""

from valgap.train.predict import Prediction, predict
from valgap.train.program import TrainResult, train

__all__ = ["Prediction", "TrainResult", "predict", "train"]
