"""The expander: a standard convolution per separable pair, to be trained and decomposed again (He et al., 2019)."""

from torch import Tensor, nn

from convsmith.graph import Graph
from convsmith.graph.given import graph_of
from convsmith.plan import Merge, Plan
from convsmith.planning.decompose import decompose
from convsmith.planning.edits import planned
from convsmith.structure.pairs import find_pairs


def expand(net: Graph | nn.Module, example: Tensor | None = None) -> Plan:
    """Plan a standard k x k convolution C -> N for every depthwise k x k on C channels with a pointwise C -> N behind.

    BatchNorms and activations between the two are removed. A trained net's weights are carried without loss where no
    activation stands there. `convsmith.planning.expand.restore` plans the way back. From He et al., "Depth-wise
    Decomposition for Accelerating Separable Convolutions in Efficient CNNs" (2019).

    Args:
        net: A captured graph, or a module.
        example: For a module, an input with a batch in front.

    Returns:
        A plan with one edit a pair; `exact` says whether its weights are carried without loss.

    Raises:
        ConvsmithError: When a module is given without an example, or cannot be captured.

    >>> import convsmith as cs, torch
    >>> plan = cs.expand(cs.capture(cs.build("shufflenetv2-0.5", input=(3, 32, 32)), torch.zeros(1, 3, 32, 32)))
    >>> len(plan.edits), plan.edits[0].unit, plan.edits[0].macs, plan.edits[0].exact
    (19, ('layer1.0.left.0', 'layer1.0.left.1', 'layer1.0.left.2'), (202752, 1327104), True)
    """
    graph = graph_of(net, example)
    pairs, refusals = find_pairs(graph)
    return planned(graph, [pair.edit for pair in pairs], refusals)


def restore(graph: Graph, plan: Plan) -> Plan:
    """Plan depthwise and pointwise again for what `plan` merged in this net, at the multiply-accumulates of the pairs.

    Nothing stands between the two afterwards: BatchNorms and activations there do not come back.
    """
    merged = {edit.pointwise for edit in plan.edits if isinstance(edit, Merge)}
    others = [node.module for node in graph.layers if node.kind == "conv" and node.module not in merged]
    return decompose(graph, block="dw-pw", keep=others)
