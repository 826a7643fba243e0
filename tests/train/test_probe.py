"""Recovery that cannot ruin: a learning rate that is found, the best epoch kept, and none worse than the start."""

import json
from copy import deepcopy
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner, Result

from convsmith.cli.app import app
from convsmith.data import PLAIN, Data, Normalize, TensorSplit
from convsmith.errors import ConvsmithError
from convsmith.optimize import read_evaluations
from convsmith.report import falls, read_net
from convsmith.train import Recipe, evaluate, recovery_for, train
from convsmith.train.probe import Held, find_rate

USUAL = 0.1
CURVES = {  # of the held-out loss after a try, as a function of log10(rate / usual), and the rate that suits
    "a valley": (lambda t: 1 + (t + 1) ** 2, 1.0e-2),
    "a plateau": (lambda t: 1.0 if t > -2 else 2.0, 1.0e-1),
    "nearly as good and larger": (lambda t: {-1.0: 1.0, -0.5: 1.05}.get(t, 1.9), 3.16e-2),
    "not nearly as good": (lambda t: {-1.0: 1.0, -0.5: 1.2}.get(t, 1.9), 1.0e-2),
    "the larger, the worse": (lambda t: 3.0 + t, 1.0e-4),
    "never better": (lambda t: 2.0, 1.0e-4),
    "no number from the first": (lambda t: nan, 1.0e-4),
    "no number beyond a rate": (lambda t: 1.0 - t / 100 if t < -1.2 else inf, 3.16e-3),
}


@pytest.mark.parametrize(("curve", "rate"), CURVES.values(), ids=CURVES)
def test_the_rate_that_suits_is_found(curve, rate: float) -> None:
    def loss_after(tried: float) -> float:
        return curve(round(2 * torch.tensor(tried / USUAL).log10().item()) / 2)

    assert find_rate(USUAL, 2.0, loss_after).rate == pytest.approx(rate, rel=1e-2)


def test_rates_that_ruin_are_not_tried_further() -> None:
    tried: list[float] = []
    find_rate(USUAL, 1.0, lambda rate: tried.append(rate) or (inf if rate > 1e-3 else 0.9))
    assert tried == pytest.approx([1e-4, 3.16e-4, 1e-3, 3.16e-3])


@pytest.mark.parametrize(
    ("images", "batch", "epochs", "processes", "size", "judges", "steps"),
    [
        (150, 32, 2, 1, 30, 1, 8), (50_000, 128, 15, 1, 128, 3, 60), (1437, 32, 2, 2, 32, 8, 8),
        (10, 64, 3, 1, 2, 1, 3), (5_000, 32, 2, 4, 32, 15, 15),
    ],
)  # fmt: skip
def test_images_are_parted_by_their_number(images, batch, epochs, processes, size, judges, steps) -> None:
    assert Held.of(images, batch, epochs, processes) == Held(size, judges, steps)


@pytest.mark.parametrize(("images", "processes"), [(9, 1), (19, 2), (0, 1)])
def test_too_few_images_are_not_parted(images: int, processes: int) -> None:
    assert Held.of(images, 32, 2, processes) is None


def test_no_image_that_judges_is_trained_on() -> None:
    data = stripes(40, 9)
    held = Held.of(40, 8, 2, 1)
    assert held is not None
    judges = torch.cat([images for images, _ in held.judging(data, 3, (0, 1), "cpu")])
    trained = [images for images, _ in held.training(data, 3, (0, 1), "cpu", PLAIN)]
    assert len(trained) == held.steps
    apart = (judges[:, None] - torch.cat(trained)[None]).flatten(2).abs().amax(2)
    assert apart.min() > 0


# The small-data case: a net that is good at the start, and far too few images for the usual rate.


