"""Fold repeated blocks of layers into one row each, so that a deep net's table stays short."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convsmith.score.records import Layer

LONGEST = 16  # layers in a block that is recognized as repeated
Placed = tuple[int, Layer]  # a layer and its place in the net


@dataclass(frozen=True)
class Row:
    """Layers of one kind, shape and window: the first of each repeat of a block, and their places; sums are of all."""

    places: tuple[int, ...]
    layers: tuple[Layer, ...]

    @property
    def first(self) -> Layer:
        """The one that stands for all."""
        return self.layers[0]

    @property
    def params(self) -> int:
        """Learnable scalars."""
        return sum(layer.params for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(layer.macs for layer in self.layers)

    @property
    def gain(self) -> float:
        """Summed gain."""
        return sum(layer.gain for layer in self.layers)


def fold(layers: Sequence[Layer]) -> list[tuple[str, list[Row]]]:
    """Rows by stage, in order of each stage's first layer; a block repeated n times in a row becomes rows of n layers.

    Stages of parallel branches alternate in a net; here they do not.
    """
    by_stage: dict[str, list[Placed]] = {}
    for place, layer in enumerate(layers):
        by_stage.setdefault(layer.stage, []).append((place, layer))
    return [(stage, list(_rows(own))) for stage, own in by_stage.items()]


def _rows(placed: list[Placed]) -> Iterator[Row]:
    kinds = [_kind(layer) for _, layer in placed]
    at = 0
    while at < len(placed):
        length, repeats = max(((p, _repeats(kinds, at, p)) for p in range(1, LONGEST + 1)), key=_saved)
        for offset in range(length):
            places, layers = zip(*placed[at + offset : at + length * repeats : length], strict=True)
            yield Row(places, layers)
        at += length * repeats


def _repeats(kinds: Sequence[object], at: int, length: int) -> int:
    """How often the block of `length` layers at `at` stands there in a row."""
    block, count = kinds[at : at + length], 1
    while kinds[at + count * length : at + (count + 1) * length] == block:
        count += 1
    return count if len(block) == length else 0


def _saved(candidate: tuple[int, int]) -> tuple[int, int]:
    """Rows that a fold spares; of equal ones the shortest block."""
    length, repeats = candidate
    return length * (repeats - 1), -length


def _kind(layer: Layer) -> tuple[object, ...]:
    return (
        layer.kind, layer.kernel, layer.stride, layer.groups, layer.in_shape, layer.out_shape, layer.params, layer.macs,
        layer.reach.window if layer.reach else None,
    )  # fmt: skip
