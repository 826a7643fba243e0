import json
import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from convsmith.data import PLAIN, Data, Normalize, TensorSplit, load_data
from convsmith.data.images import decode, unchanged
from convsmith.data.parquet import open_parquet
from convsmith.errors import ConvsmithError
from convsmith.train import (
    SCHEDULES,
    Epoch,
    Evaluation,
    Recipe,
    digest,
    evaluate,
    fastest_precision,
    pick_device,
    recipe_for,
    train,
)
from convsmith.train.losses import distance
from convsmith.zoo import build

SHARED = Path(__file__).parents[3] / "shared/data"


def net(seed=0, width=8, inputs=3, classes=10):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, classes),
    )  # fmt: skip


def linear(classes=10):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, classes))


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture
def noise():
    """Ten train and seven test images of noise, 3x4x4, in ten classes."""
    generator = torch.Generator().manual_seed(0)

    def split(n):
        images = torch.randint(256, (n, 3, 4, 4), generator=generator, dtype=torch.uint8)
        return TensorSplit(images, torch.randint(10, (n,), generator=generator), 10, Normalize())

    names = tuple("abcdefghij")
    return Data("noise", names, (3, 4, 4), Normalize().mean, Normalize().std, PLAIN, split(10), split(7))


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model, other):
    a, b = model.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


QUICK = Recipe(epochs=3, batch_size=64, lr=0.1)


# Evaluation.


@pytest.mark.parametrize("batch_size", [1, 3, 7, 256])
def test_evaluation_against_numpy(noise, batch_size):
    model = linear()
    images, labels = (tensor.numpy() for tensor in next(noise.test.batches(7)))
    logits = images.reshape(7, -1) @ model[1].weight.detach().numpy().T + model[1].bias.detach().numpy()
    ranks = (logits > logits[np.arange(7), labels, None]).sum(1)
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(7), labels]
    got = evaluate(model, noise.test, batch_size=batch_size)
    assert (got.top1, got.top5, got.images) == ((ranks < 1).mean(), (ranks < 5).mean(), 7)
    assert got.loss == pytest.approx(loss.mean(), rel=1e-5)


def test_top_five_counts_five(noise):
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 10)).requires_grad_(False)
    model[1].weight.zero_()
    model[1].bias.copy_(torch.arange(10))  # class 9 is always first, class 5 fifth
    split = TensorSplit(noise.train.images, torch.arange(10), 10, Normalize())
    got = evaluate(model, split)
    assert (got.top1, got.top5) == (0.1, 0.5)


def test_evaluation_with_few_classes_counts_all_in_the_top_five(noise):
    split = replace(noise.test, labels=noise.test.labels % 3, classes=3)
    assert evaluate(linear(3), split).top5 == 1


def test_evaluation_leaves_the_model_as_it_was(noise):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 10))
    model = model.to(memory_format=torch.channels_last).train()
    model[1].eval()
    before = weights(model)
    evaluate(model, noise.test)
    assert [module.training for module in model] == [True, False, True, True]
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# Schedules and recipes.


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_reach_one_and_end_at_zero(name):
    rates = [SCHEDULES[name](t / 1000) for t in range(1001)]
    assert max(rates) == pytest.approx(1)
    assert min(rates[:-1]) > 0
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert all(abs(a - b) < 0.01 for a, b in pairwise(rates))  # no jumps
    top = rates.index(max(rates))
    assert rates == sorted(rates[:top]) + sorted(rates[top:], reverse=True)


RECIPE_REFUSALS = {
    "epochs": -1, "batch_size": 0, "lr": 0.0, "momentum": 1.0, "weight_decay": -1e-4, "label_smoothing": 1.0,
    "ema": 1.0, "teacher_weight": 1.1, "temperature": 0.0, "precision": "fp16",
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), RECIPE_REFUSALS.items())
def test_recipe_refusals(field, value):
    with pytest.raises(ConvsmithError, match=f"Recipe: {field} is {value!r}; it must be"):
        Recipe(**{field: value})


