"""Second moments of convolutions on a user's images: of all layers in one pass, or layer by layer as a net changes."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from math import prod
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from convsmith.algebra.second_moments import ROWS, Moments, Rows, Statistics
from convsmith.calibration.pictures import Bytes, Drawn, Pictures, Several, arguments, take_several, tensors_of
from convsmith.errors import ConvsmithError, DataError, FileError
from convsmith.files import whole
from convsmith.graph import Graph, Node
from convsmith.graph.call_record import call_record
from convsmith.graph.capture import capture
from convsmith.graph.replay import Replay, Tensors
from convsmith.graph.signature import Signature
from convsmith.graph.wrappers import unwrapped
from convsmith.kernels.spec import ConvSpec
from convsmith.progress import Progress, silent
from convsmith.structure.editable import untouchable

IMAGES, BATCH = 512, 64
# Output positions are drawn until a layer has so many for each tap of its patches: neighbours tell much the same.
ROWS_PER_TAP = 16
# What a net reads, by the axes of its maps.
SHAPES = {1: "signals (n, c, l)", 2: "images (n, c, h, w)", 3: "volumes (n, c, d, h, w)"}
# Of the maps that patches are taken from at once, 64 MB in float32.
NUMBERS = 2**24


@runtime_checkable
class Labelled(Protocol):
    """A data set with a split to train on, as `convsmith.load_data` gives."""

    @property
    def train(self) -> Any:
        """A split with `shuffled(size, seed=, epoch=)`."""


Images = Pictures | Labelled | Iterable[Any]


def take_images(
    data: Images, count: int = IMAGES, seed: int = 0, axes: int = 2, several: Signature | None = None
) -> Pictures:
    """`count` images (n, c, h, w) of calibration data, fewer where there are no more; labels are not looked at.

    Those of a data set are kept as bytes, and given as floats where a stretch of them is asked for.

    data: a tensor of images, or what was taken before. Or a data set, whose training images are drawn by `seed`. Or
    batches in order, each a tensor or a tuple that starts with one. axes: 2 of images, 1 of signals (n, c, l), 3 of
    volumes (n, c, d, h, w). several: how a net is called that takes more than one image, see `take_several`. Raises
    ConvsmithError where there are no images, and on what is none.
    """
    if several is not None or isinstance(data, Several):
        return take_several(data, count, several)
    if isinstance(data, Tensor):
        return _checked(data, axes)[:count]
    if isinstance(data, Bytes):
        return Bytes(_checked(data.pixels, axes)[:count], data.normalize)
    if isinstance(data, Labelled) and isinstance(split := data.train, Drawn):
        return Bytes(_checked(split.drawn(count, seed=seed), axes), split.normalize)
    batches: Iterable[Any] = (
        data.train.shuffled(min(count, len(data.train)), seed=seed, epoch=0) if isinstance(data, Labelled) else data
    )
    taken: list[Tensor] = []
    for batch in batches:
        first = batch[0] if isinstance(batch, Sequence) and batch else batch
        if not isinstance(first, Tensor):
            raise DataError(f"The calibration data gives {type(batch).__name__}; give tensors or tuples of them.")
        taken.append(first)
        if sum(map(len, taken)) >= count:
            break
    return _checked(torch.cat(taken) if taken else torch.empty(0), axes)[:count]


def form_of(graph: Graph) -> tuple[int, Signature | None]:
    """What a net reads, as `take_images` asks: the axes of its maps, and its call where it is not one image's."""
    return len(graph.inputs[0].shape) - 2, graph.signature if call_record(graph.signature) else None


def _checked(images: Tensor, axes: int) -> Tensor:
    if not len(images):
        raise DataError("The calibration data has no images; give at least one batch.")
    if images.ndim != axes + 2:
        raise DataError(f"The calibration data has shape {tuple(images.shape)}; give {SHAPES.get(axes, SHAPES[2])}.")
    return images


