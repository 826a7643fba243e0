"""Blocks against the convolution they stand in for: reach, cost, carried weights, names and refusals."""

from dataclasses import replace
from math import gcd, prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import convsmith as cs
from convsmith.algebra import METHODS, FitRequest
from convsmith.algebra.second_moments import Moments, Rows, Statistics
from convsmith.blocks import (
    BLOCKS,
    AddOn,
    Block,
    ChannelFirst,
    Cp,
    DwGpw,
    DwPw,
    DwRpw,
    PwDw,
    SpatialPair,
    TuckerTwo,
    Unit,
    parse_block,
    windows,
)
from convsmith.errors import ConvsmithError
from convsmith.kernels.spec import ConvSpec

GEOMETRIES = {
    "3x3": ConvSpec(8, 12),
    "bias": ConvSpec(8, 12, bias=True),
    "stride 2": ConvSpec(8, 12, stride=(2, 2), bias=True),
    "stride 2x1": ConvSpec(8, 12, stride=(2, 1)),
    "dilation 2": ConvSpec(8, 12, padding=(2, 2), dilation=(2, 2), bias=True),
    "5x5": ConvSpec(8, 12, (5, 5), padding=(2, 2)),
    "1x3": ConvSpec(8, 12, (1, 3), padding=(0, 1), bias=True),
    "4x4": ConvSpec(8, 12, (4, 4), stride=(2, 2)),
    "2x3 unpadded": ConvSpec(8, 12, (2, 3), padding=(0, 0)),
    "padded 0x2": ConvSpec(8, 12, padding=(0, 2), bias=True),
    "reflect": ConvSpec(8, 12, bias=True, padding_mode="reflect"),
    "replicate": ConvSpec(8, 12, bias=True, padding_mode="replicate"),
    "circular": ConvSpec(8, 12, stride=(2, 2), bias=True, padding_mode="circular"),
    "narrowing": ConvSpec(16, 4, bias=True),
}
SEPARABLE = [DwPw(), DwPw(r=2), PwDw(), PwDw(r=2), DwGpw(g=1), DwGpw(g=4), DwRpw(g=2, o=0.5), DwRpw(g=4, o=0.33)]
ALL = [*SEPARABLE, Cp(r=5), ChannelFirst(r=3), SpatialPair(r=3), TuckerTwo(r=3, s=4)]
CLOSED = [block for block in ALL if block.name != "cp"]  # fitted to weights in closed form
each_block = pytest.mark.parametrize("block", ALL, ids=str)
each_closed = pytest.mark.parametrize("block", CLOSED, ids=str)
each_geometry = pytest.mark.parametrize("spec", GEOMETRIES.values(), ids=GEOMETRIES.keys())


def skip_misfit(block: Block, spec: ConvSpec) -> None:
    if block.refuses(spec):
        pytest.skip("a kernel of one dimension is not taken apart")


def standard(spec: ConvSpec, seed: int = 0) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(
        spec.in_channels, spec.out_channels, spec.kernel, spec.stride, spec.padding, spec.dilation, spec.groups,
        spec.bias, spec.padding_mode,
    )  # fmt: skip


def images(spec: ConvSpec) -> Tensor:
    return torch.randn(2, spec.in_channels, 9, 10)


def impulse_response(module: nn.Module, spec: ConvSpec) -> Tensor:
    """The kernel (n, c, kh, kw) that a bias-free, unpadded linear module applies: its answers to single pixels."""
    window = [dilation * (size - 1) + 1 for size, dilation in zip(spec.kernel, spec.dilation, strict=True)]
    pixels = torch.eye(spec.in_channels * prod(window)).reshape(-1, spec.in_channels, *window)
    with torch.no_grad():
        answers = module(pixels)[..., 0, 0]
    rows, columns = spec.dilation
    return answers.T.reshape(-1, spec.in_channels, *window)[..., ::rows, ::columns]


def unpadded(spec: ConvSpec) -> ConvSpec:
    return replace(spec, padding=(0, 0), bias=False)


# --- what is built ---


