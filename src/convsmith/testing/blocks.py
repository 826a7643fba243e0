"""The judge of replacement blocks: the convolution they stand in for, autograd, and torch's counter."""

from copy import deepcopy
from dataclasses import fields
from itertools import product
from math import prod

import torch
from torch import Tensor, nn

from convsmith.algebra import FitRequest
from convsmith.algebra.request import WEIGHT_ALONE
from convsmith.algebra.second_moments import Moments, Statistics
from convsmith.blocks import BLOCKS, Block, Carried, parse_block
from convsmith.graph.capture import capture
from convsmith.kernels.spec import Convolution, ConvSpec
from convsmith.testing.oracles import gradient_support, hold, seen_by_gradient, torch_macs, transparent
from convsmith.testing.rules import check_reach

MAP = (9, 10)  # of an output, the element (2, 2) sees no padding
CONVS = (
    ConvSpec(16, 16, bias=True),
    ConvSpec(16, 24, stride=(2, 2)),
    ConvSpec(16, 8, (5, 5), padding=(2, 2), bias=True),
    ConvSpec(8, 12, padding=(2, 2), dilation=(2, 2)),
    ConvSpec(8, 16, (1, 3), (1, 2), (0, 1), bias=True),
    ConvSpec(8, 8, padding=(0, 0)),
    ConvSpec(8, 8, bias=True, padding_mode="reflect"),
)


def check_block(block: Block | str, convs: tuple[ConvSpec, ...] = CONVS, *, less: bool = False) -> None:
    """Judge a block in the place of every convolution that it does not refuse.

    Its text is read back. It makes the convolution's shape. What it costs and sees is what torch counts and autograd
    finds, and that is at least what the convolution sees. A block that carries weights tells the error it makes, of the
    weight and with data of the outputs. It keeps the bias to its last kernel, and takes every scale.

    block: an instance or its text. less: the block sees less than the convolution, as where it gives taps up.
    Raises AssertionError.

    >>> check_block("dw-pw:r=2")
    """
    block = parse_block(block) if isinstance(block, str) else block
    hold(BLOCKS.get(block.name) is type(block), f"{block.name} is not registered under its name; use `registered`.")
    hold(parse_block(str(block)) == block, f"{block} is read back as {parse_block(str(block))}.")
    fitting = [conv for conv in convs if not block.refuses(conv)]
    hold(fitting, f"{block} refuses every convolution, the first since {block.refuses(convs[0])}; give `convs`.")
    for conv in fitting:
        placed = block.on_map(conv, MAP)
        case = f"{placed} for {conv}"
        _check_built(placed, conv, case)
        _check_reach(placed, conv, case, less)
        if placed.carries:
            _check_carried(placed, conv, case)
            if placed.fitted and conv.padding_mode == "zeros":
                _check_fitted(placed, conv, case)
        else:
            _check_left(placed, conv, case)


def example(kind: type[Block], conv: ConvSpec = CONVS[0]) -> Block:
    """A block of a kind with small parameters that a convolution can be replaced by.

    >>> str(example(BLOCKS["tucker"]))
    'tucker:r=2,s=2'
    """
    if kind.name == "seq":  # its parameters are kernels
        return parse_block("seq:gpw(2),shuffle(2),dw,pw")
    small = (2, 4, 1, 8, 0.5)
    tried = [(field.default, *small) if isinstance(field.default, str) else small for field in fields(kind)]
    for values in product(*tried):
        if all(each.metadata["kind"].takes(value) for each, value in zip(fields(kind), values, strict=True)):
            block = kind(*values).on_map(conv, MAP)
            if block.refuses(conv) is None:
                return block
    raise AssertionError(f"No small parameters of {kind.name} suit {conv}; give an instance.")


