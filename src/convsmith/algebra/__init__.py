"""Closed forms that replace a weight by cheaper factors, each with the error it attains."""

from convsmith.algebra.separable import METHODS, Method, Separable, relative_error
from convsmith.algebra.svd import svd_input_wise, svd_output_wise

__all__ = ["METHODS", "Method", "Separable", "relative_error", "svd_input_wise", "svd_output_wise"]
