"""Forwards that read values: run on numbers, counted to the end, followed up to where sizes depend on values."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.ops import batched_nms, nms

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.graph.capture import capture
from convsmith.graph.replay import Replay
from convsmith.testing.oracles import torch_macs

Forward = Callable[[nn.Module, Tensor], object]


class Net(nn.Module):
    """Two convolutions, and a forward of the test's own around them."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.then = forward

    def forward(self, x: Tensor) -> object:
        return self.then(self, x)


def asserted(net: Net, x: Tensor) -> Tensor:
    assert x.min() >= -10
    return net.b(net.a(x))


def checked(net: Net, x: Tensor) -> Tensor:
    y = net.b(net.a(x))
    if torch.isnan(y).any():
        raise ValueError("NaN")
    return y


def logged(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    net.last = float(y.mean())
    return net.b(y)


def normalized(net: Net, x: Tensor) -> Tensor:
    return net.b(net.a(x / max(x.max().item(), 1.0)))


def branched(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    return net.b(y) if y.std() >= 0 else y


def printed(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    net.said = [f"{value:.2f}" for value in y.mean((0, 2, 3)).tolist()]
    return net.b(y)


def typed_by_the_device(net: Net, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        return net.b(net.a(x))


FIXED = [asserted, checked, logged, normalized, branched, printed, typed_by_the_device]


@pytest.mark.parametrize("forward", FIXED)
def test_a_value_that_is_read_changes_nothing_of_what_is_seen(forward: Forward) -> None:
    net = Net(forward)
    graph = capture(net, torch.zeros(1, 3, 8, 8))
    assert graph.macs == torch_macs(net, torch.zeros(1, 3, 8, 8)) == (3 + 16) * 16 * 9 * 64
    assert not graph.unknown_ops
    assert not any(node.loose for node in graph.nodes)
    assert graph.reaches()[graph.layers[-1].name].extent().window == (5, 5)
    (note,) = graph.notes
    lines = range(forward.__code__.co_firstlineno, forward.__code__.co_firstlineno + 5)
    assert any(f"(test_values.py, line {line}, in {forward.__name__})" in note for line in lines)
    assert note.endswith("sizes and branches are those of this input.")
    plan = cs.decompose(graph, block="dw-pw")
    assert [edit.layer for edit in plan.edits] == ["b"]
    for data in (None, torch.rand(4, 3, 8, 8)):
        assert cs.apply(net, plan, data=data).b is not net.b


def chosen(net: Net, x: Tensor) -> Tensor:
    y = net.b(net.a(x))
    return y[y > 0]


def suppressed(net: Net, x: Tensor) -> Tensor:
    y = net.b(net.a(x)).flatten(2)[0].T
    return y[nms(y[:, :4], y[:, 4], 0.5)]


def found(net: Net, x: Tensor) -> tuple[Tensor, ...]:
    return torch.where(net.b(net.a(x)) > 0)


def counted(net: Net, x: Tensor) -> Tensor:
    return net.b(net.a(x)).round().unique()


def taken_out(net: Net, x: Tensor) -> Tensor:
    y = net.b(net.a(x))
    return y.masked_select(y > 0).sum()


def through_numpy(net: Net, x: Tensor) -> Tensor:
    y = net.b(net.a(x))
    return torch.from_numpy(y.numpy() + 1) * 2


def through_lists(net: Net, x: Tensor) -> Tensor:
    return torch.tensor(net.b(net.a(x)).tolist()) * 2


LOOSE = [chosen, suppressed, found, counted, taken_out, through_numpy, through_lists]


@pytest.mark.parametrize("forward", LOOSE)
def test_what_is_sized_by_values_is_followed_no_further(forward: Forward) -> None:
    net = Net(forward).eval()
    x = torch.rand(1, 3, 8, 8)
    graph = capture(net, x)
    assert graph.macs == torch_macs(net, x)
    assert all(node.name in graph.reaches() for node in graph.layers)
    loose = {node.name for node in graph.nodes if node.loose}
    assert loose.issuperset(graph.outputs)
    assert graph.outputs
    assert "sizes depend on values" in graph.notes[-1]
    plan = cs.decompose(graph, block="dw-pw")
    assert [edit.layer for edit in plan.edits] == ["b"]
    for data in (None, torch.rand(4, 3, 8, 8)):
        assert cs.apply(net, plan, data=data).b is not net.b


@pytest.mark.parametrize("forward", [*FIXED[:-1], *LOOSE])
def test_what_is_not_loose_is_run_again(forward: Forward) -> None:
    net = Net(forward).eval()
    replay = Replay(net, capture(net, torch.zeros(1, 3, 8, 8)))
    alive = replay.start(torch.rand(1, 3, 8, 8))
    replay.run(alive, 0, len(replay.graph.nodes))
    assert set(alive) == set(replay.graph.ends)


def test_layers_behind_sizes_that_depend_on_values_are_counted_and_listed() -> None:
    class Regions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.score = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.trunk(x)
            some = maps[(maps.mean((1, 2, 3)) < 100).repeat(3)[:1]]
            return self.score(self.head(some).mean((2, 3)))

    net, x = Regions(), torch.rand(1, 3, 8, 8)
    graph = capture(net, x)
    assert graph.macs == torch_macs(net, x)
    plan = cs.decompose(graph, block="dw-pw:r=1")
    told = {edit.layer for edit in plan.edits} | {refusal.layer for refusal in plan.refusals}
    assert told == {"trunk", "head"}
    reason = next(refusal.reason for refusal in plan.refusals if refusal.layer == "head")
    assert reason == "it stands behind aten.index.Tensor, where sizes depend on values: what it sees is unknown"
    layers = {layer.name: layer.reach for layer in cs.score(graph).layers}
    assert layers["trunk"] is not None
    assert layers["head"] is layers["score"] is None


class Yolo(nn.Module):
    """A one-stage detector as people write them: a trunk, heads on two scales, boxes, nms."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 16, 3, 2, 1))
        self.down = nn.Conv2d(16, 16, 3, 2, 1)
        self.heads = nn.ModuleList(nn.Conv2d(16, 7, 1) for _ in range(2))

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        fine = self.trunk(x)
        rows = []
        for stride, maps, head in zip((4, 8), (fine, self.down(fine)), self.heads, strict=True):
            y = head(maps).permute(0, 2, 3, 1).sigmoid()
            line = torch.arange(y.shape[1], device=x.device)
            grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
            y[..., :2] = (y[..., :2] + grid) * stride
            y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * stride
            rows.append(y.reshape(len(y), -1, 7))
        return [self.boxes(each) for each in torch.cat(rows, 1)]

    def boxes(self, rows: Tensor) -> dict[str, Tensor]:
        scores, labels = (rows[:, 4:5] * rows[:, 5:]).max(1)
        boxes = torch.cat([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], 1)
        keep = scores > 0.05
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        kept = batched_nms(boxes, scores, labels, 0.5)[:100]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}


def test_an_own_detector_with_nms_is_planned_and_edited() -> None:
    net, x = Yolo().eval(), torch.rand(1, 3, 64, 64)
    graph = capture(net, x)
    assert graph.macs == torch_macs(net, x)
    assert len(graph.outputs) == 3
    assert {node.module for node in graph.layers if node.name in graph.reaches()} == {
        "trunk.0", "trunk.3", "down", "heads.0", "heads.1",
    }  # fmt: skip
    plan = cs.decompose(graph, block="dw-pw")
    new = cs.apply(net, plan, data=torch.rand(4, 3, 64, 64))
    assert {edit.layer for edit in plan.edits} == {"trunk.3", "down"}
    assert set(new(x)[0]) == {"boxes", "scores", "labels"}


@pytest.mark.parametrize(
    ("name", "macs"), [("ssdlite320_mobilenet_v3_large", 583_171_904), ("fasterrcnn_mobilenet_v3_large_320_fpn", None)]
)
def test_a_whole_detector_is_counted(name: str, macs: int | None) -> None:
    net = detection.__dict__[name](weights=None, weights_backbone=None).eval()
    x = torch.zeros(1, 3, 320, 320)
    graph = capture(net, [x[0]])
    assert graph.macs == (macs or torch_macs(net, x))
    assert graph.inputs[0].shape == (1, 3, 320, 320)
    assert capture(net, x).macs == graph.macs
    convs = {node.module for node in graph.nodes if node.kind == "conv"}
    assert convs == {path for path, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    assert all(node.name in graph.reaches() for node in graph.nodes if node.kind == "conv")


def test_numbers_are_those_that_were_given_or_else_drawn() -> None:
    class Picky(nn.Module):
        def __init__(self, least: float) -> None:
            super().__init__()
            self.conv, self.least = nn.Conv2d(3, 4, 3), least

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            assert x.max() > self.least, "too dark"
            return y

    assert capture(Picky(2.0), torch.full((1, 3, 8, 8), 3.0)).macs
    assert capture(Picky(0.5), torch.zeros(1, 3, 8, 8)).macs
    with pytest.raises(ConvsmithError, match=r"too dark \(test_values.py, line \d+, in forward\)"):
        capture(Picky(2.0), torch.zeros(1, 3, 8, 8))


def test_without_weights_the_line_that_reads_a_value_is_named() -> None:
    with torch.device("meta"):
        net = Net(asserted)
    line = asserted.__code__.co_firstlineno + 1
    with pytest.raises(ConvsmithError, match=rf"asks for a value .* \(test_values.py, line {line}, in asserted\)"):
        capture(net, torch.zeros(1, 3, 8, 8, device="meta"))


def test_buffers_that_forward_counts_in_are_taken_back() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        assert x.sum() < 1e6
        net.running.mul_(0.9).add_(x.mean())
        return net.b(net.a(x))

    net = Net(forward)
    net.register_buffer("running", torch.zeros(()))
    capture(net, torch.ones(1, 3, 8, 8))
    assert net.running == 0


def test_analyze_tells_the_notes() -> None:
    scores = cs.score(capture(Net(chosen), torch.rand(1, 3, 8, 8)))
    assert len(scores.notes) == 2
    assert scores.to_dict()["notes"] == list(scores.notes)