def test_recipe_refuses_what_does_not_go_together():
    with pytest.raises(ConvsmithError, match="nesterov is True; it must be False without momentum"):
        Recipe(momentum=0.0)
    with pytest.raises(ConvsmithError, match="Unknown schedule 'cosin'; did you mean cosine"):
        Recipe(schedule="cosin")


def test_recipe_for_small_and_large_sets(digits):
    small = recipe_for(digits, device="cpu", epochs=2)
    large = recipe_for(replace(digits, train=replace(digits.train, labels=torch.zeros(50_000))), device="cpu")
    assert (small.epochs, small.batch_size, large.batch_size) == (2, 32, 128)
    assert small.precision == large.precision == fastest_precision(torch.device("cpu"))


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:99"])
def test_devices_that_are_not_there(name):
    with pytest.raises(ConvsmithError, match=f"device: '{name}'"):
        pick_device(name)


# What a step does.


def test_one_step_by_hand(noise):
    model, recipe = linear(), Recipe(epochs=1, batch_size=10, lr=0.5, weight_decay=0.1, label_smoothing=0.2)
    images, labels = next(noise.train.shuffled(10, seed=0, epoch=0))
    inputs = images.reshape(10, -1).numpy()
    weight, bias = (parameter.detach().numpy().copy() for parameter in (model[1].weight, model[1].bias))
    logits = inputs @ weight.T + bias
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = 0.8 * np.eye(10)[labels] + 0.2 / 10
    error = (shares - wanted) / 10
    loss = -(wanted * np.log(shares)).sum(1).mean()
    history = train(model, noise, recipe)
    # The first Nesterov step is 1 + momentum gradients long; the bias has no weight decay.
    step = 0.5 / 25 * 1.9
    assert np.allclose(model[1].weight.detach(), weight - step * (error.T @ inputs + 0.1 * weight), atol=1e-6)
    assert np.allclose(model[1].bias.detach(), bias - step * error.sum(0), atol=1e-6)
    assert history.epochs[0].train_loss == pytest.approx(loss, rel=1e-5)
    assert history.epochs[0].train_top1 == (logits.argmax(1) == labels.numpy()).mean()
    assert history.epochs[0].lr == 0.5 / 25


def test_an_average_of_the_weights_takes_their_place(noise):
    recipe, seen, model = Recipe(epochs=2, batch_size=10, lr=0.5, ema=0.75), [], linear()
    history = train(model, noise, recipe, progress=lambda epoch: seen.append(weights(model)))
    for name, tensor in model.state_dict().items():  # one step an epoch; the average starts at the first
        assert torch.allclose(tensor, 0.75 * seen[0][name] + 0.25 * seen[1][name])
    assert evaluate(model, noise.test) == history.final


def test_frozen_parameters_stay(noise):
    model = linear()
    model[1].bias.requires_grad_(False)
    before = weights(model)
    train(model, noise, Recipe(epochs=1, batch_size=5))
    assert torch.equal(model[1].bias, before["1.bias"])
    assert not torch.equal(model[1].weight, before["1.weight"])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distance_against_torch(temperature):
    student, teacher = torch.randn(2, 5, 10, generator=torch.Generator().manual_seed(0))
    p, q = ((outputs / temperature).softmax(1) for outputs in (teacher, student))
    wanted = temperature**2 * (p * (p.log() - q.log())).sum(1).mean()
    assert distance(student, teacher, temperature) == pytest.approx(wanted.item(), rel=1e-5)


def test_a_teacher_alone_is_imitated(noise):
    teacher, student = linear(), nn.Sequential(nn.Flatten(), nn.Linear(48, 10))
    before = weights(teacher)
    images, _ = next(noise.train.batches(10))
    apart = distance(student(images), teacher(images), 1.0)
    recipe = Recipe(epochs=20, batch_size=10, lr=0.1, teacher_weight=1.0, weight_decay=0.0, augment=False)
    history = train(student, noise, recipe, teacher=teacher)
    assert distance(student(images), teacher(images), 1.0) < 0.1 * apart
    assert history.epochs[-1].train_loss < 0.1 * history.epochs[0].train_loss
    assert teacher.training
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


