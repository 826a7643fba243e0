"""References to models, weights into them, and folders that give back what was saved."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.load import Wish, load, load_folder, load_weights, load_with_data, origin_of, save

CHAIN = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

def needs(width):
    return nn.Conv2d(3, width, 3)

def number():
    return 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a user's own module in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_nets.py").write_text(CHAIN)
    return tmp_path


@pytest.mark.parametrize(
    ("reference", "wish", "input", "params"),
    [
        ("vgg11", Wish((3, 32, 32)), (3, 32, 32), 9_231_114),
        ("zoo:resnet20", None, (3, 32, 32), 269_722),
        ("vgg16", Wish((3, 32, 32), 10, (5, 4, 2, 1, 1)), (3, 32, 32), 5_101_194),
        ("resnet20", Wish(classes=100), (3, 32, 32), 269_722 + 90 * 65),
        ("timm:resnet18", Wish(classes=10), (3, 224, 224), 11_181_642),
        ("torchvision:squeezenet1_1", None, (3, 224, 224), 1_235_496),
        ("own_nets:make", Wish((3, 16, 16)), (3, 16, 16), 314),
    ],
)
def test_a_reference_gives_its_model(
    here: Path, reference: str, wish: Wish | None, input: tuple[int, int, int], params: int
) -> None:
    loaded = load(reference, wish)
    assert loaded.origin.input == input
    assert sum(p.numel() for p in loaded.model.parameters()) == params
    assert not loaded.origin.trained


@pytest.mark.parametrize(
    ("reference", "wish", "told"),
    [
        ("vgg61", None, "did you mean vgg19, vgg16"),
        ("timm:resnet81", None, "Unknown timm model 'resnet81'; did you mean resnet18"),
        ("torchvision:resnet81", None, "Unknown torchvision model 'resnet81'; did you mean resnet18"),
        ("no_such_module:make", None, "No module named 'no_such_module'"),
        ("own_nets:nothing", None, "has no attribute 'nothing'"),
        ("own_nets:needs", None, "a factory that needs no arguments"),
        ("own_nets:number", None, "gave a int; let it return an nn.Module"),
        ("runs/none", None, "runs/none: no such folder"),
        ("net.onnx", None, "can only be analyzed and measured"),
        ("net.pt2", None, "can only be analyzed and measured"),
        ("vgg16", Wish((3, 32)), "vgg16: got an input of 3,32; it reads images"),
        ("vgg16", Wish((3, 0, 32)), "give channels and one, two or three sides"),
        ("vgg16", Wish((3, 16, 16)), "vanishes under its total stride of 32"),
        ("vgg16", Wish(blocks_per_stage=(1, 2)), "blocks per stage (1, 2) do not fit"),
        ("timm:resnet18", Wish(blocks_per_stage=(1, 2)), "--blocks-per-stage is for zoo nets"),
    ],
)
def test_a_wrong_reference_is_told_in_one_line(here: Path, reference: str, wish: Wish | None, told: str) -> None:
    with pytest.raises(ConvsmithError) as error:
        load(reference, wish)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_has_the_head_and_input_of_its_data_unless_told_otherwise() -> None:
    loaded, data = load_with_data("resnet20", "digits")
    assert (loaded.origin.input, loaded.origin.classes) == (data.shape, 10)
    loaded, data = load_with_data("resnet20", "digits", Wish(input=(3, 48, 48), mean=(0.5,) * 3, std=(0.25,) * 3))
    assert data.shape == loaded.origin.input == (3, 48, 48)
    assert data.mean == (0.5,) * 3


def test_timm_models_read_images_with_their_own_statistics() -> None:
    assert origin_of("timm:resnet18", Wish()).mean == (0.485, 0.456, 0.406)
    assert origin_of("timm:inception_v4", Wish()).mean == (0.5, 0.5, 0.5)
    assert origin_of("timm:inception_v4", Wish(mean=(0.1, 0.2, 0.3))).mean == (0.1, 0.2, 0.3)


# --- weights


def tiny() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("counter", [True, False])
def test_weights_are_read_from_what_training_scripts_write(tmp_path: Path, wrap, prefix: str, counter: bool) -> None:
    want = {k: torch.rand_like(v) if v.is_floating_point() else v + 7 for k, v in tiny().state_dict().items()}
    kept = {k: v for k, v in want.items() if counter or not k.endswith("num_batches_tracked")}
    torch.save(wrap({prefix + k: v for k, v in kept.items()}), tmp_path / "w.pth")
    model = tiny()
    load_weights(model, tmp_path / "w.pth")
    assert all(torch.equal(model.state_dict()[k], v) for k, v in kept.items())


def without(key: str, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {k: v for k, v in tiny().state_dict().items() if k != key} | more


class Boom:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("w.safetensors", None, "no such weights file"),
        ("w.safetensors", b"nonsense", "not a readable weights file"),
        ("w.pth", b"nonsense", "not a readable weights file"),
        ("w.pth", {"w": Boom()}, "not a readable weights file"),
        ("w.pth", [1, 2], "holds no state dict"),
        ("w.pth", {}, "holds no state dict"),
        ("w.safetensors", without("0.weight"), "0.weight is missing in the file"),
        ("w.safetensors", without("", extra=torch.ones(1)), "extra is not in the model"),
        ("w.safetensors", without("", **{"0.weight": torch.ones(4, 3, 5, 5)}), "0.weight (4x3x5x5, not 4x3x3x3)"),
        ("w.safetensors", {"a": torch.ones(1)}, "and 2 more are missing in the file"),
    ],
)
def test_weights_that_do_not_fit_name_their_keys_and_change_nothing(
    tmp_path: Path, name: str, content: object, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None and path.suffix == ".pth":
        torch.save(content, path)
    elif isinstance(content, dict):
        save_file(content, path)
    model = tiny()
    with pytest.raises(ConvsmithError) as error:
        load_weights(model, path)
    assert str(path) in str(error.value)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), tiny().state_dict().values(), strict=True)
    )
    assert "run" not in capsys.readouterr().out


# --- folders


def edited() -> tuple[object, torch.Tensor]:
    """A net that was organized and then decomposed, with BatchNorm statistics of its own, and its answer."""
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    base = load("resnet20")
    base.model.train()(x)
    first = cs.organize(cs.capture(base.model, x))
    deeper = cs.apply(base.model, first)
    second = cs.decompose(cs.capture(deeper, x), block="dw-rpw:g=2,o=0.5")
    net = base.after(cs.apply(deeper, second), first, second)
    return net, net.model.eval()(x)


def test_a_folder_gives_back_the_same_net(tmp_path: Path) -> None:
    net, want = edited()
    save(net.trained_on((0.5,) * 3, (0.2,) * 3), tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "model.json", "model.safetensors", "plan-1.json", "plan.json",
    ]  # fmt: skip
    shutil.move(tmp_path / "a", tmp_path / "b")  # nothing in it tells where it lies
    back = load(str(tmp_path / "b"))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(back.model.eval()(x), want)
    assert back.plans == net.plans
    assert (back.origin.trained, back.origin.mean) == (True, (0.5,) * 3)
    save(back, tmp_path / "c")
    assert torch.equal(load_folder(tmp_path / "c").model.eval()(x), want)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda d: (d / "model.json").unlink(), "holds no model.json"),
        (lambda d: (d / "model.json").write_text("{"), "cannot be read as a model's origin"),
        (lambda d: (d / "model.json").write_text('{"reference": "vgg11"}'), "cannot be read as a model's origin"),
        (lambda d: (d / "plan.json").unlink(), "plan.json: cannot be read"),
        (lambda d: (d / "plan.json").write_text("{}"), "is not a plan"),
        (lambda d: (d / "plan.json").write_bytes(b"\xff\xfe"), "it is no text"),
        (lambda d: (d / "model.safetensors").unlink(), "no such weights file"),
        (lambda d: (d / "model.safetensors").write_bytes(b"x"), "not a readable weights file"),
    ],
)
def test_a_spoiled_folder_is_told_in_one_line(tmp_path: Path, spoil, told: str) -> None:
    net, _ = edited()
    save(net, tmp_path)
    spoil(tmp_path)
    with pytest.raises(ConvsmithError, match=told) as error:
        load(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_folder_above_models_names_them(tmp_path: Path) -> None:
    save(load("resnet20"), tmp_path / "optimized")
    with pytest.raises(ConvsmithError, match=r"holds no model.json; choose .*optimized"):
        load(str(tmp_path))


def test_a_folders_model_is_what_it_is_but_for_its_statistics(tmp_path: Path) -> None:
    save(load("resnet20"), tmp_path)
    assert load(str(tmp_path), Wish(mean=(0.1,) * 3)).origin.mean == (0.1,) * 3
    for wish in (Wish(input=(3, 64, 64)), Wish(blocks_per_stage=(1, 1, 1))):
        if wish.input:
            with pytest.raises(ConvsmithError, match=r"input: got \(3, 64, 64\)"):
                load(str(tmp_path), wish)


def test_an_unwritable_folder_is_told_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConvsmithError, match="choose another folder"):
        save(load("resnet20"), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_zoo_name_is_a_zoo_net_even_where_a_folder_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet20").mkdir()
    assert load("resnet20").folder is None
