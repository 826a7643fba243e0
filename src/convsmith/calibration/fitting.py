"""The statistics that a layer's block is fitted to, once they are seen to be the layer's own."""

from convsmith.algebra.second_moments import Statistics
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph
from convsmith.kernels.spec import Convolution


def own_statistics(layer: str, conv: Convolution, statistics: Statistics) -> Statistics:
    """The statistics of a layer, once they are seen to be of its weight; raises ConvsmithError where they are not."""
    same = statistics.cross.T.shape == conv.weight.flatten(1).shape
    if same and not statistics.answers(conv.weight):
        raise ConvsmithError(f"The statistics of {layer} are of other weights; make them anew with this model.")
    return statistics


def fitted_to(graph: Graph, layer: str, statistics: Statistics) -> Statistics:
    """What a layer's block is fitted to: moments about the mean, or about zero where nothing can hold a mean."""
    node = next(node for node in graph.nodes if node.module == layer)
    return statistics if graph.holds_mean(node) else statistics.uncentred()
