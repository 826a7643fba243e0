"""The decomposer: what is chosen and refused, why, at which cost, and whether the new net keeps the promise."""

import warnings
from collections.abc import Callable
from functools import cache, partial
from math import nan, prod

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import convsmith as cs
from convsmith.blocks import parse_block
from convsmith.kernels.spec import ConvSpec
from convsmith.plan import Replace
from convsmith.planning.by_cost import SEPARABLE
from convsmith.planning.candidates import try_block
from nets import graph_of


@cache
def zoo_net(name: str, blocks: tuple[int, ...] | None = None) -> nn.Module:
    with torch.device("meta"):
        return cs.build(name, input=(3, 32, 32), classes=10, blocks_per_stage=blocks).eval()


@cache
def zoo_graph(name: str, blocks: tuple[int, ...] | None = None) -> cs.Graph:
    return graph_of(zoo_net(name, blocks), 3, 32, 32)


def replaced(plan: cs.Plan) -> list[Replace]:
    assert all(isinstance(edit, Replace) for edit in plan.edits)
    return [edit for edit in plan.edits if isinstance(edit, Replace)]


def reasons(plan: cs.Plan) -> dict[str, str]:
    return {refusal.layer: refusal.reason for refusal in plan.refusals}


def counted(net: nn.Module, *shape: int) -> tuple[int, int]:
    """Parameters and multiply-accumulates by torch's own counter."""
    device = next(net.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(torch.zeros(1, *shape, device=device))
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2


def conv(channels: int, width: int, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, **options)


# --- a block in a convolution's place ---

# Wang et al., CIKM 2021, blocks of two kernels at C = N = 64: share of the MACs of a standard 3x3 convolution, and of
# the channels it reaches
COSTS = [
    ("dw-pw", 0.127, 1.0),
    ("pw-dw", 0.127, 1.0),
    ("dw-gpw:g=2", 0.071, 1 / 2),
    ("dw-gpw:g=4", 0.043, 1 / 4),
    ("dw-rpw:g=2,o=0.5", 0.071, 1 / 2),
    ("dw-rpw:g=4,o=0.33", 0.043, 1 / 4),
    ("dw-gpw:g=1", 0.127, 1.0),
]


@pytest.mark.parametrize(("block", "cost", "share"), COSTS)
def test_cost_and_reach_at_64_channels(block: str, cost: float, share: float) -> None:
    trial = try_block(parse_block(block), ConvSpec(64, 64), (16, 16))
    standard = 9 * 64 * 64 * 16 * 16
    assert round(trial.macs / standard, 3) == cost
    assert trial.share == pytest.approx(share)
    assert (trial.quality, trial.compact) == (share == 1, True)


# (kernel area K, input channels C, output channels N) -> multiply-accumulates per output pixel, with stride 1
FORMULAS = {
    "dw-pw": lambda k, c, n: k * c + c * n,
    "dw-pw:r=3": lambda k, c, n: 3 * (k * c + c * n),
    "pw-dw": lambda k, c, n: c * n + k * n,
    "pw-dw:r=2": lambda k, c, n: 2 * (c * n + k * n),
    "dw-gpw:g=4": lambda k, c, n: k * c + c * n // 4,
    "dw-rpw:g=2,o=0.5": lambda k, c, n: k * c + c * n // 2,
}


@pytest.mark.parametrize("block", FORMULAS)
@pytest.mark.parametrize(
    "spec",
    [ConvSpec(16, 24), ConvSpec(16, 24, (5, 3), padding=(2, 1)), ConvSpec(32, 8, padding=(2, 2), dilation=(2, 2))],
)
def test_costs_follow_the_formulas(block: str, spec: ConvSpec) -> None:
    trial = try_block(parse_block(block), spec, (7, 9))
    k, c, n = prod(spec.kernel), spec.in_channels, spec.out_channels
    per_pixel = FORMULAS[block](k, c, n)
    assert (trial.params, trial.macs) == (per_pixel, per_pixel * 63)


def test_a_kernel_that_widens_nothing_is_not_compact() -> None:
    # on a map of one pixel the depthwise kernel sees what the pointwise alone would
    trial = try_block(parse_block("dw-pw"), ConvSpec(8, 8), (1, 1))
    assert (trial.quality, trial.compact) == (True, False)


# --- nets of the zoo ---


# VGG16-opt of the paper, printed with 9.64 M parameters and 1.11 M after DW+PW.
@pytest.mark.parametrize(
    ("block", "params", "sees"),
    [("dw-pw", 1_109_706, 1.0), ("dw-gpw:g=4", 307_914, 0.25), ("dw-rpw:g=2,o=0.5", 575_178, 0.5)],
)
def test_the_published_net(block: str, params: int, sees: float) -> None:
    net, graph = zoo_net("vgg16", (4, 3, 2, 3, 1)), zoo_graph("vgg16", (4, 3, 2, 3, 1))
    plan = cs.decompose(graph, block=block)
    assert (len(plan.edits), list(reasons(plan))) == (12, ["features.0"])
    assert plan.base.params == graph.params == 9_637_962
    assert (plan.new.params, plan.new.macs) == counted(cs.apply(net, plan, method="none"), 3, 32, 32)
    assert plan.new.params == params
    for edit in replaced(plan):
        assert (edit.block, edit.quality, edit.compact) == (block, sees == 1, True)
        assert (f"sees {100 * sees:.3g} % of what" in edit.reason) == (sees < 1)


@pytest.mark.parametrize("name", ["vgg11", "resnet20", "mobilenet"])
def test_auto_chooses_only_what_sees_as_much_needs_every_kernel_and_is_cheaper(name: str) -> None:
    graph = zoo_graph(name)
    plan = cs.decompose(graph)
    convs = {node.module: node for node in graph.layers if node.kind == "conv"}
    assert {edit.layer for edit in replaced(plan)} | set(reasons(plan)) == set(convs)
    for edit in replaced(plan):
        assert edit.quality
        assert edit.compact
        assert edit.macs[1] < edit.macs[0] == convs[edit.layer].macs
        assert edit.error is None
    assert plan.new.macs - plan.base.macs == sum(new - old for old, new in (edit.macs for edit in replaced(plan)))


def test_auto_takes_the_cheapest_of_quality() -> None:
    net = nn.Sequential(conv(16, 64, stride=1), conv(64, 16))
    first, second = replaced(cs.decompose(graph_of(net, 16, 8, 8)))
    # depthwise on the narrow side: 9 * 16 before 64 outputs, 9 * 16 behind 64 inputs
    assert (first.block, second.block) == ("dw-pw", "pw-dw")
    for edit, spec in ((first, ConvSpec(16, 64)), (second, ConvSpec(64, 16))):
        sound = [t for t in (try_block(parse_block(b), spec, (8, 8)) for b in SEPARABLE) if t.quality]
        assert edit.macs[1] == min(trial.macs for trial in sound)
        assert "the cheapest that sees as much" in edit.reason


def test_mobilenet_has_nothing_to_replace() -> None:
    plan = cs.decompose(zoo_graph("mobilenet"))
    assert (plan.edits, plan.new) == ((), plan.base)
    assert set(reasons(plan).values()) == {
        "it is a stem with 3 input channels, too few to factorize", "it is already depthwise",
        "a 1x1 kernel is already pointwise",
    }  # fmt: skip


# --- what is left alone ---


class Odd(nn.Module):
    """One layer for each reason to leave it alone, and one that can be replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.plain, self.pointwise = conv(3, 8), conv(8, 8), conv(8, 8, 1)
        self.depthwise, self.grouped = conv(8, 8, groups=8), conv(8, 8, groups=2)
        self.twice, self.left, self.right = conv(8, 8), conv(8, 8), conv(8, 8)
        self.right.weight = self.left.weight
        self.padded = Padded(8, 8, 3)
        self.weight = nn.Parameter(torch.zeros(8, 8, 3, 3))
        self.up, self.behind = conv(8, 8), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.pointwise(self.plain(self.stem(x))))
        x = self.right(self.left(self.twice(self.twice(self.grouped(x)))))
        x = nn.functional.conv2d(self.padded(x), self.weight, padding=1)
        return self.behind(self.up(x).renorm(2, 1, 1.0))


class Padded(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, (0, 2, 0, 2)))


REASONS = {
    "stem": "it is a stem with 3 input channels, too few to factorize",
    "pointwise": "a 1x1 kernel is already pointwise",
    "depthwise": "it is already depthwise",
    "grouped": "it is grouped already (groups=2)",
    "twice": "it is called 2 times",
    "left": "it shares its weights with another module",
    "right": "it shares its weights with another module",
    "padded": "its module does more than convolve, so a block would not do the same",
    "": "its weight weight is given to a function; hold it in an nn.Conv2d module to have it replaced",
    "behind": "it stands behind an op without a rule (aten.renorm.default): what it sees is unknown",
}


@pytest.mark.parametrize("block", ["auto", "dw-pw"])
def test_refusals_with_their_reasons(block: str) -> None:
    net = Odd()
    plan = cs.decompose(graph_of(net, 3, 8, 8), block=block)
    assert [edit.layer for edit in replaced(plan)] == ["plain", "up"]
    assert reasons(plan) == REASONS
    assert (plan.new.params, plan.new.macs) == counted(cs.apply(net, plan), 3, 8, 8)


class Standardized(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight / self.weight.std(), self.bias, padding=1)


class OwnConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=1)


class OwnParameters(nn.Module):
    """Two convolutions of a forward, on parameters of the module that it belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.randn(8, 8, 3, 3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, self.first, padding=1).relu(), self.second, padding=1)


