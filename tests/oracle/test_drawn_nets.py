"""Drawn nets and judges that know no rule: perturbation, autograd, torch's counter, ONNX Runtime and the net itself."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from drawn_nets import Call, Drawn, drawn
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.pooling import _AdaptiveMaxPoolNd, _MaxPoolNd

import convsmith as cs
from convsmith.blocks import parse_block
from convsmith.graph.plain import copied
from convsmith.plan import Plan, Replace
from convsmith.reach import Reach
from convsmith.structure.editable import untouchable
from convsmith.testing.oracles import (
    exceeded,
    gradient_support,
    sample,
    seen_by_gradient,
    seen_by_reach,
    torch_macs,
    transparent,
)  # fmt: skip

STEPS = (1e12, 0.37, -0.37)  # of an input element: one that outdoes all others, and two that keep in range
SCALES = (1.0, 0.01, 30.0)  # of what autograd is asked at
SHOWN = 60  # elements of a tensor that are compared
SAME = 1e-12  # differences below, relatively, are of rounding
SHORT, LONG = range(30), range(30, 1030)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def moved(net: Drawn, x: Tensor, held: bool) -> list[NDArray[np.bool_]]:
    """For each step's answer (elements, inputs): which input elements move it, gates held or not."""
    base = net(x)
    net.hold(held)
    found = [np.zeros((prod(out.shape[1:]), x.numel()), np.bool_) for out in base]
    for by in STEPS:
        steps = by * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape[1:])
        for place, (new, old) in enumerate(zip(net(x + steps), base, strict=True)):
            changed = ~((new - old).abs() <= SAME * old.abs().max())
            found[place] |= changed.flatten(1).T.numpy()
    net.hold(False)
    return found


def disagreements(net: Drawn, reaches: list[Reach | None], x: Tensor) -> Iterator[str]:
    """Elements of any step's answer that see other than the rules say, by perturbation and by autograd both."""
    supports = {held: moved(net, x, held) for held in (True, False)}
    for place, (out, reach) in enumerate(zip(net(x), reaches, strict=True)):
        # A gate that the rules do not know as one is a factor like any other.
        held, shape = reach is not None and reach.gated, out.shape
        support = supports[held][place]
        indices = sample(shape, SHOWN)
        flat = [int(np.ravel_multi_index(index, tuple(shape))) for index in indices]
        computed = [((), ()) if reach is None else seen_by_reach(reach, index) for index in indices]
        found = [seen_by_gradient(support[i].reshape(x.shape[1:])) for i in flat]
        bound = reach is not None and reach.bound
        doubted = [i for i in range(len(indices)) if _wrong(computed[i], found[i], bound)]
        for i in doubted[:5]:
            judged = by_gradient(summing(net), place, indices[i], x, held)
            if _wrong(computed[i], judged, bound):
                yield f"step {place} {indices[i]}: rules {computed[i]}, perturbed {found[i]}, autograd {judged}"


def _wrong(computed: object, found: object, bound: bool) -> bool:
    return bool(exceeded(computed, found)) if bound else computed != found  # type: ignore[arg-type]


def summing(net: Drawn) -> Drawn:
    """The net with sums in the place of maxima: what is smaller in every draw is seen too, as it might be chosen."""
    summed = copied(net)
    for module in [*summed.modules()]:
        if isinstance(module, Call) and module.function is torch.maximum:
            module.function = torch.add
        for name, child in [*module.named_children()]:
            if isinstance(child, _MaxPoolNd):
                setattr(module, name, WindowSums(child))
            if isinstance(child, _AdaptiveMaxPoolNd):
                setattr(module, name, getattr(nn, type(child).__name__.replace("Max", "Avg"))(child.output_size))
    return summed


