"""Backbones and weights, with the preprocessing that belongs to them."""

from valgap.models.backbones import LoadedModel, create_model
from valgap.models.preprocessing import Preprocessing
from valgap.models.weights import WeightsReport

__all__ = ["LoadedModel", "Preprocessing", "WeightsReport", "create_model"]
