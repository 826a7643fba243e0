"""Closed and alternating forms that replace a weight by cheaper factors, each with the error it attains."""

from convsmith.algebra.als import als_depthwise_first
from convsmith.algebra.compensated import compensated_depthwise_first
from convsmith.algebra.fit import METHODS, Fit, Target, fit, fits, relative_error
from convsmith.algebra.forms import Channel, DepthwiseFirst, Factors, Form, PointwiseFirst, Spatial, ThreeWay, Tucker
from convsmith.algebra.gsvd import gsvd_depthwise_first
from convsmith.algebra.svd import svd_depthwise_first, svd_pointwise_first

__all__ = [
    "METHODS",
    "Channel",
    "DepthwiseFirst",
    "Factors",
    "Fit",
    "Form",
    "PointwiseFirst",
    "Spatial",
    "Target",
    "ThreeWay",
    "Tucker",
    "als_depthwise_first",
    "compensated_depthwise_first",
    "fit",
    "fits",
    "gsvd_depthwise_first",
    "relative_error",
    "svd_depthwise_first",
    "svd_pointwise_first",
]