def _image(conv: ConvSpec, count: int = 1) -> Tensor:
    """Images whose channels go together, as behind a ReLU."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(count, conv.in_channels, *MAP, dtype=torch.float64, generator=generator)
    return drawn.cumsum(1).relu()


def _trained(conv: ConvSpec, scale: float = 1.0) -> Convolution:
    """A convolution of weights about 1 / fan-in, of `scale`, without the generator of others."""
    made, generator = conv.standard().double(), torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        drawn = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        parameter.data = scale * drawn / (conv.in_channels * prod(conv.kernel)) ** 0.5
    return made


def _check_built(block: Block, conv: ConvSpec, told: str) -> None:
    built, x = block.build(conv).double(), _image(conv)
    graph = capture(built, x)
    wanted, made = conv.standard().double().eval()(x).shape, built.eval()(x).shape
    hold(wanted == made, f"{told}: makes {tuple(made)} where the convolution makes {tuple(wanted)}.")
    hold(not graph.unknown_ops, f"{told}: no rule for {', '.join(graph.unknown_ops)}; register one.")
    counted = torch_macs(built, x)
    hold(graph.macs == counted, f"{told}: {graph.macs} multiply-accumulates by the rules, {counted} by torch.")


def _check_reach(block: Block, conv: ConvSpec, told: str, less: bool) -> None:
    built, original, x = transparent(block.build(conv)), transparent(conv.standard()), _image(conv)
    check_reach(built, x, capture(built, x), most=12, bound=True)
    (channels, spans), (all_channels, all_spans) = (_seen(net, x, conv.out_channels) for net in (built, original))
    inside = all(a[0] <= b[0] and b[1] <= a[1] for a, b in zip(spans, all_spans, strict=True))
    hold(
        (channels >= all_channels and inside) or less,
        f"{told}: sees {channels:.4g} channels in {spans}, the convolution {all_channels:.4g} in {all_spans}.",
    )


def _seen(net: nn.Module, x: Tensor, outputs: int) -> tuple[float, tuple[tuple[int, int], ...]]:
    """What the outputs at (2, 2) see: channels on average, and the spans of all together."""
    supports = gradient_support(net, x.shape[1:], [(0, n, 2, 2) for n in range(outputs)], 3)
    together = supports[0]
    for support in supports[1:]:
        together = together | support
    return sum(sum(seen_by_gradient(each)[0]) for each in supports) / outputs, seen_by_gradient(together)[1]


def _carry(block: Block, conv: Convolution, request: FitRequest = WEIGHT_ALONE) -> tuple[nn.Sequential, Carried]:
    built = block.build(ConvSpec.of(conv)).double().eval()
    return built, block.carry(conv, built, request)


def _weight(built: nn.Module, conv: ConvSpec) -> Tensor:
    """What a linear block computes at the element (2, 2), as a weight (n, c, kh, kw); all other taps must be zero."""
    x = _image(conv).requires_grad_()
    answers = built(x)[0, :, 2, 2]
    jacobian = torch.cat([torch.autograd.grad(answer, x, retain_graph=True)[0] for answer in answers])
    rows, columns = (
        [2 * stride - padding + dilation * tap for tap in range(size)]
        for size, stride, padding, dilation in zip(conv.kernel, conv.stride, conv.padding, conv.dilation, strict=True)
    )
    taps: Tensor = jacobian[:, :, rows][..., columns]
    hold(torch.isclose(taps.norm(), jacobian.norm()), "The block has taps where the convolution has none.")
    return taps


def _check_carried(block: Block, spec: ConvSpec, told: str) -> None:
    conv = _trained(spec)
    before = deepcopy(conv.state_dict())
    built, carried = _carry(block, conv)
    hold(all(map(torch.equal, conv.state_dict().values(), before.values())), f"{told}: `carry` changes the original.")
    hold(
        all(parameter.requires_grad for parameter in built.parameters()), f"{told}: a carried weight cannot be trained."
    )
    weight = conv.weight.detach() if spec.groups == 1 else _weight(conv, spec)
    made = ((weight - _weight(built, spec)).norm() / weight.norm()).item()
    error = carried.error
    hold(error is not None and abs(error - made) < 1e-4, f"{told}: tells an error of {error} and makes {made:.4g}.")
    blank = torch.zeros(1, spec.in_channels, *MAP, dtype=torch.float64)
    with torch.no_grad():
        hold(
            torch.allclose(built(blank), conv(blank)),
            f"{told}: the bias must be the convolution's, on the last kernel.",
        )
    large = _carry(block, _trained(spec, 1e3))[1].error
    hold(large is not None and abs(large - made) < 0.05, f"{told}: 1000 times the weight changes the error to {large}.")
    nothing = _carry(block, _trained(spec, 0.0))[1].error
    hold(nothing == 0, f"{told}: a weight of zeros has an error of {nothing}.")


def _statistics(conv: Convolution, spec: ConvSpec, x: Tensor) -> Statistics:
    patches = nn.functional.unfold(x, spec.kernel, spec.dilation, spec.padding, spec.stride).transpose(1, 2)
    seen = Moments(patches.shape[2], spec.out_channels)
    seen.add(patches.flatten(0, 1), conv(x).flatten(2).transpose(1, 2).flatten(0, 1))
    return seen.statistics()


@torch.no_grad()
def _check_fitted(block: Block, spec: ConvSpec, told: str) -> None:
    conv, x = _trained(spec), _image(spec, 40)
    built, carried = _carry(block, conv, FitRequest(statistics=_statistics(conv, spec, x), draft=True))
    wanted, made = conv(x), built(x)
    if carried.shift is not None:
        hold(not spec.bias, f"{told}: tells a shift though a bias can hold it.")
        made = made + carried.shift[:, None, None]
    means = (made.mean((0, 2, 3)), wanted.mean((0, 2, 3)))
    hold(torch.allclose(*means, rtol=1e-4, atol=1e-6), f"{told}: with data the mean is not that of the responses.")
    missed = ((wanted - made).norm() / (wanted - wanted.mean((0, 2, 3), keepdim=True)).norm()).item()
    error = carried.error
    hold(
        error is not None and abs(error - missed) < 1e-4 + 1e-3 * missed,
        f"{told}: with data tells an error of {error} and makes {missed:.4g}; or set `fitted = False`.",
    )


def _check_left(block: Block, spec: ConvSpec, told: str) -> None:
    built = block.build(spec).double()
    before = deepcopy(built.state_dict())
    carried = block.carry(_trained(spec), built, WEIGHT_ALONE)
    hold(carried == Carried(None), f"{told}: carries no weights, but tells {carried}; set `carries`.")
    hold(
        all(map(torch.equal, built.state_dict().values(), before.values())), f"{told}: `carry` writes what it says not."
    )