# Whole runs.


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_small_net_learns_the_digits(digits, precision):
    model = net()
    before = evaluate(model, digits.test)
    history = train(model, digits, replace(QUICK, precision=precision))
    assert before.top1 < 0.3
    assert history.final.top1 > 0.6
    assert history.final == evaluate(model, digits.test)
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3]
    assert history.epochs[-1].train_loss < history.epochs[0].train_loss < log(10)


def test_a_run_leaves_only_the_weights_behind(noise):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 10)).eval()
    attributes, generator = set(vars(model)), torch.get_rng_state()
    train(model, noise, Recipe(epochs=1, batch_size=5))
    assert set(vars(model)) == attributes
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(module.training for module in model.modules())
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_no_epochs_is_an_evaluation(noise, tmp_path):
    model = linear()
    before = weights(model)
    history = train(model, noise, Recipe(epochs=0), out=tmp_path / "run")
    assert history.epochs == ()
    assert history.final == evaluate(model, noise.test)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def stop_after(number):
    def stop(epoch):
        if epoch.epoch == number:
            raise KeyboardInterrupt

    return stop


RESUMED = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "with an average": {"ema": 0.9},
    "plain SGD": {"momentum": 0.0, "nesterov": False, "schedule": "cosine", "channels_last": False},
}


@pytest.mark.parametrize("changes", RESUMED.values(), ids=RESUMED)
@pytest.mark.parametrize("stops", [(1,), (1, 2)])
def test_a_resumed_run_is_the_uninterrupted_one(digits, tmp_path, changes, stops):
    recipe, straight, model = replace(QUICK, **changes), net(), net()
    wanted = train(straight, digits, recipe, out=tmp_path / "straight")
    for number in stops:
        with pytest.raises(KeyboardInterrupt):
            train(net(), digits, recipe, out=tmp_path / "halting", progress=stop_after(number))
    history = train(model, digits, recipe, out=tmp_path / "halting")
    assert same(model, straight)
    assert history.final == wanted.final

    def lines(name):
        text = (tmp_path / name / "history.jsonl").read_text()
        return [json.loads(line) | {"seconds": 0} for line in text.splitlines()]

    assert lines("halting") == lines("straight") == [asdict(epoch) | {"seconds": 0} for epoch in wanted.epochs]


def test_resuming_restores_more_than_the_weights(digits, tmp_path):
    """The law above can fail: without the momentum, the weights come out different."""
    straight, model = net(), net()
    train(straight, digits, QUICK)
    with pytest.raises(KeyboardInterrupt):
        train(net(), digits, QUICK, out=tmp_path, progress=stop_after(2))

    file = tmp_path / "checkpoint/epoch-2.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if not name.startswith("momentum.")}
    save_file(kept, file)
    train(model, digits, QUICK, out=tmp_path)
    assert not same(model, straight)


class Halting(TensorSplit):
    """Breaks off in the second epoch, after some batches."""

    def shuffled(self, size, *, epoch, **settings):
        for number, batch in enumerate(super().shuffled(size, epoch=epoch, **settings)):
            if (epoch, number) == (1, 5):
                raise KeyboardInterrupt
            yield batch


def test_an_interruption_within_an_epoch_keeps_the_one_before(digits, tmp_path):
    halting = replace(digits, train=like(Halting, digits.train))
    straight, model = net(), net()
    train(straight, digits, QUICK)
    with pytest.raises(KeyboardInterrupt):
        train(net(), halting, QUICK, out=tmp_path)
    names = sorted(path.name for path in tmp_path.rglob("*"))
    assert names == ["checkpoint", "epoch-1.safetensors", "history.jsonl", "state.json"]
    train(model, digits, QUICK, out=tmp_path)
    assert same(model, straight)


def test_a_finished_run_comes_back_at_once(digits, tmp_path):
    first, second, calls = net(), net(), []
    wanted = train(first, digits, QUICK, out=tmp_path)
    assert train(second, digits, QUICK, out=tmp_path, progress=calls.append) == wanted
    assert calls == []
    assert same(first, second)


