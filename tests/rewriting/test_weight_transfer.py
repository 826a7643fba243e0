"""Weights carried in order of execution: which layers are refitted for the ReLU behind them, and what that is worth."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.calibration.calibrate import calibrate
from convsmith.calibration.joins import Behind
from convsmith.errors import ConvsmithError
from convsmith.rewriting.apply import rewrite

C, N = 6, 8


def images(count: int, seed: int) -> Tensor:
    """Blurred maps, some of which were mixed to more: entries of a patch go together."""
    draw = torch.Generator().manual_seed(seed)
    blurred = F.avg_pool2d(torch.randn(count, C // 2, 14, 14, generator=draw), 3, stride=1)
    mix = torch.randn(C // 2, C, generator=torch.Generator().manual_seed(9))
    return torch.einsum("ncij,cd->ndij", 3 * blurred, mix)


class Net(nn.Module):
    """A convolution, what is called behind it, and a head."""

    def __init__(self, call: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bias_free = nn.Conv2d(C, N, 3, padding=1), nn.Conv2d(C, N, 3, padding=1, bias=False)
        self.norm, self.passing = nn.BatchNorm2d(N), nn.BatchNorm2d(N, track_running_stats=False)
        for values in (self.norm.weight, self.norm.bias, self.norm.running_mean):
            nn.init.normal_(values)
        self.call, self.head = call, nn.Linear(N, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.call(self, x).mean((2, 3)))


def both(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    return y.relu() + y


def twice(net: Net, x: Tensor) -> Tensor:
    return net.norm(net.conv(x)).relu() + net.norm(net.bias_free(x))


BEHIND: dict[str, tuple[Callable[[Net, Tensor], Tensor], bool]] = {
    "relu": (lambda net, x: net.conv(x).relu(), True),
    "relu in place": (lambda net, x: F.relu(net.conv(x), inplace=True), True),
    "a norm and relu": (lambda net, x: F.relu(net.norm(net.conv(x))), True),
    "no bias, a norm and relu": (lambda net, x: F.relu(net.norm(net.bias_free(x))), True),
    "relu, then an addition": (lambda net, x: net.conv(x).relu() + x.mean(), True),
    "an addition": (lambda net, x: (net.norm(net.conv(x)) + x.mean()).relu(), False),
    "relu6": (lambda net, x: F.relu6(net.conv(x)), False),
    "a leaky relu": (lambda net, x: F.leaky_relu(net.conv(x)), False),
    "a pool and relu": (lambda net, x: F.max_pool2d(net.conv(x), 2).relu(), False),
    "relu and a bypass": (both, False),
    "a norm of the batch": (lambda net, x: net.passing(net.conv(x)).relu(), False),
    "a norm for two": (twice, False),
    "nothing": (lambda net, x: net.conv(x), False),
}


def carried(net: Net, x: Tensor, block: str) -> list[Net]:
    """Fitted to the responses, and refitted."""
    plan = cs.decompose(cs.capture(net, x[:1]), block=block)
    return [cs.apply(net, plan, data=x, relu=relu) for relu in (False, True)]


@pytest.mark.parametrize(("call", "refitted"), BEHIND.values(), ids=BEHIND)
def test_what_goes_into_a_relu_alone_is_refitted_for_it(call: Callable[[Net, Tensor], Tensor], refitted: bool) -> None:
    net, x = Net(call).eval(), images(8, seed=1)
    graph = cs.capture(net, x[:1])
    assert any(Behind.of(graph, node).relu for node in graph.nodes if node.kind == "conv") == refitted
    states = [new.state_dict() for new in carried(net, x, "dw-pw")]
    assert any(not torch.equal(states[0][key], states[1][key]) for key in states[0]) == refitted


@pytest.mark.parametrize("block", ["dw-pw:r=2", "pw-dw", "dw-rpw:g=2,o=0.5", "cp:r=4", "seq:pw,dw", "tucker:3,4"])
@pytest.mark.parametrize("name", ["relu", "a norm and relu", "no bias, a norm and relu"])
def test_the_refit_lowers_the_error_behind_the_relu(name: str, block: str) -> None:
    net, x = Net(BEHIND[name][0]).eval(), images(4, seed=1)  # so few that every position is drawn
    with torch.no_grad():
        plain, refitted = ((new.call(new, x) - net.call(net, x)).norm() for new in carried(net, x, block))
    assert refitted < 0.998 * plain


@pytest.mark.parametrize("name", ["relu", "no bias, a norm and relu"])
def test_the_error_told_after_a_refit_is_that_of_the_bias_it_left(name: str) -> None:
    net, x = Net(BEHIND[name][0]).eval(), images(4, seed=1)
    plan = cs.decompose(cs.capture(net, x[:1]), block="dw-pw:r=2")
    made = rewrite(net, plan, data=x)
    behind = net.norm if "norm" in name else nn.Identity()
    assert isinstance(made.model, Net)
    layer, made_behind = ("bias_free", made.model.norm) if "norm" in name else ("conv", nn.Identity())
    with torch.no_grad():
        wanted, got = behind(net.get_submodule(layer)(x)), made_behind(made.model.get_submodule(layer)(x))
        scale = torch.ones(N) if behind is not net.norm else net.norm.weight / (net.norm.running_var + 1e-5).sqrt()
        missed, varying = ((each / scale.view(-1, 1, 1)).square().sum() for each in (
            got - wanted, wanted - wanted.mean((0, 2, 3), keepdim=True)
        ))  # fmt: skip
    assert made.plan.edits[0].error == pytest.approx((missed / varying).sqrt().item(), rel=1e-3)


@pytest.mark.parametrize("block", ["dw-pw", "cp:r=4", "channel:r=2"])
@pytest.mark.parametrize("behind", [nn.ReLU(), nn.Identity(), nn.GroupNorm(2, N)], ids=["relu", "nothing", "groups"])
def test_where_no_bias_can_be_the_error_told_is_what_happens(behind: nn.Module, block: str) -> None:
    """And a refit for the ReLU, which is worth nothing without its shift, is left out."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(C, C, 3), nn.ReLU(), nn.Conv2d(C, N, 3, bias=False), behind).eval()
    x = images(4, seed=1)  # so few that every position is drawn
    plan = cs.decompose(cs.capture(net, x[:1]), block=block, keep=["0"])
    made = [rewrite(net, plan, data=x, relu=relu) for relu in (False, True)]
    alone = rewrite(net, plan, statistics=calibrate(net, x))
    with torch.no_grad():
        wanted = net[:3](x)
        told = [(each.plan.edits[0].error, (each.model[:3](x) - wanted).norm() / wanted.norm()) for each in made]
        kept = (alone.model[:3](x) - wanted).norm() / wanted.norm()
    assert [error for error, _ in told] == pytest.approx([true.item() for _, true in told], rel=1e-3)
    assert alone.plan.edits[0].error == pytest.approx(kept.item(), rel=1e-3)
    assert torch.equal(made[0].model(x), made[1].model(x))