def stripes(train_images: int, test_images: int, seed: int = 0, noise: float = 60.0) -> Data:
    """Noisy stripes in one of three directions, 3x12x12."""

    def split(n: int, seed: int) -> TensorSplit:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % 3
        y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
        waves = torch.stack([(1.5 * each).sin() for each in (x, y, (x + y) / 2**0.5)])[labels]
        images = 128 + 40 * waves[:, None] + noise * torch.randn(n, 3, 12, 12, generator=generator)
        return TensorSplit(images.clamp(0, 255).byte(), labels, 3, Normalize())

    parts = split(train_images, seed), split(test_images, seed + 10_000)
    return Data("stripes", ("across", "down", "tilted"), (3, 12, 12), Normalize().mean, Normalize().std, PLAIN, *parts)


def make() -> nn.Sequential:
    """A small net with norms, for 3x12x12 and three classes."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def good() -> nn.Sequential:
    """Trained on many images of the kind."""
    torch.manual_seed(0)
    net = make()
    train(net, stripes(3000, 300, seed=1), Recipe(epochs=2, batch_size=50, lr=0.1, device="cpu"))
    return net


def test_the_usual_rate_would_ruin_it_and_the_found_one_does_not(good: nn.Sequential) -> None:
    data, found = stripes(150, 60), []
    start = evaluate(good, data.test)
    assert start.top1 > 0.8
    usual, safe = deepcopy(good), deepcopy(good)
    ruined = train(usual, data, Recipe(epochs=2, batch_size=32, lr=10.0, device="cpu"))
    assert ruined.final.top1 < start.top1 - 0.2
    history = train(safe, data, recovery_for(data, device="cpu"), told=found.append)
    assert not history.start.beats(history.final)
    assert history.final.top1 == evaluate(safe, data.test).top1
    assert history.lr == found[0].rate < 0.03
    losses = dict(found[0].tried)
    assert list(losses) == sorted(losses)


@pytest.mark.parametrize("lr", [1e-4, 3.0, 30.0])
@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_best_epoch_is_kept_and_never_one_worse_than_the_start(good, lr: float, ema: float | None) -> None:
    data, net = stripes(150, 60), deepcopy(good)
    history = train(net, data, Recipe(epochs=3, batch_size=32, lr=lr, ema=ema, keep_best=True, device="cpu"))
    judged = [history.start, *(epoch.evaluation(60) for epoch in history.epochs)]
    now = evaluate(net, data.test)
    assert history.final == judged[history.kept]
    assert (now.top1, now.loss) == pytest.approx((history.final.top1, history.final.loss))
    assert not any(each.beats(history.final) for each in judged)
    if history.kept == 0:
        assert all(torch.equal(tensor, good.state_dict()[name]) for name, tensor in net.state_dict().items())


def test_without_asking_the_last_epoch_is_kept(good: nn.Sequential) -> None:
    data, net = stripes(150, 60), deepcopy(good)
    history = train(net, data, Recipe(epochs=2, batch_size=32, lr=3.0, device="cpu"))
    assert (history.kept, history.start) == (None, None)
    assert history.final == history.epochs[-1].evaluation(60)
    assert history.final.top1 == evaluate(net, data.test).top1


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("lr", [None, 3.0])
def test_a_stopped_recovery_goes_on_to_the_same_weights(good, tmp_path: Path, lr: float | None, stop: int) -> None:
    data, recipe = stripes(150, 60), recovery_for(stripes(150, 60), epochs=4, lr=lr, device="cpu")
    straight, resumed, found = deepcopy(good), deepcopy(good), []

    def halt(epoch) -> None:
        if epoch.epoch == stop:
            raise KeyboardInterrupt

    wanted = train(straight, data, recipe)
    with pytest.raises(KeyboardInterrupt):
        train(deepcopy(good), data, recipe, out=tmp_path, progress=halt)
    history = train(resumed, data, recipe, out=tmp_path, told=found.append)
    assert not found, "the rate is that of the first call"
    assert (history.kept, history.final, history.lr, history.start) == (
        wanted.kept, wanted.final, wanted.lr, wanted.start,
    )  # fmt: skip
    assert all(torch.equal(tensor, straight.state_dict()[name]) for name, tensor in resumed.state_dict().items())
    again = deepcopy(good)
    assert train(again, data, recipe, out=tmp_path) == history
    assert all(torch.equal(tensor, straight.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_a_probe_leaves_no_trace(good: nn.Sequential) -> None:
    """A run whose rate is found is the run that is given that rate."""
    data = stripes(150, 60)
    found, given = deepcopy(good), deepcopy(good)
    recipe = recovery_for(data, device="cpu", keep_best=False)
    history = train(found, data, recipe)
    train(given, data, replace(recipe, lr=history.lr))
    assert all(torch.equal(tensor, given.state_dict()[name]) for name, tensor in found.state_dict().items())


# The same by the command line, on folders of images.


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def small(good: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Options that name the net, its weights, and 150 + 60 images in folders."""
    root, data = tmp_path_factory.mktemp("small"), stripes(150, 60)
    for part, split in (("train", data.train), ("test", data.test)):
        for number, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            path = root / part / data.classes[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    save_file(good.state_dict(), root / "w.safetensors")
    weights = ("--weights", root / "w.safetensors", "--input", "3,12,12")
    return "test_probe:make", *weights, "--data", f"imagefolder:{root}", "--device", "cpu"


def test_optimize_recovers_or_leaves_it(small, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fast = ("--runtimes", "eager", "--format", "onnx", "--block", "dw-pw:r=2")
    told = run("optimize", *small, *fast, "--epochs", 2, "--out", out)
    assert told.exit_code == 0, told.output
    assert "learning rate" in told.stderr
    base, new = (read_net(out / name) for name in ("baseline", "optimized"))
    start, end = new.evaluations[0], new.evaluations[-1]
    assert end.top1 >= start.top1
    fell = end.top1 < base.evaluations[-1].top1
    page = (out / "report.html").read_text()
    assert ("ACCURACY FELL" in " ".join(told.stderr.split())) == ("ACCURACY FELL" in page) == fell


def test_a_fall_is_said_in_the_terminal_and_on_the_page(small, tmp_path: Path) -> None:
    """Nothing is trained, so what the decomposition takes away stays away."""
    out = tmp_path / "run"
    fast = ("--runtimes", "eager", "--format", "onnx", "--block", "cp:r=1", "--epochs", 0, "--lr", 0.01)
    told = run("optimize", *small, *fast, "--out", out, "-q")
    assert told.exit_code == 0, told.output
    before, after = (read_evaluations(out / name)[-1].top1 for name in ("baseline", "optimized"))
    assert after < before, "one kernel a layer is not enough for these stripes"
    points = f"ACCURACY FELL: top-1 {100 * before:.2f} % -> {100 * after:.2f} % ({100 * (after - before):+.2f} points)"
    assert points in " ".join(told.stderr.split())
    assert points in (out / "report.html").read_text().replace("&gt;", ">")
    assert run("report", out, "-q").stderr.count("ACCURACY FELL") == 1
    changed = run("optimize", *small, *fast[:-1], 0.02, "--out", out)
    assert "holds a run with lr = 0.01, not 0.02" in " ".join(changed.stderr.split())


def test_train_with_a_rate_that_ruins_leaves_the_start(small, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = run("train", *small, "--lr", 30, "--epochs", 2, "--out", out, "--json", "-")
    assert told.exit_code == 0, told.output
    record = json.loads(told.stdout)
    assert (record["kept"], record["lr"], record["final"]) == (0, 30, record["start"])
    assert "TRAINING DID NOT HELP" in told.stderr
    assert [each.label for each in read_evaluations(out)] == ["original", "recovered (not kept)"]
    start, kept = load_file(small[2]), load_file(out / "model.safetensors")
    assert all(torch.equal(start[name], kept[name]) for name in start)
    assert "TRAINING DID NOT HELP" in " ".join(falls(read_net(out)))


def test_a_rate_must_be_above_zero() -> None:
    with pytest.raises(ConvsmithError, match="lr is 0; it must be above 0"):
        Recipe(lr=0)
