"""Nets of signals and of volumes: planned, carried, fitted, exported and measured as those of images are."""

from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.video import resnet

import convsmith as cs
from convsmith.blocks import BLOCKS, parse_block
from convsmith.calibration.calibrate import sliding
from convsmith.errors import ConvsmithError, DataError
from convsmith.kernels.spec import ConvSpec
from convsmith.testing.blocks import example

SIGNAL = ConvSpec(8, 16, (5,), (2,), (2,), (2,), bias=True)
VOLUME = ConvSpec(8, 16, (3, 3, 3), (1, 2, 2), (1, 1, 0), (1, 1, 2))
FULL = ("dw-pw:r={k}", "pw-dw:r={k8}", "tucker:r=8,s=16", "channel:r=16", "dw-gpw:g=1")
FOR_IMAGES = ("address", "ant", "dice", "dw-rpw", "eca", "se", "seq", "shuffle")


class Pitch(nn.Module):
    """As torchcrepe's net: wide strided kernels over the waveform, uneven zeros put by hand, pools, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 16, 64, 4)
        self.second = nn.Conv1d(16, 24, 9)
        self.third = nn.Conv1d(24, 32, 8, dilation=2)
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) for n in (16, 24, 32))
        self.head = nn.Linear(32 * 12, 36)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm, pad in zip((self.first, self.second, self.third), self.norms, (30, 4, 7), strict=True):
            x = nn.functional.max_pool1d(norm(conv(nn.functional.pad(x, (pad, pad + 1))).relu()), 2)
        return torch.sigmoid(self.head(x[:, :, :12].flatten(1)))


def clips(convolution: type[nn.Module], stem: nn.Module) -> nn.Module:
    """A video net of torchvision's stem and blocks, narrower than its own."""

    def down(inputs: int, outputs: int) -> nn.Module:
        short = nn.Sequential(nn.Conv3d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm3d(outputs))
        return resnet.BasicBlock(inputs, outputs, convolution, 2, short)

    head = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(24, 5))
    narrow = nn.Sequential(nn.Conv3d(64, 16, 1), nn.ReLU())
    return nn.Sequential(stem, narrow, resnet.BasicBlock(16, 16, convolution), down(16, 24), head)


NETS = {
    "pitch": (Pitch, (1, 640)),
    "r3d": (lambda: clips(resnet.Conv3DSimple, resnet.BasicStem()), (3, 4, 16, 16)),
    "r2plus1d": (lambda: clips(resnet.Conv2Plus1D, resnet.R2Plus1dStem()), (3, 4, 16, 16)),
}


