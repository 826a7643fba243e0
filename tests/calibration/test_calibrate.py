"""Calibration: moments against unfolded patches, in order against runs of the changed net, files, and two processes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, multiprocessing, nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.algebra.second_moments import Moments, Rows, Statistics
from convsmith.calibration.calibrate import Sampler, calibrate, sliding, take_images
from convsmith.calibration.in_order import Calibration
from convsmith.calibration.pictures import Bytes
from convsmith.calibration.statistics_file import load_statistics, save_statistics
from convsmith.errors import ConvsmithError
from convsmith.graph.capture import capture
from convsmith.kernels.spec import ConvSpec

IMAGES = torch.rand(24, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(8, 4, (1, 3), padding="same", bias=False), nn.Flatten(), nn.Linear(4 * 36, 5),
    ).eval()  # fmt: skip


def by_unfold(conv: nn.Conv2d, x: Tensor, y: Tensor) -> Statistics:
    spec = ConvSpec.of(conv)
    patches = F.unfold(x, spec.kernel, spec.dilation, spec.padding, spec.stride)
    moments = Moments(patches.shape[1], y.shape[1])
    moments.add(patches.transpose(1, 2).flatten(0, 1), y.flatten(2).transpose(1, 2).flatten(0, 1))
    return moments.statistics()


def same(a: Statistics, b: Statistics) -> None:
    assert a.samples == b.samples
    for name in ("gram", "cross", "energy", "mean_x", "mean_y"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-6)


# Of two images every position is drawn.
@pytest.mark.parametrize("batch", [2, 1])
def test_all_positions_of_all_layers_in_one_pass(batch: int) -> None:
    model = net()
    found = calibrate(model, IMAGES[:2], batch=batch)
    assert list(found) == ["0", "3", "5"]
    x = IMAGES[:2]
    with torch.no_grad():
        for path, module in model.named_children():
            y = module(x)
            if path in found:
                same(found[path], by_unfold(module, x, y))
            x = y


def test_what_no_rank_is_chosen_of_is_calibrated_only_if_asked_for() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 4, 1)
    ).eval()
    assert list(calibrate(model, IMAGES[:2])) == ["0"]
    assert list(calibrate(model, IMAGES[:2], ["1", "3"])) == ["1", "3"]


def test_positions_are_drawn_by_the_seed_until_there_are_enough() -> None:
    model = net()
    first, again, other = (calibrate(model, IMAGES.repeat(40, 1, 1, 1), ["0"], seed=seed)["0"] for seed in (3, 3, 4))
    assert first.samples < 960 * 144
    assert first.samples >= 16 * 27
    assert torch.equal(first.gram, again.gram)
    assert not torch.equal(first.gram, other.gram)
    torch.testing.assert_close(first.gram.diagonal(), other.gram.diagonal(), rtol=0.2, atol=0)


def test_few_images_at_once_are_a_matter_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = calibrate(net(), IMAGES)
    for name, value in (("ROWS", 50), ("NUMBERS", 1)):
        monkeypatch.setattr(f"convsmith.calibration.calibrate.{name}", value)
        for layer, found in calibrate(net(), IMAGES).items():
            same(found, whole[layer])


def test_in_order_a_layer_sees_the_changed_net_and_wants_the_originals_answer() -> None:
    original, changed = net(), net()
    calibration = Calibration(original, changed, IMAGES[:2], batch=1)
    assert calibration.order == ["0", "3", "5"]
    same(calibration.statistics("0"), calibrate(original, IMAGES[:2], ["0"])["0"])
    block = nn.Conv2d(3, 6, 3, padding=1)
    calibration.put("0", block)
    changed[0] = block
    changed[1].running_mean.add_(0.3)  # what an edit folds into the norm behind it counts from there on
    with torch.no_grad():
        x, y = changed[:5](IMAGES[:2]), original[:6](IMAGES[:2])
    same(calibration.statistics("5"), by_unfold(original[5], x, y))
    with pytest.raises(ConvsmithError, match="take layers in order"):
        calibration.statistics("3")


def rows_of(images: Tensor, rows: int) -> Rows:
    return Calibration(net(), net(), images, batch=1).sample("3", rows).rows()


def test_rows_are_kept_beside_the_moments_as_many_of_each_image() -> None:
    model, wanted = net(), Moments(54, 8)
    every = rows_of(IMAGES[:2], 10**6)
    with torch.no_grad():
        x = model[:3](IMAGES[:2])
    wanted.add(every.patches, every.responses)
    same(wanted.statistics(), by_unfold(model[3], x, model[3](x).detach()))
    some = rows_of(IMAGES[:3], 20)
    assert (some.patches.shape, some.responses.shape) == ((21, 54), (21, 8))
    torch.testing.assert_close(some.patches @ model[3].weight.flatten(1).T + model[3].bias, some.responses)
    assert len(rows_of(IMAGES[:3], 0).patches) == 0


@pytest.mark.parametrize(
    "spec",
    [
        ConvSpec(2, 3), ConvSpec(2, 3, (5, 5), (2, 1), (2, 2)), ConvSpec(2, 3, (1, 3), padding=(0, 1)),
        ConvSpec(2, 3, stride=(2, 2), padding=(0, 3), dilation=(2, 3)),
    ],
)  # fmt: skip
def test_patches_are_those_of_unfold(spec: ConvSpec) -> None:
    x = torch.rand(2, 2, 9, 11)
    patches = sliding(x, spec).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    wanted = F.unfold(x, spec.kernel, spec.dilation, spec.padding, spec.stride).transpose(1, 2)
    assert torch.equal(patches, wanted)


def test_a_model_is_left_as_it_was() -> None:
    model = net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calibrate(model, IMAGES[:4])
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_statistics_are_kept_in_a_file(tmp_path: Path) -> None:
    model = net()
    fingerprint = capture(model, IMAGES[:1]).fingerprint
    found = calibrate(model, IMAGES[:8])
    save_statistics(tmp_path / "s", found, fingerprint)
    again = load_statistics(tmp_path / "s", fingerprint)
    assert list(again) == list(found)
    for layer, each in found.items():
        assert torch.equal(each.gram, again[layer].gram)
        assert each.samples == again[layer].samples
    with pytest.raises(ConvsmithError, match="another net"):
        load_statistics(tmp_path / "s", "0" * 16)
    tensors = load_file(tmp_path / "s")
    del tensors["0/size_x"]
    with safe_open(tmp_path / "s", "pt") as file:
        save_file(tensors, tmp_path / "old", file.metadata())
    with pytest.raises(ConvsmithError, match="old: is of another version"):
        load_statistics(tmp_path / "old", fingerprint)
    (tmp_path / "broken").write_text("no")
    with pytest.raises(ConvsmithError, match="broken: cannot be read"):
        load_statistics(tmp_path / "broken", fingerprint)


def test_images_come_from_tensors_batches_and_data_sets() -> None:
    assert torch.equal(take_images(IMAGES, 5), IMAGES[:5])
    assert torch.equal(take_images([IMAGES[:3], (IMAGES[3:9], torch.zeros(6))], 5), IMAGES[:5])
    digits = cs.load_data("digits")
    first, again, other = (take_images(digits, 30, seed) for seed in (0, 0, 1))
    assert first[:].shape == (30, 3, 32, 32)
    assert torch.equal(first[:], again[:])
    assert not torch.equal(first[:], other[:])
    assert len(take_images(digits, 10**6)) == len(digits.train)
    for none in ([], IMAGES[:0]):
        with pytest.raises(ConvsmithError, match="no images"):
            take_images(none)
    with pytest.raises(ConvsmithError, match=r"has shape \(3, .*; give images \(n, c, h, w\)"):
        take_images(IMAGES[0])
    with pytest.raises(ConvsmithError, match="gives dict; give tensors or tuples of them"):
        take_images([{"image": IMAGES}])


class Floats:
    """A user's own split, which has no bytes to give."""

    def __init__(self, split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def shuffled(self, size: int, *, seed: int, epoch: int):
        return self.split.shuffled(size, seed=seed, epoch=epoch)


@pytest.mark.parametrize("limit", [1 << 30, 0], ids=["decoded", "streamed"])
def test_images_of_data_sets_are_kept_as_bytes_and_give_the_same_numbers(limit: int) -> None:
    data = cs.load_data("digits", input=(3, 12, 12), limit=limit, workers=0)
    taken = take_images(data, 100, seed=3)
    floats = take_images(SimpleNamespace(train=Floats(data.train)), 100, seed=3)
    assert isinstance(taken, Bytes)
    assert taken.pixels.dtype == torch.uint8
    assert isinstance(floats, Tensor)
    assert torch.equal(taken[:], floats)
    assert torch.equal(taken[7:20], floats[7:20])
    both = [calibrate(net(), images, batch=40) for images in (taken, floats)]
    assert all(torch.equal(both[0][layer].gram, both[1][layer].gram) for layer in both[1])
    pair = [Calibration(net(), net(), images, batch=40) for images in (taken, floats)]
    for layer in pair[0].order:
        first, second = (calibration.statistics(layer) for calibration in pair)
        assert torch.equal(first.gram, second.gram)


def test_a_net_that_writes_into_its_input_leaves_the_images_alone() -> None:
    images, before = IMAGES[:4].clone(), IMAGES[:4].clone()
    writing = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(IMAGES.shape[1], 4, 3)).eval()
    Calibration(writing, writing, images).statistics("1")
    calibrate(writing, images)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("count", "batches"), [(1, [1]), (64, [64]), (65, [32, 32]), (100, [50, 50]), (130, [43] * 3)])
