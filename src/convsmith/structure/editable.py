"""Which convolutions of a graph a block can be put in the place of."""

from convsmith.graph import Graph, Node
from convsmith.kernels.spec import ConvSpec

CASTS = frozenset(["aten.to.dtype", "aten._to_copy.default"])  # of autocast, before each layer


def untouchable(graph: Graph, node: Node, spec: ConvSpec | None) -> str | None:
    """Why nothing can be put in a convolution's place, or None where it can."""
    if reason := graph.functional_reason(node):
        return reason
    if spec is None:
        return "it is not a plain convolution module with a weight of its own"
    if not node.module and node.module in graph.convolutions:
        return "it is the model itself; put it in an nn.Sequential to have it replaced"
    if node.name not in graph.outputs and not graph.readers(node.name):
        return "nothing reads what it answers"
    if graph.calls.get(node.module, 1) > 1:
        return f"it is called {graph.calls[node.module]} times"
    if any(other.module == node.module for other in graph.nodes if other is not node and other.call.op not in CASTS):
        return "its module does more than convolve, so a block would not do the same"
    if node.module not in graph.convolutions:
        return "it is no nn.Conv2d with a weight as it stands: standardized, normalized, or of a forward of its own"
    return "it shares its weights with another module" if node.module in graph.shared else None
