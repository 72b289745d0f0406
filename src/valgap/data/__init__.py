"""Folders of images -> ImageTable: layouts, decoding of any odd file, splits."""

from valgap.data.folder import ImageTable, ReadReport, load_folder, load_test
from valgap.data.images import read_rgb
from valgap.data.trained import images_of_training

__all__ = ["ImageTable", "ReadReport", "images_of_training", "load_folder", "load_test", "read_rgb"]