def test_resuming_mends_a_history_that_an_interruption_left_behind(digits, tmp_path):
    train(net(), digits, QUICK, out=tmp_path)
    written = (tmp_path / "history.jsonl").read_text()
    (tmp_path / "history.jsonl").write_text(written.splitlines()[0])
    train(net(), digits, QUICK, out=tmp_path)
    assert (tmp_path / "history.jsonl").read_text() == written


def test_a_run_knows_the_weights_it_began_with(digits, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(net(), digits, QUICK, out=tmp_path, progress=stop_after(1), start=digest(net()))
    assert digest(net()) == digest(net()) != digest(net(1))
    with pytest.raises(ConvsmithError, match="starting weights = "):
        train(net(1), digits, QUICK, out=tmp_path, start=digest(net(1)))
    assert len(train(net(), digits, QUICK, out=tmp_path, start=digest(net())).epochs) == 3


def test_starting_over(digits, tmp_path):
    train(net(), digits, QUICK, out=tmp_path)
    calls = []
    train(net(), digits, replace(QUICK, epochs=1), out=tmp_path, resume=False, progress=calls.append)
    assert len(calls) == len((tmp_path / "history.jsonl").read_text().splitlines()) == 1


def test_starting_over_forgets_the_old_run_at_once(digits, tmp_path):
    train(net(), digits, QUICK, out=tmp_path)
    halting = replace(digits, train=replace(digits.train, labels=torch.full_like(digits.train.labels, 99)))
    with pytest.raises(IndexError):
        train(net(), halting, QUICK, out=tmp_path, resume=False)
    calls = []
    train(net(), digits, QUICK, out=tmp_path, progress=calls.append)
    assert len(calls) == 3


def edit_state(out, **changes):
    file = out / "checkpoint/state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


RESUME_REFUSALS = {
    "another recipe": ({"recipe": replace(QUICK, lr=0.2)}, None, r"a run with lr = 0.1, not 0.2; repeat that"),
    "another net": ({"model": net(width=4)}, None, r"another net \(0.bias is \(8,\) there and \(4,\) here\)"),
    "a larger net": ({"model": nn.Sequential(*net(), nn.Linear(10, 10))}, None, "10.bias is missing there"),
    "a teacher": ({"teacher": net(1)}, None, "teacher = False, not True"),
    "responses": (
        {"teacher": net(1), "responses": ["0"]}, lambda out: edit_state(out, teacher=True), "responses = '', not '0'",
    ),
    "another start": ({"start": "b"}, lambda out: edit_state(out, start="a"), "starting weights = 'a', not 'b'"),
    "another set": ({}, lambda out: edit_state(out, data="cifar10"), "data = 'cifar10', not 'digits'"),
    "a damaged record": ({}, lambda out: edit_state(out, epochs=[{}]), "not a checkpoint of this version"),
    "no tensors": ({}, lambda out: (out / "checkpoint/epoch-1.safetensors").unlink(), "tensors: not readable"),
    "damaged tensors": (
        {}, lambda out: (out / "checkpoint/epoch-1.safetensors").write_bytes(b"1234567890"), "not readable",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "damage", "sentence"), RESUME_REFUSALS.values(), ids=RESUME_REFUSALS)
def test_resume_refusals(digits, tmp_path, call, damage, sentence):
    with pytest.raises(KeyboardInterrupt):
        train(net(), digits, QUICK, out=tmp_path, progress=stop_after(1))
    if damage:
        damage(tmp_path)
    call = {"model": net(), "recipe": QUICK} | call
    with pytest.raises(ConvsmithError, match=sentence) as refusal:
        train(data=digits, out=tmp_path, **call)
    assert "\n" not in str(refusal.value)


def test_a_run_may_change_its_device(digits, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(net(), digits, QUICK, out=tmp_path, progress=stop_after(2))
    assert len(train(net(), digits, replace(QUICK, device="cpu"), out=tmp_path).epochs) == 3


# Refusals.


@pytest.mark.parametrize("average", [None, 0.5])
def test_divergence_is_told(digits, tmp_path, average):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 50), nn.Linear(50, 50), nn.Linear(50, 10))
    with pytest.raises(
        ConvsmithError, match=r"loss became (nan|inf) in epoch \d at learning rate .*lower lr"
    ) as refusal:
        train(model, digits, replace(QUICK, lr=1e9, ema=average), out=tmp_path)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.rglob("*.part"))


