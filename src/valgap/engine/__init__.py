"""The frozen-feature engine: each image through the network once, by the fastest way, into a cache on disk."""

from valgap.engine.extract import Rows, SplitNetwork, extract
from valgap.engine.split import Cut, cut_before_last
from valgap.engine.store import FeatureStore, cache_folder

__all__ = ["Cut", "FeatureStore", "Rows", "SplitNetwork", "cache_folder", "cut_before_last", "extract"]
