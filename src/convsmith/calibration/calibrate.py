"""Second moments of convolutions on a user's images, of all layers in one pass."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from operator import itemgetter
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from convsmith.algebra.second_moments import ROWS, Moments, Rows, Statistics
from convsmith.calibration.pictures import Bytes, Drawn, Pictures, Several, arguments, take_several
from convsmith.calibration.sharing import gathered, share
from convsmith.errors import ConvsmithError, DataError
from convsmith.graph import Graph, Node
from convsmith.graph.call_record import call_record
from convsmith.graph.capture import capture
from convsmith.graph.plain import plain
from convsmith.graph.signature import Signature
from convsmith.graph.wrappers import unwrapped
from convsmith.kernels.spec import ConvSpec
from convsmith.progress import Progress, silent
from convsmith.structure.editable import untouchable

IMAGES, BATCH = 512, 64
# Output positions are drawn until a layer has so many for each tap of its patches: neighbours tell much the same.
ROWS_PER_TAP = 16
# All of a weight's entries solved anew need more of them.
REFIT_ROWS_PER_TAP = 128
# What a net reads, by the axes of its maps.
SHAPES = {1: "signals (n, c, l)", 2: "images (n, c, h, w)", 3: "volumes (n, c, d, h, w)"}
# Numbers of a patch: moments of more than these 8.6 GB are not asked of a machine.
TAPS = 2**15
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

    Of the processes of a torch.distributed group each takes every N-th batch, and all come to the moments of the whole.
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
    model = plain(unwrapped(model))
    like = next(model.parameters())
    modules = dict(model.named_modules())
    graph = captured(model, images[:1].to(like))
    nodes = {node.module: node for node in graph.nodes if not untouchable(graph, node, node.conv_spec())}
    usual = [layer for layer, node in nodes.items() if spec_of(node).groups == 1 and prod(node.call.out[2:]) > 1]
    wanted = usual if layers is None else list(layers)
    if unknown := [layer for layer in wanted if layer not in nodes]:
        raise ConvsmithError(f"{unknown[0]} is no convolution of {graph.model} that can be replaced; leave it out.")
    generator, (rank, count) = torch.Generator().manual_seed(seed), share()
    samplers = {
        layer: Sampler(spec_of(nodes[layer]), nodes[layer].call.out, len(images), generator) for layer in wanted
    }
    hooks = {modules[layer]: _adding(sampler) for layer, sampler in samplers.items()}
    with _hooked(model, hooks), torch.no_grad():
        starts = range(0, len(images), batch)
        for number, start in enumerate(starts):
            progress("gathering statistics of layers", number, len(starts))
            if number % count != rank:
                for layer in filter(samplers.__contains__, nodes):  # in the order in which they are called
                    samplers[layer].skip(min(batch, len(images) - start), like.device)
                continue
            args, named = arguments(images[start : start + batch].to(like, copy=True))
            model(*args, **named)
    return {layer: sampler.statistics() for layer, sampler in samplers.items()}


@contextmanager
def _hooked(model: nn.Module, hooks: Mapping[nn.Module, Callable[..., None]]) -> Iterator[None]:
    """A model in evaluation, its modules watched; at the end both are as before."""
    handles = [module.register_forward_hook(hook, with_kwargs=True) for module, hook in hooks.items()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training


def _adding(sampler: "Sampler") -> Callable[..., None]:
    """A hook that adds what a convolution reads, given by position or by name, and answers."""

    def add(module: nn.Module, args: tuple[Tensor, ...], named: Mapping[str, Tensor], out: Tensor) -> None:
        (inputs,) = (*args, *named.values())
        sampler.add(inputs, out)

    return add


def spec_of(node: Node) -> ConvSpec:
    """A convolution's call as plain data."""
    spec = node.conv_spec()
    assert spec is not None
    return spec


def too_many(conv: ConvSpec) -> str:
    """What is told of a convolution whose patches are of more than TAPS numbers."""
    taps = conv.in_channels * prod(conv.kernel)
    return f"with patches of {taps:,} numbers has moments of {8e-9 * taps**2:.0f} GB, too many to fit to data"