class WindowSums(nn.Module):
    """The sum of each window of a pool of maxima."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """By a convolution with ones, padded behind as far as the last window may stick out."""
        pool, dims = self.pool, x.ndim - 2
        kernel, stride, padding, dilation = ((value,) * dims for value in (
            pool.kernel_size, pool.stride, pool.padding, pool.dilation))  # fmt: skip
        behind = [pad + d * k + s for pad, d, k, s in zip(padding, dilation, kernel, stride, strict=True)]
        pads = [number for pair in zip(reversed(padding), reversed(behind), strict=True) for number in pair]
        ones = torch.ones(x.shape[1], 1, *kernel, dtype=x.dtype)
        convolve = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
        sums = convolve(F.pad(x, pads), ones, None, stride, 0, dilation, x.shape[1])
        return sums[(..., *(slice(size) for size in pool(x).shape[2:]))]


def by_gradient(net: Drawn, place: int, index: tuple[int, ...], x: Tensor, held: bool) -> object:
    """What autograd finds, over the union of draws of many sizes, gates held or not."""

    def answer(given: Tensor) -> Tensor:
        with torch.no_grad():
            net(given)
        net.hold(held)
        out: Tensor = net(given)[place]
        net.hold(False)
        return out

    generator = torch.Generator().manual_seed(0)
    spread = [10 ** (4 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 2) for _ in range(8)]
    spread += [size * torch.randn(x.shape, generator=generator, dtype=x.dtype).sign() for size in spread]
    supports = [
        gradient_support(lambda given, by=by: answer(given * by), x.shape[1:], [index], draws=8)[0]
        for by in (*map(torch.tensor, SCALES), *spread)  # a maximum shows what it chooses among by and by
    ]
    return seen_by_gradient(np.logical_or.reduce(supports))


def trained_like(net: Drawn) -> Drawn:
    """Weights of both signs in float32, as nets have them."""
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    net.every = False
    return net.float()


def judge(seed: int) -> None:
    """Reach of every step's answer, and MACs."""
    net = drawn(seed).eval()
    net.every = True
    x = torch.rand(1, *net.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.05
    graph = cs.capture(net, x)
    assert not graph.unknown_ops, graph.unknown_ops
    assert graph.macs == torch_macs(net, x)
    answers = graph.reaches()
    with torch.no_grad():
        assert [graph.shapes[name] for name in graph.outputs] == [tuple(out.shape) for out in net(x)]
    wrong = list(disagreements(net, [answers.get(name) for name in graph.outputs], x))
    assert not wrong, f"seed {seed}: {'; '.join(wrong[:3])}\n{net}\n{net.reads}"


def judge_edits(seed: int) -> None:
    """Plans survive JSON and apply; full rank gives the same answers, attention changes nothing at first."""
    net = trained_like(drawn(seed, 2)).eval()
    x = torch.randn(2, *net.shape, generator=torch.Generator().manual_seed(seed))
    graph = cs.capture(net, x[:1])
    with torch.no_grad():
        before = net(x)
        for plan in plans_of(graph):
            read = Plan.from_json(json.dumps(json.loads(plan.to_json())))
            assert read == plan
            assert cs.apply(net, read)(x).shape == before.shape
        layers = {
            node.module: node.conv_spec() for node in graph.layers if not untouchable(graph, node, node.conv_spec())
        }
        full = {layer: f"dw-pw:r={min(spec.out_channels, prod(spec.kernel))}" for layer, spec in layers.items()}
        for blocks in (full, dict.fromkeys(layers, "eca")):
            fitting = {layer: name for layer, name in blocks.items() if not parse_block(name).refuses(layers[layer])}
            _same(cs.apply(net, _by_hand(graph, [*layers], fitting))(x), before, seed)


def plans_of(graph: cs.Graph) -> Iterator[Plan]:
    """By costs, by one block wherever it fits, and by stages where there are such."""
    yield cs.decompose(graph)
    yield cs.decompose(graph, block="dw-pw")
    try:
        yield cs.organize(graph)
    except cs.ConvsmithError as error:
        assert "has no stage to organize" in str(error)


def _by_hand(graph: cs.Graph, layers: list[str], blocks: dict[str, str]) -> Plan:
    plan = cs.decompose(graph, keep=layers)
    return replace(plan, edits=tuple(Replace(*pair) for pair in blocks.items()))


def _same(got: Tensor, want: Tensor, seed: int) -> None:
    scale = want.abs().max().clamp(min=1e-3)
    assert ((got - want).abs().max() / scale).item() < 1e-3, f"seed {seed}"


def judge_export(seed: int, path: Path) -> bool:
    """ONNX Runtime agrees at other batches than those that are checked when it is written; and the file is read back.

    Whether it could be written: torch's exporter knows no adaptive maximum, for one.
    """
    net = trained_like(drawn(seed, 2)).eval()
    try:
        cs.export(net, path, input=net.shape)
    except cs.FileError as error:
        assert "cannot be exported" in str(error) and not path.exists()
        return False
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        x = torch.randn(batch, *net.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            got = torch.as_tensor(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
            _same(got, net(x), seed)
    assert cs.capture_file(path).shapes[cs.capture_file(path).outputs[0]] == (1, *got.shape[1:])
    return True


def test_the_judge_finds_what_is_wrong() -> None:
    """The rules' answers for another dilation are found, and those for the net itself are not."""
    nets = []
    for dilation in (1, 2):
        net = Drawn((2, 6, 6))
        net.steps.append(transparent(nn.Conv2d(2, 2, 3, padding=dilation, dilation=dilation)))
        net.reads.append((0,))
        net.every = True
        nets.append(net.eval())
    x = torch.rand(1, 2, 6, 6, dtype=torch.float64)
    own, other = (cs.capture(net, x).reaches()["conv2d"] for net in nets)
    assert list(disagreements(nets[0], [own], x)) == []
    assert list(disagreements(nets[0], [other], x))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_sums_stand_for_maxima_window_by_window(dims: int) -> None:
    """Each place of such a sum has a gradient to all that the maximum there is taken of, and to no more."""
    x = torch.rand(1, 2, *(7,) * dims, dtype=torch.float64)
    for kernel, stride, padding, dilation, ceil in product((2, 3), (1, 2, 3), (0, 1), (1, 2), (False, True)):
        pool = getattr(nn, f"MaxPool{dims}d")(kernel, stride, padding, dilation, False, ceil)
        net = Drawn((2, *(7,) * dims))
        net.steps.append(nn.Sequential(pool))
        given = x.clone().requires_grad_()
        summed = summing(net).steps[0](given)
        seen = np.zeros(x.numel(), np.bool_)
        summed.flatten()[-1].backward()
        for place in range(x.numel()):  # an element that outdoes all others is what a maximum that sees it answers
            large = x.clone()
            large.view(-1)[place] = 1e6
            seen[place] = pool(large).flatten()[-1] == 1e6
        assert summed.shape == pool(x).shape
        assert np.array_equal(given.grad.flatten().numpy() != 0, seen)


@pytest.mark.parametrize("part", range(6))
def test_drawn_nets_see_what_moves_them(part: int) -> None:
    for seed in SHORT[part::6]:
        judge(seed)


def test_drawn_nets_are_edited_as_planned() -> None:
    for seed in SHORT[::3]:
        judge_edits(seed)


@pytest.mark.long
@pytest.mark.parametrize("part", range(50))
def test_many_drawn_nets_see_what_moves_them(part: int) -> None:
    for seed in LONG[part::50]:
        judge(seed)


@pytest.mark.long
@pytest.mark.parametrize("part", range(20))
def test_many_drawn_nets_are_edited_as_planned(part: int) -> None:
    for seed in LONG[part::20]:
        judge_edits(seed)


@pytest.mark.long
@pytest.mark.parametrize("part", range(5))
def test_drawn_nets_are_exported_for_any_batch(part: int, tmp_path: Path) -> None:
    written = [judge_export(seed, tmp_path / f"{seed}.onnx") for seed in LONG[part : part + 100 : 10]]
    assert sum(written) > len(written) / 2
