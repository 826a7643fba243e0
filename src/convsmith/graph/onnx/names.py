"""Module paths of nodes, as far as the names that exporters leave tell them."""

import ast
import re
from collections.abc import Sequence

from onnx import NodeProto

LONGEST = 1 << 14  # letters of a list of scopes
_SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's exporter writes the modules around a node, outermost first
_WEIGHT = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)\.[A-Za-z_]\w*")  # features.0.weight


def module_of(node: NodeProto, weights: Sequence[str], layer: bool) -> str:
    """The path of the module that made a node, else the node's own name.

    A layer is called after one of its weights: exporters that fold a normalization into it give it the normalization's
    scope. Anything else is called after its scope: exporters keep one of two equal tensors, under the name of either.
    """
    scope = _scope(node)
    owners = [match[1] for match in map(_WEIGHT.fullmatch, weights) if match]
    if scope is not None and (scope in owners or not owners or not layer):
        return scope
    return owners[0] if owners else node.name or node.output[0]


def _scope(node: NodeProto) -> str | None:
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            scopes = _listed(entry.value)
            return str(scopes[-2]) if len(scopes) > 1 else None
    return _script_scope(node.name) if node.name.startswith("/") else None


def _listed(text: str) -> list[object]:
    """A list in Python's notation; the last names the call itself. Anything else tells nothing."""
    try:
        scopes = ast.literal_eval(text) if len(text) < LONGEST else []
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return []
    return scopes if isinstance(scopes, list) else []


def _script_scope(name: str) -> str:
    """Torch's older exporter repeats a container's name before that of its child.

    >>> _script_scope("/features/features.1/block/block.0/Conv")
    'features.1.block.0'
    """
    path, last = "", ""
    for part in name.split("/")[1:-1]:
        own = part.removeprefix(f"{last}.") if last else part
        path, last = f"{path}.{own}" if path else own, part
    return path