def hooked(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module)


ALONE = {
    "a convolution that is the model": (conv(8, 8), (8, 8, 8), "it is the model itself; put it in an nn.Sequential"),
    "another padding": (
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")),
        (8, 8, 8),
        "its module does more than convolve",
    ),
    "uneven padding": (
        nn.Sequential(nn.Conv2d(8, 8, 4, padding="same")),
        (8, 8, 8),
        "it is not a plain convolution module",
    ),
    "a standardized weight": (nn.Sequential(Standardized(8, 8, 3)), (8, 8, 8), "it is no nn.Conv2d with a weight as"),
    "a convolution of one's own": (nn.Sequential(OwnConvolution()), (8, 8, 8), "its weight 0.weight is given to a fun"),
    "a transposed convolution": (
        nn.Sequential(nn.ConvTranspose2d(8, 8, 3)),
        (8, 8, 8),
        "it is not a plain convolution module",
    ),
    # 8 multiplications a pixel; depthwise first takes 4 * 2 + 4, pointwise first 4 * 4 + 2
    "no gain": (nn.Sequential(nn.Conv2d(4, 1, (1, 2), stride=2)), (4, 8, 8), "no block that sees as much is cheaper"),
}


@pytest.mark.parametrize(("net", "shape", "reason"), ALONE.values(), ids=ALONE)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")  # torch, on such a net
def test_nets_left_alone(net: nn.Module, shape: tuple[int, ...], reason: str) -> None:
    plan = cs.decompose(graph_of(net, *shape))
    assert (plan.edits, plan.new) == ((), plan.base)
    assert [refusal.reason.startswith(reason) for refusal in plan.refusals] == [True]


