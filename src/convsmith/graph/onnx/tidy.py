"""What exporters take apart, put together again."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from convsmith.graph.call import Call, Operand
from convsmith.graph.node import Node

LINEAR, SUM = "aten.linear.default", "aten.add.Tensor"


def with_bias(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """A linear layer and the sum that adds its bias, which exporters write as two, as the one layer that they are."""
    uses = Counter([*outputs, *(operand.name for node in nodes for operand in node.call.operands)])
    kept: dict[str, Node] = {}
    for node in nodes:
        layer, bias = _layer_and_bias(node, kept)
        if layer is None or bias is None or uses[layer.name] > 1:
            kept[node.name] = node
        else:
            del kept[layer.name]
            call = Call(LINEAR, {**layer.call.args, "bias": bias}, layer.call.outs)
            kept[node.name] = replace(layer, name=node.name, call=call, params=layer.params + node.params)
    return list(kept.values())


def _layer_and_bias(node: Node, before: Mapping[str, Node]) -> tuple[Node | None, Operand | None]:
    if node.call.op != SUM:
        return None, None
    pair = node.call.operands
    bare = (before.get(x.name) for x in pair)
    layer = next((n for n in bare if n is not None and n.call.op == LINEAR and n.call["bias"] is None), None)
    bias = next((x for x in pair if x.own and x.shape == node.call.out[-1:]), None)
    return layer, bias


def with_leaves(nodes: Sequence[Node]) -> list[Node]:
    """The same calls, each knowing whether its module holds others that call something."""
    paths = {tuple(node.module.split(".")) for node in nodes}
    parents = {path[:length] for path in paths for length in range(1, len(path))}
    return [replace(n, leaf=bool(n.module) and tuple(n.module.split(".")) not in parents) for n in nodes]