def test_in_order_nearly_all_images_are_run(count: int, batches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    model = net()
    found = Calibration(model, model, torch.rand(count, *IMAGES.shape[1:]))
    add = Sampler.add

    def watched(sampler: Sampler, inputs: Tensor, responses: Tensor, *others: Tensor) -> None:
        ran.append(len(inputs))
        add(sampler, inputs, responses, *others)

    monkeypatch.setattr(Sampler, "add", watched)
    found.sample(found.order[0])
    assert ran == batches


def test_what_is_no_convolution_is_refused() -> None:
    with pytest.raises(ConvsmithError, match=r"7 is no convolution of .* that can be replaced; leave it out"):
        calibrate(net(), IMAGES[:2], ["7"])


class Odd(nn.Module):
    """A convolution that pads by itself, one called twice, one called by name, and one that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.padding = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
        self.twice, self.named, self.aside = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.named(input=self.twice(self.twice(self.padding(x))))
        self.aside(x)
        return x


def test_only_what_can_be_replaced_is_calibrated() -> None:
    odd = Odd().eval()
    found = calibrate(odd, IMAGES[:2])
    assert list(found) == ["named"]
    assert found["named"].answers(odd.named.weight)
    with pytest.raises(ConvsmithError, match=r"^padding is no convolution"):
        calibrate(odd, IMAGES[:2], ["padding"])
    plan = cs.decompose(cs.capture(odd, IMAGES[:1]), block="dw-pw")
    assert {refusal.layer: refusal.reason for refusal in plan.refusals} == {
        "padding": "its module does more than convolve, so a block would not do the same",
        "twice": "it is called 2 times",
        "aside": "nothing reads what it answers",
    }
    cs.apply(odd, plan, data=IMAGES)


def _share(rank: int, path: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}/meet", rank=rank, world_size=2)
    found = calibrate(net(), IMAGES[:3], batch=1)
    rows = rows_of(IMAGES[:3], 10**6)
    if rank == 0:
        save_statistics(Path(path) / "two", found, "net")
        torch.save((rows.patches, rows.responses), f"{path}/rows")
    torch.distributed.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    multiprocessing.spawn(_share, (str(tmp_path),), nprocs=2)
    one, two = calibrate(net(), IMAGES[:3], batch=1), load_statistics(tmp_path / "two", "net")
    for layer in one:
        same(one[layer], two[layer])
    rows, (patches, responses) = rows_of(IMAGES[:3], 10**6), torch.load(tmp_path / "rows", weights_only=True)
    for here, there in ((rows.patches, patches), (rows.responses, responses)):
        torch.testing.assert_close(here.double().T @ here.double(), there.double().T @ there.double())


def test_the_mean_that_no_bias_holds_is_taken_off_by_the_norm_behind() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Flatten()
    ).eval()
    plan = cs.decompose(capture(model, IMAGES[:1]), block="dw-pw")
    new = cs.apply(model, plan, data=IMAGES, method="gsvd")
    with torch.no_grad():
        wanted, got = (net[:4](IMAGES).mean((0, 2, 3)) for net in (model, new.eval()))
    torch.testing.assert_close(got, wanted, atol=0.02, rtol=0)
    assert not torch.equal(new[3].running_mean, model[3].running_mean)