def net_of(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """In evaluation mode, with weights and statistics that keep activations apart."""
    torch.manual_seed(0)
    made, shape = NETS[name]
    net = made()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval(), shape


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def gap(new: nn.Module, old: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return ((new(x) - old(x)).norm() / old(x).norm()).item()


def exact(conv: ConvSpec) -> str:
    """The block that represents every weight: by taps where there are several, else by channels."""
    if prod(conv.kernel) == 1:
        return f"channel:r={min(conv.in_channels, conv.out_channels)}"
    return f"dw-pw:r={min(prod(conv.kernel), conv.out_channels)}"


def carried_at_full_rank(name: str) -> None:
    net, shape = net_of(name)
    graph = cs.capture(net, torch.zeros(1, *shape))
    specs = {node.module: node.conv_spec() for node in graph.layers if node.kind == "conv"}
    wanted = {layer: exact(spec) for layer, spec in specs.items() if spec.in_channels > 3}
    plan = cs.decompose(graph, overrides=wanted)
    done = cs.rewrite(net, plan)
    assert {edit.layer: edit.block for edit in plan.edits} == wanted
    assert gap(done.model, net, drawn(2, *shape)) < 1e-5


@pytest.mark.parametrize("name", NETS)
def test_a_net_is_carried_at_full_rank(name: str) -> None:
    carried_at_full_rank(name)


@pytest.mark.long
@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18"])
def test_torchvisions_video_nets_are_carried_at_full_rank(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETS, name, (lambda: models.get_model(name, weights=None), (3, 4, 32, 32)))
    carried_at_full_rank(name)


@pytest.mark.parametrize("conv", [SIGNAL, VOLUME], ids=["signal", "volume"])
@pytest.mark.parametrize("text", FULL)
def test_a_block_of_full_rank_is_the_convolution(conv: ConvSpec, text: str) -> None:
    torch.manual_seed(0)
    taps = prod(conv.kernel)
    block = parse_block(text.format(k=min(taps, 16), k8=min(taps, 8)))
    original, x = conv.standard().double(), drawn(2, 8, *(9,) * conv.axes).double()
    if block.name == "dw-gpw":  # exact where every output's taps are of rank 1 in each channel
        filters = torch.randn(8, taps).double()
        mixing = torch.randn(16, 8).double()
        original.weight.data = torch.einsum("nc,ck->nck", mixing, filters).view_as(original.weight)
    built = block.build(conv).double()
    assert block.carry(original, built).error < 1e-6
    assert gap(built, original, x) < 1e-6
    assert {type(kernel) for kernel in built} == {type(original)}


def test_a_volume_is_split_into_time_and_map() -> None:
    conv = ConvSpec(4, 6, (3, 3, 3), (2, 1, 1), (1, 1, 1), (1, 1, 1), bias=True)
    original, block = conv.standard().double(), parse_block("spatial:r=12")
    built = block.build(conv).double()
    assert [kernel.kernel_size for kernel in built] == [(3, 1, 1), (1, 3, 3)]
    assert block.carry(original, built).error < 1e-6
    assert gap(built, original, drawn(2, 4, 7, 8, 9).double()) < 1e-6


@pytest.mark.parametrize("name", FOR_IMAGES)
def test_blocks_of_images_say_so(name: str) -> None:
    block = example(BLOCKS[name])
    square = ConvSpec(16, 16)
    for conv, told in ((ConvSpec(16, 16, (3,), (1,), (1,), (1,)), "one axis"), (VOLUME, "three axes")):
        assert block.refuses(conv) == f"it slides along {told}, and this block is for height and width"
        with pytest.raises(ConvsmithError, match=told):
            block.on_map(conv, (9,) * conv.axes).build(conv)
    assert "axes" not in (block.refuses(square) or "")


def test_a_signal_has_one_dimension_already() -> None:
    assert parse_block("spatial:r=2").refuses(SIGNAL) == "a 5 kernel has one dimension already"


@pytest.mark.parametrize("conv", [SIGNAL, VOLUME], ids=["signal", "volume"])
def test_patches_are_what_the_convolution_sees(conv: ConvSpec) -> None:
    original, x = conv.standard().double(), drawn(2, 8, 9, 10, 11)[(..., *(0,) * (3 - conv.axes))].double()
    patches = sliding(x, conv)
    flat = patches.movedim(1, 1 + conv.axes).flatten(1 + conv.axes)  # (n, *out, c k)
    answers = (flat @ original.weight.flatten(1).T).movedim(-1, 1)
    bias = 0 if original.bias is None else original.bias.view(-1, *(1,) * conv.axes)
    assert torch.allclose(answers + bias, original(x))


def test_data_chooses_and_fits() -> None:
    net, shape = net_of("pitch")
    graph, data = cs.capture(net, torch.zeros(1, *shape)), drawn(24, *shape)
    plan = cs.decompose(graph, model=net, data=data, max_macs=0.7)
    assert plan.new.macs <= 0.7 * plan.base.macs
    fitted, alone = cs.apply(net, plan, data=data), cs.apply(net, plan)
    assert gap(fitted, net, data) < gap(alone, net, data)


def test_volumes_are_fitted_and_statistics_priced() -> None:
    net, shape = net_of("r3d")
    graph, data = cs.capture(net, torch.zeros(1, *shape)), drawn(8, *shape)
    layer = "2.conv1.0"
    plan = cs.decompose(graph, overrides={layer: "dw-pw:r=3"}, keep=["3.conv1.0"], block="dw-pw:r=4")
    fitted, alone = cs.apply(net, plan, data=data), cs.apply(net, plan)
    assert gap(fitted, net, data) < gap(alone, net, data)
    found = cs.calibrate(net, data, [layer])
    assert found[layer].gram.shape == (16 * 27, 16 * 27)


def test_latency_limits_and_costs_alone() -> None:
    net, shape = net_of("r3d")
    graph = cs.capture(net, torch.zeros(1, *shape))
    assert cs.decompose(graph, max_macs=0.8).new.macs <= 0.8 * graph.macs
    assert cs.decompose(graph, model=net, max_latency=0.98).edits


@pytest.mark.parametrize("name", ["pitch", "r3d"])
def test_the_result_is_exported_and_measured(name: str, tmp_path: Path) -> None:
    net, shape = net_of(name)
    new = cs.apply(net, cs.decompose(net, torch.zeros(1, *shape)))
    for suffix in ("onnx", "pt2"):
        assert cs.export(new, tmp_path / f"net.{suffix}", input=shape).max_rel_error < 1e-4
    found = cs.bench(
        {"old": net, "new": new}, input=shape, batches=[2], runtimes=["eager", "onnxruntime"], seconds=0.01
    )
    assert len(found.cells) == 4 and not found.skipped


def test_data_of_other_axes_is_refused() -> None:
    net, shape = net_of("pitch")
    plan = cs.decompose(net, torch.zeros(1, *shape))
    with pytest.raises(DataError, match=r"has shape \(2, 3, 8, 8\); give signals \(n, c, l\)"):
        cs.apply(net, plan, data=torch.zeros(2, 3, 8, 8))


def test_a_kernel_whose_moments_no_machine_holds_is_left_and_the_rest_is_fitted() -> None:
    with torch.device("meta"):
        wide = nn.Conv1d(1024, 8, 64)
    wide = wide.to_empty(device="cpu")
    nn.init.zeros_(wide.weight)
    net = nn.Sequential(
        nn.Conv1d(4, 64, 9, padding=4), nn.ReLU(), nn.Conv1d(64, 64, 9), nn.ReLU(), nn.Conv1d(64, 1024, 1), wide
    ).eval()
    images = torch.randn(8, 4, 80)
    plan = cs.decompose(net, images[:1], data=images, block="dw-pw", max_macs=0.97)
    reasons = {refusal.layer: refusal.reason for refusal in plan.refusals}
    assert "patches of 65,536 numbers has moments of 34 GB" in reasons["5"]
    assert "2" in {edit.layer for edit in plan.edits}
    assert cs.apply(net, plan, data=images)(images).shape == net(images).shape
    blind = cs.decompose(net, images[:1], block="dw-pw", keep=["0", "2", "4"])
    with pytest.raises(DataError, match="34 GB, too many to fit to data"):
        cs.apply(net, blind, data=images)
