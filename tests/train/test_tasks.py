"""Any task: outputs of any kind are matched with a teacher's, and losses and metrics are the user's own."""

from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.train import Recipe
from convsmith.train.tasks import Measured, Outcome

IMAGES = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def block(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


class Yolo(nn.Module):
    """Two scales of boxes, objectness and classes, as a dictionary of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.deeper = block(3, 8, 2), block(8, 12, 2), block(12, 16, 2)
        self.heads = nn.ModuleList(nn.Conv2d(width, 3 * (5 + 4), 1) for width in (12, 16))

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        maps = [self.down(self.stem(x))]
        maps.append(self.deeper(maps[0]))
        answers = [head(each).unflatten(1, (3, 9)) for head, each in zip(self.heads, maps, strict=True)]
        return {"boxes": [each[:, :, :4] for each in answers], "scores": [each[:, :, 4:] for each in answers]}


@dataclass
class Answer:
    main: Tensor
    aside: tuple[Tensor, Tensor | None]


class Segmenter(nn.Module):
    """Classes of pixels, and keypoints as maps, in a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 8, 2), block(8, 8))
        self.classes, self.points = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Answer:
        y = F.interpolate(self.body(x), scale_factor=2.0, mode="bilinear")
        return Answer(self.classes(y), (self.points(y), None))


NETS = {"YOLO-like": Yolo, "segmenter": Segmenter, "torchvision's lraspp": lambda: Raspp()}
SEED = 0


class Raspp(nn.Module):
    """The head of torchvision's LR-ASPP on a small backbone: an ordered dictionary out of nested ones."""

    def __init__(self) -> None:
        super().__init__()
        backbone = nn.ModuleDict({"low": block(3, 8, 2), "high": block(8, 8, 2)})
        self.backbone = backbone
        self.head = torchvision.models.segmentation.lraspp.LRASPPHead(8, 8, 4, 8)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        low = self.backbone["low"](x)
        return {"out": self.head({"low": low, "high": self.backbone["high"](low)})}


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """A teacher with statistics of its own, and the same with every kernel disturbed."""
    torch.manual_seed(SEED)
    teacher = NETS[name]().train()
    with torch.no_grad():
        teacher(IMAGES)
    model = deepcopy(teacher)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data += 0.3 * parameter.std() * torch.randn_like(parameter)
    return model.eval(), teacher.eval()


RECIPE = Recipe(epochs=4, batch_size=8, lr=0.02, weight_decay=0.0, device="cpu")


@pytest.mark.parametrize("name", NETS)
def test_any_outputs_are_recovered(name: str) -> None:
    model, teacher = pair(name)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    means = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    found = cs.recover(model, teacher, IMAGES, RECIPE)
    assert found.final < 0.6 * found.start
    assert found.final == min(found.start, *found.judged)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert all(torch.equal(a, norm.running_mean) for a, norm in zip(means, norms, strict=True))
    assert not any(module._forward_hooks for net in (model, teacher) for module in net.modules())


def test_a_rate_is_found_where_none_is_given() -> None:
    model, teacher = pair("YOLO-like")
    probes: list[object] = []
    found = cs.recover(
        model, teacher, IMAGES, Recipe(epochs=2, batch_size=4, lr=None, device="cpu"), told=probes.append
    )
    assert len(probes) == 1
    assert found.lr == probes[0].rate  # type: ignore[attr-defined]
    assert len(probes[0].tried) > 1  # type: ignore[attr-defined]
    assert found.final < 0.8 * found.start


def test_features_are_matched_by_their_paths() -> None:
    model, teacher = pair("YOLO-like")
    with torch.no_grad():
        old = (model.stem(IMAGES) - teacher.stem(IMAGES)).square().mean()  # type: ignore[operator]
    heads = deepcopy(model.heads)
    cs.recover(model, teacher, IMAGES, RECIPE, match=("stem", "down"))
    with torch.no_grad():
        assert (model.stem(IMAGES) - teacher.stem(IMAGES)).square().mean() < old  # type: ignore[operator]
    assert all(torch.equal(a, b) for a, b in zip(heads.parameters(), model.heads.parameters(), strict=True))  # type: ignore[union-attr]