@each_geometry
@each_block
def test_same_shape_and_bias_as_the_convolution(block: Block, spec: ConvSpec) -> None:
    skip_misfit(block, spec)
    built, x = block.build(spec), images(spec)
    assert built(x).shape == standard(spec)(x).shape
    biases = [name for name, _ in built.named_parameters() if name.endswith("bias")]
    assert biases == ([f"{list(dict(built.named_children()))[-1]}.bias"] if spec.bias else [])


@pytest.mark.parametrize("block", SEPARABLE, ids=str)
def test_its_children_are_two_kernels_in_the_order_of_its_name(block: Block) -> None:
    kinds = {"dw": "depthwise", "pw": "pointwise", "gpw": "pointwise", "rpw": "pointwise"}
    assert [name for name, _ in block.build(ConvSpec(8, 12)).named_children()] == [
        kinds[kind] for kind in block.name.split("-")
    ]


COSTS = [  # multiply-accumulates per output pixel and parameters at C = 8, N = 12, K = 9, s = 2
    (DwPw(), 8 * 9 + 8 * 12, 8 * 9 + 8 * 12),
    (DwPw(r=3), 3 * 8 * (9 + 12), 3 * 8 * (9 + 12)),
    (PwDw(), 12 * (4 * 8 + 9), 12 * (8 + 9)),
    (PwDw(r=3), 3 * 12 * (4 * 8 + 9), 3 * 12 * (8 + 9)),
    (DwGpw(g=4), 8 * 9 + 8 * 12 // 4, 8 * 9 + 8 * 12 // 4),
    (DwRpw(g=4, o=0.5), 8 * 9 + 8 * 12 // 4, 8 * 9 + 8 * 12 // 4),
    (DwRpw(g=2, o=0.33), 8 * 9 + 8 * 12 // 2, 8 * 9 + 8 * 12 // 2),
    (Cp(r=5), 5 * (4 * 8 + 9 + 12), 5 * (8 + 9 + 12)),
    (ChannelFirst(r=3), 3 * (8 * 9 + 12), 3 * (8 * 9 + 12)),
    (SpatialPair(r=3), 3 * (2 * 3 * 8 + 3 * 12), 3 * (3 * 8 + 3 * 12)),
    (TuckerTwo(r=3, s=4), 4 * 8 * 3 + 9 * 3 * 4 + 4 * 12, 8 * 3 + 9 * 3 * 4 + 4 * 12),
]


@pytest.mark.parametrize(("block", "macs", "parameters"), COSTS, ids=lambda value: str(value))
def test_cost_is_the_formula(block: Block, macs: int, parameters: int) -> None:
    with torch.device("meta"):
        built, x = block.build(ConvSpec(8, 12, stride=(2, 2))), torch.zeros(1, 8, 12, 10)
    with FlopCounterMode(display=False) as counter:
        built(x)
    assert counter.get_total_flops() == 2 * macs * 6 * 5
    assert sum(each.numel() for each in built.parameters()) == parameters


@pytest.mark.parametrize("block", ALL, ids=str)
def test_reach_is_the_same_where_tensors_hold_nothing(block: Block) -> None:
    """Under `torch.device("meta")`, by which large nets are looked at without their memory."""
    whole = cs.capture(block.build(ConvSpec(8, 12)), torch.zeros(1, 8, 7, 6))
    with torch.device("meta"):
        graph = cs.capture(block.build(ConvSpec(8, 12)), torch.zeros(1, 8, 7, 6))
        reach = graph.reaches()[graph.outputs[0]]
    for index in [(0, 0, 0, 0), (0, 5, 3, 2), (0, 11, 4, 3)]:
        channels, spans = reach.at(index)
        expected, spans_there = whole.reaches()[whole.outputs[0]].at(index)
        assert (channels.tolist(), spans) == (expected.tolist(), spans_there)


def channels_reached(block: Block, spec: ConvSpec) -> Tensor:
    """(n, c), from the definition of each block."""
    outputs, inputs = spec.out_channels, spec.in_channels
    if block.name == "dw-gpw":
        return torch.block_diag(*[torch.ones(outputs // block.g, inputs // block.g)] * block.g).bool()
    if block.name == "dw-rpw":
        return torch.zeros(outputs, inputs).scatter_(1, windows(inputs, outputs, block.g, block.o), 1).bool()
    return torch.ones(outputs, inputs).bool()


@pytest.mark.parametrize("name", ["3x3", "stride 2x1", "dilation 2", "1x3", "4x4"])
@each_block
def test_reach_is_the_kernel_window_of_the_connected_channels(block: Block, name: str) -> None:
    spec = GEOMETRIES[name]
    skip_misfit(block, spec)
    built, x = block.build(spec), images(spec)[:1]
    gradient = torch.autograd.functional.jacobian(lambda x: built(x)[0, :, 2, 2], x)[:, 0]
    window = torch.zeros(x.shape[2:]).bool()
    top, left = (2 * stride - padding for stride, padding in zip(spec.stride, spec.padding, strict=True))
    for row in range(spec.kernel[0]):
        for column in range(spec.kernel[1]):
            window[top + row * spec.dilation[0], left + column * spec.dilation[1]] = True
    assert torch.equal(gradient != 0, channels_reached(block, spec)[..., None, None] & window)


@pytest.mark.parametrize(
    "block",
    [
        *(DwPw(), DwPw(r=4), PwDw(), PwDw(r=4), DwGpw(g=4), DwRpw(g=4, o=0.5)),
        *(Cp(r=99), ChannelFirst(r=50), SpatialPair(r=90), TuckerTwo(r=50, s=60)),
    ],
    ids=str,
)
def test_an_untrained_block_has_the_variance_of_an_untrained_convolution(block: Block) -> None:
    spec = ConvSpec(64, 64, padding=(0, 0))
    torch.manual_seed(0)
    assert impulse_response(block.build(spec), spec).square().sum().item() == pytest.approx(
        standard(spec).weight.square().sum().item(), rel=0.15
    )


# --- weights carried ---


@pytest.mark.parametrize("spec", GEOMETRIES.values(), ids=GEOMETRIES.keys())
@pytest.mark.parametrize("by", ["tile", "split"])
def test_ways_to_filter_a_channel_more_than_once_compute_the_same_with_the_same_weights(
    spec: ConvSpec, by: str
) -> None:
    conv, x = spec.standard(), torch.randn(2, spec.in_channels, 11, 10)
    grouped, other = (DwPw(3, way) for way in ("group", by))
    before, after = grouped.build(spec), other.build(spec)
    grouped.carry(conv, before)
    after.load_state_dict(before.state_dict())  # those of plans of earlier versions are grouped
    torch.testing.assert_close(after(x), before(x))
    assert other.carry(conv, after).error is not None
    assert all(map(torch.equal, after.state_dict().values(), before.state_dict().values()))
    assert all(str(block).endswith(by) == (by != "tile") for block in other.dearer(spec))


@each_geometry
@pytest.mark.parametrize("form", ["dw-pw", "pw-dw"])
def test_full_rank_reproduces_the_convolution(form: str, spec: ConvSpec) -> None:
    mixed = spec.out_channels if form == "dw-pw" else spec.in_channels
    block = parse_block(f"{form}:r={min(prod(spec.kernel), mixed)}")
    conv, built = standard(spec), block.build(spec)
    assert block.carry(conv, built).error < 1e-6
    x = images(spec)
    torch.testing.assert_close(built(x), conv(x), atol=1e-5, rtol=1e-4)


@each_geometry
@each_closed
def test_a_convolution_that_is_a_block_comes_back_whole(block: Block, spec: ConvSpec) -> None:
    skip_misfit(block, spec)
    conv, built = standard(spec), block.build(spec)
    torch.manual_seed(1)
    conv.weight.data = impulse_response(block.build(unpadded(spec)), spec)
    assert block.carry(conv, built).error < 1e-6
    x = images(spec)
    torch.testing.assert_close(built(x), conv(x), atol=1e-5, rtol=1e-4)


@each_geometry
@each_block
def test_the_error_told_is_the_error_made(block: Block, spec: ConvSpec) -> None:
    spec = unpadded(spec)
    skip_misfit(block, spec)
    conv, built = standard(spec), block.build(spec)
    error = block.carry(conv, built, FitRequest("svd" if block in CLOSED else "als")).error
    weight = conv.weight.detach()
    made = (weight - impulse_response(built, spec)).norm() / weight.norm()
    assert 0.2 < error < 1
    assert error == pytest.approx(made.item(), abs=1e-5)


def test_more_freedom_is_never_worse() -> None:
    conv, spec = standard(ConvSpec(8, 12)), ConvSpec(8, 12)
    for texts in (
        ["dw-pw:1", "dw-pw:2", "dw-pw:9"],
        ["pw-dw:1", "pw-dw:4", "pw-dw:8"],
        ["dw-gpw:4", "dw-gpw:2", "dw-pw"],
    ):
        errors = [block.carry(conv, block.build(spec)).error for block in map(parse_block, texts)]
        assert errors == sorted(errors, reverse=True)


specs = st.builds(
    ConvSpec,
    st.integers(4, 10),
    st.integers(1, 10),
    st.tuples(st.integers(1, 4), st.integers(2, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    bias=st.booleans(),
)
overlaps = st.floats(0, 1, exclude_max=True)
blocks = st.one_of(
    st.builds(DwPw, st.integers(1, 20)),
    st.builds(PwDw, st.integers(1, 20)),
    st.builds(DwGpw, st.integers(1, 10)),
    st.builds(DwRpw, st.integers(1, 10), overlaps),
    st.builds(Cp, st.integers(1, 20)),
    st.builds(ChannelFirst, st.integers(1, 20)),
    st.builds(SpatialPair, st.integers(1, 20)),
    st.builds(TuckerTwo, st.integers(1, 10), st.integers(1, 10)),
)


@st.composite
def replacements(draw: st.DrawFn) -> tuple[Block, ConvSpec]:
    """A convolution and a block that fits it."""
    spec = draw(specs)
    inputs, outputs, taps = spec.in_channels, spec.out_channels, prod(spec.kernel)
    block = st.one_of(
        st.builds(DwPw, st.integers(1, min(taps, outputs))),
        st.builds(PwDw, st.integers(1, min(taps, inputs))),
        st.builds(DwGpw, st.sampled_from([g for g in range(1, inputs + 1) if gcd(inputs, outputs) % g == 0])),
        st.builds(DwRpw, st.sampled_from([g for g in range(1, inputs + 1) if inputs % g == 0]), overlaps),
    )
    return draw(block), spec


@settings(deadline=None, max_examples=60)
@given(replacements())
def test_any_fitting_block_replaces_any_convolution(replacement: tuple[Block, ConvSpec]) -> None:
    block, spec = replacement
    conv, built, x = standard(spec), block.build(spec), images(spec)
    error = block.carry(conv, built).error
    assert built(x).shape == conv(x).shape
    assert 0 <= error <= 1
    # Outputs differ by no more than the error allows: |y' - y| <= |W' - W| |patch|.
    patches = 10 * x.abs().max() * (spec.in_channels * prod(spec.kernel)) ** 0.5
    assert (built(x) - conv(x)).abs().max() <= error * conv.weight.norm() * patches + 1e-4


def test_a_dead_convolution_is_carried_as_zeros() -> None:
    spec = ConvSpec(8, 12)
    conv = standard(spec)
    nn.init.zeros_(conv.weight)
    for block in ALL:
        built = block.build(spec)
        assert block.carry(conv, built, FitRequest("svd" if block in CLOSED else "als")).error == 0
        assert built(images(spec)).eq(0).all()


def test_carrying_leaves_the_convolution_alone_and_the_block_trainable() -> None:
    spec = ConvSpec(8, 12, bias=True)
    conv, built = standard(spec), DwPw().build(spec)
    DwPw().carry(conv, built)
    nn.init.zeros_(built.pointwise.bias)
    assert torch.equal(conv.weight, standard(spec).weight)
    assert torch.equal(conv.bias, standard(spec).bias)
    assert all(each.requires_grad for each in built.parameters())


def test_carry_refuses_an_unknown_method() -> None:
    spec = ConvSpec(8, 12)
    with pytest.raises(ConvsmithError, match="Unknown decomposition method 'svdd'"):
        DwPw().carry(standard(spec), DwPw().build(spec), FitRequest(method="svdd"))


# --- weights carried with data ---


def statistics_of(conv: nn.Conv2d, x: Tensor, spec: ConvSpec) -> Statistics:
    """Moments of every patch, padding included, against what the convolution answers there."""
    patches = nn.functional.unfold(x, spec.kernel, spec.dilation, spec.padding, spec.stride).transpose(1, 2)
    seen = Moments(patches.shape[2], spec.out_channels)
    seen.add(patches.flatten(0, 1), conv(x).flatten(2).transpose(1, 2).flatten(0, 1))
    return seen.statistics()


DATA = ["3x3", "bias", "stride 2", "stride 2x1", "dilation 2", "5x5", "1x3", "4x4", "2x3 unpadded", "padded 0x2"]


@pytest.mark.parametrize("name", DATA)
@each_block
def test_carried_with_data_the_error_told_and_the_mean_are_those_of_the_outputs(block: Block, name: str) -> None:
    spec = GEOMETRIES[name]
    skip_misfit(block, spec)
    conv, built = standard(spec).double(), block.build(spec).double()
    x = torch.randn(40, spec.in_channels, 9, 10).double().cumsum(1).relu()
    with torch.no_grad():
        carried = block.carry(
            conv, built, FitRequest("als" if "als" in fitted_by(block) else "svd", statistics_of(conv, x, spec))
        )
        wanted, made = conv(x), built(x)
    assert (carried.shift is None) == spec.bias
    made = made if carried.shift is None else made + carried.shift[:, None, None]
    torch.testing.assert_close(made.mean((0, 2, 3)), wanted.mean((0, 2, 3)))
    centred = wanted - wanted.mean((0, 2, 3), keepdim=True)
    assert carried.error == pytest.approx(((wanted - made).norm() / centred.norm()).item(), rel=1e-4)
    assert 0 < carried.error < 1


def fitted_by(block: Block) -> set[str]:
    return {name for name, table in METHODS.items() if type(block.form(ConvSpec(8, 12))) in table}


def test_data_lowers_the_error_of_the_outputs() -> None:
    spec = GEOMETRIES["bias"]
    conv, x = standard(spec), torch.randn(40, 8, 9, 10).cumsum(1).relu()
    with torch.no_grad():
        statistics = statistics_of(conv, x, spec)
        for block in (DwPw(), PwDw(), DwGpw(g=2), DwRpw(g=2, o=0.5)):
            errors = [
                block.carry(conv, block.build(spec), FitRequest(method, statistics)).error for method in ("als", "svd")
            ]
            assert errors[0] < 0.9 * errors[1]


def test_a_relu_refit_is_carried() -> None:
    spec = GEOMETRIES["bias"]
    conv, x = standard(spec), torch.randn(40, 8, 9, 10).cumsum(1).relu()
    with torch.no_grad():
        patches = nn.functional.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1)
        rows = Rows(patches, conv(x).flatten(2).transpose(1, 2).flatten(0, 1))
        errors = []
        for given in (None, rows):
            built = DwPw().build(spec)
            DwPw().carry(conv, built, FitRequest("als", statistics_of(conv, x, spec), given))
            errors.append((conv(x).relu() - built(x).relu()).norm().item())
    assert errors[1] < errors[0]


@pytest.mark.parametrize("stride", [1, 2])
def test_a_pointwise_convolution_keeps_what_its_inputs_need_of_it(stride: int) -> None:
    """Inputs of three dimensions need no more of a 1x1 than rank 3, which the weights alone do not tell."""
    conv = nn.Conv2d(8, 12, 1, stride=stride)
    block, x = ChannelFirst(r=3), torch.einsum("nrhw,rc->nchw", torch.randn(200, 3, 6, 6), torch.randn(3, 8))
    seen = Moments(8, 12)
    patches, responses = x[..., ::stride, ::stride].permute(0, 2, 3, 1), conv(x).permute(0, 2, 3, 1)
    seen.add(patches.reshape(-1, 8).detach(), responses.reshape(-1, 12).detach())
    built = block.build(ConvSpec.of(conv))
    carried = block.carry(conv, built, FitRequest(statistics=seen.statistics()))
    assert carried.error < 5e-3
    torch.testing.assert_close(built(x), conv(x), rtol=0, atol=0.05)
    assert block.carry(conv, built).error > 0.2


# --- refusals ---


@pytest.mark.parametrize(
    ("name", "spec", "reason"),
    [
        (name, ConvSpec(8, 12, (1, 1), padding=(0, 0)), "a 1x1 kernel is already pointwise")
        for name in ("dw-pw", "pw-dw", "dw-gpw:2", "dw-rpw:2,0.5", "cp:4", "spatial:4", "tucker:2,2")
    ]
    + [
        (name, spec, reason)
        for name in ("dw-pw", "pw-dw", "dw-gpw:2", "dw-rpw:2,0.5", "cp:4", "channel:4", "spatial:4", "tucker:2,2")
        for spec, reason in [
            (ConvSpec(3, 64), "it is a stem with 3 input channels, too few to factorize"),
            (ConvSpec(1, 64), "it is a stem with 1 input channels, too few to factorize"),
            (ConvSpec(8, 8, groups=8), "it is already depthwise"),
            (ConvSpec(8, 16, groups=8), "it is already depthwise"),
            (ConvSpec(8, 8, groups=4), "it is grouped already (groups=4)"),
        ]
    ],
)
def test_every_block_refuses(name: str, spec: ConvSpec, reason: str) -> None:
    block = parse_block(name)
    assert block.refuses(spec) == reason
    with pytest.raises(ConvsmithError) as mistake:
        block.build(spec)
    assert str(mistake.value) == f"{block} cannot replace this convolution: {reason}."


@pytest.mark.parametrize(
    ("block", "spec", "reason"),
    [
        (DwPw(r=10), ConvSpec(8, 12), "r=10 is more than 9, where the block is exact"),
        (DwPw(r=6), ConvSpec(8, 5), "r=6 is more than 5, where the block is exact"),
        (PwDw(r=9), ConvSpec(8, 12), "r=9 is more than 8, where the block is exact"),
        (PwDw(r=4), ConvSpec(8, 12, (1, 3)), "r=4 is more than 3, where the block is exact"),
        (DwGpw(g=3), ConvSpec(8, 12), "g=3 does not divide its 8 input and 12 output channels"),
        (DwGpw(g=8), ConvSpec(8, 12), "g=8 does not divide its 8 input and 12 output channels"),
        (DwRpw(g=3, o=0.5), ConvSpec(8, 12), "g=3 does not divide its 8 input channels"),
        (DwRpw(g=8, o=0.5), ConvSpec(8, 5), None),
        (DwPw(r=9), ConvSpec(8, 12), None),
        (PwDw(r=8), ConvSpec(8, 12), None),
        (DwGpw(g=4), ConvSpec(8, 12), None),
        (DwPw(), ConvSpec(4, 1), None),
        (Cp(r=73), ConvSpec(8, 12), "r=73 is more than 72, where the block is exact"),
        (Cp(r=72), ConvSpec(8, 12), None),
        (ChannelFirst(r=13), ConvSpec(8, 12), "r=13 is more than 12, where the block is exact"),
        (ChannelFirst(r=12), ConvSpec(8, 12), None),
        (SpatialPair(r=25), ConvSpec(8, 12), "r=25 is more than 24, where the block is exact"),
        (SpatialPair(r=2), ConvSpec(8, 12, (1, 3)), "a 1x3 kernel has one dimension already"),
        (TuckerTwo(r=9, s=2), ConvSpec(8, 12), "r=9, s=2 are more than its 8 input and 12 output channels"),
        (TuckerTwo(r=8, s=12), ConvSpec(8, 12), None),
    ],
)
def test_a_block_refuses_what_its_parameters_do_not_fit(block: Block, spec: ConvSpec, reason: str | None) -> None:
    assert block.refuses(spec) == reason


# --- names ---


def test_a_rank_may_be_written_as_in_formulas() -> None:
    assert parse_block("cp:R=64") == parse_block("cp:r=64") == parse_block("cp:64")


@pytest.mark.parametrize(
    ("text", "block", "canonical"),
    [
        ("dw-pw", DwPw(r=1), "dw-pw"),
        ("dw-pw:", DwPw(r=1), "dw-pw"),
        ("dw-pw:r=1", DwPw(r=1), "dw-pw"),
        ("dw-pw:2", DwPw(r=2), "dw-pw:r=2"),
        ("dw-pw:r=2", DwPw(r=2), "dw-pw:r=2"),
        ("dw-pw:r=2,by=tile", DwPw(r=2), "dw-pw:r=2"),
        ("dw-pw:2,group", DwPw(r=2, by="group"), "dw-pw:r=2,by=group"),
        (" pw-dw : r = 3 ", PwDw(r=3), "pw-dw:r=3"),
        ("dw-gpw:4", DwGpw(g=4), "dw-gpw:g=4"),
        ("dw-gpw:g=4", DwGpw(g=4), "dw-gpw:g=4"),
        ("dw-rpw:2,0.5", DwRpw(g=2, o=0.5), "dw-rpw:g=2,o=0.5"),
        ("dw-rpw:o=.33,g=2", DwRpw(g=2, o=0.33), "dw-rpw:g=2,o=0.33"),
        ("dw-rpw:2,o=0", DwRpw(g=2, o=0), "dw-rpw:g=2,o=0.0"),
        ("cp:16", Cp(r=16), "cp:r=16"),
        ("channel:4", ChannelFirst(r=4), "channel:r=4"),
        ("spatial:4", SpatialPair(r=4), "spatial:r=4"),
        ("tucker:4,6", TuckerTwo(r=4, s=6), "tucker:r=4,s=6"),
    ],
)
def test_reads_a_block(text: str, block: Block, canonical: str) -> None:
    assert parse_block(text) == block
    assert str(parse_block(text)) == canonical


@given(blocks)
def test_its_text_is_read_back(block: Block) -> None:
    assert parse_block(str(block)) == block


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dw-pv", "Unknown block 'dw-pv'; did you mean dw-pw"),
        ("", f"Unknown block ''; known: {', '.join(sorted(BLOCKS))}."),
        ("dw-pw:q=2", "dw-pw: unknown parameter q; write dw-pw:r=..,by=.."),
        ("dw-pw:r=two", "dw-pw: r must be a whole number of at least 1, got 'two'."),
        ("dw-pw:r=1.5", "dw-pw: r must be a whole number of at least 1, got '1.5'."),
        ("dw-pw:r=", "dw-pw: r must be a whole number of at least 1, got ''."),
        ("dw-pw:0", "dw-pw: r must be a whole number of at least 1, got 0."),
        ("pw-dw:-1", "pw-dw: r must be a whole number of at least 1, got -1."),
        ("dw-pw:1,2,3", "dw-pw: 3 parameters are too many; write dw-pw:r=..,by=.."),
        ("dw-pw:2,by=turns", "dw-pw: by must be tile, split or group, got turns."),
        ("dw-gpw", "dw-gpw: g missing; write dw-gpw:g=.."),
        ("dw-rpw:2", "dw-rpw: o missing; write dw-rpw:g=..,o=.."),
        ("dw-rpw", "dw-rpw: g and o missing; write dw-rpw:g=..,o=.."),
        ("dw-rpw:g=2,g=4", "dw-rpw: g is given twice; write dw-rpw:g=..,o=.."),
        ("dw-rpw:2,1.0", "dw-rpw: o must be at least 0 and less than 1, got 1.0."),
        ("dw-rpw:2,nan", "dw-rpw: o must be at least 0 and less than 1, got nan."),
        ("dw-rpw:2,half", "dw-rpw: o must be at least 0 and less than 1, got 'half'."),
    ],
)
def test_a_mistake_in_a_text_is_told_in_one_sentence(text: str, told: str) -> None:
    with pytest.raises(ConvsmithError) as mistake:
        parse_block(text)
    assert str(mistake.value).startswith(told)


def test_the_table_holds_each_block_under_its_name() -> None:
    assert {name: block.name for name, block in BLOCKS.items()} == {name: name for name in BLOCKS}
    assert {block.name for block in ALL} | {"seq"} <= {  # sequences: tests/planning/test_search.py
        name for name, block in BLOCKS.items() if not issubclass(block, Unit | AddOn)
    }  # others are judged by tests/testing


def test_a_block_made_by_hand_is_checked_too() -> None:
    for make in (lambda: DwPw(r=0), lambda: DwPw(r=2.0), lambda: DwGpw(g="2"), lambda: DwRpw(g=2, o=1)):
        with pytest.raises(ConvsmithError, match="must be"):
            make()