@pytest.mark.parametrize("wrapped", [0, 1, 2])
@pytest.mark.parametrize("make", [OwnParameters, OwnConvolution, partial(Standardized, 8, 8, 3)])
def test_no_advice_is_given_that_changes_nothing(make: Callable[[], nn.Module], wrapped: int) -> None:
    net = make()
    for _ in range(wrapped):
        net = nn.Sequential(net)
    plan = cs.decompose(graph_of(net, 8, 8, 8), block="dw-pw")
    assert not plan.edits
    assert not any("nn.Sequential" in refusal.reason for refusal in plan.refusals)
    if make is OwnParameters:
        weights = [name for name, _ in net.named_parameters()]
        assert [refusal.reason for refusal in plan.refusals] == [
            f"its weight {weight} is given to a function; hold it in an nn.Conv2d module to have it replaced"
            for weight in weights
        ]


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("dw-gpw:g=3", "g=3 does not divide its 8 input and 8 output channels"),
        ("dw-rpw:g=5,o=0.5", "g=5 does not divide its 8 input channels"),
        ("pw-dw:r=9", "r=9 is more than 8, where the block is exact"),
    ],
)
def test_a_forced_block_that_does_not_fit_is_refused_by_layer(block: str, reason: str) -> None:
    plan = cs.decompose(graph_of(nn.Sequential(conv(8, 8)), 8, 8, 8), block=block)
    assert (plan.edits, reasons(plan)) == ((), {"0": reason})


