"""Weights as tools save them load as they were saved; files that hold anything else are refused by the names in it."""

import argparse
import collections
import datetime
import pathlib
import pickle
import struct
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from convsmith.errors import ConvsmithError
from convsmith.load import load, load_weights
from convsmith.load.checkpoint import HARMLESS

State = dict[str, Tensor]


class Net(nn.Module):
    """A convolution, a norm and a head, with a buffer that is a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 5)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))


def net() -> Net:
    torch.manual_seed(3)
    return Net()


def saved() -> State:
    """Weights as they would be after training."""
    return {k: torch.rand_like(v) if v.is_floating_point() else v + 7 for k, v in net().state_dict().items()}


def under(prefix: str, state: State) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


PREFIXES = ["module.", "_orig_mod.", "model.", "module._orig_mod.", "net.backbone.", "a.b.c.d."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_common_prefix_is_found_whatever_it_is(tmp_path: pathlib.Path, prefix: str) -> None:
    want, path = saved(), tmp_path / "w.pth"
    torch.save(under(prefix, want), path)
    model = net()
    assert load_weights(model, path) == ()
    assert_same(model, want)


def test_weights_of_a_part_of_the_model_alone_are_not_taken_for_it(tmp_path: pathlib.Path) -> None:
    torch.save(under("x.", {"0.weight": torch.ones(4, 3, 3, 3)}), tmp_path / "w.pth")
    with pytest.raises(ConvsmithError, match=r"body.0.bias, body.0.weight, body.1.bias and 6 more are missing"):
        load_weights(net(), tmp_path / "w.pth")


def test_a_prefix_that_only_the_model_has_is_put_before_the_keys(tmp_path: pathlib.Path) -> None:
    want = saved()
    torch.save(want, tmp_path / "w.pth")
    wrapped = nn.ModuleDict({"inner": net()})
    load_weights(wrapped, tmp_path / "w.pth")
    assert_same(wrapped, under("inner.", want))


def assert_same(model: nn.Module, want: State) -> None:
    got = model.state_dict()
    assert got.keys() == want.keys()
    assert all(torch.equal(got[key], want[key]) for key in want)


WRAPPERS: dict[str, Callable[[State], Any]] = {
    "lightning": lambda s: {"state_dict": under("model.", s), "epoch": 1, "hyper_parameters": {"lr": 0.1}},
    "timm": lambda s: {"arch": "x", "state_dict_ema": s, "metric": 1.0},
    "basicsr": lambda s: {"params_ema": s},
    "detr": lambda s: {"model": s, "optimizer": torch.optim.SGD(net().parameters(), 0.1).state_dict(), "epoch": 3},
    "nested": lambda s: {"model": {"state_dict": s}},
    "nested deeper": lambda s: {"a": {"b": {"c": under("module.", s)}}},
    "another name": lambda s: {"generator_weights": s},
    "adam": lambda s: {"net": s, "optimizer": adam().state_dict()},
    "namespace": lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1, path=pathlib.Path("/a"))},
    "numpy": lambda s: {"state_dict": s, "best": numpy.float64(0.3), "seen": numpy.arange(3)},
    "collections": lambda s: {
        "state_dict": s, "log": collections.defaultdict(list, a=[1]), "last": collections.deque([1], 3)
    },
    "dates": lambda s: {"state_dict": s, "when": datetime.datetime(2024, 1, 2), "took": datetime.timedelta(3)},
    "parameters": lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
    "half": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
}  # fmt: skip


def adam() -> torch.optim.Optimizer:
    model = nn.Linear(2, 2)
    model(torch.ones(1, 2)).sum().backward()
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("name", WRAPPERS)
def test_weights_are_found_in_what_tools_write(tmp_path: pathlib.Path, name: str) -> None:
    want, model = saved(), net()
    torch.save(WRAPPERS[name](want), tmp_path / "w.ckpt")
    load_weights(model, tmp_path / "w.ckpt")
    kept = {k: v.half().float() if v.is_floating_point() else v for k, v in want.items()} if name == "half" else want
    assert_same(model, kept)


LEFT_OUT: dict[str, tuple[Callable[[State], Any], str]] = {
    "a number beside": (lambda s: {**s, "epoch": 5}, "left out of the weights: epoch"),
    "a scalar tensor beside": (lambda s: {**s, "step": torch.tensor(5)}, "left out of the weights: step"),
    "thop's": (
        lambda s: {**s, "total_ops": torch.zeros(1), "body.0.total_ops": torch.zeros(1)},
        "left out of the weights: body.0.total_ops, total_ops",
    ),
    "averages": (
        lambda s: under("module.", s) | {"n_averaged": torch.tensor(3)}, "left out of the weights: n_averaged"
    ),
    "another module's": (
        lambda s: {"state_dict": under("model.", s) | {"loss.weight": torch.ones(5)}},
        "left out of the weights: loss.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("wrap", "told"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_no_weight_is_left_out_and_told(tmp_path: pathlib.Path, wrap: Callable[..., Any], told: str) -> None:
    want, model = saved(), net()
    torch.save(wrap(want), tmp_path / "w.pth")
    assert load_weights(model, tmp_path / "w.pth") == (told,)
    assert_same(model, want)


def test_of_two_that_fit_averaged_weights_are_taken_and_that_is_told(tmp_path: pathlib.Path) -> None:
    want, model = saved(), net()
    torch.save({"state_dict": net().state_dict(), "state_dict_ema": want}, tmp_path / "w.pth")
    assert load_weights(model, tmp_path / "w.pth") == ("weights of state_dict_ema, not of state_dict",)
    assert_same(model, want)


@pytest.mark.parametrize("name", ["w.safetensors", "weights.bin", "W.SAFETENSORS"])
def test_safetensors_are_known_by_what_they_are_and_may_have_metadata(tmp_path: pathlib.Path, name: str) -> None:
    want, model = saved(), net()
    save_file(under("module.", want), tmp_path / name, metadata={"format": "pt", "epoch": "3"})
    load_weights(model, tmp_path / name)
    assert_same(model, want)


def test_what_is_told_comes_with_the_model(tmp_path: pathlib.Path) -> None:
    torch.save({**load("resnet20").model.state_dict(), "epoch": 5}, tmp_path / "w.pth")
    loaded = load("resnet20", weights=tmp_path / "w.pth")
    assert loaded.notes == ("left out of the weights: epoch",)
    assert loaded.origin.trained


# --- weights in parts


def conv(kind: type[nn.Conv2d | nn.ConvTranspose2d | nn.Conv1d] = nn.Conv2d) -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(kind(4, 6, 3))


PARTED: dict[str, Callable[[nn.Module], Any]] = {
    "old weight_norm": lambda layer: nn.utils.weight_norm(layer),
    "old weight_norm of another dimension": lambda layer: nn.utils.weight_norm(layer, dim=1),
    "old weight_norm of all": lambda layer: nn.utils.weight_norm(layer, dim=None),
    "weight_norm": parametrizations.weight_norm,
    "pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "pruning of whole channels": lambda layer: prune.ln_structured(layer, "weight", 0.5, 2, dim=0),
    "pruned bias": lambda layer: prune.l1_unstructured(layer, "bias", 0.5),
    "old spectral_norm": nn.utils.spectral_norm,
    "spectral_norm": parametrizations.spectral_norm,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d, nn.Conv1d])
@pytest.mark.parametrize("name", PARTED)
def test_weights_kept_in_parts_are_put_together(tmp_path: pathlib.Path, name: str, kind: type) -> None:
    trained = conv(kind)
    PARTED[name](trained[0])
    x = torch.randn(1, 4, 9) if kind is nn.Conv1d else torch.randn(1, 4, 9, 9)
    trained.train()(x)
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    want = trained.eval()(x)
    model = conv(kind).eval()
    (note,) = load_weights(model, tmp_path / "w.pth")
    assert "put together from its" in note
    torch.testing.assert_close(model(x), want)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", PARTED)
def test_a_model_that_keeps_them_in_parts_gets_the_parts(tmp_path: pathlib.Path, name: str) -> None:
    trained, model = conv(), conv()
    for each in (trained, model):
        PARTED[name](each[0])
    want = {k: torch.rand_like(v) for k, v in trained.state_dict().items()}
    torch.save(under("module.", want), tmp_path / "w.pth")
    assert load_weights(model, tmp_path / "w.pth") == ()
    assert_same(model, want)


def test_parts_that_do_not_fit_each_other_are_told_as_missing_weights(tmp_path: pathlib.Path) -> None:
    state = conv().state_dict()
    torch.save({"0.weight_orig": state["0.weight"], "0.weight_mask": torch.ones(7), **state} | {}, tmp_path / "w.pth")
    with pytest.raises(ConvsmithError, match=r"0\.weight_mask, 0\.weight_orig are not in the model"):
        load_weights(conv(), tmp_path / "w.pth")


# --- refusals


class Boom:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def change(key: str, tensor: Tensor | None) -> State:
    state = saved() | ({} if tensor is None else {key: tensor})
    return {k: v for k, v in state.items() if tensor is not None or k != key}


weight = torch.zeros(4, 3, 3, 3)
NAN, INF = torch.full_like(weight, torch.nan), torch.full_like(weight, -torch.inf)

REFUSED: dict[str, tuple[Any, str]] = {
    "empty": (b"", "it is empty"),
    "text": (b"nonsense", "not a readable weights file"),
    "text that pickle stumbles over": (b"hello", r"its bytes are no state dict, or not all of them are there; give"),
    "a zip of nothing": (b"PK\x05\x06" + bytes(18), "not a readable weights file"),
    "code": ({"weights": saved(), "x": Boom()}, "it holds builtins.print, which is code to be run"),
    "a whole model": (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    "a list": ([torch.ones(1)], "holds no state dict"),
    "nothing": ({}, "holds no state dict"),
    "no tensors": ({"lr": 0.1, "epoch": 3}, r"holds no state dict \(it has epoch, lr\)"),
    "numbers for keys": ({0: weight, 1: weight}, r"its keys are no names \(0, 1\)"),
    "a missing key": (change("head.bias", None), "head.bias is missing in the file"),
    "another net": ({"stem.w": weight}, "and 6 more are missing in the file; the file has stem.w"),
    "a key too many": (change("body.9.weight", weight), "body.9.weight is not in the model"),
    "another shape": (change("body.0.weight", torch.zeros(4, 3, 5, 5)), r"body.0.weight \(4x3x5x5, not 4x3x3x3\)"),
    "another rank": (change("head.bias", torch.zeros(5, 1)), r"does not fit the model: head.bias \(5x1, not 5\);"),
    "no values": (change("body.0.weight", weight.to("meta")), "body.0.weight has a shape and no values"),
    "complex": (change("body.0.weight", weight.to(torch.complex64)), "body.0.weight is complex64, not float32"),
    "whole numbers": (change("body.0.weight", weight.int()), "body.0.weight is int32, not float32"),
    "fp8": (change("body.0.weight", weight.to(torch.float8_e4m3fn)), "body.0.weight is float8_e4m3fn, not float32"),
    "truth": (change("body.0.weight", weight.bool()), "body.0.weight is bool, not float32"),
    "quantized": (
        lambda: change("body.0.weight", torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)),
        "body.0.weight is quantized",
    ),
    "nested": (
        lambda: change("head.weight", torch.nested.nested_tensor([torch.zeros(4), torch.zeros(1)])),
        r"head.weight \(several tensors in one, not 5x4\)",
    ),
    "sparse": (change("head.weight", torch.zeros(5, 4).to_sparse()), "head.weight is sparse"),
    "NaN": (change("body.0.weight", NAN), "body.0.weight holds 108 NaN of 108 values"),
    "infinity": (change("body.0.weight", INF), "body.0.weight holds 108 infinite of 108 values"),
    "a double beyond float": (change("body.0.weight", weight.double() + 1e300), "108 of 108 values too large"),
    "NaN statistics": (change("body.1.running_var", NAN[:, 0, 0, 0]), "body.1.running_var holds 4 NaN of 4 values"),
    "infinite statistics": (change("body.1.running_mean", INF[:, 0, 0, 0]), "running_mean holds 4 infinite"),
    "NaN in a mask": (change("mask", torch.tensor([0.0, torch.nan])), "mask holds 1 NaN of 2 values"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("content", "told"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_told_by_name_and_changes_nothing(
    tmp_path: pathlib.Path, content: Any, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = tmp_path / "w.pth", net()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content() if isinstance(content, types.FunctionType) else content, path)
    with pytest.raises(ConvsmithError, match=told) as error:
        load_weights(model, path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert_same(model, net().state_dict())
    assert "run" not in capsys.readouterr().out


def test_infinity_is_carried_where_the_model_has_it_itself(tmp_path: pathlib.Path) -> None:
    want = change("mask", torch.tensor([-torch.inf, 0.0]))
    torch.save(want, tmp_path / "w.pth")
    model = net()
    load_weights(model, tmp_path / "w.pth")
    assert_same(model, want)


@pytest.mark.parametrize("make", [torch.save, save_file])
def test_broken_files_are_told_in_one_line(tmp_path: pathlib.Path, make: Callable[..., None]) -> None:
    """Seeded changes and cuts of a sound file: it loads, or is refused in a sentence; nothing else comes through."""
    make(saved(), tmp_path / "sound")
    sound, draw = (tmp_path / "sound").read_bytes(), numpy.random.default_rng(0)
    for trial in range(120):
        broken = bytearray(sound[: draw.integers(len(sound))] if trial % 3 == 0 else sound)
        for place in draw.integers(len(broken) or 1, size=trial % 5):
            broken[place : place + 1] = struct.pack("B", draw.integers(256))
        (tmp_path / "w").write_bytes(broken)
        try:
            load_weights(net(), tmp_path / "w")
        except ConvsmithError as error:
            assert "\n" not in str(error)


def test_settings_in_classes_of_tools_that_are_not_here_are_passed_over(tmp_path: pathlib.Path) -> None:
    """Lightning's and OmegaConf's containers, pickled where those are installed, and read where they are not."""
    want, made = saved(), []
    for module, base in (
        ("lightning.fabric.utilities.data.AttributeDict", dict),
        ("omegaconf.dictconfig.DictConfig", object),
    ):
        path, _, name = module.rpartition(".")
        made.append(type(name, (base,), {"__module__": path}))
        packages = path.split(".")
        for depth in range(len(packages)):
            sys.modules[".".join(packages[: depth + 1])] = types.ModuleType(packages[depth])
        setattr(sys.modules[path], name, made[-1])
    settings, config = made[0](lr=0.1), made[1]()
    config._content = {"lr": 0.1}
    torch.save({"state_dict": want, "hyper_parameters": settings, "config": config}, tmp_path / "w.ckpt")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lightning", "omegaconf")]:
        del sys.modules[name]
    model = net()
    load_weights(model, tmp_path / "w.ckpt")
    assert_same(model, want)
    assert not {"lightning", "omegaconf"} & sys.modules.keys()


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "builtins.exec", "posix.system", "subprocess.Popen"])
def test_no_callable_outside_the_list_is_called(tmp_path: pathlib.Path, target: str) -> None:
    module, _, name = target.rpartition(".")
    mark = tmp_path / "ran"
    code = f"c{module}\n{name}\n(Vopen({str(mark)!r}, 'w')\ntR."
    torch.save({"w": weight}, tmp_path / "w.pth")
    (tmp_path / "old.pth").write_bytes(code.encode())
    with pytest.raises(ConvsmithError, match="not a readable weights file"):
        load_weights(net(), tmp_path / "old.pth")
    assert not mark.exists()


def test_the_list_holds_nothing_that_runs_code() -> None:
    """Classes that keep what they are given, and the two functions numpy's own arrays need."""
    for name, entry in HARMLESS.items():
        assert isinstance(entry, type) or entry.__name__ in ("scalar", "_reconstruct"), name
        assert name.partition(".")[0] not in ("os", "sys", "subprocess", "posix", "importlib", "shutil"), name
    assert pickle.loads(pickle.dumps(HARMLESS["argparse.Namespace"]())) == argparse.Namespace()
