"""Separable pairs merged into standard convolutions: which, which not and why, exactly, and the whole way back."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner, Result

import convsmith as cs
from convsmith.cli.app import app
from convsmith.load import load, save
from convsmith.optimize import Expansion, Watch, expansion
from convsmith.plan import Merge, Plan, Replace
from convsmith.planning.expand import restore
from convsmith.report.records import read_net
from convsmith.rewriting.apply import rewrite

C, N = 6, 10
BN, RELU = nn.BatchNorm2d, nn.ReLU


def depthwise(channels: int = C, kernel: int | tuple[int, int] = 3, bias: bool = False, **options) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, groups=channels, bias=bias, **options)


def pointwise(inputs: int = C, outputs: int = N, bias: bool = False, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=bias, **options)


class NormAct(nn.BatchNorm2d):
    """A BatchNorm with its activation inside."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class Called(nn.Module):
    """A forward of one's own over named modules."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def called(forward: Callable[[nn.Module, Tensor], Tensor], **modules: nn.Module) -> Called:
    return Called(forward, **{"dw": depthwise(), "pw": pointwise(), **modules})


def graph_of(net: nn.Module, channels: int = C) -> cs.Graph:
    return cs.capture(net, torch.zeros(1, channels, 12, 12, dtype=next(net.parameters()).dtype))


def shared_norm() -> list[nn.Module]:
    norm = BN(C)
    return [depthwise(), BN(C), pointwise(C, C), norm, pointwise(C, C), norm]


def trained_like(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.running_mean)
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
    return net.eval()


# --- pairs: what is merged, whether exactly, and with a bias or not

EXACT = {
    "alone": (lambda: [depthwise(), pointwise()], ("0", "1"), False),
    "norms": (lambda: [depthwise(), BN(C), pointwise(), BN(N), RELU()], ("0", "1", "2"), False),
    "no norm behind": (lambda: [depthwise(), BN(C), pointwise(), RELU()], ("0", "1", "2"), True),
    "two norms": (lambda: [depthwise(), BN(C), BN(C, affine=False), pointwise()], ("0", "1", "2", "3"), True),
    "biases": (lambda: [depthwise(bias=True), pointwise(bias=True), BN(N)], ("0", "1"), True),
    "first bias": (lambda: [depthwise(bias=True), pointwise()], ("0", "1"), True),
    "bias to the norm": (lambda: [depthwise(bias=True), pointwise(), BN(N)], ("0", "1"), False),
    "a norm of two behind": (shared_norm, ("0", "1", "2"), True),
    "stride": (lambda: [depthwise(stride=2, padding=1), BN(C), pointwise(), BN(N)], ("0", "1", "2"), False),
    "5x5": (lambda: [depthwise(kernel=5, padding=4, dilation=2), pointwise()], ("0", "1"), False),
    "1x3": (lambda: [depthwise(kernel=(1, 3), padding=(0, 1)), pointwise()], ("0", "1"), False),
    "same": (lambda: [depthwise(padding="same"), pointwise(padding="valid")], ("0", "1"), False),
    "identity": (lambda: [depthwise(), nn.Identity(), pointwise()], ("0", "2"), False),
    "a pair behind": (lambda: [RELU(), depthwise(), BN(C), pointwise(C, C), depthwise(), pointwise()], None, True),
}  # fmt: skip
START = {
    "relu": (lambda: nn.Sequential(depthwise(), BN(C), RELU(), pointwise()), ("0", "1", "2", "3"), True),
    "in place": (lambda: nn.Sequential(depthwise(), nn.ReLU(inplace=True), pointwise()), ("0", "1", "2"), False),
    "prelu": (lambda: nn.Sequential(depthwise(), nn.PReLU(C), pointwise()), ("0", "1", "2"), False),
    "within the norm": (lambda: nn.Sequential(depthwise(), NormAct(C), pointwise()), ("0", "1", "2"), True),
    "a function that may stay": (
        lambda: called(lambda m, x: m.pw(F.relu(m.bn(m.dw(F.relu(x))))), bn=BN(C)), ("dw", "bn", "pw"), True,
    ),
    "a module used elsewhere": (
        lambda: called(lambda m, x: m.act(m.pw(m.act(m.dw(m.act(x))))), act=RELU()), ("dw", "pw"), False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_linear_pairs_are_carried_exactly(name: str) -> None:
    make, unit, bias = EXACT[name]
    net = trained_like(nn.Sequential(*make()))
    plan = cs.expand(graph_of(net))
    x, before = torch.randn(4, C, 12, 12), net(torch.ones(1, C, 12, 12))
    new = cs.apply(net, plan)
    assert all(isinstance(edit, Merge) and edit.exact for edit in plan.edits)
    assert plan.refusals == ()
    if unit is not None:
        assert [(edit.unit, edit.bias) for edit in plan.edits] == [(unit, bias)]
    assert torch.allclose(new(x), net(x), atol=1e-5)
    assert torch.equal(net(torch.ones(1, C, 12, 12)), before), "the original stays"
    assert not any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in new.modules())


@pytest.mark.parametrize("name", START)
def test_what_stands_between_goes_and_weights_are_a_start(name: str) -> None:
    make, unit, bias = START[name]
    net = trained_like(make())
    plan = cs.expand(graph_of(net))
    assert [(edit.unit, edit.bias, edit.exact) for edit in plan.edits] == [(unit, bias, False)]
    new, x = cs.apply(net, plan), torch.rand(4, C, 12, 12)
    assert new(x).shape == net(x).shape
    assert not torch.allclose(new(x), net(x), atol=1e-3)
    merged = new.get_submodule(unit[-1])
    assert torch.linalg.matrix_rank(merged.weight.detach()[:, 0].flatten(1), atol=1e-5) == 1, "a composite"
    fresh = rewrite(net, plan, method="none").model.get_submodule(unit[-1])
    assert torch.linalg.matrix_rank(fresh.weight.detach()[:, 0].flatten(1), atol=1e-5) > 1, "untrained"


def test_what_a_merge_without_the_activation_computes() -> None:
    net = trained_like(nn.Sequential(depthwise(), BN(C), RELU(), pointwise()))
    linear = nn.Sequential(net[0], net[1], net[3])
    x = torch.randn(2, C, 12, 12)
    assert torch.allclose(cs.apply(net, cs.expand(graph_of(net)))(x), linear(x), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision_and_mode_are_the_pairs(dtype: torch.dtype) -> None:
    net = nn.Sequential(depthwise(), BN(C), pointwise(bias=True)).to(dtype).train()
    merged = cs.apply(net, cs.expand(graph_of(net)))[2]
    assert merged.training
    assert merged.weight.dtype == merged.bias.dtype == dtype
    assert merged.weight.isfinite().all()


def test_a_net_without_values_is_merged_without_values() -> None:
    with torch.device("meta"):
        ghost = nn.Sequential(depthwise(), BN(C), pointwise())
    assert cs.apply(ghost, cs.expand(graph_of(ghost)))[2].weight.is_meta


# --- refusals


def tied() -> nn.Module:
    net = nn.Sequential(depthwise(), pointwise(C, C), depthwise(), pointwise())
    net[2].weight = net[0].weight
    return net


REFUSED = {
    "multiplier": (lambda: nn.Sequential(nn.Conv2d(C, 2 * C, 3, groups=C), pointwise(2 * C)), "multiplier"),
    "3x3 behind": (lambda: nn.Sequential(depthwise(), nn.Conv2d(C, N, 3)), "1 behind it cannot be merged: it is not p"),
    "groups behind": (lambda: nn.Sequential(depthwise(), pointwise(groups=2)), "2 groups"),
    "stride behind": (lambda: nn.Sequential(depthwise(), pointwise(stride=2)), "strides or pads"),
    "padding behind": (lambda: nn.Sequential(depthwise(), pointwise(padding=1)), "strides or pads"),
    "nothing behind": (lambda: nn.Sequential(pointwise(C, C), depthwise()), "1 calls read"),
    "a pool between": (lambda: nn.Sequential(depthwise(), nn.MaxPool2d(2), pointwise()), "max_pool2d.* stands behind"),
    "read twice": (lambda: called(lambda m, x: m.pw(d := m.dw(x)) + d.mean()), "2 calls read"),
    "a gate": (lambda: called(lambda m, x: m.pw((d := m.dw(x)) * d.mean((2, 3), keepdim=True))), "2 calls read"),
    "read between": (lambda: called(lambda m, x: m.pw(a := m.act(m.dw(x))).mean() + a, act=RELU()), "2 calls read"),
    "a function": (lambda: called(lambda m, x: m.pw(F.relu(m.dw(x)))), "relu behind it is no module"),
    "another function": (lambda: called(lambda m, x: m.pw(F.relu6(m.dw(F.relu(x))))), "behind it is no module"),
    "a function in place": (lambda: called(lambda m, x: m.pw(F.relu_(m.dw(F.relu(x))))), "behind it is no module"),
    "not idle": (lambda: called(lambda m, x: m.pw(F.silu(m.dw(F.silu(x))))), "silu behind it is no module"),
    "a norm used twice": (lambda: called(lambda m, x: m.pw(m.bn(m.dw(m.bn(x)))), bn=BN(C)), "batch_norm behind it"),
    "called twice": (lambda: called(lambda m, x: m.pw(m.dw(m.dw(x)))), "called 2 times"),
    "pointwise called twice": (
        lambda: called(lambda m, x: m.pw(m.pw(m.dw(x))), pw=pointwise(C, C)), "pw behind it cannot .* called 2 times",
    ),
    "batch statistics": (
        lambda: nn.Sequential(depthwise(), BN(C, track_running_stats=False), pointwise()), "no scale per channel",
    ),
    "tied": (tied, "shares its weights"),
    "reflecting": (
        lambda: nn.Sequential(depthwise(padding=1, padding_mode="reflect"), pointwise()),
        "without a rule|more than convolve",
    ),
    "few channels": (lambda: nn.Sequential(depthwise(3), pointwise(3)), "no way back"),
    "no module": (
        lambda: called(lambda m, x: m.pw(F.conv2d(x, m.dw.weight, groups=C))), "dw.weight is given to a function",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    make, reason = REFUSED[name]
    net = make()
    plan = cs.expand(graph_of(net, 3 if name == "few channels" else C))
    assert plan.edits == ()
    assert plan.base == plan.new
    with pytest.raises(AssertionError, match=reason):  # every refusal is of this reason
        raise AssertionError(*{refusal.reason for refusal in plan.refusals})


def test_nets_whose_pairs_have_gates_are_left_alone() -> None:
    with torch.device("meta"):
        net = cs.load("timm:efficientnet_b0").model
    plan = cs.expand(cs.capture(net, torch.zeros(1, 3, 64, 64)))
    assert plan.edits == ()
    assert len(plan.refusals) == 16


# --- the way back


@pytest.mark.parametrize(
    ("name", "side", "pairs"),
    [
        ("shufflenetv2-0.5", 32, 19), ("shufflenetv2-1.0", 32, 19), ("shufflenetv2-1.5", 32, 19),
        ("shufflenetv2-2.0", 32, 19), ("shufflenetv2-1.0", 224, 19), ("mobilenet", 32, 13), ("mobilenet", 224, 13),
        ("mobilenetv2", 32, 17),
    ],
)  # fmt: skip
def test_decomposed_again_a_net_costs_what_it_did(name: str, side: int, pairs: int) -> None:
    with torch.device("meta"):
        net = cs.build(name, input=(3, side, side), classes=10)
    x = torch.zeros(1, 3, side, side)
    graph = cs.capture(net, x)
    plan = cs.expand(graph)
    assert (len(plan.edits), plan.refusals) == (pairs, ())
    wide = cs.apply(net, plan, method="none")
    wide_graph = cs.capture(wide, x)
    assert wide_graph.macs == plan.new.macs > 2 * graph.macs
    back = restore(wide_graph, plan)
    assert len(back.edits) == pairs
    narrow = cs.capture(cs.apply(wide, back, method="none"), x)
    gone = [net.get_submodule(path) for edit in plan.edits for path in edit.between]
    assert narrow.macs == graph.macs
    assert narrow.params == graph.params - sum(p.numel() for module in gone for p in module.parameters())
    assert {edit.pointwise: edit.macs[::-1] for edit in plan.edits} == {edit.layer: edit.macs for edit in back.edits}


@pytest.mark.parametrize(
    ("name", "pairs"), [("timm:mobilenetv2_100", 17), ("torchvision:mobilenet_v2", 17), ("torchvision:mnasnet0_5", 17)]
)
def test_pairs_of_other_libraries_are_found_in_the_graph(name: str, pairs: int) -> None:
    with torch.device("meta"):
        net = cs.load(name).model
    x = torch.zeros(1, 3, 64, 64)
    graph = cs.capture(net, x)
    plan = cs.expand(graph)
    assert len(plan.edits) == pairs
    assert restore(cs.capture(cs.apply(net, plan, method="none"), x), plan).new.macs == graph.macs


def test_svd_brings_a_carried_pair_back_exactly() -> None:
    net = trained_like(nn.Sequential(depthwise(), BN(C), pointwise(), BN(N)))
    plan = cs.expand(graph_of(net))
    wide, x = cs.apply(net, plan), torch.randn(2, C, 12, 12)
    narrow = cs.apply(wide, restore(graph_of(wide), plan), method="svd")
    assert torch.allclose(narrow(x), net(x), atol=1e-5)


# --- plans


def toy() -> nn.Sequential:
    return trained_like(nn.Sequential(depthwise(), BN(C), pointwise(), BN(N)))


def test_a_plan_is_read_back() -> None:
    plan = cs.expand(graph_of(toy()))
    assert Plan.from_json(plan.to_json()) == plan
    assert '"kind": "merge"' in plan.to_json()


def test_a_saved_net_is_read_back(tmp_path: Path) -> None:
    loaded = load("own_net:make_separable")
    loaded = replace(loaded, origin=replace(loaded.origin, input=(3, 32, 32)))
    plan = cs.expand(cs.capture(loaded.model, torch.zeros(1, 3, 32, 32)))
    save(loaded.after(rewrite(loaded.model, plan).model, plan), tmp_path)
    again, x = load(str(tmp_path)).model.eval(), torch.randn(2, 3, 32, 32)
    assert torch.allclose(again(x), loaded.model.eval()(x), atol=1e-5)
    assert again.get_submodule("2.2").groups == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"between": ()}, "is no pair"),
        ({"depthwise": "3"}, "is no pair"),
        ({"pointwise": "9"}, "is no pair"),
    ],
)
def test_edits_by_hand_that_name_no_pair_are_refused(change: dict[str, object], reason: str) -> None:
    plan = cs.expand(graph_of(toy()))
    with pytest.raises(cs.ConvsmithError, match=reason):
        cs.apply(toy(), replace(plan, edits=(replace(plan.edits[0], **change),)))


def test_a_layer_is_not_merged_and_replaced() -> None:
    net = nn.Sequential(nn.Conv2d(C, C, 3), depthwise(), pointwise())
    plan = cs.expand(graph_of(net))
    block = Replace("1", "dw-pw", "by hand", (0, 0), True, True)
    with pytest.raises(cs.ConvsmithError):
        cs.apply(net, replace(plan, edits=(*plan.edits, block)))


# --- the whole way

SETTINGS = Expansion("own_net:make_separable", "digits", epochs=1, finetune=1, images=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return expansion(SETTINGS, tmp_path_factory.mktemp("expand") / "run")


def test_a_run_leaves_three_nets_of_known_cost(folder: Path) -> None:
    nets = {name: read_net(folder / name) for name in ("baseline", "expanded", "decomposed")}
    macs = {name: net.scores.macs for name, net in nets.items() if net.scores}
    assert macs["baseline"] == macs["decomposed"] < macs["expanded"]
    assert {name: len(net.history) for name, net in nets.items()} == {"baseline": 2, "expanded": 1, "decomposed": 1}
    assert [each.when for each in nets["baseline"].evaluations] == ["trained"]
    whens = [each.when for each in nets["decomposed"].evaluations]
    assert (whens[0], whens[-1]) == ("decomposed", "recovered")
    errors = [edit["error"] for edit in json.loads((folder / "decompose.json").read_text())["edits"]]
    assert len(errors) == 2
    assert all(0 < error < 1 for error in errors)
    data = cs.load_data("digits").test
    for name, net in nets.items():
        assert net.final is not None
        assert cs.evaluate(load(str(folder / name)).model, data).top1 == net.final.top1


class StopError(Exception):
    """Somebody has pulled the plug."""


@pytest.mark.parametrize("net", ["expanded", "decomposed"])
def test_a_stopped_run_goes_on_to_the_same_weights(folder: Path, tmp_path: Path, net: str) -> None:
    def stop(name: str, total: int, record: object) -> None:
        if name == net:
            raise StopError

    with pytest.raises(StopError):
        expansion(SETTINGS, tmp_path / "run", watch=Watch(epoch=stop))
    expansion(SETTINGS, tmp_path / "run")
    for name in ("baseline", "expanded", "decomposed"):
        one, other = (load_file(each / name / "model.safetensors") for each in (folder, tmp_path / "run"))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_finished_run_is_not_done_again(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    steps: list[str] = []
    expansion(SETTINGS, folder, watch=Watch(step=steps.append))
    assert [step.split(":")[0] for step in steps] == ["loading own_net", "digits", "planning"]
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize("change", [{"epochs": 2}, {"teacher": True}, {"lr": 0.1}])
def test_a_folder_is_one_runs(folder: Path, change: dict[str, object]) -> None:
    with pytest.raises(cs.ConvsmithError, match=f"holds a run with {next(iter(change))}"):
        expansion(replace(SETTINGS, **change), folder)


def test_trained_weights_start_both_and_a_teacher_may_help(folder: Path, tmp_path: Path) -> None:
    weights = str(folder / "baseline" / "model.safetensors")
    out = expansion(replace(SETTINGS, weights=weights, epochs=0, finetune=1, teacher=True), tmp_path / "run")
    base, wide, narrow = (read_net(out / name).evaluations for name in ("baseline", "expanded", "decomposed"))
    assert (base[0].when, wide[0].when, narrow[0].when) == ("original", "expanded", "decomposed")
    assert wide[0].top1 == base[0].top1
    assert wide[0].loss == pytest.approx(base[0].loss, rel=1e-4)


# --- the command


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_the_command_plans(tmp_path: Path) -> None:
    result = run("expand", "mobilenet", "--input", "3,32,32", "-o", tmp_path / "plan.json", "--json", "-")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["new"]["macs"] > told["base"]["macs"]
    assert told["edits"][0]["layer"] == "layer1.0.conv1 + layer1.0.bn1 + layer1.0.conv2"
    assert len(Plan.from_json((tmp_path / "plan.json").read_text()).edits) == 13
    shown = run("expand", "mobilenet", "--input", "3,32,32")
    assert "merge into one" in shown.stdout


def test_a_plan_of_the_command_is_applied(tmp_path: Path) -> None:
    assert run("expand", "own_net:make_separable", "--input", "3,32,32", "-o", tmp_path / "p.json").exit_code == 0
    result = run("apply", "own_net:make_separable", tmp_path / "p.json", "--input", "3,32,32", "--out", tmp_path / "o")
    assert result.exit_code == 0, result.output
    assert load(str(tmp_path / "o")).model.get_submodule("3.2").kernel_size == (3, 3)


def test_the_command_goes_the_whole_way_and_on(tmp_path: Path) -> None:
    call = ("expand", "own_net:make_separable", "--data", "digits", "--out", tmp_path / "run", "--epochs", "1",
            "--finetune", "0", "--images", "64")  # fmt: skip
    first, second = run(*call), run(*call)
    assert first.exit_code == second.exit_code == 0, first.output
    assert first.stdout == second.stdout
    rows = {line.split("  ")[0]: line.split()[1:] for line in first.stdout.splitlines()}
    assert len(rows["top-1 decomposed"]) > 0
    assert "baseline  expanded  decomposed" in first.stdout
    assert run("report", tmp_path / "run").stdout in first.stdout


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("vgg11", "--data", "digits", "--out", "{}"), "no separable pair"),
        (("mobilenet", "--data", "digits"), "--data and --out go together"),
        (("mobilenet", "--data", "digits", "--out", "{}", "-o", "{}"), "-o is for the plan alone, without --data"),
        (("mobilenet", "--out", "{}"), "without --data nothing is trained"),
    ],
)
def test_mistakes_are_told_in_one_line(args: tuple[str, ...], told: str, tmp_path: Path) -> None:
    result = run("expand", *(arg.format(tmp_path / "run") for arg in args))
    assert result.exit_code == 1
    assert told in result.stderr.splitlines()[-1]