def test_a_forced_block_may_cost_more() -> None:
    (edit,) = replaced(cs.decompose(graph_of(nn.Sequential(conv(9, 9)), 9, 8, 8), block="dw-pw:r=9"))
    assert edit.macs[1] > edit.macs[0]


def test_keep() -> None:
    keep = ["features.4", "classifier"]
    plan = cs.decompose(zoo_graph("vgg11"), keep=keep)
    assert reasons(plan)["features.4"] == "it was asked to be kept"
    assert len(plan.edits) == len(cs.decompose(zoo_graph("vgg11")).edits) - 1
    assert not {edit.layer for edit in replaced(plan)} & set(keep)


OVERRIDES = {"features.8": "dw-rpw:g=4,o=0.5", "features.18": "dw-pw:r=3"}


@pytest.mark.parametrize("limit", [None, 0.4, 0.6])
@pytest.mark.parametrize("block", ["auto", "dw-gpw:g=2"])
def test_a_layers_own_block_stays_whatever_the_others_become(block: str, limit: float | None) -> None:
    graph = zoo_graph("vgg11")
    plan = cs.decompose(graph, block=block, max_macs=limit, overrides=OVERRIDES, keep=["features.4"])
    blocks = {edit.layer: edit.block for edit in replaced(plan)}
    assert blocks.items() >= OVERRIDES.items()
    assert [edit.layer for edit in plan.edits] == [n.module for n in graph.layers if n.module in blocks]
    assert not OVERRIDES.keys() & reasons(plan).keys()
    assert all(edit.reason.startswith("asked for;") for edit in replaced(plan) if edit.layer in OVERRIDES)
    if limit is not None:
        assert 0.8 * limit < plan.new.macs / plan.base.macs <= limit
    assert plan.asked is not None
    assert plan.asked.overrides == OVERRIDES
    assert cs.Plan.from_json(plan.to_json()) == plan
    new = cs.apply(cs.build("vgg11", input=(3, 32, 32), classes=10), plan)
    assert (plan.new.params, plan.new.macs) == counted(new, 3, 32, 32)


# --- a limit on MACs ---


@pytest.mark.parametrize("block", ["auto", "dw-pw", "pw-dw:r=2", "dw-gpw:g=4"])
def test_limits_are_kept_and_a_looser_one_costs_no_less(block: str) -> None:
    graph = graph_of(nn.Sequential(conv(8, 12), conv(12, 16), nn.MaxPool2d(2), conv(16, 16)), 8, 16, 16)
    least = cs.decompose(graph, block=block).new.macs / graph.macs
    limits = [least, least + 0.01, least + 0.1, 0.75, 0.99, 1.0, 1.5]
    plans = [cs.decompose(graph, block=block, max_macs=limit) for limit in limits]
    costs = [plan.new.macs / graph.macs for plan in plans]
    assert all(cost <= limit for cost, limit in zip(costs, limits, strict=True))
    assert costs == sorted(costs)
    assert costs[0] == least
    assert [len(plan.edits) for plan in plans] == sorted((len(plan.edits) for plan in plans), reverse=True)
    assert plans[-1].edits == plans[-2].edits == ()
    assert "the limit lets it stay as it is" in reasons(plans[-1]).values()


def test_a_limit_buys_ranks_and_the_costs_promised_are_those_of_the_new_net() -> None:
    net = nn.Sequential(conv(3, 16), conv(16, 16), conv(16, 16))
    graph = graph_of(net, 3, 16, 16)
    plan = cs.decompose(graph, block="dw-pw", max_macs=0.5)
    ranks = {edit.block for edit in replaced(plan)}
    assert any("r=" in block for block in ranks)
    # ranks are fine steps: the limit is used to within a rank of one layer
    assert 0.45 < plan.new.macs / graph.macs <= 0.5
    assert (plan.new.params, plan.new.macs) == counted(cs.apply(net, plan), 3, 16, 16)


