"""Nets in .pt2 files, read as plain data: their JSON graph, raw weights, and operators of an explicit list."""

from convsmith.pt2.archive import UnsafeError
from convsmith.pt2.program import Input, Program, inputs_of
from convsmith.pt2.read import PT2_ERRORS, read_program

__all__ = ["PT2_ERRORS", "Input", "Program", "UnsafeError", "inputs_of", "read_program"]
