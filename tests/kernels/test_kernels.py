"""Kernel kinds against their definitions, autograd, ONNX Runtime and torch's compiler."""

from copy import deepcopy
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import convsmith as cs
from convsmith.blocks import RollingPointwise
from convsmith.errors import ConvsmithError
from convsmith.kernels import (
    AddressShift,
    ChannelGate,
    ChannelShift,
    ChannelShuffle,
    Dice,
    DimConv,
    DimensionWise,
    Eca,
    Newest,
    ShortcutShift,
    SqueezeExcite,
    adaptive_kernel,
    append_shift,
    depthwise,
    grouped,
    pointwise,
    resize,
    start_as_identity,
)
from convsmith.testing.oracles import Seen, disagreements, transparent

SIZE = (7, 6)
KINDS: dict[str, nn.Module] = {  # on 8 channels
    "DW": depthwise(8, stride=2),
    "DW, two filters": depthwise(8, kernel=5, multiplier=2),
    "PW": pointwise(8, 12, bias=True),
    "GC": grouped(8, 12, groups=4),
    "GPW": pointwise(8, 12, groups=2, stride=2),
    "RPW": RollingPointwise(8, 12, groups=4, overlap=0.5),
    "channel shuffle": ChannelShuffle(4),
    "channel shift": ChannelShift(3),
    "address shift": AddressShift(8),
    "shortcut shift": ShortcutShift(grouped(8, 4, groups=4)),
    "shortcut shift, newest": ShortcutShift(depthwise(8, kernel=5), Newest(5)),
    "by rows": DimensionWise(SIZE[0], dim=2),
    "by columns": DimensionWise(SIZE[1], dim=3),
    "three planes": DimConv(8, SIZE),
    "DiCE": Dice(8, 12, SIZE),
    "ECA": nn.Sequential(depthwise(8), Eca(8)),
    "SE": nn.Sequential(depthwise(8), SqueezeExcite(8, ratio=4)),
}
RESIZED: dict[str, nn.Module] = {
    "by fewer rows": DimensionWise(3, dim=2),
    "by more rows": DimensionWise(10, dim=2),
    "by fewer columns": DimensionWise(4, dim=3),
    "DiCE of another map": Dice(8, 8, (9, 4)),
}
each_kind = pytest.mark.parametrize("name", KINDS)
each = pytest.mark.parametrize("kind", [*KINDS.values(), *RESIZED.values()], ids=[*KINDS, *RESIZED])


def images(channels: int = 8, batch: int = 2) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(batch, channels, *SIZE)


# --- on every machine ---


def with_constant_gates(net: nn.Module) -> nn.Module:
    """Gates widen nothing: gradients do not pass through them."""
    for gate in net.modules():
        if isinstance(gate, ChannelGate | nn.Conv1d):
            gate.register_forward_hook(lambda module, inputs, output: output.detach())
    return net


def wrong(net: nn.Module) -> list[tuple[int, ...]]:
    """Output indices where the computed reach is not what autograd finds.

    Channels that a shift has moved over the border are still counted there, so that the border only has a bound.
    """
    graph = cs.capture(net, torch.zeros(1, 8, *SIZE))
    assert not graph.unknown_ops
    reach = graph.reaches()[graph.outputs[0]]
    net = with_constant_gates(transparent(deepcopy(net)))
    shifted = any(isinstance(module, AddressShift) for module in net.modules())
    return [
        index
        for index, computed, found in disagreements(net, (8, *SIZE), reach, most=120)
        if not (shifted and at_border(index) and within(found, computed))
    ]


def at_border(index: tuple[int, ...]) -> bool:
    return any(not 2 <= place < side - 2 for place, side in zip(index[1:], SIZE, strict=True))


def within(found: Seen, computed: Seen) -> bool:
    channels = all(c or not f for f, c in zip(found[0], computed[0], strict=True))
    spans = zip(found[1], computed[1], strict=True)
    return channels and all(f[0] > f[1] or (c[0] <= f[0] and f[1] <= c[1]) for f, c in spans)


@each_kind
def test_reach_is_what_autograd_finds(name: str) -> None:
    assert wrong(nn.Sequential(KINDS[name])) == []


