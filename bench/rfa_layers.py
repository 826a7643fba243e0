"""What rfa_toolbox calls unproductive, as JSON: for unproductive.py, run by an interpreter that has the toolbox."""

import collections
import collections.abc
import json
import re
import sys
import warnings
from importlib.metadata import version

collections.Sequence = collections.abc.Sequence  # type: ignore[attr-defined]  # gone since Python 3.10
warnings.simplefilter("ignore")

import torchvision  # noqa: E402
from rfa_toolbox import create_graph_from_pytorch_model, input_resolution_range  # noqa: E402
from rfa_toolbox.utils.graph_utils import obtain_all_nodes, obtain_border_layers  # noqa: E402

NAME = re.compile(r"(.*?)\.*(\d+)$")  # the path of the module around a layer, and the layer's number there


def layers(net: str, sides: list[int]) -> dict[str, object]:
    """Spatial convolutions as (parent module, number), those unproductive by side, and the toolbox's input range."""
    graph = create_graph_from_pytorch_model(getattr(torchvision.models, net)().eval(), input_res=(1, 3, 224, 224))
    low, high = input_resolution_range(graph, cardinality=1)
    return {
        "all": spatial(obtain_all_nodes(graph)),
        "unproductive": {side: spatial(obtain_border_layers(graph, side)) for side in sides},
        "input_range": [int(low[0]), int(high[0])],
    }


def spatial(nodes: list[object]) -> list[tuple[str, int]]:
    convs = [n for n in nodes if n.layer_info.name.startswith("Conv2d") and max(n.layer_info.kernel_size) > 1]
    found = [NAME.fullmatch(node.name) for node in convs]
    return sorted((match[1], int(match[2])) for match in found if match)


if __name__ == "__main__":
    names, sides = sys.argv[1].split(","), [int(side) for side in sys.argv[2].split(",")]
    versions = {name: version(name) for name in ("rfa-toolbox", "torch", "torchvision")}
    print(json.dumps({"versions": versions, "nets": {net: layers(net, sides) for net in names}}))
