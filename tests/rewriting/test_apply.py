"""Plans applied: the original stays, shapes and costs are as promised, and carried weights do what they should."""

from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import Tensor, nn

import convsmith as cs
from convsmith.plan import Edit, Plan, Remove, Repeat, Replace, Totals
from convsmith.rewriting.apply import rewrite
from convsmith.zoo import NETS
from nets import graph_of

SHAPE = (3, 32, 32)


def zoo_net(name: str, blocks: tuple[int, ...] | None = None) -> nn.Module:
    with torch.device("meta"):
        return cs.build(name, input=SHAPE, classes=10, blocks_per_stage=blocks).eval()


def trained_like(net: nn.Module) -> nn.Module:
    """Every weight drawn anew, and normalization with statistics, scales and shifts that are not those of the start."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=(2 / max(parameter[0].numel(), 8)) ** 0.5)
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return net.eval()


def conv(channels: int, width: int, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, **options)


def plain() -> nn.Sequential:
    """Two stages of runs of three layers: 3 and 2 units, of which the first of each changes the width."""
    layers: list[nn.Module] = []
    for channels, width in ((3, 12), (12, 12), (12, 12), (12, 16), (16, 16)):
        layers += [conv(channels, width), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if len(layers) == 9 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


def state(net: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in net.state_dict().items()}


def shapes(net: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(key, tensor.shape) for key, tensor in net.state_dict().items()]


def by_hand(net: nn.Module, edits: tuple[Edit, ...], *shape: int) -> Plan:
    """A plan for `net`."""
    graph = graph_of(net, *shape)
    return Plan(graph.model, shape, graph.fingerprint, Totals((), 0.0, graph.params, graph.macs), edits, ())


# --- the original ---


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["organize", "decompose"])
def test_the_original_is_untouched(kind: str, training: bool) -> None:
    net = trained_like(plain()).train(training)
    before, printed, graph = state(net), repr(net), graph_of(net, *SHAPE)
    new = cs.apply(net, cs.organize(graph, blocks=7) if kind == "organize" else cs.decompose(graph))
    assert repr(net) == printed != repr(new)
    assert all(module.training == training for model in (net, new) for module in model.modules())
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.fill_(7)
    after = state(net)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_an_empty_plan_makes_an_equal_copy() -> None:
    net = trained_like(plain())
    plan = cs.decompose(graph_of(net, *SHAPE), keep=[str(i) for i in (0, 3, 6, 10, 13)])
    new = cs.apply(net, plan)
    assert (plan.edits, new is net) == ((), False)
    x = torch.randn(2, *SHAPE)
    assert torch.equal(new(x), net(x))


# --- moved units: whole nets ---


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("vgg11", None), ("vgg16", None), ("vgg16", 9), ("mobilenet", None), ("resnet18", 11), ("resnet20", None),
    ],
)  # fmt: skip
def test_an_organized_zoo_net_is_the_one_built_with_these_depths(name: str, blocks: int | None) -> None:
    net = zoo_net(name)
    plan = cs.organize(graph_of(net, *SHAPE), blocks=blocks)
    assert plan.edits
    assert shapes(cs.apply(net, plan, method="none")) == shapes(zoo_net(name, plan.new.blocks))


@pytest.mark.parametrize("name", ["vgg16", "resnet20"])
def test_an_organized_net_can_be_planned_on_again(name: str) -> None:
    net = zoo_net(name)
    plan = cs.organize(graph_of(net, *SHAPE), blocks=sum(NETS[name].small.blocks_per_stage) + 2)
    base = cs.organize(graph_of(cs.apply(net, plan, method="none"), *SHAPE)).base
    assert (base.blocks, base.params, base.macs) == (plan.new.blocks, plan.new.params, plan.new.macs)
    assert base.gain == pytest.approx(plan.new.gain)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_torchvision_nets_are_organized_and_run(name: str) -> None:
    with torch.device("meta"):
        net = torchvision.models.get_model(name, weights=None).eval()
    plan = cs.organize(graph_of(net, 3, 224, 224), blocks=10 if name == "resnet18" else None)
    assert plan.edits
    new = cs.apply(net, plan, method="none")
    graph = graph_of(new, 3, 224, 224)
    assert sum(p.numel() for p in new.parameters()) == graph.params == plan.new.params != plan.base.params
    assert graph.macs == plan.new.macs
    assert cs.score(graph).gain == pytest.approx(plan.new.gain)
    assert new(torch.zeros(2, 3, 224, 224, device="meta")).shape == (2, 1000)


# --- moved units: against the net made by hand ---


class Named(nn.Module):
    """Units called by name, and room for two more."""

    def __init__(self, second: nn.Module | None = None, third: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.last = conv(4, 8), conv(8, 8)
        self.second, self.third = second or conv(8, 8), third or conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.third(self.second(self.first(x))))


def copies(unit: nn.Sequential, count: int) -> list[nn.Module]:
    return [layer for _ in range(count) for layer in deepcopy(unit)]


def sequence(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def nested() -> nn.Sequential:
    return nn.Sequential(conv(4, 8), nn.Sequential(conv(8, 8), conv(8, 8, 5)), nn.ReLU(), nn.Sequential(conv(8, 8)))


Made = tuple[nn.Module, Callable[[nn.Module], nn.Module], tuple[Edit, ...]]
MOVES: dict[str, Made] = {
    "a run copied twice": (
        nn.Sequential(conv(4, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 8)),
        lambda net: nn.Sequential(*net[:4], *copies(net[2:4], 2), *net[4:]),
        (Repeat(("2", "3"), 2, "", ""),),
    ),
    "a run removed": (
        nn.Sequential(conv(4, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 8)),
        lambda net: nn.Sequential(*net[:2], *net[4:]),
        (Remove(("2", "3"), "", ""),),
    ),
    "one removed, another copied": (
        nn.Sequential(conv(4, 8), conv(8, 8, 5), conv(8, 8), nn.MaxPool2d(2), conv(8, 8)),
        lambda net: nn.Sequential(net[0], *net[2:], *copies(net[4:], 1)),
        (Remove(("1",), "", ""), Repeat(("4",), 1, "", "")),
    ),
    "named children": (
        sequence(a=conv(4, 8), b=conv(8, 8), c=nn.ReLU(), d=conv(8, 8)),
        lambda net: sequence(a=net.a, b=net.b, c=net.c, b_1=deepcopy(net.b), c_1=deepcopy(net.c), d=net.d),
        (Repeat(("b", "c"), 1, "", ""),),
    ),
    "named children whose next name is taken": (
        sequence(a=conv(4, 8), b=conv(8, 8), b_1=conv(8, 8, 5)),
        lambda net: sequence(a=net.a, b=net.b, b_1_copy=deepcopy(net.b), b_1=net.b_1),
        (Repeat(("b",), 1, "", ""),),
    ),
    "called by name": (
        Named(),
        lambda net: named_like(net, nn.Identity(), nn.Sequential(net.third, *copies(nn.Sequential(net.third), 2))),
        (Remove(("second",), "", ""), Repeat(("third",), 2, "", "")),
    ),
    "inside and outside of a sequence that shifts": (
        nn.Sequential(conv(4, 8), conv(8, 8), nested()[1], nested()[1]),
        lambda net: nn.Sequential(net[0], nn.Sequential(*net[2], *copies(net[2][1:], 1)), nn.Sequential(net[3][1])),
        (Remove(("1",), "", ""), Repeat(("2.1",), 1, "", ""), Remove(("3.0",), "", "")),
    ),
}


def named_like(net: nn.Module, second: nn.Module, third: nn.Module) -> nn.Module:
    new = Named(second, third)
    new.first, new.last = net.get_submodule("first"), net.get_submodule("last")
    return new


@pytest.mark.parametrize(("net", "make", "edits"), MOVES.values(), ids=MOVES)
def test_moves_make_the_net_made_by_hand(
    net: nn.Module, make: Callable[[nn.Module], nn.Module], edits: tuple[Edit, ...]
) -> None:
    wanted, x = make(net), torch.randn(2, 4, 12, 12)
    new = cs.apply(net, by_hand(net, edits, 4, 12, 12))
    assert shapes(new) == shapes(wanted)
    assert torch.equal(new(x), wanted(x))
    assert len({id(p) for p in new.parameters()}) == len(list(wanted.parameters()))


# --- replaced convolutions ---


def kernel_of(block: nn.Module, channels: int) -> Tensor:
    """The weight (n, c, 3, 3) that a padded linear module of stride 1 applies: its answers to single pixels."""
    pixels = torch.zeros(channels, channels, 5, 5)
    pixels[range(channels), range(channels), 2, 2] = 1
    with torch.no_grad():
        answers = block(pixels) - block(torch.zeros_like(pixels))
    # (c, n, 5, 5) -> (n, c, 3, 3): pixel (2, 2) is seen through tap (3 - i, 3 - j) from (i, j)
    return answers[..., 1:4, 1:4].flip(2, 3).transpose(0, 1)


@pytest.mark.parametrize("block", ["dw-pw", "dw-pw:r=4", "pw-dw:r=3", "dw-gpw:g=4", "dw-rpw:g=2,o=0.5", "dw-pw:r=9"])
def test_the_error_of_every_layer_is_the_distance_of_its_weights(block: str) -> None:
    net = trained_like(plain())
    done = rewrite(net, cs.decompose(graph_of(net, *SHAPE), block=block))
    assert len(done.plan.edits) == 4
    for edit in done.plan.edits:
        assert isinstance(edit, Replace)
        weight = net.get_submodule(edit.layer).weight.detach()
        missed = (weight - kernel_of(done.model.get_submodule(edit.layer), weight.shape[1])).norm() / weight.norm()
        assert edit.error == pytest.approx(missed.item(), abs=1e-5)
        assert (edit.error < 1e-5) == (block == "dw-pw:r=9")


@pytest.mark.parametrize("block", ["dw-pw:r=9", "pw-dw:r=9"])
@pytest.mark.parametrize(
    "build", [plain, lambda: cs.build("resnet20", blocks_per_stage=(2, 1, 1))], ids=["vgg", "resnet"]
)
def test_full_rank_reproduces_the_outputs(build: Callable[[], nn.Module], block: str) -> None:
    net = trained_like(build())
    done = rewrite(net, cs.decompose(graph_of(net, *SHAPE), block=block))
    assert len(done.plan.edits) >= 4
    x = torch.randn(4, *SHAPE)
    with torch.no_grad():
        wanted, got = net(x), done.model.eval()(x)
    assert float((got - wanted).abs().max() / wanted.abs().max()) < 1e-4
    assert 0.01 < float(wanted.std()) < 100


def test_rank_by_rank_the_error_falls() -> None:
    net = trained_like(plain())
    errors = []
    for rank in (1, 3, 6, 9):
        plan = rewrite(net, cs.decompose(graph_of(net, *SHAPE), block=f"dw-pw:r={rank}")).plan
        errors.append(sum(edit.error or 0.0 for edit in plan.edits if isinstance(edit, Replace)))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1 > 1e-4 > errors[-1]


def test_without_a_method_blocks_stay_untrained() -> None:
    net = trained_like(plain())
    plan = cs.decompose(graph_of(net, *SHAPE), block="dw-pw:r=9")
    done = rewrite(net, plan, method="none")
    assert done.plan == plan
    x = torch.randn(2, *SHAPE)
    assert not torch.allclose(done.model(x), net(x), atol=1e-2)
    # what is not replaced keeps its weights
    assert torch.equal(done.model[-1].weight, net[-1].weight)


def test_blocks_take_the_type_of_the_convolution() -> None:
    net = trained_like(plain()).double()
    plan = cs.decompose(cs.capture(net, torch.zeros(1, *SHAPE, dtype=torch.float64)), block="dw-pw:r=9")
    new = cs.apply(net, plan)
    assert {p.dtype for p in new.parameters()} == {torch.float64}
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(new(x), net(x), rtol=1e-9, atol=1e-9)


# --- refusals ---


def plans() -> tuple[nn.Module, Plan, Plan]:
    net = plain()
    graph = graph_of(net, *SHAPE)
    return net, cs.organize(graph, blocks=7), cs.decompose(graph)


@pytest.mark.parametrize("other", ["resnet32", "vgg11"])
def test_a_plan_for_another_model_is_refused(other: str) -> None:
    plan = cs.organize(graph_of(zoo_net("resnet20"), *SHAPE))
    with pytest.raises(
        cs.ConvsmithError, match=r"made for ConvNet on input 3x32x32 and does not fit this model's"
    ) as e:
        cs.apply(zoo_net(other), plan)
    assert "\n" not in str(e.value)


OTHER_INPUTS = [
    ((3, 48, 48), "does not fit this model's layers"),
    ((4, 32, 32), "cannot be captured"),
    ((3,), "cannot"),
]


@pytest.mark.parametrize(("shape", "sentence"), OTHER_INPUTS)
def test_a_plan_for_another_input_is_refused(shape: tuple[int, ...], sentence: str) -> None:
    net, plan, _ = plans()
    with pytest.raises(cs.ConvsmithError, match=sentence) as caught:
        cs.apply(net, replace(plan, input=shape))
    assert "\n" not in str(caught.value)


MOVED_BADLY = {
    "a unit whose shape changes": (Remove(("6", "7", "8", "9", "10"), "", ""),),
    "one unit moved twice": (Remove(("10", "11", "12"), "", ""), Repeat(("11",), 1, "", "")),
    "no such module": (Remove(("99",), "", ""),),
    "the model itself": (Repeat(("",), 1, "", ""),),
    "half a unit missing": (Repeat(("6", "99"), 1, "", ""),),
}


@pytest.mark.parametrize("edits", MOVED_BADLY.values(), ids=MOVED_BADLY)
def test_an_edited_plan_of_moves_is_refused(edits: tuple[Edit, ...]) -> None:
    net, plan, _ = plans()
    with pytest.raises(cs.ConvsmithError, match=r"take (that edit|one of the two edits) out\.$") as caught:
        cs.apply(net, replace(plan, edits=edits))
    assert "\n" not in str(caught.value)


def test_units_over_two_parents_are_refused() -> None:
    net = Named(nn.Sequential(conv(8, 8)), nn.Sequential(conv(8, 8)))
    for unit in (("second.0", "third.0"), ("second", "third")):
        plan = by_hand(net, (Repeat(unit, 1, "", ""),), 4, 12, 12)
        with pytest.raises(cs.ConvsmithError, match=r"are no neighbours in one nn\.Sequential; take that edit out\.$"):
            cs.apply(net, plan)


REPLACED_BADLY = [
    ({"layer": "99"}, r"The plan edits '99', which this model does not have"),
    ({"layer": ""}, r"The plan edits '', which"),
    ({"layer": "1"}, r"^1 is a \w+, not a plain convolution; plan again with this model\.$"),
    ({"block": "dwpw"}, r"^3: Unknown block 'dwpw'"),
    ({"block": "dw-pw:r=99"}, r"^3: dw-pw:r=99 cannot replace this convolution: r=99 is more than 9"),
]


@pytest.mark.parametrize(("change", "sentence"), REPLACED_BADLY)
def test_an_edited_plan_of_blocks_is_refused(change: dict[str, str], sentence: str) -> None:
    net, _, plan = plans()
    edits = (replace(plan.edits[0], **change), *plan.edits[1:])
    with pytest.raises(cs.ConvsmithError, match=sentence) as caught:
        cs.apply(net, replace(plan, edits=edits))
    assert "\n" not in str(caught.value)


def test_one_layer_twice_is_refused() -> None:
    net, _, plan = plans()
    with pytest.raises(cs.ConvsmithError, match=r"^3 is replaced twice"):
        cs.apply(net, replace(plan, edits=(*plan.edits, plan.edits[0])))


class Standardized(nn.Conv2d):
    """Its weights are not those it multiplies by."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight - self.weight.mean(), self.bias, self.stride, self.padding)


def test_a_convolution_of_its_own_kind_is_not_taken_for_a_plain_one() -> None:
    net = nn.Sequential(Standardized(8, 8, 3, padding=1))
    assert cs.decompose(graph_of(net, 8, 9, 9)).edits == ()
    plan = cs.decompose(graph_of(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)), 8, 9, 9))
    with pytest.raises(cs.ConvsmithError, match=r"^0 is a Standardized, not a plain convolution; plan again"):
        cs.apply(net, plan)


def test_an_unknown_method_is_refused() -> None:
    net, _, plan = plans()
    with pytest.raises(cs.ConvsmithError, match="Unknown decomposition method 'svg'; did you mean svd"):
        cs.apply(net, plan, method="svg")


def test_weights_that_are_not_finite_are_refused() -> None:
    net, _, plan = plans()
    with torch.no_grad():
        net[3].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(cs.ConvsmithError, match="NaN or infinity"):
        cs.apply(net, plan)