@pytest.mark.parametrize(
    "kinds",
    [
        (pointwise(8, 8, groups=4), ChannelShuffle(4), depthwise(8), pointwise(8, 8, groups=4)),
        (pointwise(8, 8, groups=2), ChannelShift(2), AddressShift(8), pointwise(8, 8, groups=2)),
        (AddressShift(8), DimConv(8, SIZE), ChannelShuffle(3), RollingPointwise(24, 8, 3, 0.5), Eca(8)),
        (DimensionWise(SIZE[1], dim=3), DimensionWise(SIZE[0], dim=2), pointwise(8, 4), SqueezeExcite(4, ratio=2)),
        (ShortcutShift(depthwise(8)), ChannelShift(4), ShortcutShift(pointwise(16, 4), Newest(8)), AddressShift(12)),
    ],
    ids=["shuffle unit", "address unit", "planes", "both axes", "shortcuts"],
)
def test_kinds_compose(kinds: tuple[nn.Module, ...]) -> None:
    assert wrong(nn.Sequential(*kinds)) == []


@each
def test_onnx_runtime_agrees_with_standard_operators(kind: nn.Module, tmp_path: Path) -> None:
    check = cs.export(nn.Sequential(kind), tmp_path / "kind.onnx", input=(8, *SIZE))
    assert check.max_rel_error < 1e-5
    graph = onnx.load(check.path)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    assert not graph.functions


@each
def test_compiles_as_one_graph(kind: nn.Module) -> None:
    torch.compiler.reset()  # what earlier tests of this process compiled counts towards a limit
    x = images()
    compiled = torch.compile(kind.eval(), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), kind(x))
    torch.compiler.reset()


@each
def test_trains_in_both_memory_formats(kind: nn.Module) -> None:
    x = images()
    twin = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(kind.eval()(twin), kind(x), atol=1e-6, rtol=1e-4)
    kind.train()(twin.requires_grad_()).square().sum().backward()
    assert twin.grad is not None
    assert twin.grad.isfinite().all()
    kind.eval().zero_grad()


# --- definitions ---


