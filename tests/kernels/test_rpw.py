"""Rolling pointwise convolution against a literal loop over its definition, and through each of torch's machines."""

import json
import warnings
from math import ceil, gcd
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from convsmith.blocks import RollingPointwise, decompositions, rolling_pointwise, windows
from convsmith.blocks.rpw import rolling_pointwise_backward
from convsmith.errors import ConvsmithError
from convsmith.kernels.rolling import Rolling
from convsmith.kernels.rolling_banded import Band, cheapest, fastest

CASES = [  # Cin, Cout, groups, overlap, stride
    (8, 8, 2, 0.5, 1),
    (8, 5, 2, 0.5, 2),  # Cout is no multiple of the 4 windows
    (12, 7, 4, 0.33, 1),
    (12, 16, 3, 0.25, 1),
    (16, 24, 4, 0.75, 2),
    (16, 3, 2, 0.33, 3),  # fewer outputs than windows
    (10, 6, 2, 0.75, 1),
    (8, 8, 4, 0.0, 1),
    (6, 4, 1, 0.5, 1),
    (6, 6, 6, 0.5, 1),  # windows of one channel
    (16, 32, 4, 0.25, 1),  # units of one channel, a window three further on from output to output
    (20, 20, 4, 0.33, 1),
    (24, 24, 2, 0.35, 1),  # windows of twelve channels, starts eight apart: no multiple of them
    (12, 12, 2, 0.67, 1),
]
table = pytest.mark.parametrize(("inputs", "outputs", "groups", "overlap", "stride"), CASES)