class Sampler:
    """Draws output positions of one convolution and adds up what it sees and answers there.

    out: the shape (n, channels, height, width) of a batch's response, of other axes alike; images: how many will be
    added in all. rows: how many patches and responses to keep beside their sums. As many are kept of each image, so a
    few more or all that are drawn. factor, term: (channels,), of the BatchNorm behind, which the rows are to know of.
    rows_per_tap: how many positions are drawn in all.
    """

    def __init__(
        self,
        conv: ConvSpec,
        out: Sequence[int],
        images: int,
        generator: torch.Generator,
        rows: int = 0,
        factor: Tensor | None = None,
        term: Tensor | None = None,
        rows_per_tap: int = ROWS_PER_TAP,
    ) -> None:
        self._conv, self._generator = conv, generator
        self._factor, self._term = factor, term
        taps = conv.in_channels * prod(conv.kernel)
        if taps > TAPS:
            raise DataError(f"A convolution {too_many(conv)}; leave it as it is, or fit it without data.")
        self._positions = prod(out[2:])
        self._drawn = min(self._positions, -(-rows_per_tap * taps // images))
        self._taps = taps
        self._kept = min(self._drawn, -(-rows // images))  # of each image
        self._rows: list[tuple[Tensor, ...]] = []
        self._batch, self._batches = 0, list[int]()  # drawn for so far; of each part of the rows
        self._moments: Moments | None = None

    def add(self, inputs: Tensor, responses: Tensor, shortcut: Tensor | None = None) -> None:
        """Add a batch: inputs (n, c, h, w) and responses (n, N, oh, ow) of the whole maps, and what is added behind."""
        if self._moments is None:
            self._moments = Moments(self._taps, responses.shape[1], inputs.device)
        drawn = self._draw(len(inputs))
        maps = [responses] if shortcut is None else [responses, shortcut]
        # So few images at once that neither their patches nor a padded copy of them take much memory.
        few = max(1, min(ROWS // self._drawn, NUMBERS // inputs[0].numel()))
        for part, places, *others in zip(*(torch.split(each, few) for each in (inputs, drawn, *maps)), strict=True):
            rows = self._at(part, places, others)
            self._moments.add(rows[0], rows[1])
            kept = torch.arange(len(rows[0])).view(len(places), -1)[:, : self._kept].flatten()
            self._rows.append(tuple(each[kept] for each in rows))
            self._batches.append(self._batch)

    def skip(self, images: int, device: torch.device) -> None:
        """Draw for a batch that another process adds, so that what follows is drawn as it would be alone."""
        if self._moments is None:
            self._moments = Moments(self._taps, self._conv.out_channels, device)
        self._draw(images)

    def _draw(self, images: int) -> Tensor:
        """Output positions of so many images."""
        self._batch += 1
        return torch.rand(images, self._positions, generator=self._generator).argsort(1)[:, : self._drawn]

    def _at(self, inputs: Tensor, drawn: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
        """Patches (s, c k), and of each map (n, N, oh, ow) its values (s, N), at the drawn positions (n, d)."""
        image = torch.arange(len(drawn))[:, None].expand_as(drawn).flatten()
        places: tuple[Any, ...] = torch.unravel_index(drawn.flatten(), maps[0].shape[2:])  # row and column
        at = (image, slice(None), *places)
        patches = sliding(inputs, self._conv)[at].flatten(1)  # (s, c, kh, kw) -> (s, c k)
        return [patches, *(each[at] for each in maps)]

    def statistics(self) -> Statistics:
        """The moments, those of all processes of a torch.distributed group together."""
        if share()[1] > 1:
            assert self._moments is not None
            for part in self._moments.sums:
                distributed.all_reduce(part)
        assert self._moments is not None
        return self._moments.statistics()

    def rows(self) -> Rows:
        """The rows kept, those of all processes in the order of their batches."""
        parts = self._rows
        if share()[1] > 1:
            own = [(at, tuple(x.cpu() for x in part)) for at, part in zip(self._batches, parts, strict=True)]
            everyones = sorted((part for each in gathered(own) for part in each), key=itemgetter(0))
            parts = [part for _, part in everyones]
        patches, responses, *shortcut = (torch.cat(each) for each in zip(*parts, strict=True))
        return Rows(patches, responses, self._factor, self._term, *shortcut)


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
