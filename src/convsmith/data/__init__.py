"""Data sets: a reference to normalized batches, reproducible per (seed, epoch)."""

from convsmith.data.augment import PLAIN, Augment
from convsmith.data.load import load_data
from convsmith.data.records import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    UNLABELLED,
    Batches,
    Data,
    Normalize,
    Shape,
    Split,
    epoch_seed,
)
from convsmith.data.stream import StreamSplit
from convsmith.data.tensors import TensorSplit

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PLAIN",
    "UNLABELLED",
    "Augment",
    "Batches",
    "Data",
    "Normalize",
    "Shape",
    "Split",
    "StreamSplit",
    "TensorSplit",
    "epoch_seed",
    "load_data",
]
