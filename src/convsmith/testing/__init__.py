"""The judges of an extension: one call an entry, by oracles that know nothing of this package's own rules."""

from convsmith.testing.blocks import check_block
from convsmith.testing.methods import check_method
from convsmith.testing.nets import check_net
from convsmith.testing.onnx import check_onnx
from convsmith.testing.rules import check_rule
from convsmith.testing.targets import check_target

__all__ = ["check_block", "check_method", "check_net", "check_onnx", "check_rule", "check_target"]