@pytest.mark.parametrize("name", NETS)
def test_it_never_ends_worse_than_the_start(name: str) -> None:
    model, teacher = pair(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = cs.recover(model, teacher, IMAGES, Recipe(epochs=2, batch_size=8, lr=2.0, device="cpu"))
    assert found.final <= found.start
    if found.kept == 0:
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_rate_that_ruins_leaves_the_weights_as_they_were() -> None:
    model, teacher = pair("segmenter")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ConvsmithError, match=r"The loss became (nan|inf) in epoch 1"):
        cs.recover(model, teacher, IMAGES, Recipe(epochs=1, batch_size=2, lr=1e30, device="cpu"))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Kept(nn.Module):
    """Answers as many numbers as are over a half, as a detector keeps boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        return [{"boxes": each[each > 0.5]} for each in self.head(x)]


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x).argmax(1)


REFUSED = [
    (Kept, Kept, {}, "answers shapes that depend on what images show; match what stands in front|The net answers"),
    (Counts, Counts, {}, "The net answers no floats; match modules that answer alike"),
    (Yolo, Segmenter, {}, r"The net answers \[.*\], and its teacher \[.*\]; match"),
    (Yolo, Yolo, {"match": ("neck",)}, "neck: student and teacher must both have this layer"),
]


@pytest.mark.parametrize(("student", "teacher", "options", "sentence"), REFUSED)
def test_what_cannot_be_matched_is_refused(student: type, teacher: type, options: dict, sentence: str) -> None:
    with pytest.raises(ConvsmithError, match=sentence):
        cs.recover(student(), teacher(), IMAGES, RECIPE, **options)


def test_what_a_detector_answers_is_matched_in_front_of_what_it_keeps() -> None:
    torch.manual_seed(0)
    teacher, model = Kept(), Kept()
    found = cs.recover(model, teacher, IMAGES, RECIPE, match=("head",))
    assert found.final < found.start


def test_one_image_is_too_few() -> None:
    with pytest.raises(ConvsmithError, match="recover: got 1 image; give at least two"):
        cs.recover(Counts(), Counts(), IMAGES[:1], RECIPE)


@pytest.mark.long
def test_torchvisions_detector_is_recovered() -> None:
    torch.manual_seed(0)
    build = torchvision.models.detection.ssdlite320_mobilenet_v3_large
    teacher = build(weights=None, weights_backbone=None, num_classes=4).eval()
    model, images = deepcopy(teacher), torch.rand(10, 3, 96, 96)
    for parameter in model.backbone.parameters():
        parameter.data += 0.05 * parameter.abs().mean() * torch.randn_like(parameter)
    recipe = Recipe(epochs=1, batch_size=4, lr=0.01, device="cpu")
    found = cs.recover(model, teacher, images, recipe, match=("backbone", "head"))
    assert found.final < found.start


# --- losses and metrics of one's own ---


def boxes_loss(outputs: dict[str, list[Tensor]], targets: dict[str, Tensor]) -> Tensor:
    return sum((boxes.mean((1, 2, 3, 4)) - targets["mean"]).square().mean() for boxes in outputs["boxes"])  # type: ignore[return-value]


def closeness(outputs: dict[str, list[Tensor]], targets: dict[str, Tensor]) -> float:
    return -float(boxes_loss(outputs, targets))


def batches(count: int) -> list[tuple[Tensor, dict[str, Tensor]]]:
    return [(part, {"mean": part.mean((1, 2, 3))}) for part in torch.split(IMAGES[:count], 8)]


def test_a_metric_of_ones_own_is_the_mean_over_images() -> None:
    torch.manual_seed(0)
    net = Yolo().eval()
    found = cs.evaluate(net, batches(20), metric=closeness, device="cpu")
    with torch.no_grad():
        whole = closeness(net(IMAGES[:20]), {"mean": IMAGES[:20].mean((1, 2, 3))})
    assert found == Measured(pytest.approx(whole, rel=1e-5), 20)


@pytest.mark.parametrize("metric", [None, closeness])
def test_a_loss_of_ones_own_trains(metric: object) -> None:
    torch.manual_seed(0)
    net = Yolo()
    found = cs.train(net, (batches(32), batches(40)[4:]), Recipe(epochs=4, lr=0.05, keep_best=True, device="cpu"),
                     loss=boxes_loss, metric=metric)  # type: ignore[call-overload]  # fmt: skip
    assert isinstance(found, Outcome)
    values = (found.start, *found.judged)
    assert found.final == (min if metric is None else max)(values) == values[found.kept]
    assert abs(found.final) < 0.5 * abs(found.start)
    again = cs.evaluate(net, batches(40)[4:], metric=closeness, device="cpu").value
    assert abs(again) == pytest.approx(abs(found.final), rel=1e-4)


def test_a_loss_of_ones_own_on_a_data_set() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    data = cs.load_data("digits")

    def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs.argmax(1) == labels).float().mean()

    found = cs.train(net, data, Recipe(epochs=1, lr=0.05, device="cpu"), loss=F.cross_entropy, metric=accuracy)
    assert found.final == pytest.approx(cs.evaluate(net, data.test, device="cpu").top1)


WRONG = [
    (lambda: cs.train(Yolo(), (batches(8), batches(8)), loss=boxes_loss, teacher=Yolo()), "goes with no out, teacher"),  # type: ignore[call-overload]
    (lambda: cs.train(Yolo(), (batches(8), batches(8))), "need a loss; give loss="),  # type: ignore[call-overload]
    (lambda: cs.train(Yolo(), ([], batches(8)), loss=boxes_loss), "gave no batch; give at least one"),
    (lambda: cs.evaluate(Yolo(), [], metric=closeness), "gave no batch to judge"),
    (lambda: cs.evaluate(Yolo(), batches(8)), r"evaluate: got a list; give a split"),  # type: ignore[call-overload]
]


@pytest.mark.parametrize(("call", "sentence"), WRONG)
def test_what_does_not_go_together_is_told(call: object, sentence: str) -> None:
    with pytest.raises(ConvsmithError, match=sentence):
        call()  # type: ignore[operator]