def captured(model: nn.Module, part: Tensor | Several, batch: int = 1) -> Graph:
    """The graph of a net on a stretch of calibration data, for batches of so many."""
    args, named = arguments(part)
    return capture(model, *args, batch=batch) if args else capture(model, named, batch=batch)


class Calibration:
    """Two runs side by side on the same images: of a trained net, and of a copy that changes layer by layer.

    What a layer is fitted to is what it will see, in the changed net, against what the original answered there
    ("asymmetric" in He et al., 2019). Errors of earlier layers are made good by later ones. Both runs go through each
    call once, however many layers change. Activations alive at the present call are kept for all images.

    original, changed: two copies of one net. images: (n, c, h, w), run in batches of one size, at most `batch`, so that
    a few may be left out. seed: draws the output positions.
    """

    def __init__(
        self, original: nn.Module, changed: nn.Module, images: Pictures, *, batch: int = BATCH, seed: int = 0
    ) -> None:
        like = next(original.parameters())
        size = len(images) // -(-len(images) // batch)
        graph = captured(original, images[:1].to(like), size)
        self.graph = graph
        self._places = {node.module: place for place, node in enumerate(graph.nodes) if node.conv_spec() is not None}
        self._runs = [Replay(model, graph) for model in (original, changed)]
        self._pictures, self._like, self._alive = images, like, list[list[Tensors]]()
        self._parts = [slice(start, start + size) for start in range(0, len(images) - size + 1, size)]
        self._at, self._images = [0, 0], size * len(self._parts)
        self._blocks: dict[str, nn.Module] = {}
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def order(self) -> list[str]:
        """The convolution modules in order of execution."""
        return list(self._places)

    def statistics(self, layer: str) -> Statistics:
        """The moments of a layer. Raises ConvsmithError on one that runs before a layer asked for earlier."""
        return self.sample(layer).statistics()

    def sample(self, layer: str, rows: int = 0) -> "Sampler":
        """What a layer sees and should answer, with about `rows` rows kept. Raises ConvsmithError as `statistics`."""
        place = self._places[layer]
        node = self.graph.nodes[place]
        if place < self._at[1]:
            raise ConvsmithError(f"{layer} runs before a layer that was calibrated already; take layers in order.")
        sampler = Sampler(_spec(node), node.call.out, self._images, self._generator, rows)
        for first, second in self._states():
            self._runs[0].run(first, self._at[0], place + 1)
            self._runs[1].run(second, self._at[1], place, self._blocks)
            sampler.add(second[node.call.input.name], first[node.name])
        self._at = [place + 1, place]
        return sampler

    def _states(self) -> Iterator[list[Tensors]]:
        """What is alive of each batch in both runs; the images of a batch are read when it is first run."""
        for place, part in enumerate(self._parts):
            if place == len(self._alive):  # a copy for each run: a forward may write into its input
                self._alive.append(
                    [run.start(*tensors_of(self._pictures[part].to(self._like, copy=True))) for run in self._runs]
                )
            yield self._alive[place]

    def put(self, layer: str, block: nn.Module) -> None:
        """From here on the changed run has `block` in the layer's place."""
        self._blocks[self.graph.nodes[self._places[layer]].name] = block


