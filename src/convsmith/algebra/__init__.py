"""Closed forms and descents that replace a weight by cheaper factors, each with the error it attains."""

from convsmith.algebra import als, channel, compensated, cp, gsvd, peers, spatial, svd, tucker
from convsmith.algebra.chain import Chain, Link
from convsmith.algebra.fitting import METHODS, Fit, Target, fit, fits, relative_error
from convsmith.algebra.forms import Channel, DepthwiseFirst, Factors, Form, PointwiseFirst, Spatial, ThreeWay, Tucker
from convsmith.algebra.request import FitRequest

__all__ = [
    "METHODS",
    "Chain",
    "Channel",
    "DepthwiseFirst",
    "Factors",
    "Fit",
    "FitRequest",
    "Form",
    "Link",
    "PointwiseFirst",
    "Spatial",
    "Target",
    "ThreeWay",
    "Tucker",
    "als",
    "channel",
    "compensated",
    "cp",
    "fit",
    "fits",
    "gsvd",
    "peers",
    "relative_error",
    "spatial",
    "svd",
    "tucker",
]
