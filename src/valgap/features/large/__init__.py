"""The same measurements for more images than memory holds: tables on disk, read in blocks, and samples with a stated error."""

from valgap.features.large.measurements import LARGE, LargeMeasurements

__all__ = ["LARGE", "LargeMeasurements"]
