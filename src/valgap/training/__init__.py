"""The training program: frozen features, a probe, then one loop; and what its checkpoints can do."""

from valgap.training.predict import Classifier, Prediction, load, predict
from valgap.training.program import train
from valgap.training.result import TrainResult

__all__ = ["Classifier", "Prediction", "TrainResult", "load", "predict", "train"]