def test_shuffle_reads_the_table_of_groups_by_columns() -> None:
    x = images(12)
    for groups in (1, 2, 3, 4, 6, 12):
        order = [row * (12 // groups) + column for column in range(12 // groups) for row in range(groups)]
        assert torch.equal(ChannelShuffle(groups)(x), x[:, order])


@pytest.mark.parametrize("shift", [0, 1, 3, 7, 8, 11])
def test_channel_shift_is_a_roll(shift: int) -> None:
    assert torch.equal(ChannelShift(shift)(images()), images().roll(-shift, 1))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_grouped_kernel_reads_the_appended_view(batch: int) -> None:
    x, conv = images(batch=batch), pointwise(8, 8, groups=4)
    buffer = x.new_empty(batch, 9, *SIZE)
    torch.clamp(x, min=0, out=buffer[:, :8])
    view = append_shift(buffer, 1)
    assert view.untyped_storage().data_ptr() == buffer.untyped_storage().data_ptr()
    with torch.no_grad():
        torch.testing.assert_close(conv(view), conv(x.relu().roll(-1, 1)))


@pytest.mark.parametrize(("groups", "layers"), [(2, 2), (3, 3), (4, 4), (8, 8)])
def test_as_many_shifted_layers_mix_as_there_are_groups_where_two_shuffled_ones_do(groups: int, layers: int) -> None:
    channels = 6 * groups
    conv = pointwise(channels, channels, groups)
    nn.init.ones_(conv.weight)

    def mixed(kernel: nn.Module, times: int) -> bool:
        x = torch.eye(channels)[..., None, None]
        for _ in range(times - 1):
            x = kernel(conv(x)).detach()
        return bool(conv(x).gt(0).all())

    assert mixed(ChannelShift(channels // (2 * groups)), layers)
    assert not mixed(ChannelShift(channels // (2 * groups)), layers - 1)
    if groups <= 6:  # a group of six channels reads one of each group at most
        assert mixed(ChannelShuffle(groups), 2)


def test_address_shift_is_a_depthwise_kernel_of_one_tap() -> None:
    taps = torch.zeros(8, 1, 3, 3)
    for quarter, (row, column) in enumerate([(1, 2), (1, 0), (2, 1), (0, 1)]):  # where each direction reads
        taps[2 * quarter : 2 * quarter + 2, 0, row, column] = 1
    assert torch.equal(AddressShift(8)(images()), F.conv2d(images(), taps, padding=1, groups=8))


def test_shortcut_shift_is_a_concatenation() -> None:
    conv, x = pointwise(8, 4), images()
    assert torch.equal(ShortcutShift(conv)(x), torch.cat([x, conv(x)], 1))
    assert torch.equal(ShortcutShift(conv, Newest(3))(x), torch.cat([x[:, 5:], conv(x)], 1))


def by_definition(weight: Tensor, x: Tensor) -> Tensor:
    """The filter of each row over channels and columns, zeros around: y[c, h, w] = sum K_h[i, j] x[c+i-1, h, w+j-1]."""
    padded = F.pad(x, (1, 1, 0, 0, 1, 1))
    y = torch.zeros_like(x)
    for row in range(x.shape[2]):
        for i in range(3):
            for j in range(3):
                part = padded[:, i : i + x.shape[1], row, j : j + x.shape[3]]
                y[:, :, row] += weight[row, 0, i, j] * part
    return y


def test_dimension_wise_kernels_are_their_definition() -> None:
    rows, columns, x = DimensionWise(SIZE[0], dim=2), DimensionWise(SIZE[1], dim=3), images()
    with torch.no_grad():
        torch.testing.assert_close(rows(x), by_definition(rows.conv.weight, x))
        turned = by_definition(columns.conv.weight.transpose(2, 3), x.transpose(2, 3)).transpose(2, 3)
        torch.testing.assert_close(columns(x), turned)


def test_a_map_of_another_size_is_resized_along_the_axis_of_the_filters() -> None:
    for size in (4, 9):
        rows, x = DimensionWise(size, dim=2), images()
        with torch.no_grad():
            there = by_definition(rows.conv.weight, resize(x, (size, SIZE[1])))
            torch.testing.assert_close(rows(x), resize(there, SIZE))


def test_resize_averages_down_and_interpolates_up() -> None:
    x = images()
    assert resize(x, SIZE) is x
    assert torch.equal(resize(x, (3, SIZE[1])), F.adaptive_avg_pool2d(x, (3, SIZE[1])))
    assert torch.equal(resize(x, (SIZE[0], 9)), F.interpolate(x, (SIZE[0], 9), mode="bilinear", align_corners=True))


@pytest.mark.parametrize("channels", [8, 13])
def test_dice_costs_what_the_formula_says(channels: int) -> None:
    height, width = SIZE
    unit, x = Dice(channels, channels, SIZE), torch.zeros(1, channels, *SIZE)
    hidden = 2 * channels * (channels // 4)
    assert sum(p.numel() for p in unit.parameters()) == 36 * channels + 9 * (height + width) + hidden
    with FlopCounterMode(display=False) as counter:
        unit(x)
    assert counter.get_total_flops() == 2 * (39 * channels * height * width + hidden)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9])
def test_eca_is_its_definition(kernel: int) -> None:
    gate, x = Eca(16, kernel), images(16)
    weight = gate.conv.weight.flatten().tolist()
    pooled = x.flatten(2).mean(2)
    expected = torch.empty_like(x)
    for c in range(16):
        places = ((c + t - kernel // 2, w) for t, w in enumerate(weight))
        total = sum(w * pooled[:, place] for place, w in places if 0 <= place < 16)
        expected[:, c] = x[:, c] * torch.sigmoid(total)[:, None, None]
    torch.testing.assert_close(gate(x), expected)
    assert [tuple(p.shape) for p in gate.parameters()] == [(1, 1, kernel)]


def test_the_adaptive_kernel_of_eca() -> None:
    sizes = {16: 3, 24: 3, 64: 3, 96: 3, 128: 5, 256: 5, 512: 5, 1024: 5, 2048: 7}
    assert {channels: adaptive_kernel(channels) for channels in sizes} == sizes
    assert Eca(2048).conv.kernel_size == (7,)


def test_squeeze_and_excite_is_two_layers_on_the_mean() -> None:
    gate, x = SqueezeExcite(8, ratio=4), images()
    first, second = gate.gate.reduce, gate.gate.expand
    hidden = F.relu(F.linear(x.mean((2, 3)), first.weight.flatten(1), first.bias))
    factors = torch.sigmoid(F.linear(hidden, second.weight.flatten(1), second.bias))
    torch.testing.assert_close(gate(x), x * factors[..., None, None])
    assert first.out_channels == 2


@pytest.mark.parametrize("gate", [Eca(8), SqueezeExcite(8)], ids=["ECA", "SE"])
def test_a_gate_that_starts_as_identity_is_one_and_learns(gate: Eca | SqueezeExcite) -> None:
    start_as_identity(gate)
    x = images()
    assert torch.equal(gate(x), x)
    gate(x).square().sum().backward()
    assert any(p.grad is not None and p.grad.ne(0).any() for p in gate.parameters())


# --- refusals ---


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Eca(8, kernel=4), "ECA: the kernel must be odd, got 4."),
        (lambda: Eca(8, kernel=-1), "ECA: the kernel must be odd, got -1."),
        (lambda: AddressShift(6), "Address shift: four directions must divide the channels, got 6."),
    ],
)
def test_refusals(make, reason: str) -> None:
    with pytest.raises(ConvsmithError) as mistake:
        make()
    assert str(mistake.value) == reason
