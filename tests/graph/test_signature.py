"""What models are called with and what they answer: tensors, lists, dictionaries, dataclasses, classes of their own."""

from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.graph.answers import answered
from convsmith.graph.capture import capture
from convsmith.graph.signature import Signature

X = torch.zeros(1, 3, 8, 8)
MACS = (3 + 3 + 16) * 8 * 9 * 64


class Pair(nn.Module):
    """Two images, each with a convolution of its own, and one on both."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.f, self.d = (nn.Conv2d(c, 8, 3, padding=1) for c in (3, 3, 16))

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        joined: Tensor = self.d(torch.cat([self.e(a), self.f(b)], 1))
        return joined


class Two(Pair):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.join(left, right)


class Many(Pair):
    def forward(self, images: Any) -> Tensor:
        return self.join(*images)


class Variadic(Pair):
    def forward(self, *images: Tensor) -> Tensor:
        return self.join(*images)


class Named(Pair):
    def forward(self, batch: Any) -> Tensor:
        return self.join(batch["image"], batch["mask"])


class Optional(Pair):
    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.join(image, image if mask is None else mask)


class Nested(Pair):
    def forward(self, batch: Any, scale: float = 1.0) -> Tensor:
        return self.join(batch["images"][0], batch["images"][1][0] * scale)


Images = namedtuple("Images", "a b")

CALLS: dict[str, tuple[nn.Module, tuple[Any, ...], dict[str, Any], list[str]]] = {
    "two": (Two(), (X, X), {}, ["left", "right"]),
    "a tuple of arguments": (Two(), ((X, X),), {}, ["left", "right"]),
    "a list of arguments": (Two(), ([X, X],), {}, ["left", "right"]),
    "names": (Two(), (), {"left": X, "right": X}, ["left", "right"]),
    "one by name": (Two(), (X,), {"right": X}, ["left", "right"]),
    "a dictionary of arguments": (Two(), ({"right": X, "left": X},), {}, ["right", "left"]),
    "a list": (Many(), ([X, X],), {}, ["images_0", "images_1"]),
    "a tuple": (Many(), ((X, X),), {}, ["images_0", "images_1"]),
    "a named tuple": (Many(), (Images(X, X),), {}, ["images_a", "images_b"]),
    "any number": (Variadic(), (X, X), {}, ["input_0", "input_1"]),
    "a tuple of any number": (Variadic(), ((X, X),), {}, ["input_0", "input_1"]),
    "a dictionary": (Named(), ({"image": X, "mask": X},), {}, ["image", "mask"]),
    "an ordered dictionary": (Named(), (OrderedDict(image=X, mask=X),), {}, ["image", "mask"]),
    "an optional one": (Optional(), (X, X), {}, ["image", "mask"]),
    "optional ones by name": (Optional(), ({"image": X, "mask": X},), {}, ["image", "mask"]),
    "a tuple with an optional one": (Optional(), ((X, X),), {}, ["image", "mask"]),
    "nested": (Nested(), ({"images": [X, (X,)]}, 0.5), {}, ["images_0", "images_1_0"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_net_is_captured_as_it_is_called(name: str) -> None:
    net, inputs, named, names = CALLS[name]
    graph = capture(net, *inputs, **named)
    assert graph.macs == MACS
    assert [x.name for x in graph.inputs] == [slot.name for slot in graph.signature.slots] == names
    assert [slot.shape for slot in graph.signature.slots] == [(1, 3, 8, 8)] * 2
    args, kwargs = graph.signature.call([torch.rand(2, 3, 8, 8)] * 2)
    assert net(*args, **kwargs).shape == (2, 8, 8, 8)
    seen = graph.reaches()
    assert all(node.name in seen for node in graph.layers), "each from the first input that comes to it"
    plan = cs.decompose(graph, block="dw-pw:r=1")
    assert {edit.layer for edit in plan.edits} | {refusal.layer for refusal in plan.refusals} == {"e", "f", "d"}
    assert not any("unknown" in refusal.reason for refusal in plan.refusals)


def test_batches_of_any_size_are_counted_for_one() -> None:
    graph = capture(Two(), X.expand(5, 3, 8, 8), X.expand(5, 3, 8, 8))
    assert graph.macs == MACS
    assert [x.shape for x in capture(Two(), X, X, batch=4).inputs] == [(4, 3, 8, 8)] * 2


def test_what_all_images_share_has_no_batch() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor, mask: Tensor, step: Tensor, times: Tensor) -> Tensor:
            return self.conv(x * mask) * step + times[:, None, None, None]

    graph = capture(Masked(), X, torch.ones(8, 8), torch.tensor(3.0), torch.ones(1), batch=2)
    assert [slot.batched for slot in graph.signature.slots] == [True, False, False, True]
    assert graph.shapes[graph.outputs[0]] == (2, 4, 8, 8)
    assert graph.outputs[0] in graph.reaches()


@pytest.mark.parametrize(("shape", "conv"), [((2, 40), nn.Conv1d), ((2, 8, 8), nn.Conv2d), ((2, 4, 8, 8), nn.Conv3d)])
def test_images_in_a_list_come_without_a_batch(shape: tuple[int, ...], conv: Callable[..., nn.Module]) -> None:
    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv(2, 4, 3)

        def forward(self, images: list[Tensor]) -> list[Tensor]:
            return list(self.conv(torch.stack(images)))

    graph = capture(Stacked(), [torch.zeros(shape)] * 2)
    assert [x.shape for x in graph.inputs] == [(1, *shape)] * 2
    assert [slot.shape for slot in graph.signature.slots] == [shape] * 2
    assert len(graph.outputs) == 2
    reach = graph.reaches()[next(node.name for node in graph.layers)]
    assert reach.extent().window == (3,) * (len(shape) - 1)


@pytest.mark.parametrize("given", [(), (3,), ([1, 2],), ("image.png",), ({"a": None},)])
def test_a_call_without_tensors_is_refused(given: tuple[Any, ...]) -> None:
    with pytest.raises(ConvsmithError, match="is to be called with tensors"):
        capture(Many(), *given)


def test_a_call_that_does_not_fit_forward_is_told_with_its_shapes() -> None:
    with pytest.raises(ConvsmithError, match=r"Two cannot be captured on input 3x8x8: .*right"):
        capture(Two(), X)


def test_a_signature_of_nothing_is_empty() -> None:
    assert Signature().slots == ()


# --- answers


@dataclass
class Result:
    maps: Tensor
    more: dict[str, Any]


@dataclass(slots=True)
class Slotted:
    maps: Tensor
    more: list[Tensor]


class Plain:
    def __init__(self, maps: Tensor, net: nn.Module) -> None:
        self.maps, self.net, self.itself = maps, net, self


def lazily(*maps: Tensor) -> Iterator[Tensor]:
    yield from maps


ANSWERS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "a list": lambda net, x: [x, x + 1],
    "a dictionary": lambda net, x: {"a": x, "b": {"c": (x + 1, None, 3, "x")}},
    "a dictionary of one's own": lambda net, x: UserDict(a=x, b=[x + 1]),
    "a named tuple": lambda net, x: Images(x, x + 1),
    "a dataclass": lambda net, x: Result(x, {"other": x + 1}),
    "a dataclass with slots": lambda net, x: Slotted(x, [x + 1]),
    "a class with a cycle and a module": lambda net, x: [Plain(x, net), Plain(x + 1, net)],
    "an iterator": lambda net, x: lazily(x, x + 1),
    "iterators of iterators": lambda net, x: (lazily(each) for each in (x, x + 1)),
    "a map": lambda net, x: map(torch.neg, [x, x + 1]),
    "a set": lambda net, x: {x, x + 1},
    "a distribution": lambda net, x: torch.distributions.Normal(x, (x + 1).exp(), validate_args=False),
    "several of one call": lambda net, x: x.chunk(2, 1),
}


class Answering(nn.Module):
    def __init__(self, answer: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.answer = nn.Conv2d(3, 4, 3), answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self, self.conv(x))


@pytest.mark.parametrize("name", ANSWERS)
def test_every_output_of_a_model_is_one_of_the_graph(name: str) -> None:
    net = Answering(ANSWERS[name]).eval()
    graph = capture(net, X)
    with torch.inference_mode():
        told = [tuple(x.shape) for x in answered(net(X))]
    assert sorted(graph.shapes[output] for output in graph.outputs) == sorted(told)
    assert len(graph.outputs) == 2
    assert not graph.notes


@pytest.mark.parametrize("answer", [lambda net, x: float(x.mean()), lambda net, x: None, lambda net, x: x.numpy()])
def test_what_answers_no_tensor_ends_where_nothing_reads_on(answer: Callable[[nn.Module, Tensor], Any]) -> None:
    graph = capture(Answering(answer), X)
    assert graph.outputs
    assert graph.notes[-1].startswith("It answers no tensor")