@dataclass(frozen=True, eq=False)
class Counting(TensorSplit):
    """Notes every batch it gives."""

    given: list[int] = field(default_factory=list)

    def shuffled(self, size, **settings):
        for batch in super().shuffled(size, **settings):
            self.given.append(size)
            yield batch


def like(kind, split):
    return kind(split.images, split.labels, split.classes, split.normalize)


def test_divergence_is_noticed_within_an_epoch(digits):
    counting = like(Counting, digits.train)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 50), nn.Linear(50, 50), nn.Linear(50, 10))
    with pytest.raises(ConvsmithError, match="in epoch 1"):
        train(model, replace(digits, train=counting), replace(QUICK, batch_size=8, lr=1e9))
    assert len(counting.given) < 60 < len(digits.train) // 8


FIT_REFUSALS = {
    "channels": (net(inputs=1), r"cannot take images of 3x32x32 \(.*channels"),
    "classes": (net(classes=7), r"an output of shape \(1, 7\), the data has 10 classes"),
    "a map": (nn.Conv2d(3, 10, 1), r"an output of shape \(1, 10, 32, 32\)"),
}


@pytest.mark.parametrize(("model", "sentence"), FIT_REFUSALS.values(), ids=FIT_REFUSALS)
@pytest.mark.parametrize("verb", [train, lambda model, data: evaluate(model, data.test)], ids=["train", "evaluate"])
def test_nets_that_do_not_fit(digits, model, sentence, verb):
    with pytest.raises(ConvsmithError, match=sentence) as refusal:
        verb(deepcopy(model), digits)
    assert "\n" not in str(refusal.value)


class Empty(TensorSplit):
    """Gives no batch, as a streamed reader may that has less than one."""

    def shuffled(self, size, **settings):
        return iter(())


def test_no_batches(noise):
    with pytest.raises(ConvsmithError, match="no batch of 64 images; lower the batch size"):
        train(linear(), replace(noise, train=like(Empty, noise.train)), QUICK)


def test_nothing_to_train(noise):
    with pytest.raises(ConvsmithError, match="no parameters that can be trained"):
        train(linear().requires_grad_(False), noise, QUICK)


def test_records_are_frozen():
    for record in (QUICK, Evaluation(1.0, 1.0, 0.0, 1), Epoch(1, 0.1, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0)):
        with pytest.raises(AttributeError):
            setattr(record, fields(record)[0].name, 0)


TWO_PROCESSES = """
import sys
from pathlib import Path
import torch
from torch import nn
from convsmith.data import load_data
from convsmith.train import Recipe, train

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
train(net, load_data("digits"), Recipe(epochs=2, batch_size=64, device="cpu"), out=Path(sys.argv[1]))
"""


@pytest.mark.long
def test_two_processes_train_as_one(tmp_path):
    (tmp_path / "run.py").write_text(TWO_PROCESSES)
    for processes in ("1", "2"):
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
        subprocess.run(
            [sys.executable, *launch, str(tmp_path / "run.py"), str(tmp_path / processes)],
            env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
            check=True,
        )
    one, two = (load_file(tmp_path / name / "checkpoint/epoch-2.safetensors") for name in "12")
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


@pytest.mark.long
@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no trained weights beside the checkout")
def test_a_published_net_has_its_accuracy():
    archive = open_parquet(SHARED / "cifar10")
    split = decode(archive.test, archive.shape, 10, unchanged, Normalize())
    model = build("resnet20")
    model.load_state_dict(load_file(SHARED / "weights/resnet20-cifar10.safetensors"))
    assert evaluate(model, split).top1 == pytest.approx(
        0.8103, abs=5e-4
    )  # on these JPEG copies; 0.9173 on the originals