def calibrate(
    model: nn.Module,
    images: Pictures,
    layers: Sequence[str] | None = None,
    *,
    batch: int = BATCH,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Statistics]:
    """Gather second moments of a net's convolutions: all layers in one pass over the images, batch by batch.

    They are what `decompose` and `apply` fit weights to, layer by layer. Memory is that of the moments: 8 (C K)^2 bytes
    a layer for C input channels and K taps. That is 170 MB for a 3x3 kernel on 512 channels.

    Args:
        model: The trained module.
        images: (n, c, h, w), normalized as the net reads them.
        layers: Module paths of convolutions. None takes all that data can choose ranks of: no grouped convolutions, and
            none on a map of one pixel.
        batch: Images at once.
        seed: Draws the output positions that patches are taken at.
        progress: Told of every batch.

    Returns:
        By layer, the moments of its input patches and responses, float64.

    Raises:
        ConvsmithError: On a layer that is no convolution, or none that a block can replace.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3))
    >>> statistics = calibrate(net, torch.rand(8, 3, 12, 12))
    >>> {layer: (tuple(found.gram.shape), found.samples) for layer, found in statistics.items()}
    {'0': ((27, 27), 432), '2': ((36, 36), 512)}
    """
    model = unwrapped(model)
    like = next(model.parameters())
    modules = dict(model.named_modules())
    graph = captured(model, images[:1].to(like))
    nodes = {node.module: node for node in graph.nodes if not untouchable(graph, node, node.conv_spec())}
    usual = [layer for layer, node in nodes.items() if _spec(node).groups == 1 and prod(node.call.out[2:]) > 1]
    wanted = usual if layers is None else list(layers)
    if unknown := [layer for layer in wanted if layer not in nodes]:
        raise ConvsmithError(f"{unknown[0]} is no convolution of {graph.model} that can be replaced; leave it out.")
    generator = torch.Generator().manual_seed(seed)
    samplers = {layer: Sampler(_spec(nodes[layer]), nodes[layer].call.out, len(images), generator) for layer in wanted}
    handles = [
        modules[layer].register_forward_hook(_adding(sampler), with_kwargs=True) for layer, sampler in samplers.items()
    ]
    modes = [(module, module.training) for module in modules.values()]
    try:
        model.eval()
        with torch.no_grad():
            starts = range(0, len(images), batch)
            for number, start in enumerate(starts):
                progress("gathering statistics of layers", number, len(starts))
                args, named = arguments(images[start : start + batch].to(like, copy=True))
                model(*args, **named)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return {layer: sampler.statistics() for layer, sampler in samplers.items()}


def _adding(sampler: "Sampler") -> Callable[..., None]:
    """A hook that adds what a convolution reads, given by position or by name, and answers."""

    def add(module: nn.Module, args: tuple[Tensor, ...], named: Mapping[str, Tensor], out: Tensor) -> None:
        (inputs,) = (*args, *named.values())
        sampler.add(inputs, out)

    return add


def _spec(node: Node) -> ConvSpec:
    spec = node.conv_spec()
    assert spec is not None
    return spec