@pytest.fixture(params=["dense", "alone", "together"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take one way for all maps that it fits, whichever would be faster: each unit a block, or half of them."""

    def taken(x: Tensor, weight: Tensor, groups: int, overlap: float, stride: int) -> Band | None:
        at = Rolling(weight.shape[1] * groups, len(weight), groups, overlap)
        fits = x.shape[1] == at.in_channels and stride == 1 and at.out_channels % at.distinct == 0
        together = max(at.distinct // 2, 1) if request.param == "together" and at.distinct % 2 == 0 else 1
        return Band(at, together) if fits and request.param != "dense" else None

    monkeypatch.setattr("convsmith.blocks.rpw.fastest", taken)
    return request.param


def by_definition(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, overlap: float, stride: int) -> Tensor:
    inputs, outputs = x.shape[1], len(weight)
    width = inputs // groups
    step = width - int(overlap * width)
    distinct = inputs // gcd(inputs, step)
    x = x[:, :, ::stride, ::stride]
    y = torch.zeros(len(x), outputs, *x.shape[2:], dtype=x.dtype)
    for o in range(outputs):
        start = (o % distinct) * step % inputs
        for t in range(width):
            y[:, o] += weight[o, t] * x[:, (start + t) % inputs]
        if bias is not None:
            y[:, o] += bias[o]
    return y


def sample(inputs: int, outputs: int, groups: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """x, weight, bias."""
    torch.manual_seed(0)
    shapes = [(2, inputs, 5, 4), (outputs, inputs // groups), (outputs,)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


@table
@LAYOUTS
@pytest.mark.usefixtures("way")
def test_forward_is_the_definition(
    inputs: int, outputs: int, groups: int, overlap: float, stride: int, layout: torch.memory_format
) -> None:
    x, weight, bias = sample(inputs, outputs, groups)
    for each in (bias, None):
        got = rolling_pointwise(x.contiguous(memory_format=layout), weight, each, groups, overlap, stride)
        torch.testing.assert_close(got, by_definition(x, weight, each, groups, overlap, stride))
        assert got.is_contiguous(memory_format=layout)


@table
@LAYOUTS
@pytest.mark.usefixtures("way")
def test_backward_is_the_adjoint(
    inputs: int, outputs: int, groups: int, overlap: float, stride: int, layout: torch.memory_format
) -> None:
    x, weight, bias = sample(inputs, outputs, groups)
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(rolling_pointwise, (x, weight, bias, groups, overlap, stride), fast_mode=True)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("frozen", [0, 1, 2, 3])
def test_the_adjoint_can_be_derived_again(frozen: int) -> None:
    inputs = [each.detach()[:1, ..., :2, :2] if each.dim() == 4 else each.detach() for each in sample(8, 5, 2)]
    for place, each in enumerate(inputs):
        each.requires_grad_(place != frozen)
    assert torch.autograd.gradgradcheck(rolling_pointwise, (*inputs, 2, 0.5, 1))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_backward_skips_what_needs_no_gradient(frozen: int) -> None:
    inputs = sample(12, 7, 4)
    inputs[frozen].requires_grad_(False)
    rolling_pointwise(*inputs, 4, 0.33, 1).sum().backward()
    assert [each.grad is None for each in inputs] == [position == frozen for position in range(3)]


@table
def test_windows_are_the_channels_read(inputs: int, outputs: int, groups: int, overlap: float, stride: int) -> None:
    x, weight, _ = sample(inputs, outputs, groups)
    read = torch.zeros(outputs, inputs, dtype=torch.bool)
    read.scatter_(1, windows(inputs, outputs, groups, overlap), True)
    reach = torch.autograd.functional.jacobian(
        lambda x: rolling_pointwise(x, weight, None, groups, overlap, stride)[0, :, 0, 0], x
    )
    assert torch.equal(reach[:, 0, :, 0, 0] != 0, read)
    assert read.sum(1).eq(inputs // groups).all()


@pytest.mark.parametrize(("groups", "overlap", "layers"), [(2, 0.5, 2), (4, 0.5, 2), (8, 0.5, 3), (8, 0.75, 4)])
def test_stacked_layers_reach_every_channel(groups: int, overlap: float, layers: int) -> None:
    reads = torch.zeros(64, 64).scatter_(1, windows(64, 64, groups, overlap), 1.0)
    assert reads.matrix_power(layers).gt(0).all()
    assert not reads.matrix_power(layers - 1).gt(0).all()


def test_one_group_is_a_pointwise_convolution() -> None:
    layer, pointwise = RollingPointwise(6, 4, groups=1, overlap=0.5, bias=True, stride=2), nn.Conv2d(6, 4, 1, 2)
    # At overlap .5 window o starts at channel 3 o: its row is the dense one, read from there on.
    rows = [row.roll(-3 * o) for o, row in enumerate(pointwise.weight.detach()[:, :, 0, 0])]
    layer.load_state_dict({"weight": torch.stack(rows), "bias": pointwise.bias})
    x = torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(layer(x), pointwise(x))


@table
def test_macs_and_parameters_are_those_of_a_grouped_pointwise(
    inputs: int, outputs: int, groups: int, overlap: float, stride: int
) -> None:
    layer = RollingPointwise(inputs, outputs, groups, overlap, bias=True, stride=stride)
    x = torch.zeros(2, inputs, 7, 6)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(x)
    pixels = 2 * ceil(7 / stride) * ceil(6 / stride)
    assert counter.get_total_flops() == 2 * inputs // groups * outputs * pixels
    assert sum(each.numel() for each in layer.parameters()) == inputs // groups * outputs + outputs


def test_starts_uniform_in_one_over_the_root_of_the_window() -> None:
    torch.manual_seed(0)
    weight = RollingPointwise(64, 256, groups=4, overlap=0.5).weight
    assert 0.249 < weight.max().item() <= 0.25
    assert -0.25 <= weight.min().item() < -0.249
    assert weight.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.03)


@pytest.mark.parametrize(("inputs", "outputs", "groups", "overlap", "stride"), [*CASES[:3], CASES[10]])
@LAYOUTS
@pytest.mark.usefixtures("way")
def test_both_are_sound_custom_operators(
    inputs: int, outputs: int, groups: int, overlap: float, stride: int, layout: torch.memory_format
) -> None:
    x, weight, bias = sample(inputs, outputs, groups, torch.float32)
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    arguments = (x, weight, bias if stride == 1 else None, groups, overlap, stride)
    grad = torch.randn_like(rolling_pointwise(*arguments)).requires_grad_()
    with warnings.catch_warnings():
        # torch looks at `.grad` of views and hides the warning by replacing showwarning: too late where it is an error.
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf Tensor", UserWarning)
        told = [torch.library.opcheck(rolling_pointwise, arguments)]
        wanted = [True, True, stride == 1]
        back = (grad, x, weight, groups, overlap, stride, wanted)
        told.append(torch.library.opcheck(rolling_pointwise_backward, back))
    assert all(set(each.values()) == {"SUCCESS"} for each in told)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_its_type_and_trains_the_weights_in_theirs(dtype: torch.dtype) -> None:
    layer = RollingPointwise(16, 24, 4, 0.33, bias=True)
    x = torch.randn(2, 16, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", dtype):
        y = layer(x)
    y.float().square().sum().backward()
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    gradients = [each.grad.clone() for each in (x, *layer.parameters()) if each.grad is not None]
    layer.zero_grad()
    x.grad = None
    layer(x).square().sum().backward()
    for low, full in zip(gradients, (x.grad, *(each.grad for each in layer.parameters())), strict=True):
        assert full is not None
        assert low.dtype == torch.float32
        assert (low - full).norm() < 0.02 * full.norm()


@pytest.mark.usefixtures("way")
def test_compiles_as_one_graph() -> None:
    layer = RollingPointwise(12, 7, 4, 0.33, bias=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 12, 5, 4, requires_grad=True)
    torch.testing.assert_close(compiled(x), layer(x))
    found, wanted = (torch.autograd.grad(run(x).square().sum(), (x, *layer.parameters())) for run in (compiled, layer))
    torch.testing.assert_close(found, wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled(x).dtype == torch.bfloat16


def exported(layer: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(layer.eval(), (x,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)


def targets(program: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


def test_exports_as_one_node_and_decomposes_to_plain_aten() -> None:
    layer, x = RollingPointwise(12, 7, 4, 0.33, bias=True, stride=2), torch.randn(2, 12, 5, 4)
    program = exported(layer, x)
    assert targets(program) == {"convsmith.rolling_pointwise.default"}
    plain = program.run_decompositions(decompositions())
    assert all(name.startswith("aten.") for name in targets(plain))
    x = torch.randn(3, 12, 5, 4)
    torch.testing.assert_close(plain.module()(x), layer(x))


def test_onnx_runtime_agrees(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    layer = nn.Sequential(nn.Conv2d(3, 12, 3), RollingPointwise(12, 7, 4, 0.33, bias=True, stride=2))
    x = torch.randn(2, 3, 8, 7)
    program = exported(layer, x).run_decompositions(decompositions())
    torch.onnx.export(program, (x,), tmp_path / "net.onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    x = torch.randn(5, 3, 8, 7)
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), layer(x).detach())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("groups", "overlap", "reason"),
    [
        (3, 0.5, "groups must divide the 8 input channels, got 3"),
        (0, 0.5, "groups must divide the 8 input channels, got 0"),
        (2, 1.0, "overlap must be at least 0 and less than 1, got 1.0"),
        (2, -0.1, "overlap must be at least 0 and less than 1, got -0.1"),
        (2, float("nan"), "overlap must be at least 0 and less than 1, got nan"),
    ],
)
def test_refuses_groups_and_overlaps_that_do_not_fit(groups: int, overlap: float, reason: str) -> None:
    for make in (RollingPointwise, windows):
        with pytest.raises(ConvsmithError, match=reason):
            make(8, 8, groups, overlap)


@pytest.mark.parametrize("shape", [(8, 4, 4), (1, 9, 4, 4), (1, 4, 4, 4)])
def test_refuses_inputs_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConvsmithError, match=r"must be \(batch, 8, height, width\), got"):
        RollingPointwise(8, 8, 2, 0.5)(torch.zeros(shape))


def test_prints_like_a_convolution() -> None:
    layer = RollingPointwise(8, 4, 2, 0.5, bias=True, stride=2)
    assert str(layer) == "RollingPointwise(8, 4, groups=2, overlap=0.5, stride=2, bias=True)"


MEASURED = json.loads((Path(__file__).parents[2] / "bench" / "results" / "rpw.json").read_text())


def test_the_faster_way_is_taken_where_they_were_measured_far_apart() -> None:
    slower = []
    for cell in MEASURED["cells"]:
        what, times = cell["what"], {name: each["median_ms"] for name, each in cell["times"].items()}
        channels, side, groups, overlap = (what[name] for name in ("channels", "side", "groups", "overlap"))
        x = torch.zeros(MEASURED["batch"], channels, side, side, dtype=getattr(torch, what["dtype"]))
        x = x.to(memory_format=getattr(torch, {"contiguous": "contiguous_format"}.get(what["layout"], what["layout"])))
        taken = fastest(x, x.new_zeros(channels, channels // groups), groups, overlap, 1)
        assert (taken and taken.together) == cell["together"], what
        ratio = times["banded"] / times["masked"]
        if (ratio if taken else 1 / ratio) > 1.5:
            slower.append((what, ratio))
    assert slower == []


@pytest.mark.parametrize(
    ("outputs", "groups", "overlap", "idle", "together"),
    [
        (64, 4, 0.5, 0, 1),  # nothing to spare: no zeros
        (64, 4, 0.5, 2**20, 8),  # few products at any price
        (512, 4, 0.5, 20, 1),  # 64 outputs of a window are enough
        (64, 4, 0.33, 20, 16),
    ],
)
def test_blocks_are_as_high_as_pays(outputs: int, groups: int, overlap: float, idle: int, together: int) -> None:
    cost, band = cheapest(64, outputs, groups, overlap, idle)
    assert band.together == together
    assert cost == band.span * (1 + idle / (band.rows * together))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"stride": 2}, "pixels are left out"),
        ({"overlap": 0.33, "outputs": 96}, "64 windows"),
        ({"side": 1}, "a map of one pixel is of both formats"),
        ({"groups": 1}, "there is nothing to spare"),
        ({"side": 2, "batch": 1}, "too little to spare"),
    ],
)
def test_the_band_is_left_where_it_does_not_fit_or_pay(change: dict[str, float], why: str | None) -> None:
    case = {"outputs": 64, "groups": 4, "overlap": 0.5, "stride": 1, "side": 32, "batch": 4} | change
    x = torch.zeros(case["batch"], 64, case["side"], case["side"])
    weight = torch.zeros(case["outputs"], 64 // case["groups"])
    band = fastest(x, weight, case["groups"], case["overlap"], case["stride"])
    assert (band is None) == (why is not None), why
