"""A captured model: its calls, the rules of their ops, and the ways in from torch and ONNX."""

from convsmith.graph.graph import Graph
from convsmith.graph.node import GETITEM, Node, is_norm

__all__ = ["GETITEM", "Graph", "Node", "is_norm"]