def test_a_limit_never_makes_a_layer_dearer() -> None:
    net = nn.Sequential(conv(9, 9), conv(9, 64), conv(64, 64))
    plan = cs.decompose(graph_of(net, 9, 8, 8), block="dw-pw:r=5", max_macs=0.65)
    # five ranks of 9 -> 9 take more than the convolution
    assert reasons(plan)["0"] == "the limit lets it stay as it is"
    assert [new < old for old, new in (edit.macs for edit in replaced(plan))] == [True, True]


REFUSED = [
    ({"max_macs": 0.01}, r"the cheapest plan has 0\.\d{3} of its MACs, more than the 0\.010 allowed"),
    ({"max_macs": 0.0}, r"max_macs: 0\.0 cannot be read"),
    ({"max_macs": -1.0}, r"max_macs: -1\.0 cannot be read"),
    ({"max_macs": nan}, r"max_macs: nan cannot be read"),
    ({"keep": ["features.99"]}, r"keep: .* has no layer 'features\.99'; `convsmith analyze --json -` lists"),
    ({"overrides": {"9": "dw-pw"}}, r"overrides: .* has no layer '9'; `convsmith analyze --json -` lists"),
    ({"overrides": {"0": "dw-gpw:g=3"}}, r"0 cannot become dw-gpw:g=3: .*; leave its override out"),
    ({"overrides": {"0": "dw-pw"}, "keep": ["0"]}, r"0 cannot become dw-pw: it was asked to be kept"),
    ({"overrides": {"0": "dwpw"}}, r"Unknown block 'dwpw'; did you mean"),
    ({"block": "dwpw"}, r"Unknown block 'dwpw'; did you mean"),
    ({"block": "dw-gpw"}, r"g missing"),
    ({"block": "dw-pw:r=0"}, r"r must be a whole number of at least 1"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_refusals(options: dict, sentence: str) -> None:
    with pytest.raises(cs.ConvsmithError, match=sentence):
        cs.decompose(graph_of(nn.Sequential(conv(8, 8), nn.ReLU(), conv(8, 8)), 8, 9, 9), **options)


# --- any net ---


@st.composite
def convolutions(draw: st.DrawFn, channels: int) -> nn.Conv2d:
    kernel, padding = ((draw(st.integers(low, high)), draw(st.integers(low, high))) for low, high in ((1, 4), (0, 2)))
    width = draw(st.sampled_from([4, 8, 12]))
    groups = draw(st.sampled_from([1, 1, 1, 2, 4]))
    stride, dilation = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    return nn.Conv2d(channels, width, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))


@st.composite
def nets(draw: st.DrawFn) -> nn.Sequential:
    first = draw(convolutions(8))
    second = draw(convolutions(first.out_channels))
    return nn.Sequential(first, nn.BatchNorm2d(first.out_channels), nn.ReLU(), second)


def fits(net: nn.Module, *shape: int) -> bool:
    try:
        return net.eval()(torch.zeros(1, *shape)).numel() > 0
    except RuntimeError:
        return False


@given(nets(), st.sampled_from(["auto", "dw-pw", "dw-pw:r=2", "pw-dw", "dw-gpw:g=4", "dw-rpw:g=2,o=0.5"]))
@settings(max_examples=12, deadline=None)
def test_any_net_keeps_its_shape_and_the_promised_costs(net: nn.Sequential, block: str) -> None:
    assume(fits(net, 8, 13, 11))
    plan = cs.decompose(graph_of(net, 8, 13, 11), block=block)
    new = cs.apply(net, plan).eval()
    x = torch.randn(2, 8, 13, 11)
    with torch.no_grad():
        assert new(x).shape == net(x).shape
    assert (plan.base.params, plan.base.macs) == counted(net, 8, 13, 11)
    assert (plan.new.params, plan.new.macs) == counted(new, 8, 13, 11)
    assert len(plan.edits) + len(plan.refusals) == 2
    if block == "auto":
        assert all(edit.quality and edit.compact and edit.macs[1] < edit.macs[0] for edit in replaced(plan))


def test_a_convolution_that_sees_nothing_but_its_padding_is_planned_for() -> None:
    net = nn.Sequential(nn.Conv2d(16, 8, (2, 4), padding=(1, 3), dilation=2)).eval()
    x = torch.rand(1, 16, 8, 1)
    plan = cs.decompose(net, x)
    assert cs.apply(net, plan)(x).shape == net(x).shape