def test_statistics_of_other_weights_are_refused() -> None:
    net, x = four(0), images(8, seed=0)
    plan = cs.decompose(cs.capture(net, x[:1]), block="dw-pw")
    with pytest.raises(ConvsmithError, match=r"^The statistics of 0 are of other weights; make them anew with this"):
        cs.apply(net, plan, statistics=calibrate(four(1), x))
    half = four(0).bfloat16()
    cs.apply(half, plan, statistics=calibrate(half, x))


def four(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for channels in (C, N, N, N):
        layers += [nn.Conv2d(channels, N, 3, padding=1), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight)
    return nn.Sequential(*layers).eval()


def test_over_four_layers_order_and_the_relu_each_lower_the_error() -> None:
    sums = torch.zeros(4)
    for seed in range(4):
        net, x, held = four(seed), images(96, seed), images(288, seed)[96:]
        plan = cs.decompose(cs.capture(net, x[:1]), block="dw-pw:r=2")
        made = (
            cs.apply(net, plan, method="svd"),
            cs.apply(net, plan, method="als", statistics=calibrate(net, x)),
            cs.apply(net, plan, method="als", data=x, relu=False),
            cs.apply(net, plan, method="als", data=x),
        )
        with torch.no_grad():
            wanted = net(held)
            sums += torch.tensor([((new(held) - wanted).norm() / (wanted - wanted.mean(0)).norm()) for new in made])
    svd, alone, ordered, rectified = (sums / 4).tolist()
    assert rectified < 0.98 * ordered < 0.98 * alone < 0.9 * svd


CONV = nn.Sequential(nn.Conv2d(C, N, 3), nn.ReLU())


@pytest.mark.parametrize(
    "given",
    [{}, {"method": "svd"}, {"statistics": {}}, {"data": images(4, seed=0), "method": "none"}],
    ids=["nothing", "a method", "statistics", "data that is not used"],
)
def test_a_refit_that_has_no_images_is_refused(given: dict[str, object]) -> None:
    plan = cs.decompose(cs.capture(CONV, images(1, seed=0)), block="dw-pw")
    with pytest.raises(ConvsmithError, match="needs images in order of execution; give data") as error:
        cs.apply(CONV, plan, relu=True, **given)
    assert "\n" not in str(error.value)