class Sampler:
    """Draws output positions of one convolution and adds up what it sees and answers there.

    out: the shape (n, channels, height, width) of a batch's response, of other axes alike; images: how many will be
    added in all. rows: how many patches and responses to keep beside their sums. As many are kept of each image, so a
    few more or all that are drawn.
    """

    def __init__(
        self, conv: ConvSpec, out: Sequence[int], images: int, generator: torch.Generator, rows: int = 0
    ) -> None:
        self._conv, self._generator = conv, generator
        taps = conv.in_channels * prod(conv.kernel)
        self._positions = prod(out[2:])
        self._drawn = min(self._positions, -(-ROWS_PER_TAP * taps // images))
        self._taps = taps
        self._kept = min(self._drawn, -(-rows // images))  # of each image
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._moments: Moments | None = None

    def add(self, inputs: Tensor, responses: Tensor) -> None:
        """Add a batch: inputs (n, c, h, w) and responses (n, N, oh, ow) of the whole maps."""
        if self._moments is None:
            self._moments = Moments(self._taps, responses.shape[1], inputs.device)
        drawn = torch.rand(len(inputs), self._positions, generator=self._generator).argsort(1)[:, : self._drawn]
        # So few images at once that neither their patches nor a padded copy of them take much memory.
        few = max(1, min(ROWS // self._drawn, NUMBERS // inputs[0].numel()))
        for parts in zip(*(torch.split(each, few) for each in (inputs, responses, drawn)), strict=True):
            patches, wanted = self._at(*parts)
            self._moments.add(patches, wanted)
            kept = torch.arange(len(patches)).view(len(parts[2]), -1)[:, : self._kept].flatten()
            self._rows.append((patches[kept], wanted[kept]))

    def _at(self, inputs: Tensor, responses: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (s, c k) and responses (s, N) at the drawn positions (n, d)."""
        image = torch.arange(len(drawn))[:, None].expand_as(drawn).flatten()
        places: tuple[Any, ...] = torch.unravel_index(drawn.flatten(), responses.shape[2:])  # row and column
        at = (image, slice(None), *places)
        patches = sliding(inputs, self._conv)[at].flatten(1)  # (s, c, kh, kw) -> (s, c k)
        return patches, responses[at]

    def statistics(self) -> Statistics:
        """The moments, those of all processes of a torch.distributed group together."""
        assert self._moments is not None
        if _shared():
            for part in self._moments.sums:
                distributed.all_reduce(part)
        return self._moments.statistics()

    def rows(self) -> Rows:
        """The rows kept, those of all processes one after another."""
        parts = self._rows
        if _shared():
            gathered: list[Any] = [None] * distributed.get_world_size()
            distributed.all_gather_object(gathered, [(x.cpu(), y.cpu()) for x, y in parts])
            parts = [part for each in gathered for part in each]
        patches, responses = (torch.cat(each) for each in zip(*parts, strict=True))
        return Rows(patches, responses)


def _shared() -> bool:
    """Whether processes work together."""
    return distributed.is_available() and distributed.is_initialized()


def sliding(inputs: Tensor, conv: ConvSpec) -> Tensor:
    """Every patch of a batch as a view of the padded maps, (n, c, h, w) -> (n, c, oh, ow, kh, kw)."""
    zeros = [side for padding in reversed(conv.padding) for side in (padding, padding)]  # of the last axis first
    padded = F.pad(inputs, zeros).contiguous()
    spans = [dilation * (kernel - 1) + 1 for dilation, kernel in zip(conv.dilation, conv.kernel, strict=True)]
    sizes = [
        (side - span) // stride + 1 for side, span, stride in zip(padded.shape[2:], spans, conv.stride, strict=True)
    ]
    n, c, *along = padded.stride()
    moves = [step * stride for step, stride in zip(along, conv.stride, strict=True)]
    taps = [step * dilation for step, dilation in zip(along, conv.dilation, strict=True)]
    return padded.as_strided((*padded.shape[:2], *sizes, *conv.kernel), (n, c, *moves, *taps))


def save_statistics(path: Path, statistics: Mapping[str, Statistics], fingerprint: str) -> None:
    """Write the moments of a net's layers to one file, whole or not at all; `fingerprint` tells the net from others."""
    tensors = {
        f"{layer}/{name}": value.contiguous()
        for layer, each in statistics.items()
        for name, value in vars(each).items()
        if isinstance(value, Tensor)
    }
    samples = {layer: each.samples for layer, each in statistics.items()}
    with whole(path) as draft:
        save_file(tensors, draft, metadata={"fingerprint": fingerprint, "samples": json.dumps(samples)})


def load_statistics(path: Path, fingerprint: str) -> dict[str, Statistics]:
    """Read such a file; raises ConvsmithError where it cannot be read or is of another net or version."""
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dictionary
    except (OSError, SafetensorError) as error:
        raise FileError(
            f"{path}: cannot be read as statistics ({error}); remove it, and it is made anew with --data."
        ) from error
    if told.get("fingerprint") != fingerprint:
        raise FileError(f"{path}: was made for another net or input; remove it, and it is made anew with --data.")
    names = [field.name for field in fields(Statistics) if field.name != "samples"]
    try:
        return {
            layer: Statistics(**{name: tensors[f"{layer}/{name}"] for name in names}, samples=samples)
            for layer, samples in json.loads(told["samples"]).items()
        }
    except KeyError as error:
        raise FileError(
            f"{path}: is of another version of convsmith; remove it, and it is made anew with --data."
        ) from error
