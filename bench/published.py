"""What of the published tables needs no training: gains, sizes and structures, `python bench/published.py`.

Wang et al., "An Efficient Quantitative Approach for Optimizing Convolutional Neural Networks" (CIKM 2021), as printed,
beside what the package computes on the zoo's nets. Writes bench/results/published.json.
"""

import json
from pathlib import Path
from typing import Any

import torch

import convsmith as cs
from convsmith.environment import environment
from convsmith.files import write_text

RESULT = Path(__file__).parent / "results" / "published.json"
Blocks = tuple[int, ...]
VGG11, VGG16, VGG19 = (1, 1, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)
MOBILENET, RESNET50 = (1, 2, 2, 6, 2), (3, 4, 6, 3)

# net, side, base, new, printed gain of new over base
GAINS: tuple[tuple[str, int, Blocks, Blocks, float], ...] = (
    *(
        ("vgg11", 32, VGG11, (*VGG11[:i], VGG11[i] + 1, *VGG11[i + 1 :]), gain)
        for i, gain in enumerate((1.73, 1.60, 0.29, 0.0, 0.0))
    ),
    ("vgg16", 32, VGG16, (5, 4, 2, 1, 1), 2.30),
    ("vgg19", 32, VGG19, (6, 4, 3, 2, 1), 3.13),
    ("mobilenet", 32, MOBILENET, (4, 4, 2, 2, 1), 3.94),
    ("resnet50", 32, RESNET50, (5, 5, 4, 2), 0.76),
    ("vgg16", 224, VGG16, (3, 3, 3, 2, 2), 0.39),
    ("vgg19", 224, VGG19, (4, 3, 3, 3, 3), 1.09),
    ("mobilenet", 224, MOBILENET, (3, 3, 3, 2, 2), 2.59),
    ("resnet50", 224, RESNET50, (4, 5, 4, 3), 0.47),
)

# net, side, classes, blocks, printed millions of parameters
SIZES: tuple[tuple[str, int, int, Blocks, float], ...] = (
    ("vgg16", 32, 10, VGG16, 14.73), ("vgg16", 32, 10, (5, 4, 2, 1, 1), 5.10),
    ("vgg19", 32, 10, VGG19, 20.04), ("vgg19", 32, 10, (6, 4, 3, 2, 1), 8.09),
    ("mobilenet", 32, 10, MOBILENET, 3.22), ("mobilenet", 32, 10, (4, 4, 2, 2, 1), 1.13),
    ("resnet50", 32, 10, RESNET50, 23.52), ("resnet50", 32, 10, (5, 5, 4, 2), 17.24),
    ("vgg16-wa", 32, 100, VGG16, 34.02), ("vgg16-wa", 32, 100, (5, 4, 2, 1, 1), 24.39),
    ("vgg19-wa", 32, 100, VGG19, 39.33), ("vgg19-wa", 32, 100, (6, 4, 3, 2, 1), 27.38),
    ("mobilenet-wa", 32, 100, MOBILENET, 3.32), ("mobilenet-wa", 32, 100, (4, 4, 2, 2, 1), 1.23),
    ("resnet50-wa", 32, 100, RESNET50, 23.71), ("resnet50-wa", 32, 100, (5, 5, 4, 3), 21.89),
    ("vgg16", 224, 1000, VGG16, 138.36), ("vgg16", 224, 1000, (3, 3, 3, 2, 2), 133.82),
    ("vgg19", 224, 1000, VGG19, 143.67), ("vgg19", 224, 1000, (4, 3, 3, 3, 3), 141.34),
    ("mobilenet", 224, 1000, MOBILENET, 4.23), ("mobilenet", 224, 1000, (3, 3, 3, 2, 2), 3.52),
    ("resnet50", 224, 1000, RESNET50, 25.56), ("resnet50", 224, 1000, (4, 5, 4, 3), 23.67),
)  # fmt: skip

# net, side, classes, units asked for (None: as many as there are), printed structure
STRUCTURES: tuple[tuple[str, int, int, int | None, Blocks], ...] = (
    ("vgg16", 32, 10, None, (5, 4, 2, 1, 1)), ("vgg19", 32, 10, None, (6, 4, 3, 2, 1)),
    ("mobilenet", 32, 10, None, (4, 4, 2, 2, 1)), ("resnet50", 32, 10, None, (5, 5, 4, 2)),
    ("resnet50-wa", 32, 100, 17, (5, 5, 4, 3)),
    ("vgg16", 224, 1000, None, (3, 3, 3, 2, 2)), ("vgg19", 224, 1000, None, (4, 3, 3, 3, 3)),
    ("resnet50", 224, 1000, None, (4, 5, 4, 3)),
)  # fmt: skip


def scores(net: str, side: int, classes: int, blocks: Blocks | None) -> Any:
    """What the metric says of a net of the zoo."""
    return cs.score(graph(net, side, classes, blocks))


def graph(net: str, side: int, classes: int, blocks: Blocks | None) -> Any:
    """The net without weights, captured."""
    with torch.device("meta"):
        model = cs.build(net, input=(3, side, side), classes=classes, blocks_per_stage=blocks)
    return cs.capture(model, torch.zeros(1, 3, side, side, device="meta"), name=net)


def gains() -> list[dict[str, Any]]:
    """Gain of the new structure over the base, computed and printed."""
    return [
        {"net": net, "input": side, "base": base, "new": new, "printed": printed,
         "gain": round(scores(net, side, 10, new).gain - scores(net, side, 10, base).gain, 4)}
        for net, side, base, new, printed in GAINS
    ]  # fmt: skip


def sizes() -> list[dict[str, Any]]:
    """Parameters, computed and printed in millions."""
    return [
        {"net": net, "input": side, "classes": classes, "blocks": blocks, "printed": printed,
         "params": scores(net, side, classes, blocks).params}
        for net, side, classes, blocks, printed in SIZES
    ]  # fmt: skip


def structures() -> list[dict[str, Any]]:
    """What the organizer makes of the base, and what is printed."""
    return [
        {"net": net, "input": side, "classes": classes, "asked": asked, "printed": printed,
         "organized": cs.organize(graph(net, side, classes, None), blocks=asked).new.blocks}
        for net, side, classes, asked, printed in STRUCTURES
    ]  # fmt: skip


def main() -> None:
    """Compute all three, and write them down."""
    found = {"what": __doc__, "gains": gains(), "sizes": sizes(), "structures": structures()} | environment()
    write_text(RESULT, json.dumps(found, indent=1) + "\n")
    for part in ("gains", "sizes", "structures"):
        for row in found[part]:
            print(row)


if __name__ == "__main__":
    main()
