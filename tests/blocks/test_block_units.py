"""Blocks that are units of published nets, and attention as an add-on: built, refused, planned and applied."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import convsmith as cs
from convsmith.blocks import (
    BLOCKS,
    AddEca,
    AddOn,
    Address,
    AddSe,
    Ant,
    Block,
    Carried,
    DiceUnit,
    Shuffle,
    Unit,
    parse_block,
)
from convsmith.blocks.unit import Added
from convsmith.calibration.calibrate import calibrate
from convsmith.calibration.in_order import Calibration
from convsmith.errors import ConvsmithError
from convsmith.kernels import ChannelGate
from convsmith.kernels.spec import ConvSpec
from convsmith.plan import Replace
from convsmith.planning.by_cost import SEPARABLE
from convsmith.planning.candidates import try_block
from convsmith.rewriting.apply import rewrite
from convsmith.testing.oracles import gradient_support, seen_by_gradient, transparent

SIZE = (9, 10)
UNITS: list[Block] = [Shuffle(), Shuffle(g=4), Ant(), Ant(t=1, r=4, g=2), Address(), Address(g=4), DiceUnit(h=9, w=10)]
ADD_ONS: list[Block] = [AddEca(), AddEca(k=7), AddSe(), AddSe(r=2)]
each_unit = pytest.mark.parametrize("block", UNITS, ids=str)
each_add_on = pytest.mark.parametrize("block", ADD_ONS, ids=str)

SQUARE = ConvSpec(16, 16, bias=True)
GEOMETRIES = {
    "square": SQUARE,
    "widening": ConvSpec(16, 24),
    "stride 2": ConvSpec(16, 32, stride=(2, 2), bias=True),
    "5x5": ConvSpec(16, 16, (5, 5), padding=(2, 2)),
    "dilated": ConvSpec(16, 16, padding=(2, 2), dilation=(2, 2)),
    "1x3, stride 1x2": ConvSpec(16, 16, (1, 3), (1, 2), (0, 1)),
    "unpadded": ConvSpec(16, 16, padding=(0, 0)),
    "reflect": ConvSpec(16, 16, padding_mode="reflect"),
}


def standard(spec: ConvSpec) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(
        spec.in_channels, spec.out_channels, spec.kernel, spec.stride, spec.padding, spec.dilation, spec.groups,
        spec.bias, spec.padding_mode,
    )  # fmt: skip


def images(spec: ConvSpec) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, spec.in_channels, *SIZE)


# --- units ---


@pytest.mark.parametrize("geometry", GEOMETRIES)
@each_unit
def test_same_shape_as_the_convolution_or_a_reason(block: Block, geometry: str) -> None:
    spec = GEOMETRIES[geometry]
    if block.refuses(spec) is None:
        assert block.build(spec)(images(spec)).shape == standard(spec)(images(spec)).shape
    else:
        assert geometry not in ("square", "widening", "stride 2")
        assert isinstance(block, Address | DiceUnit)
        assert block.refuses(spec) in (
            "it is not a 3x3 kernel under one row and column of zeros, undilated",
            "it strides along one axis only",
        )


@each_unit
def test_it_starts_untrained_and_trains(block: Block) -> None:
    built = block.build(SQUARE)
    before = {key: tensor.clone() for key, tensor in built.state_dict().items()}
    assert not block.carries
    assert block.carry(standard(SQUARE), built) == Carried(None)
    assert all(torch.equal(tensor, before[key]) for key, tensor in built.state_dict().items())
    built(images(SQUARE)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters())


# per output pixel at C = 16, N = 24, K = 9, stride 1; and once per image
COSTS = [
    (Shuffle(g=2), 16 * (16 // 2 + 9 + 24 // 2), 0),
    (Shuffle(g=4), 16 * (16 // 4 + 9 + 24 // 4), 0),
    (Ant(t=2, r=8, g=1), 32 * (16 + 9 + 24), 2 * 32 * 4),
    (Ant(t=3, r=8, g=4), 48 * (16 + 9 + 24 // 4), 2 * 48 * 6),
    (Address(g=2), 16 * (16 + 24) // 2, 0),
    (Address(g=4), 16 * (16 + 24) // 4, 0),
    (DiceUnit(h=9, w=10), 39 * 16 + 16 * 24, 2 * 16 * 4),
]


@pytest.mark.parametrize(("block", "per_pixel", "per_image"), COSTS, ids=str)
def test_cost_is_the_formula(block: Block, per_pixel: int, per_image: int) -> None:
    spec = ConvSpec(16, 24)
    built = block.build(spec)
    with FlopCounterMode(display=False) as counter:
        built(images(spec)[:1])
    assert counter.get_total_flops() == 2 * (per_pixel * 90 + per_image)
    trial = try_block(block, spec, SIZE)
    assert (trial.macs, trial.params) == (per_pixel * 90 + per_image, sum(p.numel() for p in built.parameters()))


# block, share of the volume that a 3x3 convolution of 64 channels sees
REACH = [
    (Shuffle(g=2), 1.0),
    (Shuffle(g=4), 1.0),
    (Shuffle(g=8), 1.0),
    (Shuffle(g=16), 16.75 / 64),  # to three quarters of the outputs the identity adds a channel
    (Ant(), 1.0),
    (Ant(g=4), 1.0),
    (Address(g=2), 0.896),  # at a border what is shifted off the map is missed
    (Address(g=4), 0.449),
    (DiceUnit(h=9, w=10), 25 / 9),
]


@pytest.mark.parametrize(("block", "share"), REACH, ids=str)
def test_quality_and_compact_at_64_channels(block: Block, share: float) -> None:
    trial = try_block(block, ConvSpec(64, 64), SIZE)
    assert trial.share == pytest.approx(share, rel=0.02)
    assert trial.quality == (share >= 1)
    assert trial.compact


@pytest.mark.parametrize("block", [Shuffle(g=4), Ant(), Address(), DiceUnit(h=9, w=10)], ids=str)
def test_reach_is_what_autograd_finds(block: Block) -> None:
    spec, middle = ConvSpec(16, 16), (4, 5)
    graph = cs.capture(block.build(spec), torch.zeros(1, 16, *SIZE))
    reach = graph.reaches()[graph.outputs[0]]
    net = transparent(block.build(spec))
    for gate in net.modules():
        if isinstance(gate, ChannelGate):
            gate.register_forward_hook(lambda module, inputs, output: output.detach())
    indices = [(0, channel, *middle) for channel in range(0, 16, 3)]
    for index, support in zip(indices, gradient_support(net, (16, *SIZE), indices, draws=3), strict=True):
        channels, spans = reach.at(index)
        assert (tuple(map(bool, channels)), spans) == seen_by_gradient(support)


def test_an_expansion_by_one_is_not_compact() -> None:
    # the depthwise kernel and the projection see as much without it
    trial = try_block(Ant(t=1), ConvSpec(64, 64), SIZE)
    assert (trial.quality, trial.compact) == (True, False)


def test_the_identity_goes_around_where_the_shape_stays() -> None:
    for block, added in ((Shuffle(), True), (Ant(), True), (Address(), True), (DiceUnit(h=9, w=10), False)):
        built = block.build(SQUARE).eval()
        nn.init.zeros_(built.pointwise.weight)
        nn.init.zeros_(built.pointwise.bias)
        x = images(SQUARE)
        assert torch.equal(built(x), x if added else torch.zeros_like(x))
        assert block.build(GEOMETRIES["stride 2"])(x).shape == (2, 32, 5, 5)


def test_a_sum_does_not_stretch() -> None:
    with pytest.raises(ConvsmithError, match=r"A sum needs one shape, got \(16, 9, 10\) and \(1, 9, 10\)\."):
        Added(nn.Conv2d(16, 1, 1))(images(SQUARE))


def test_an_average_pool_stands_before_a_dice_unit_that_strides() -> None:
    spec = GEOMETRIES["stride 2"]
    block = DiceUnit().on_map(spec, SIZE)
    assert str(block) == "dice:h=5,w=5"
    assert [type(layer).__name__ for layer in block.build(spec).dice] == ["AvgPool2d", "Dice"]
    assert str(DiceUnit(h=3).on_map(spec, (8, 8))) == "dice:h=3,w=4"


# --- add-ons ---


@pytest.mark.parametrize(
    "spec",
    [
        *GEOMETRIES.values(),
        ConvSpec(3, 32),
        ConvSpec(16, 32, (1, 1), padding=(0, 0), bias=True),
        ConvSpec(16, 16, groups=16),
        ConvSpec(16, 32, groups=4, bias=True),
    ],
    ids=str,
)
@each_add_on
def test_an_add_on_changes_nothing_until_it_is_trained(block: Block, spec: ConvSpec) -> None:
    conv, built = standard(spec), block.build(spec)
    assert block.carries
    assert block.carry(conv, built) == Carried(0.0)
    x = images(spec)
    assert torch.equal(built(x), conv(x))
    built(x).square().sum().backward()
    learning = [p for p in built[0][1].parameters() if p.grad is not None and p.grad.ne(0).any()]
    assert learning


@each_add_on
def test_an_add_on_adds_its_own_cost_and_no_reach(block: Block) -> None:
    spec = ConvSpec(16, 32)
    trial = try_block(block, spec, SIZE)
    own = sum(p.numel() for p in block.build(spec)[0][1].parameters())
    assert trial.params == 9 * 16 * 32 + own
    assert own == {"eca": 3, "eca:k=7": 7, "se": 2 * 32 * 2 + 34, "se:r=2": 2 * 32 * 16 + 48}[str(block)]
    assert (trial.share, trial.compact) == (1, True)


# --- refusals and names ---


@pytest.mark.parametrize(
    ("block", "spec", "reason"),
    [
        (Shuffle(g=3), SQUARE, "g=3 does not divide its 16 input and 16 output channels"),
        (Shuffle(g=4), ConvSpec(16, 10), "g=4 does not divide its 16 input and 10 output channels"),
        (Ant(t=2, g=3), ConvSpec(16, 24), "g=3 does not divide its 32 expanded and 24 output channels"),
        (Ant(t=3, g=3), ConvSpec(16, 24), None),
        (Address(g=2), ConvSpec(6, 8), "four directions and 2 groups of even size do not divide its 6 input channels"),
        (
            Address(g=4),
            ConvSpec(12, 8),
            "four directions and 4 groups of even size do not divide its 12 input channels",
        ),
        (Address(g=4), ConvSpec(16, 10), "g=4 does not divide its 10 output channels"),
        (Address(), ConvSpec(16, 16, stride=(1, 2)), "it strides along one axis only"),
        (Address(), ConvSpec(16, 16, (5, 5), padding=(2, 2)), "it is not a 3x3 kernel under one row and column of"),
        (DiceUnit(h=4), SQUARE, "the size of its map is not told; write dice:h=..,w=.."),
        (DiceUnit(h=4, w=4), ConvSpec(16, 16, padding=(0, 0)), "it is not a 3x3 kernel under one row and column of"),
        (Ant(), ConvSpec(16, 16, (1, 1), padding=(0, 0)), "a 1x1 kernel is already pointwise"),
        (Shuffle(), ConvSpec(16, 16, groups=16), "it is already depthwise"),
        (AddEca(k=4), SQUARE, "k=4 is even, so no channel is its middle"),
        (AddEca(k=3), ConvSpec(16, 16, groups=16), None),
        (AddSe(r=32), SQUARE, "r=32 leaves none of its 16 output channels"),
        (AddSe(r=16), SQUARE, None),
    ],
)
def test_refusals(block: Block, spec: ConvSpec, reason: str | None) -> None:
    refused = block.refuses(spec)
    assert refused is None if reason is None else refused is not None and refused.startswith(reason)


@pytest.mark.parametrize(
    ("text", "block", "canonical"),
    [
        ("shuffle", Shuffle(g=2), "shuffle"),
        ("shuffle:4", Shuffle(g=4), "shuffle:g=4"),
        ("ant:t=6,g=2", Ant(t=6, r=8, g=2), "ant:t=6,g=2"),
        ("address:4", Address(g=4), "address:g=4"),
        ("dice", DiceUnit(), "dice"),
        ("dice:14,w=7", DiceUnit(h=14, w=7), "dice:h=14,w=7"),
        ("eca", AddEca(), "eca"),
        ("eca:5", AddEca(k=5), "eca:k=5"),
        ("se:r=4", AddSe(r=4), "se:r=4"),
    ],
)
def test_reads_a_block(text: str, block: Block, canonical: str) -> None:
    assert parse_block(text) == block
    assert str(parse_block(text)) == canonical
    assert parse_block(canonical) == block


def test_a_mistake_in_a_size() -> None:
    with pytest.raises(ConvsmithError, match=r"dice: h must be a whole number of at least 0, got -1\."):
        parse_block("dice:-1")


def test_all_of_these_tables_are_units_and_add_ons() -> None:
    # others are judged by tests/testing
    assert {b.name for b in (*UNITS, *ADD_ONS)} <= {n for n, b in BLOCKS.items() if issubclass(b, Unit | AddOn)}
    assert not {b.name for b in (*UNITS, *ADD_ONS)} & {text.partition(":")[0] for text in SEPARABLE}


# --- planned and applied ---


def edits(plan: cs.Plan) -> list[Replace]:
    return [edit for edit in plan.edits if isinstance(edit, Replace)]


@pytest.mark.parametrize("name", ["shuffle", "ant", "address", "dice", "eca", "se"])
def test_a_net_is_rebuilt_by_its_plan(name: str) -> None:
    torch.manual_seed(0)
    net, x = cs.build("resnet20").eval(), torch.randn(1, 3, 32, 32)
    plan = cs.decompose(cs.capture(net, x), block=name)
    assert len(edits(plan)) == {"eca": 19, "se": 19}.get(name, 18)
    plan = cs.Plan.from_json(plan.to_json())
    applied = rewrite(net, plan)
    carries = BLOCKS[name.partition(":")[0]].carries
    assert all((edit.error is None) != carries for edit in edits(applied.plan))
    assert all(edit.reason.endswith("; it starts untrained, so train the net") != carries for edit in edits(plan))
    assert all(edit.quality != (name == "address") for edit in edits(plan)), "an address shift misses borders"
    # where ANT's wide map has as many channels as the output, the projection could be left out
    wide = {"layer2.0.conv1", "layer3.0.conv1"} if name == "ant" else set()
    assert {edit.layer for edit in edits(plan) if not edit.compact} == wide
    if carries:
        torch.testing.assert_close(applied.model(x), net(x), rtol=0, atol=0)
    else:
        assert plan.new.macs < 0.6 * plan.base.macs


def test_what_images_cannot_change_takes_no_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a depthwise layer they would be those of all its channels."""
    net, x = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval(), torch.randn(4, 8, 9, 9)
    fitted = []
    sample = Calibration.sample
    monkeypatch.setattr(Calibration, "sample", lambda self, layer, rows=0: fitted.append(layer) or sample(self, layer))
    plan = cs.decompose(cs.capture(net, x[:1]), block="eca", overrides={"2": "dw-pw:r=8"})
    assert [edit.layer for edit in edits(plan)] == ["0", "2"]
    made = rewrite(net, plan, data=x, relu=False)
    assert fitted == ["2"]
    torch.testing.assert_close(made.model(x), net(x))
    alone = rewrite(net, plan, statistics=calibrate(net, x))  # which leaves the grouped one out
    torch.testing.assert_close(alone.model(x), net(x))


def test_the_filters_of_a_dice_unit_follow_the_map_of_each_layer() -> None:
    plan = cs.decompose(cs.capture(cs.build("resnet20"), torch.zeros(1, 3, 32, 32)), block="dice")
    blocks = {edit.layer: edit.block for edit in edits(plan)}
    assert blocks["layer1.0.conv1"] == "dice:h=32,w=32"
    assert blocks["layer2.0.conv1"] == "dice:h=16,w=16"
    assert blocks["layer3.2.conv2"] == "dice:h=8,w=8"


def test_a_plan_with_another_padding_is_refused_when_it_is_applied() -> None:
    with pytest.raises(ConvsmithError, match="dice:h=4,w=4 cannot replace this convolution: it is not a 3x3 kernel"):
        DiceUnit(h=4, w=4).build(replace(SQUARE, padding_mode="reflect"))
