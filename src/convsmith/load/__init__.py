"""Models from references, weights from files, and the folders that keep both."""

from convsmith.load.files import capture_file
from convsmith.load.folder import check_own, holds_model, load_folder, read_origin, read_plan, save
from convsmith.load.load import load, load_graph, load_with_data, origin_of
from convsmith.load.records import Loaded, Origin, Wish
from convsmith.load.sources import SOURCES, Source
from convsmith.load.weights import load_weights

__all__ = [
    "SOURCES", "Loaded", "Origin", "Source", "Wish", "capture_file", "check_own", "holds_model", "load",
    "load_folder", "load_graph", "load_weights", "load_with_data", "origin_of", "read_origin", "read_plan", "save",
]  # fmt: skip
