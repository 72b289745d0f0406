"""What a Case holds about images, measured once and lazily: rows, attributes, embeddings, held-out probes, pairs, curves."""

from valgap.data.contents import is_address
from valgap.features.measurements import Measurements, images_of_path, images_of_run
from valgap.features.source import rows_of_path, rows_of_run

__all__ = ["Measurements", "images_of_path", "images_of_run", "is_address", "rows_of_path", "rows_of_run"]
