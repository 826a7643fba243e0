"""The judge of named nets: they build at any depth, are understood throughout, can be replanned and trained."""

import torch
from torch import nn

from convsmith.graph.capture import capture
from convsmith.planning.decompose import decompose
from convsmith.planning.organize import organize
from convsmith.rewriting.apply import apply
from convsmith.score.metric import score
from convsmith.testing.oracles import hold, torch_macs, transparent
from convsmith.testing.rules import check_reach
from convsmith.zoo import NETS, build
from convsmith.zoo.builder import default_input

CLASSES = 7


def check_net(name: str, *, side: int | None = None) -> None:
    """Judge a net of the zoo on images of `side` pixels, by default those that it is published for.

    Its head gives the classes asked for. No op is unknown; multiply-accumulates are torch's; what its output sees is
    what autograd finds. The score has a stage for each of the record. Every depth can be built; organizing it, and
    decomposing it into `dw-pw`, makes nets of the same output. A step of training moves every parameter.
    Raises AssertionError.

    >>> check_net("resnet20")
    """
    forms = NETS[name]
    shape = default_input(name) if side is None else (3, side, side)
    net, x = _built(name, shape), torch.zeros(1, *shape)
    graph = capture(net, x)
    hold(net(x).shape == (1, CLASSES), f"{name}: gives {tuple(net(x).shape)} for {CLASSES} classes.")
    hold(not graph.unknown_ops, f"{name}: no rule for {', '.join(graph.unknown_ops)}; register one.")
    hold(graph.macs == torch_macs(net, x), f"{name}: {graph.macs} multiply-accumulates, {torch_macs(net, x)} by torch.")
    judged = transparent(_built(name, shape))
    check_reach(judged, x.double(), capture(judged, x.double()), draws=1, bound=True, most=2)
    record = forms.small if min(shape[1:]) < 64 else forms.large
    _check_depths(name, shape, record.blocks_per_stage)
    _check_plans(name, net, x)
    _check_training(name, shape)


def _built(name: str, shape: tuple[int, int, int], blocks: tuple[int, ...] | None = None) -> nn.Module:
    torch.manual_seed(0)
    return build(name, input=shape, classes=CLASSES, blocks_per_stage=blocks).eval()


def _check_depths(name: str, shape: tuple[int, int, int], blocks: tuple[int, ...]) -> None:
    sizes = []
    for more in (0, 1):
        net = _built(name, shape, tuple(count + more for count in blocks))
        hold(net(torch.zeros(1, *shape)).shape == (1, CLASSES), f"{name}: one more block a stage changes the output.")
        sizes.append(sum(parameter.numel() for parameter in net.parameters()))
    hold(sizes[0] < sizes[1], f"{name}: one more block a stage adds no parameters.")


def _check_plans(name: str, net: nn.Module, x: torch.Tensor) -> None:
    graph = capture(net, x)
    hold(score(graph).stages, f"{name}: no stage is found.")
    for plan in (organize(graph), decompose(graph, block="dw-pw")):
        new = apply(net, plan).eval()
        hold(new(x).shape == (1, CLASSES), f"{name}: a plan changes the output to {tuple(new(x).shape)}.")


def _check_training(name: str, shape: tuple[int, int, int]) -> None:
    net = _built(name, shape).train()
    generator = torch.Generator().manual_seed(0)
    logits = net(torch.randn(4, *shape, generator=generator))
    loss = nn.functional.cross_entropy(logits, torch.arange(4) % CLASSES)
    paths, parameters = zip(*net.named_parameters(), strict=True)
    gradients = zip(paths, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True)
    still = [path for path, each in gradients if each is None or not each.isfinite().all()]
    hold(not still, f"{name}: no finite gradient reaches {', '.join(still[:3])}.")
