"""Folders of images -> ImageTable: layouts, decoding of any odd file, splits."""

from valgap.data.folder import ImageTable, ReadReport, load_folder
from valgap.data.images import read_rgb

__all__ = ["ImageTable", "ReadReport", "load_folder", "read_rgb"]
