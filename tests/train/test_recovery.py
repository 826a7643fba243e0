"""Recovery: norms anew without labels, a teacher alone, and responses of layers."""

from copy import deepcopy

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.train import Recipe, reestimate_norms, train
from convsmith.train.responses import Responses

DATA = cs.load_data("digits")


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def test_norms_take_the_statistics_of_what_they_see() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight.mul_(3)
        model[1].running_mean.fill_(5.0)
    found = reestimate_norms(model, DATA, images=200, batch_size=50, teacher=_well_normed(model))
    assert found.kept
    assert found.after < found.before
    images = next(DATA.train.shuffled(240, seed=0, epoch=0))[0][40:]
    seen = model[0](images)
    torch.testing.assert_close(model[1].running_mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert model[1].momentum == 0.1


def _well_normed(model: nn.Sequential) -> nn.Sequential:
    teacher = deepcopy(model).train()
    teacher[1].momentum = None
    teacher[1].reset_running_stats()
    teacher(next(DATA.train.batches(1000))[0])
    return teacher.eval()


def test_statistics_that_make_it_worse_are_not_kept() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    teacher = deepcopy(model)  # the net is its own teacher: nothing can be better than what it has
    found = reestimate_norms(model.train(), DATA, images=50, teacher=teacher)
    assert not found.kept
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_a_teacher_alone_needs_no_labels() -> None:
    teacher, recipe = net(1), Recipe(epochs=1, batch_size=64, teacher_weight=1.0, seed=3, device="cpu")
    students = [net(2), net(2)]
    wrong = deepcopy(DATA)
    object.__setattr__(wrong.train, "labels", torch.zeros_like(wrong.train.labels))
    for student, data in zip(students, (DATA, wrong), strict=True):
        train(student, data, recipe, teacher=teacher)
    for one, other in zip(*(student.state_dict().values() for student in students), strict=True):
        assert torch.equal(one, other)


def test_responses_come_closer_when_they_are_matched() -> None:
    teacher = net(1).eval()
    distances = []
    for responses in ((), ("3",)):
        student = net(2)
        train(student, DATA, Recipe(epochs=1, batch_size=64, device="cpu"), teacher=teacher, responses=responses)
        watch = Responses(student.eval(), teacher, ("3",))
        with watch.watched(), torch.no_grad():
            student(torch.ones(2, 3, 32, 32))
            images = next(DATA.test.batches(64))[0]
            student(images), teacher(images)
        distances.append(watch.distance().item())
        assert not student[3]._forward_hooks
    assert distances[1] < 0.5 * distances[0]


def test_what_cannot_be_matched_is_told() -> None:
    with pytest.raises(ConvsmithError, match="a teacher's; give one"):
        train(net(), DATA, Recipe(epochs=1, device="cpu"), responses=("3",))
    with pytest.raises(ConvsmithError, match="nine: student and teacher must both have this layer"):
        train(net(), DATA, Recipe(epochs=1, device="cpu"), teacher=net(), responses=("nine",))
